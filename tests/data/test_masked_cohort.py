"""Labels that are uncertain or missing under `mask`: the case stays, the finding is left out of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import KEY, manifest, png, protocol

from medharden.audit import read_cases, write_cases
from medharden.canonical import canonical_json
from medharden.data import load_cohort
from medharden.errors import DataError
from medharden.protocol import Endpoints, Input, Margin, Protocol, Task
from medharden.record import CaseTable

FINDINGS = ("Effusion", "Mass")
BOTH = Endpoints(noninferiority=(Margin(metric="accuracy", margin=0.1), Margin(metric="recall", margin=0.1)))


def rules(uncertain: str = "mask", missing: str = "mask", unusable: str = "refuse") -> Protocol:
    task = Task(kind="multilabel", classes=FINDINGS, uncertain=uncertain, missing=missing)
    return protocol(task=task, endpoints=BOTH, input=Input(unusable=unusable))


def chexpert(root: Path, n: int = 40, **cells: dict[int, str]) -> Path:
    """A table of two findings of which single cells are written otherwise."""
    rows = []
    for k in range(n):
        png(root / f"{k}.png", k)
        said = {"Effusion": str(int(k % 3 == 0)), "Mass": str(k % 2)}
        rows.append({"path": f"{k}.png", "patient": str(k)} | {f: cells.get(f, {}).get(k, v) for f, v in said.items()})
    manifest(root, rows)
    return root


def test_uncertain_and_missing_findings_are_nan_in_the_labels_and_named_in_the_record(tmp_path: Path) -> None:
    chexpert(tmp_path, Effusion={3: "-1", 5: "-1.0", 7: "", 9: "1"}, Mass={4: "nan"})
    cohort = load_cohort(tmp_path, rules(), key=KEY)
    assert len(cohort.cases) == 40
    assert not cohort.record.excluded
    labels = cohort.labels(range(40))
    assert labels.dtype == torch.float32
    assert labels.isnan().sum(0).tolist() == [3, 1]
    by_mask = {c.masked for c in cohort.cases}
    assert by_mask == {(), (0,), (1,)}
    for case, row in zip(cohort.cases, labels, strict=True):
        assert tuple(row.isnan().nonzero().flatten().tolist()) == case.masked
        assert not set(case.masked) & set(case.label)
    assert [c.masked for c in cohort.record.cases] == [c.masked for c in cohort.cases]
    assert torch.equal(cohort.batch([0, 1])[1].isnan(), labels[:2].isnan())
    told = {f.code: f.message for f in cohort.record.findings}
    assert "Effusion of 3, Mass of 1" in told["data.masked_findings"]
    assert "leaves these findings out of their case" in told["data.unclear_labels"]
    assert b'"masked":[0]' in canonical_json(asdict(cohort.record))


def test_uncertain_and_missing_have_a_rule_each(tmp_path: Path) -> None:
    chexpert(tmp_path, Effusion={3: "-1", 7: ""})
    cohort = load_cohort(tmp_path, rules("mask", "absent"), key=KEY)
    assert sum(c.masked == (0,) for c in cohort.cases) == 1
    cohort = load_cohort(tmp_path, rules("present", "mask"), key=KEY)
    assert sum(c.masked == (0,) for c in cohort.cases) == 1
    with pytest.raises(DataError, match="1 of 40 cases can't be used"):
        load_cohort(tmp_path, rules("mask", "refuse"), key=KEY)


def test_a_case_of_which_nothing_is_known_is_left_out_on_record(tmp_path: Path) -> None:
    chexpert(tmp_path, Effusion={3: "-1"}, Mass={3: ""})
    cohort = load_cohort(tmp_path, rules(), key=KEY)
    assert len(cohort.cases) == 39
    [lost] = cohort.record.excluded
    assert "no finding of which anything is known" in lost.reason


def test_a_case_that_says_nothing_of_a_finding_is_no_case_without_it(tmp_path: Path) -> None:
    """Where every case without a mass is uncertain, recall of its absence can't be estimated."""
    open_ = {k: "-1" for k in range(40) if k % 2 == 0}
    chexpert(tmp_path, Mass=open_)
    with pytest.raises(DataError, match="train has no case without 'Mass'"):
        load_cohort(tmp_path, rules(), key=KEY)


def test_copies_contradict_each_other_only_where_both_know(tmp_path: Path) -> None:
    chexpert(tmp_path, Effusion={1: "-1", 3: "1"})
    (tmp_path / "3.png").write_bytes((tmp_path / "1.png").read_bytes())  # masses alike, effusion said by one alone
    assert len(load_cohort(tmp_path, rules(), key=KEY).cases) == 40
    chexpert(tmp_path, Effusion={1: "0", 3: "1"})
    (tmp_path / "3.png").write_bytes((tmp_path / "1.png").read_bytes())
    with pytest.raises(DataError, match="same pixels"):
        load_cohort(tmp_path, rules(), key=KEY)


def test_archives_mask_too(tmp_path: Path) -> None:
    arrays = {}
    for seed, split in enumerate(("train", "val", "test")):
        random = np.random.default_rng(seed)
        arrays[f"{split}_images"] = random.integers(0, 256, (12, 8, 8)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.array([[k % 2, k % 3 == 0] for k in range(12)], np.float32)
        arrays[f"{split}_labels"][5] = [-1, 1]
        arrays[f"{split}_labels"][6] = [1, np.nan]
    np.savez(tmp_path / "chest.npz", **arrays)
    cohort = load_cohort(tmp_path / "chest.npz", rules(), key=KEY)
    assert [c.masked for c in cohort.cases].count((0,)) == 3
    assert [c.masked for c in cohort.cases].count((1,)) == 3


def test_a_case_that_can_not_be_read_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    chexpert(tmp_path, Effusion={3: "-1"})
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    cohort = load_cohort(tmp_path, rules(unusable="exclude"), key=KEY)
    [lost] = cohort.record.excluded
    assert (lost.label, lost.masked) == ((1,), (0,))


def test_masked_labels_outlive_the_table_of_cases(tmp_path: Path) -> None:
    nobody = np.zeros(2, dtype=np.bool_)
    label = np.array([[1, -1], [0, 1]])
    table = CaseTable(("a" * 16, "b" * 16), ("c" * 16, "d" * 16), label, nobody, {})
    write_cases(tmp_path / "cases.parquet", table)
    again = read_cases(tmp_path / "cases.parquet")
    assert again.label.tolist() == label.tolist()
    assert again.known.tolist() == [[True, False], [True, True]]
    assert replace(again, label=np.array([0, 1])).multilabel is False
