"""Records that can carry no verdict: the gate says INVALID and names what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from gating_changes import (
    Change,
    column,
    counted,
    digests,
    evaluated,
    fusion,
    grouped,
    hardened,
    logged,
    planted,
    rows,
    same,
    short,
    unattacked,
    without_outcome,
    without_subject,
)
from gating_factory import DIGESTS, Records, protocol, records

from medharden.audit import Lock
from medharden.record import Verdict

PASS, INCONCLUSIVE, FAIL, INVALID = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID

PROBLEMS = [
    # G1: digests
    ("another protocol", records(), digests(protocol="0" * 64), "protocol.yaml"),
    ("another cohort", records(), digests(cohort="0" * 64), "cohort.json"),
    ("other weights", records(), digests(hardened="0" * 64), "hardened.safetensors"),
    ("other description", records(), digests(description="0" * 64), "hardened.json"),
    ("other cases", records(), digests(cases="0" * 64), "cases.parquet"),
    ("hardened on another cohort", records(), hardened(cohort="0" * 64), "that harden.json was made with"),
    ("evaluated other weights", records(), evaluated(hardened="0" * 64), "that evaluation.json was made with"),
    # G1: the lock, and what the log recorded
    ("nothing locked", records(), logged(locks=()), "audit.jsonl holds no lock"),
    ("locked after the test split was opened", records(), logged(locked_first=False), "before protocol and cohort"),
    (
        "another protocol locked",
        records(),
        logged(locks=(Lock("0" * 64, DIGESTS.cohort),)),
        "protocol.yaml is not the one that audit.jsonl locked",
    ),
    (
        "another cohort locked",
        records(),
        logged(locks=(Lock(protocol().digest, "0" * 64),)),
        "cohort.json is not the one that audit.jsonl locked",
    ),
    (
        "locked again otherwise",
        records(),
        logged(locks=(Lock(protocol().digest, DIGESTS.cohort), Lock("0" * 64, DIGESTS.cohort))),
        "protocol.yaml is not the one that audit.jsonl locked",
    ),
    ("an edited evaluation.json", records(), digests(evaluation="0" * 64), "evaluation.json is not the one that audit"),
    ("an edited harden.json", records(), digests(harden="0" * 64), "harden.json is not the one that audit.jsonl"),
    ("hardening not on record", records(), logged(harden=""), "harden.json is not in audit.jsonl"),
    ("evaluation not on record", records(), logged(evaluation=""), "evaluation.json is not in audit.jsonl"),
    # G13: looks at the test split
    ("a look too many", records(), logged(opened=2, finished=2), "evaluated 2 times; the protocol's endpoints.looks"),
    ("20 tries", records(rules=protocol(looks=19)), logged(opened=20, finished=20), "evaluated 20 times"),
    # G6: missing cases and classes, and what is no probability
    ("a missing case", records(), rows(case=tuple(f"case{i:05d}" for i in range(399))), "399 rows"),
    ("a case twice", records(), rows(case=("case00001", *(f"case{i:05d}" for i in range(1, 400)))), "not exactly"),
    (
        "a case from elsewhere",
        records(),
        rows(case=("train0", *(f"case{i:05d}" for i in range(1, 400)))),
        "not exactly",
    ),
    ("a wrong label", records(), planted(0, label=1), "labels that differ"),
    ("a wrong patient", records(), planted(0, patient="someone"), "patients that differ"),
    ("a missing class", records(1), same, "no case of PNEUMONIA"),
    ("a label outside", records(), planted(0, label=2), "outside 0 to 1"),
    ("NaN", records(), column("composite", "probabilities", (3, 0), np.nan), "not finite"),
    ("infinity", records(), column("original", "probabilities", (3, 0), np.inf), "not finite"),
    ("sum of 1.0002", records(), column("composite", "probabilities", (399, 0), 0.2002), "add up to 1"),
    ("negative", records(), column("composite", "probabilities", 399, (-0.2, 1.2)), "negative"),
    ("an answer that is no class", records(), column("composite", "predicted", 0, 2), "no class"),
    ("a negative answer", records(), column("composite", "predicted", 0, -1), "no class"),
    ("a column too short", records(), short("composite", "robust"), "399 values of composite.robust"),
    (
        "a class too many",
        records(),
        lambda r: r.with_subject("original", probabilities=np.zeros((400, 3))),
        "not one for each of 2",
    ),
    ("no composite", records(), without_subject, "holds the subjects"),
    ("no outcome of the original", records(), without_outcome("original"), "'original' 0 times"),
    # G9, G10: the released composite under one locked threshold
    ("a moved threshold", records(rules=protocol(threshold=0.3)), evaluated(decision_threshold="0.4"), "'0.4'"),
    ("a threshold that is not the protocol's", records(), evaluated(decision_threshold="0.3"), "'argmax'"),
    (
        "an answer against its probability",
        records(),
        column("composite", "probabilities", 399, (0.8, 0.2)),
        "doesn't follow",
    ),
    (
        "an answer against the threshold",
        records(rules=protocol(threshold=0.3)),
        column("composite", "probabilities", 399, (0.75, 0.25)),
        "doesn't follow",
    ),
    ("another fusion", records(), fusion("robust"), "fusion"),
    ("another split", records(), evaluated(split="val"), "'val' split"),
    ("other classes", records(), evaluated(classes=("NORMAL", "TB")), "evaluation.json has the classes"),
    (
        "classes against the protocol",
        records(rules=protocol(classes=("PNEUMONIA", "NORMAL"))),
        same,
        "the protocol has",
    ),
    ("an unknown positive class", records(rules=protocol(positive="TB")), same, "'TB'"),
    # counts that don't reconcile
    ("clean_correct", records(), counted("composite", clean_correct=381), "clean_correct = 381"),
    ("robust_correct", records(), counted("original", robust_correct=61), "robust_correct = 61"),
    ("attacked", records(), counted("robust_branch", attacked=399), "attacked = 399"),
    ("referred", records(), counted("composite", referred=1), "referred = 1"),
    ("n", records(), counted("original", n=401), "n = 401"),
    ("robust but wrong when clean", records(), column("composite", "robust", 0, True), "counts as robust"),
    (
        "robust but not attacked",
        records(rules=protocol(sample=100), attacked=100, robust=(9, 60)),
        column("composite", "robust", 299, True),
        "counts as robust",
    ),
    ("fewer attacked than asked", records(attacked=300), same, "300 of 400 test cases were attacked"),
    ("more attacked than asked", records(rules=protocol(sample=100), attacked=101), same, "100 at most"),
    ("none attacked", records(rules=protocol(sample=100), attacked=0), same, "no test case was attacked"),
    ("an attack left out", records(), unattacked, "was not attacked by pgd-ce-20"),
    # G14: subgroups
    ("groups that nobody declared", records(), grouped("sex", 200), "don't declare"),
    (
        "groups of some cases",
        records(rules=protocol(columns=("sex",))),
        rows(groups={"sex": ("F",) * 399}),
        "399 values of group.sex",
    ),
    # G12: leaks between splits
    ("a patient in two splits", records(), planted(-1, patient="patient00003"), "1 patients have cases in more"),
    ("an image in two splits", records(), planted(-1, pixels="pixels-case00003"), "1 images are in more"),
    ("an image in train and val", records(), planted(-1, pixels="pixels-train0"), "1 images are in more"),
    ("a case named twice", records(), planted(-1, case="case00003"), "more than once"),
]


@pytest.mark.parametrize(("made", "change", "reason"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS])
def test_invalid(made: Records, change: Change, reason: str) -> None:
    decision = change(made).decide()
    assert decision.verdict is Verdict.INVALID
    assert any(reason in r for r in decision.reasons), decision.reasons
    assert decision.endpoints == ()


def test_every_problem_of_an_invalid_run_is_named() -> None:
    change = digests(cases="0" * 64, cohort="1" * 64)
    reasons = change(records()).decide().reasons
    assert len(reasons) == 4
    leaks = planted(-1, patient="patient00003", pixels="pixels-case00003")
    assert len(leaks(records()).decide().reasons) == 2
