"""Whole decisions, every number and word, as reviewed: `python tests/test_gating_goldens.py` writes them anew."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from gating_changes import (
    column,
    evaluated,
    grouped,
    hardened,
    identity,
    logged,
    rows,
    scored,
    unattacked,
)
from gating_factory import Records, protocol, records

from medharden.record import Finding, GateDecision

GOLDENS = Path(__file__).parent / "goldens" / "decisions.json"
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
    "a sample, two looks of three": logged(opened=4, finished=2)(
        records(rules=protocol(sample=100, looks=3), attacked=100, robust=(10, 60))
    ),
    "identity broken and critical findings": hardened(findings=FINDINGS[:1])(
        identity(logits_equal=False, max_abs_difference=0.25)(evaluated(findings=FINDINGS[1:])(records()))
    ),
    "identity moved": hardened(clean_state_after="9" * 64)(records()),
    "identity on some cases": identity(cases=399)(records()),
    "alternatives": scored("composite", -0.25)(records(rules=protocol(more=SCORES, multiplicity="any-holm"))),
    "alternatives that are open": records(
        100, rules=protocol(more=SCORES, multiplicity="any-holm", margins=(0.2, 0.3), justified=False)
    ),
    "nothing locked, looks used up": logged(locks=(), finished=3, harden="", evaluation="0" * 64)(records()),
    "absent classes, subjects and attacks": _absent(records(classes=THREE, rules=protocol(positive=None))),
    "a broken table": column("composite", "robust", 0, True)(
        column("original", "predicted", 0, 2)(rows(patient=("someone",) * 400)(records(attacked=300)))
    ),
}


def plain(decision: GateDecision) -> Any:
    """As JSON, numbers to nine decimals, without the protocol's digest: a new field of the schema is another digest."""
    whole = {k: v for k, v in asdict(decision).items() if k != "protocol"}
    return json.loads(json.dumps(whole), parse_float=lambda text: round(float(text), 9))


@pytest.mark.parametrize("name", MADE)
def test_a_decision_is_as_reviewed(name: str) -> None:
    assert plain(MADE[name].decide()) == json.loads(GOLDENS.read_text(encoding="utf-8"))[name]


if __name__ == "__main__":
    found = {name: plain(made.decide()) for name, made in MADE.items()}
    GOLDENS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
