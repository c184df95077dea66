"""Whole decisions, every number and word, as reviewed: `python tests/gating/test_goldens.py` writes them anew.

Of the tables of problems it is the reasons and findings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gating_changes import (
    column,
    digests,
    evaluated,
    grouped,
    hardened,
    identity,
    logged,
    rows,
    scored,
    unattacked,
)
from gating_factory import Records, counted_look, protocol, records
from gating_findings import ALL, broken, rules, run
from gating_findings import PROBLEMS as PROBLEMS_OF_FINDINGS
from gating_problems import PROBLEMS
from gating_releases import OLD, UNFIT, decision_of, released
from gating_verdicts import VERDICTS

from medharden.audit import Ledger
from medharden.gating import decide
from medharden.protocol import Protocol
from medharden.record import Finding, GateDecision

FOLDER = Path(__file__).parent / "goldens"
SCORES = (("balanced_accuracy", 0.03), ("auroc", 0.02), ("brier", 0.02))
GUARDED = protocol(mode="guarded", more=SCORES)
BY_SEX = protocol(columns=("sex",), margins=(0.1, 0.2), floor=0.58)
FINDINGS = (Finding("attack.x", "critical", "Grave."), Finding("evaluation.y", "critical", "Odd."))
THREE = ("A", "B", "C")


def _absent(r: Records) -> Records:
    """Two of three classes have no test case, one subject no outcome, the other no attack."""
    cases = tuple(replace(c, label=0) if c.split == "test" else c for c in r.cohort.cases)
    made = unattacked(replace(r, cohort=replace(r.cohort, cases=cases)))
    return evaluated(subjects=tuple(s for s in made.evaluation.subjects if s.name != "original"))(made)


MADE: dict[str, Records] = {
    "all endpoints, all pass": records(1000, rules=GUARDED, gained=4, lost=2, referred=20),
    "all endpoints, none passes": scored("composite", -0.25)(
        records(rules=protocol(mode="guarded", more=SCORES, floor=0.7), lost=30, robust=(200, 150), referred=40)
    ),
    "all endpoints, all open": scored("composite", -0.29, of=slice(380, 400))(
        records(
            rules=protocol(mode="guarded", more=SCORES, floor=0.6), lost=7, gained=2, robust=(237, 240), referred=18
        )
    ),
    "several cases a patient": records(
        rules=protocol(mode="guarded", more=SCORES), lost=7, cases_a_patient=4, referred=7
    ),
    "patients of one class": records(4, rules=protocol(more=SCORES), cases_a_patient=4, wrong=0),
    "a loss too near the margin": records(1000, lost=19),
    "three classes without justification": records(
        600, classes=THREE, rules=protocol(positive=None, more=SCORES, justified=False), lost=3
    ),
    "three classes with a positive one": records(
        600, classes=("NORMAL", "PNEUMONIA", "TB"), rules=protocol(more=SCORES), lost=3
    ),
    "subgroups": grouped("sex", 15, 40, 100)(records(rules=BY_SEX, lost=15, wrong=15)),
    "a sample, two looks of three": logged(opened=4, looks=3, finished=2)(
        records(rules=protocol(sample=100, looks=3), attacked=100, robust=(10, 60))
    ),
    "identity broken and critical findings": hardened(findings=FINDINGS[:1])(
        identity(logits_equal=False, max_abs_difference=0.25)(evaluated(findings=FINDINGS[1:])(records()))
    ),
    "identity moved": hardened(clean_state_after="9" * 64)(records()),
    "identity on some cases": identity(cases=399)(records()),
    "alternatives": scored("composite", -0.25)(records(rules=protocol(more=SCORES, multiplicity="any-holm"))),
    "alternatives that are open": records(
        100, rules=protocol(more=SCORES, multiplicity="any-holm", margins=(0.2, 0.2), justified=False)
    ),
    "nothing locked, looks used up": logged(locks=(), looks=3, finished=3, harden="", evaluation="0" * 64)(records()),
    "absent classes, subjects and attacks": _absent(records(classes=THREE, rules=protocol(positive=None))),
    "a broken table": column("composite", "robust", 0, True)(
        column("original", "predicted", 0, 2)(rows(patient=("someone",) * 400)(records(attacked=300)))
    ),
}


def _counted(made: Records, *others: str) -> GateDecision:
    """Decided with a ledger that has looks of other evaluations before this one; `absent` leaves this one out."""
    names = [name for name in others if name != "absent"] + [made.history.look] * ("absent" not in others)
    looks = tuple(counted_look(made, name) for name in names)
    parts = (made.protocol, made.cohort, made.harden, made.evaluation, made.cases)
    return decide(*parts, digests=made.digests, history=made.history, ledger=Ledger(looks, "head"))


def _labelled(made: Records, label: object) -> Records:
    """Every case has this label in the cohort's record."""
    cases = tuple(replace(c, label=label) for c in made.cohort.cases)
    return replace(made, cohort=replace(made.cohort, cases=cases))


def _apart(made: Records) -> Records:
    """A release of another original, seen through other preprocessing."""
    harden = replace(made.harden, original=replace(made.harden.original, state="7" * 64), hardened=OLD)
    return replace(made, harden=harden, cohort=replace(made.cohort, preprocessing="7" * 64))


def _with(rules: Protocol, **endpoints: object) -> Protocol:
    """The same protocol with other fields of its endpoints."""
    fields = rules.model_dump()
    fields["endpoints"] |= endpoints
    return Protocol.model_validate(fields)


