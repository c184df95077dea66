"""Which part of a run can serve as evidence for which clause, and what this run holds of it.

The table of docs/regulation.md is the same, and a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medharden.reporting.numbers import count
from medharden.reporting.source import RunRecords
from medharden.reporting.tested import who

__all__ = ["CLAUSES", "Clause", "ClauseRow", "clause_rows"]


@dataclass(frozen=True)
class Clause:
    """One row.

    Attributes:
        evidence: what there is.
        where: part of the report, and the record and its field, between backticks.
        serves: standard or guidance, number and title of the clause.
        here: what a run holds of it.
    """

    evidence: str
    where: str
    serves: str
    here: Callable[[RunRecords], str]


@dataclass(frozen=True)
class ClauseRow:
    """One row with what this run holds of it."""

    evidence: str
    where: str
    serves: str
    here: str


def clause_rows(records: RunRecords) -> tuple[ClauseRow, ...]:
    """Every row, whether this run holds something of it or not."""
    return tuple(ClauseRow(c.evidence, c.where, c.serves, c.here(records)) for c in CLAUSES)


def _many(n: int, one: str, several: str = "") -> str:
    return f"{count(n)} {one if n == 1 else several or f'{one}s'}"


def _attacks(records: RunRecords) -> str:
    released = records.evaluation.subject("composite")
    return f"section 3: {_many(len(released.attacks), 'attack')} on {_many(released.attacked, 'case')}"


def _testers(records: RunRecords) -> str:
    tester, again = records.protocol.report.tester, len(records.decision.independent)
    return f"tester {who(tester)}; {_many(again, 'independent test') if again else 'no independent test'}"


def _endpoints(records: RunRecords) -> str:
    held = len(records.decision.endpoints)
    return f"sections 2 and 3: {_many(held, 'endpoint')}" if held else "no endpoint was decided"


def _fixed(records: RunRecords) -> str:
    return f"sections 1 and 7: protocol {records.protocol.digest[:12]}, {_many(records.events, 'event')} in the log"


def _plan(records: RunRecords) -> str:
    plan, changes = len(records.protocol.change_control.modifications), len(records.decision.changes)
    if not plan and not changes:
        return "no plan is stated, and none was held against one"
    return f"section 6: {_many(plan, 'foreseen change')}, {_many(changes, 'change')} against the predecessor"


def _authorised(records: RunRecords) -> str:
    found = records.decision.authorised
    return f"section 6: against {found[:12]}" if found else "no authorised release was compared with"


def _missing(records: RunRecords) -> str:
    lost = sum(row.cases for row in records.decision.missing)
    return f"section 2: {_many(lost, 'case')} without an answer that counts" if lost else "section 2: none is missing"


def _hazards(records: RunRecords) -> str:
    stated = records.protocol.report
    parts = [_many(len(stated.hazards), "hazard")] if stated.hazards else ["no hazard stated"]
    parts += [f"{what} {'stated' if text else 'not stated'}" for what, text in (
        ("overall residual risk", stated.residual_risk), ("side effects", stated.side_effects))]  # fmt: skip
    return f"section 6: {', '.join(parts)}"


def _groups(records: RunRecords) -> str:
    compared = len(records.decision.subgroups)
    worst = sum(e.name.startswith("worst_group") for e in records.decision.endpoints)
    if not compared and not worst:
        return "no subgroup is declared"
    return f"section 2: {_many(compared, 'comparison')}; {_many(worst, 'worst-group endpoint')}"


def _population(records: RunRecords) -> str:
    stated = records.protocol.report
    parts = [
        f"{what} {'stated' if text else 'not stated'}"
        for what, text in (("population", stated.population), ("reference standard", stated.reference_standard))
    ]
    return f"section 1: {', '.join(parts)}; {_many(len(records.cohort.excluded), 'case')} excluded"


def _retention(records: RunRecords) -> str:
    return f"section 7: {'stated' if records.protocol.report.retention else 'not stated'}"


CLAUSES = (
    Clause(
        "threats, their mitigations, attempts to defeat them, results, residual risk",
        "report, section 6; `report.json` `threats`",
        "IEC 81001-5-1, 5.7.2 Threat mitigation testing; FDA, Cybersecurity in Medical Devices (premarket), security "
        "testing; ISO/IEC TR 24029-1",
        lambda _: "section 6: the matrix of threats",
    ),
    Clause(
        "attacks by gradients and by queries, adaptive, on the model as released",
        "`evaluation.json` `subjects[].attacks`, `cases.parquet`",
        "IEC 81001-5-1, 5.7.4 Penetration testing, for the model alone; OWASP AISVS C11 Adversarial robustness",
        _attacks,
    ),
    Clause(
        "hostile input files, refused",
        "Models, `SECURITY.md`",
        "IEC 81001-5-1, 5.7.3 Vulnerability testing, for the tool alone",
        lambda _: "of the tool, not of a run",
    ),
    Clause(
        "who tested, as what; an independent test beside the run's own, the worse counted",
        "`protocol.yaml` `report.tester`, `report.threats[].tester`; `gate.json` `independent`, `independent/KEY/`",
        "IEC 81001-5-1, 5.7.5 Managing conflicts of interest between testers and developers",
        _testers,
    ),
    Clause(
        "the five kinds of attack of Art. 15(5), tested or not",
        "report, section 6; `report.json` `article_15_5`",
        "Regulation (EU) 2024/1689, Art. 15 Accuracy, robustness and cybersecurity, paragraph 5",
        lambda _: "section 6: five rows",
    ),
    Clause(
        "accuracy and robustness with limits, and by what they were held",
        "`gate.json` `endpoints`, `protocol.yaml` `endpoints`",
        "the same, paragraphs 1 to 4; Annex IV, 2(g) Validation and testing procedures",
        _endpoints,
    ),
    Clause(
        "terms of goal, knowledge, capability and stage",
        "report, section 1; `report.json` `threats[].terms`",
        "NIST AI 100-2 E2025; MITRE ATLAS",
        lambda _: "sections 1 and 6",
    ),
    Clause(
        "declared threat, budget, suite, seeds, fixed before the test split was opened",
        "`protocol.yaml`, its digest in every record; `audit.jsonl`",
        "FDA, Marketing submission recommendations for a predetermined change control plan, modification protocol; "
        "ISO/IEC TR 24029-1",
        _fixed,
    ),
    Clause(
        "modifications that are foreseen, with their bars; a release held against its predecessor's plan",
        "`protocol.yaml` `change_control`; `gate.json` `changes`, `endpoints` `plan:…`",
        "the same, description of modifications and modification protocol",
        _plan,
    ),
    Clause(
        "non-inferiority against the last authorised release",
        "`gate.json` `authorised`; `endpoints.authorised`",
        "the same, impact assessment",
        _authorised,
    ),
    Clause(
        "missing data by reason, class and arm, with worst cases; referrals by intention to diagnose",
        "`gate.json` `missing`, `worst_case`, `endpoints` `referred_…`",
        "STARD, indeterminate and missing results; TRIPOD+AI, missing data",
        _missing,
    ),
    Clause(
        "hazards, residual risk, side effects",
        "`protocol.yaml` `report.hazards`, `report.residual_risk`, `report.side_effects`",
        "ISO 14971, 7 Risk control and 8 Evaluation of overall residual risk",
        _hazards,
    ),
    Clause(
        "subgroups with their limits; the worst group as an endpoint",
        "`gate.json` `subgroups`, `endpoints` `worst_group…`",
        "Regulation (EU) 2024/1689, Art. 10 Data and data governance; FDA, AI-enabled device software functions, "
        "performance validation",
        _groups,
    ),
    Clause(
        "population, reference standard, flow of cases with exclusions",
        "report, section 1; `cohort.json`",
        "CLAIM 2024; STARD; TRIPOD+AI",
        _population,
    ),
    Clause(
        "chained log, digests, signatures with meaning",
        "`audit.jsonl`, `attestation.dsse.json`, `sign`",
        "21 CFR Part 11, 11.10 Controls for closed systems, 11.50 Signature manifestations; Regulation (EU) 2024/1689, "
        "Art. 12 Record-keeping",
        lambda _: "section 7: log and digests; `medharden sign` signs after this page",
    ),
    Clause(
        "components with versions and digests",
        "`bom.cdx.json`",
        "FDA, Cybersecurity in Medical Devices, software bill of materials; IEC 81001-5-1, 5.1",
        lambda _: "in the run directory",
    ),
    Clause(
        "how long records are kept",
        "`protocol.yaml` `report.retention`",
        "Regulation (EU) 2024/1689, Art. 18 Documentation keeping",
        _retention,
    ),
)
