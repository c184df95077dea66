"""Rows of the summary and of clean performance: endpoints, paired tables, the verdict's sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medharden.codes import Step, gravest_first, may_be_released, steps
from medharden.record import Endpoint, Finding, Verdict
from medharden.reporting.accuracy import robust_limits
from medharden.reporting.limits import SCORES, endpoint_numbers
from medharden.reporting.naming import label_of, readable, sentence_of
from medharden.reporting.numbers import (
    count,
    duration,
    percent,
    percent_interval,
    points_named,
)
from medharden.reporting.source import RunRecords
from medharden.reporting.wording import KINDS, MEANING, UNJUSTIFIED, budget_words

__all__ = [
    "EndpointRow",
    "PairedTable",
    "Summary",
    "all_findings",
    "endpoint_rows",
    "methods_of",
    "paired_tables",
    "subgroup_rows",
    "summary",
    "told_findings",
    "told_once",
    "told_reasons",
]

_SEVERITY = {"critical": 0, "warning": 1, "info": 2}
_WORTH_REFERRING = 60  # characters
_UNJUSTIFIED = dict.fromkeys(
    ("noninferiority", "brier", "grade_error", "kappa", "robust_floor", "robust_gain", "robust_change", "shift"),
    "no clinical justification is recorded.",
)


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint as it is shown; every text is formatted, none is markup.

    Attributes:
        counts: of a difference, how many cases only the release, and only the original, answers rightly.
        needed: cases needed to show the margin; empty of an endpoint that is met, which needs no more.
    """

    label: str
    kind: str
    verdict: Verdict
    estimate: str
    interval: str
    level: str
    limit: str
    n: str
    patients: str
    counts: str
    smallest_margin: str
    needed: str
    method: str
    justification: str
    reason: str


@dataclass(frozen=True)
class PairedTable:
    """One endpoint's paired 2x2 counts: both right, only the released right, only the original right, both wrong."""

    label: str
    both: int
    gained: int
    lost: int
    neither: int

    @property
    def total(self) -> int:
        """Cases in the table."""
        return self.both + self.gained + self.lost + self.neither


@dataclass(frozen=True)
class Summary:
    """The first page's sentences and numbers."""

    verdict: Verdict
    meaning: str
    unjustified: str
    reasons: tuple[Step, ...]
    release: str
    whom: str
    passed: str
    clean_original: str
    clean_released: str
    clean_difference: str
    clean_margin: str
    robust_original: str
    robust_original_interval: str
    robust_released: str
    robust_interval: str
    attacked: str
    threat: str
    identical: bool | None
    identity: str
    identity_note: str
    cost: str
    cost_note: str
    findings: tuple[Finding, ...]


def endpoint_rows(records: RunRecords) -> tuple[EndpointRow, ...]:
    """Every endpoint of the decision, formatted, in its order."""
    return tuple(_endpoint_row(endpoint, records) for endpoint in records.decision.endpoints)


def subgroup_rows(records: RunRecords) -> tuple[EndpointRow, ...]:
    """The change of accuracy in every subgroup, formatted, in the decision's order."""
    return tuple(_endpoint_row(endpoint, records) for endpoint in records.decision.subgroups)


def told_once(rows: Sequence[EndpointRow]) -> tuple[EndpointRow, ...]:
    """The rows of one table, in which a reason for a limit is told where it first stands, and referred to after."""
    first: dict[str, str] = {}
    told = []
    for row in rows:
        at = first.setdefault(row.justification, row.label)
        again = at != row.label and len(row.justification) > _WORTH_REFERRING
        told.append(replace(row, justification=f"as for {at}.") if again else row)
    return tuple(told)


def methods_of(rows: Sequence[EndpointRow]) -> str:
    """The methods of some rows, each once."""
    return "; ".join(dict.fromkeys(row.method for row in rows if row.method))


def _endpoint_row(e: Endpoint, records: RunRecords) -> EndpointRow:
    estimate, interval, limit = endpoint_numbers(e)
    return EndpointRow(
        label=label_of(e, records),
        kind=KINDS.get(e.kind, e.kind),
        verdict=e.verdict,
        estimate=estimate,
        interval=interval,
        level=percent(e.level, 0) if (100 * e.level) % 1 < 1e-9 else percent(e.level),
        limit=limit,
        n=count(e.n),
        patients=count(e.patients),
        counts=_counts(e),
        smallest_margin=_smallest_margin(e),
        needed="" if e.needed is None or e.verdict is Verdict.PASS else count(e.needed),
        method=e.method,
        justification=e.justification or _UNJUSTIFIED.get(e.kind, ""),
        reason=sentence_of(e),
    )


def _counts(e: Endpoint) -> str:
    return f"{count(e.table[1])}/{count(e.table[2])}" if len(e.table) == 4 else ""


def _smallest_margin(e: Endpoint) -> str:
    if e.smallest_margin is None:
        return ""
    return f"{e.smallest_margin:.3f}" if e.kind in SCORES else f"{100 * e.smallest_margin:.1f}\N{NO-BREAK SPACE}pp"


