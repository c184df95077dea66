"""Runs that can carry no verdict, a row a problem: requirement, name, records, change, and what the gate says of it."""

from __future__ import annotations

import numpy as np
from gating_changes import (
    alike,
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
from gating_factory import DIGESTS, protocol, records

from medharden.audit import Lock

__all__ = ["PROBLEMS"]

REVIEWED = protocol(splits={"reviewed": ({"cases": ("train0", "case00003"), "justification": "Twins."},)})

PROBLEMS = [
    # G1: digests
    ("G1", "another protocol", records(), digests(protocol="0" * 64), "protocol.yaml"),
    ("G1", "another cohort", records(), digests(cohort="0" * 64), "cohort.json"),
    ("G1", "other weights", records(), digests(hardened="0" * 64), "hardened.safetensors"),
    ("G1", "other description", records(), digests(description="0" * 64), "hardened.json"),
    ("G1", "other cases", records(), digests(cases="0" * 64), "cases.parquet"),
    ("G1", "hardened on another cohort", records(), hardened(cohort="0" * 64), "that harden.json was made with"),
    ("G1", "evaluated other weights", records(), evaluated(hardened="0" * 64), "that evaluation.json was made with"),
    # G1: the lock, and what the log recorded
    ("G1", "nothing locked", records(), logged(locks=()), "audit.jsonl holds no lock"),
    (
        "G1",
        "locked after the test split was opened",
        records(),
        logged(locked_first=False),
        "before protocol and cohort",
    ),
    (
        "G1",
        "another protocol locked",
        records(),
        logged(locks=(Lock("0" * 64, DIGESTS.cohort),)),
        "protocol.yaml is not the one that audit.jsonl locked",
    ),
    (
        "G1",
        "another cohort locked",
        records(),
        logged(locks=(Lock(protocol().digest, "0" * 64),)),
        "cohort.json is not the one that audit.jsonl locked",
    ),
    (
        "G1",
        "locked again otherwise",
        records(),
        logged(locks=(Lock(protocol().digest, DIGESTS.cohort), Lock("0" * 64, DIGESTS.cohort))),
        "protocol.yaml is not the one that audit.jsonl locked",
    ),
    (
        "G1",
        "an edited evaluation.json",
        records(),
        digests(evaluation="0" * 64),
        "evaluation.json is not the one that audit",
    ),
    ("G1", "an edited harden.json", records(), digests(harden="0" * 64), "harden.json is not the one that audit.jsonl"),
    ("G1", "hardening not on record", records(), logged(harden=""), "harden.json is not in audit.jsonl"),
    ("G1", "evaluation not on record", records(), logged(evaluation=""), "evaluation.json is not in audit.jsonl"),
    # G13: looks at the test split
    (
        "G13",
        "a look too many",
        records(),
        logged(opened=2, finished=2),
        "evaluated 2 times; the protocol's endpoints.looks",
    ),
    ("G13", "20 tries", records(rules=protocol(looks=19)), logged(opened=20, finished=20), "evaluated 20 times"),
    # G6: missing cases and classes, and what is no probability
    ("G6", "a missing case", records(), rows(case=tuple(f"case{i:05d}" for i in range(399))), "399 rows"),
    (
        "G6",
        "a case twice",
        records(),
        rows(case=("case00001", *(f"case{i:05d}" for i in range(1, 400)))),
        "not exactly",
    ),
    (
        "G6",
        "a case from elsewhere",
        records(),
        rows(case=("train0", *(f"case{i:05d}" for i in range(1, 400)))),
        "not exactly",
    ),
    ("G6", "a wrong label", records(), planted(0, label=1), "labels that differ"),
    ("G6", "a wrong patient", records(), planted(0, patient="someone"), "patients that differ"),
    ("G6", "a missing class", records(1), same, "no case of PNEUMONIA"),
    ("G6", "a label outside", records(), planted(0, label=2), "outside 0 to 1"),
    ("G6", "NaN", records(), column("composite", "probabilities", (3, 0), np.nan), "not finite"),
    ("G6", "infinity", records(), column("original", "probabilities", (3, 0), np.inf), "not finite"),
    ("G6", "sum of 1.0002", records(), column("composite", "probabilities", (399, 0), 0.2002), "add up to 1"),
    ("G6", "negative", records(), column("composite", "probabilities", 399, (-0.2, 1.2)), "negative"),
    ("G6", "an answer that is no class", records(), column("composite", "predicted", 0, 2), "no class"),
    ("G6", "a negative answer", records(), column("composite", "predicted", 0, -1), "no class"),
    ("G6", "a column too short", records(), short("composite", "robust"), "399 values of composite.robust"),
    (
        "G6",
        "a class too many",
        records(),
        lambda r: r.with_subject("original", probabilities=np.zeros((400, 3))),
        "not one for each of 2",
    ),
    ("G6", "labels of two findings", records(), rows(label=np.zeros((400, 2), int)), "label of [2] columns a case"),
    ("G6", "no composite", records(), without_subject, "holds the subjects"),
    ("G6", "no outcome of the original", records(), without_outcome("original"), "'original' 0 times"),
    (
        "G6",
        "two outcomes of the original",
        records(),
        lambda r: evaluated(subjects=(*r.evaluation.subjects, r.evaluation.subjects[0]))(r),
        "'original' 2 times",
    ),
    # G9, G10: the released composite under one locked threshold
    (
        "G9 G10",
        "a moved threshold",
        records(rules=protocol(threshold=0.3)),
        evaluated(decision_threshold="0.4"),
        "'0.4'",
    ),
    ("G9 G10", "a threshold that is not the protocol's", records(), evaluated(decision_threshold="0.3"), "'argmax'"),
    (
        "G9 G10",
        "an answer against its probability",
        records(),
        column("composite", "probabilities", 399, (0.8, 0.2)),
        "doesn't follow",
    ),
    (
        "G9 G10",
        "an answer against the threshold",
        records(rules=protocol(threshold=0.3)),
        column("composite", "probabilities", 399, (0.75, 0.25)),
        "doesn't follow",
    ),
    (
        "G9 G10",
        "an answer beyond rounding below its threshold",
        records(rules=protocol(threshold=0.3)),
        column("composite", "probabilities", 399, (0.70002, 0.29998)),
        "doesn't follow",
    ),
    (
        "G9 G10",
        "an answer less probable beyond rounding",
        records(),
        column("composite", "probabilities", 399, (0.50001, 0.49999)),
        "doesn't follow",
    ),
    ("G9 G10", "another fusion", records(), fusion("robust"), "fusion"),
    ("G9 G10", "another split", records(), evaluated(split="val"), "'val' split"),
    ("G9 G10", "other classes", records(), evaluated(classes=("NORMAL", "TB")), "evaluation.json has the classes"),
    (
        "G9 G10",
        "classes against the protocol",
        records(rules=protocol(classes=("PNEUMONIA", "NORMAL"))),
        same,
        "the protocol has",
    ),
    ("G9 G10", "an unknown positive class", records(rules=protocol(positive="TB")), same, "'TB'"),
    # counts that don't reconcile
    ("G6", "clean_correct", records(), counted("composite", clean_correct=381), "clean_correct = 381"),
    ("G6", "robust_correct", records(), counted("original", robust_correct=61), "robust_correct = 61"),
    ("G6", "attacked", records(), counted("robust_branch", attacked=399), "attacked = 399"),
    ("G6", "referred", records(), counted("composite", referred=1), "referred = 1"),
    ("G6", "n", records(), counted("original", n=401), "n = 401"),
    ("G6", "robust but wrong when clean", records(), column("composite", "robust", 0, True), "counts as robust"),
    (
        "G6",
        "robust but not attacked",
        records(rules=protocol(sample=100), attacked=100, robust=(9, 60)),
        column("composite", "robust", 299, True),
        "counts as robust",
    ),
    ("G6", "fewer attacked than asked", records(attacked=300), same, "300 of 400 test cases were attacked"),
    ("G6", "more attacked than asked", records(rules=protocol(sample=100), attacked=101), same, "100 at most"),
    ("G6", "none attacked", records(rules=protocol(sample=100), attacked=0), same, "no test case was attacked"),
    ("G6", "an attack left out", records(), unattacked, "was not attacked by pgd-ce-20"),
    # G14: subgroups
    ("G14", "groups that nobody declared", records(), grouped("sex", 200), "don't declare"),
    (
        "G14",
        "groups of some cases",
        records(rules=protocol(columns=("sex",))),
        rows(groups={"sex": ("F",) * 399}),
        "399 values of group.sex",
    ),
    # G12: leaks between splits
    ("G12", "a patient in two splits", records(), planted(-1, patient="patient00003"), "1 patients have cases in more"),
    ("G12", "an image in two splits", records(), planted(-1, pixels="pixels-case00003"), "1 images are in more"),
    ("G12", "an image in train and val", records(), planted(-1, pixels="pixels-train0"), "1 images are in more"),
    (
        "G12",
        "a copy of a training image",
        records(),
        alike(16),
        "1 pairs of images in different splits look like copies",
    ),
    (
        "G12",
        "copies of which one was reviewed",
        records(rules=REVIEWED),
        alike(3, 2),
        "the nearest case00004 and train0 with 2 of",
    ),
    ("G12", "several copies", records(), alike(5, 2, 9), "3 pairs of images in different splits look like copies"),
    ("G12", "a case named twice", records(), planted(-1, case="case00003"), "more than once"),
]