ALTERNATIVES = protocol(more=SCORES, multiplicity="any-holm")
BOUND = protocol(authorised=OLD)
NAMED = (("accuracy", 0.05), ("recall", 0.1), ("finding_auroc", 0.1))
DECIDED: dict[str, Callable[[], GateDecision]] = {
    **{name: made.decide for name, made in MADE.items()},
    "findings, all pass": run().decide,
    "findings, one is missed": run(missed=12).decide,
    "findings, several cases a patient": run(missed=3, cases_a_patient=4).decide,
    "findings, too few patients": run(40, cases_a_patient=40).decide,
    "findings, of which one is asked": run(missed=12, wanted=rules(asked=NAMED, findings=("Effusion",))).decide,
    "findings, each with its threshold": run(wanted=rules({"Effusion": 0.4, "Hernia": 0.6}, ALL[:2])).decide,
    "findings, a margin without justification": run(wanted=rules(justification=None)).decide,
    "three classes, alternatives": records(
        900, classes=THREE, rules=protocol(positive=None, more=SCORES, multiplicity="any-holm"), lost=3
    ).decide,
    "a subgroup in which nothing is shown": grouped("sex", 60)(records(rules=BY_SEX, lost=8)).decide,
    "findings, alternatives": run(missed=3, wanted=_with(rules(), multiplicity="any-holm")).decide,
    "three classes, several cases a patient": records(
        900, classes=THREE, rules=protocol(positive=None, more=SCORES), lost=3, cases_a_patient=3
    ).decide,
    "alpha of 0.005": records(rules=_with(GUARDED, alpha=0.005), lost=3, gained=2, referred=9).decide,
    "an authorised release at the second look of two": lambda: decision_of(
        logged(opened=2, looks=2, finished=2)(records(rules=protocol(looks=2))), released(_apart(records()))
    ),
    "an authorised release": lambda: decision_of(
        records(rules=protocol(more=SCORES), lost=3), released(records(gained=2, lost=1))
    ),
    "an authorised release of another original": lambda: decision_of(
        scored("composite", -0.1)(records(lost=2)),
        released(_apart(records()), harden=_apart(records()).harden, cohort=_apart(records()).cohort),
    ),
    "alternatives against two comparators": lambda: decision_of(
        scored("composite", -0.25)(records(rules=ALTERNATIVES)), released(records(rules=ALTERNATIVES))
    ),
    "the second look of two, by the ledger": lambda: _counted(records(rules=protocol(looks=2)), "one before"),
    "a ledger that was not read": lambda: logged(in_ledger=True)(records()).decide(),
}
REASONS: dict[str, Callable[[], GateDecision]] = {
    **{f"{row[0]}: {row[1]}": (lambda row=row: row[3](row[2]).decide()) for row in (*VERDICTS, *PROBLEMS)},
    **{f"release: {row[0]}": (lambda row=row: decision_of(records(), row[1](records()))) for row in UNFIT},
    **{f"findings: {row[0]}": broken(row[1]).decide for row in PROBLEMS_OF_FINDINGS},
    "findings: one that no case has": _labelled(run(), (0,)).decide,
    "findings: labels beyond them": _labelled(run(), (2,)).decide,
    "findings: labels of classes": _labelled(run(), 1).decide,
    "release: none given": lambda: decision_of(records(rules=BOUND), None),
    "release: another than the protocol's": lambda: decision_of(
        records(rules=protocol(authorised="2" * 64)), released(records())
    ),
    "release: dropped": lambda: decision_of(logged(authorised=OLD)(records()), None),
    "release: exchanged": lambda: decision_of(logged(authorised="2" * 64)(records()), released(records())),
    "ledger: a look too many": lambda: _counted(records(), "one before", "another"),
    "ledger: not counted": lambda: _counted(records(), "one before", "absent"),
    "stages: digests before records": lambda: evaluated(split="val", cohort="0" * 64)(records()).decide(),
    "stages: records before the table": lambda: evaluated(split="val")(records(attacked=300)).decide(),
    "stages: shape before values": lambda: rows(attacked=np.ones(3, bool))(records(attacked=300)).decide(),
    "stages: all digests": lambda: digests(
        **{
            name: str(k) * 64
            for k, name in enumerate(("cohort", "harden", "hardened", "description", "cases", "evaluation"))
        }
    )(records()).decide(),
}


def plain(decision: GateDecision) -> Any:
    """As JSON, numbers to nine decimals, without the protocol's digest: a new field of the schema is another digest."""
    whole = {k: v for k, v in asdict(decision).items() if k != "protocol"}
    text = json.dumps(whole).replace(decision.protocol[:12], "of the protocol")
    return json.loads(text, parse_float=lambda text: round(float(text), 9))


def reasons(decision: GateDecision) -> Any:
    whole = plain(decision)
    return [whole["verdict"], whole["reasons"], whole["findings"]]


def reviewed(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DECIDED)
def test_a_decision_is_as_reviewed(name: str) -> None:
    assert plain(DECIDED[name]()) == reviewed("decisions")[name]


@pytest.mark.parametrize("name", REASONS)
def test_reasons_and_findings_are_as_reviewed(name: str) -> None:
    assert reasons(REASONS[name]()) == reviewed("reasons")[name]


if __name__ == "__main__":
    for file, made in (
        ("decisions", {name: plain(decide()) for name, decide in DECIDED.items()}),
        ("reasons", {name: reasons(decide()) for name, decide in REASONS.items()}),
    ):
        (FOLDER / f"{file}.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