def paired_tables(records: RunRecords, kind: str) -> tuple[PairedTable, ...]:
    """The paired 2x2 tables of the endpoints of one kind."""
    return tuple(
        PairedTable(label_of(e, records), *e.table)
        for e in records.decision.endpoints
        if len(e.table) == 4 and e.kind == kind
    )


def all_findings(records: RunRecords) -> tuple[Finding, ...]:
    """Findings of every record, each once, the gravest first."""
    held = (records.decision, records.evaluation, records.harden, records.cohort)
    unique = dict.fromkeys(finding for record in held for finding in record.findings)
    return tuple(sorted(unique, key=lambda f: (_SEVERITY.get(f.severity, 0), f.code)))


def told_findings(records: RunRecords) -> tuple[Finding, ...]:
    """The same as the page tells them: endpoints by the names of their rows."""
    return tuple(replace(f, message=readable(f.message, records)) for f in all_findings(records))


def summary(records: RunRecords) -> Summary:
    """The first page, from the records alone."""
    decision, evaluation, protocol = records.decision, records.evaluation, records.protocol
    original, released = evaluation.subject("original"), evaluation.subject("composite")
    accuracy = next((e for e in decision.endpoints if e.name == "accuracy" and e.kind == "noninferiority"), None)
    difference = margin = ""
    if accuracy is not None:
        row = _endpoint_row(accuracy, records)
        difference, margin = f"{row.estimate} {row.interval}", points_named(accuracy.limit)
    identical, identity, identity_note = _identity(records)
    cost, cost_note = _cost(records)
    grave = [f for f in told_findings(records) if f.severity != "info"]
    decided = [e for e in decision.endpoints if e.role != "reported"]
    passed = sum(e.verdict is Verdict.PASS for e in decided)
    return Summary(
        verdict=decision.verdict,
        meaning=MEANING[decision.verdict],
        unjustified="" if decision.margins_justified else UNJUSTIFIED,
        reasons=_reasons(records),
        release=may_be_released(decision.verdict),
        whom=_whom(records),
        passed=f"{passed} of {len(decided)} endpoints met" if decided else "no endpoint decided",
        clean_original=percent(original.clean_accuracy),
        clean_released=percent(released.clean_accuracy),
        clean_difference=difference,
        clean_margin=margin,
        robust_original=percent(original.robust_accuracy),
        robust_original_interval=percent_interval(robust_limits(records, "original")),
        robust_released=percent(released.robust_accuracy),
        robust_interval=percent_interval(robust_limits(records, "composite")),
        attacked=count(released.attacked),
        threat=budget_words(protocol.threat),
        identical=identical,
        identity=identity,
        identity_note=identity_note,
        cost=cost,
        cost_note=cost_note,
        findings=tuple(grave),
    )


def told_reasons(records: RunRecords) -> dict[str, str]:
    """Each reason of the decision, in its order, as the page tells it: endpoints by the names of their rows."""
    decision = records.decision
    said = {
        e.reason: f"{label_of(e, records)}: {sentence_of(e)}"
        for e in (*decision.endpoints, *decision.subgroups)
        if e.reason.startswith(e.name)
    }
    return {reason: said.get(reason) or readable(reason, records) for reason in decision.reasons}


def _reasons(records: RunRecords) -> tuple[Step, ...]:
    """The gravest first, each with what to do; of a PASS, what is to be known beside it and is no finding."""
    decision, told = records.decision, told_reasons(records)
    beside = {f.message for f in decision.findings}
    plain = tuple(Step(r, "", "") for r in gravest_first(decision) if r not in beside)
    return tuple(replace(step, reason=told[step.reason]) for step in steps(decision) or plain)


def _whom(records: RunRecords) -> str:
    """On whom the verdict rests: the population as stated, and how many test cases of how many patients."""
    test = records.cohort.split("test")
    patients = len({case.patient for case in test})
    of = f" of {count(patients)} patients" if records.cohort.grouped_by == "patient" else ", no patient named"
    stated = records.protocol.report.population or "not stated in the protocol"
    return f"{count(len(test))} test cases{of}; population: {stated.rstrip('.')}"


def _identity(records: RunRecords) -> tuple[bool | None, str, str]:
    identity = records.evaluation.identity
    if identity.against == "none":
        return None, "Not checked", "no original file was given to compare with"
    over = f"over {count(identity.cases)} test cases"
    if identity.state_equal and identity.logits_equal:
        return (
            True,
            "Bit-identical",
            f"state and logits equal the original's {over}",
        )
    parts = [
        "" if identity.state_equal else "parameters or buffers differ from the original's",
        "" if identity.logits_equal else f"logits differ by up to {identity.max_abs_difference:.3g} {over}",
    ]
    return False, "Not identical", "; ".join(part for part in parts if part)


def _cost(records: RunRecords) -> tuple[str, str]:
    cost = records.harden.cost
    epoch, whole = records.harden.epoch_ratio, records.harden.whole_ratio
    if epoch is None or whole is None:
        return duration(cost.epoch_seconds), "an epoch; clean fine-tuning was not timed"
    return f"{epoch:.2f}×", f"an epoch of clean fine-tuning; with probes and calibration {whole:.2f}×"
