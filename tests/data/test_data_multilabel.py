"""Cohorts of multi-label tasks: the forms that labels come in, what is unclear in them, splits and samples."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import KEY, codes, manifest, png, protocol

from medharden.data import Cohort, load_cohort
from medharden.data.checks.splits import Member, make_splits
from medharden.errors import DataError
from medharden.protocol import Columns, Endpoints, Input, Margin, Protocol, Task
from medharden.stats.sampling import stratified_sample

FINDINGS = ("Effusion", "Mass")
BOTH = Endpoints(noninferiority=(Margin(metric="accuracy", margin=0.1), Margin(metric="recall", margin=0.1)))


def multilabel(findings: tuple[str, ...] = FINDINGS, **fields: Any) -> Protocol:
    return protocol(task=Task(kind="multilabel", classes=findings), endpoints=BOTH, **fields)


def pictures(root: Path, n: int = 24, **columns: Any) -> list[dict[str, object]]:
    rows = []
    for k in range(n):
        png(root / "img" / f"{k}.png", k)
        rows.append({"path": f"img/{k}.png"} | {name.replace("_", " "): f(k) for name, f in columns.items()})
    return rows


def truths(cohort: Cohort) -> list[tuple[int, ...]]:
    return sorted(c.label for c in cohort.cases)


def test_a_column_for_each_finding_and_one_column_of_names_are_the_same_cohort(tmp_path: Path) -> None:
    """Patients, files and findings alike; only the way the labels are written differs."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    cells = {"Mass": lambda k: ["0", "1.0"][k % 2], "Effusion": lambda k: int(k % 3 == 0), "Patient_ID": lambda k: k}
    manifest(tmp_path / "a", pictures(tmp_path / "a", **cells))
    said = lambda k: "|".join(["Mass"] * (k % 2) + ["Effusion"] * (k % 3 == 0)) or "No Finding"  # noqa: E731
    names = pictures(tmp_path / "b", Finding_Labels=said, Patient_ID=lambda k: k)
    manifest(tmp_path / "b", [{"Image Index": r.pop("path"), **r} for r in names])
    first, second = (load_cohort(tmp_path / f, multilabel(), key=KEY) for f in "ab")
    assert first.classes == FINDINGS
    assert [c.label for c in first.cases] == [c.label for c in second.cases]
    assert set(truths(first)) == {(), (0,), (1,), (0, 1)}
    assert first.record.cases == second.record.cases
    assert first.record.grouped_by == "patient"
    inputs, labels = first.batch([0, 1, 2])
    assert labels.shape == (3, 2)
    assert labels.dtype == inputs.dtype
    assert [tuple(np.flatnonzero(row)) for row in labels.numpy()] == [c.label for c in first.cases[:3]]
    assert all("Mass" not in c.attributes for c in first.cases), "a finding is no attribute to group by"


def test_an_archive_holds_a_row_of_labels_a_case(tmp_path: Path) -> None:
    arrays = {}
    for seed, split in enumerate(("train", "val", "test")):
        random = np.random.default_rng(seed)
        arrays[f"{split}_images"] = random.integers(0, 256, (12, 8, 8)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.array([[k % 2, k % 3 == 0] for k in range(12)], np.uint8)
    np.savez(tmp_path / "chest.npz", **arrays)
    cohort = load_cohort(tmp_path / "chest.npz", multilabel(), key=KEY)
    assert [c.label for c in cohort.cases[:3]] == [(1,), (0,), ()]
    with pytest.raises(DataError, match=r"expected train_labels of shape \[12, 3\].*found \[12, 2\]"):
        load_cohort(tmp_path / "chest.npz", multilabel(("a", "b", "c")), key=KEY)
    with pytest.raises(DataError, match=r"task\.kind: multilabel"):
        load_cohort(tmp_path / "chest.npz", protocol(), key=KEY)
    arrays["train_labels"] = arrays["train_labels"].astype(np.int8)
    arrays["train_labels"][3] = [-1, 1]
    np.savez(tmp_path / "unclear.npz", **arrays)
    with pytest.raises(DataError, match="Effusion 1 uncertain"):
        load_cohort(tmp_path / "unclear.npz", multilabel(), key=KEY)


def test_unclear_labels_are_refused_with_counts_or_left_out_on_record(tmp_path: Path) -> None:
    def effusion(k: int) -> str:
        return {3: "-1", 5: "-1.0", 7: "", 9: "yes"}.get(k, str(int(k % 3 == 0)))

    manifest(tmp_path, pictures(tmp_path, 40, Effusion=effusion, Mass=lambda k: "nan" if k == 7 else k % 2))
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path, multilabel(), key=KEY)
    assert "Effusion 1 missing, 1 neither 0 nor 1, 2 uncertain; Mass 1 missing" in str(caught.value)
    assert "4 of 40 cases can't be used" in str(caught.value)
    assert len(caught.value.problems) == 4
    cohort = load_cohort(tmp_path, multilabel(input=Input(unusable="exclude")), key=KEY)
    assert len(cohort.cases) == 36
    assert len(cohort.record.excluded) == 4
    assert {"data.unclear_labels", "data.excluded"} <= codes(cohort)
    assert any(reason.endswith("(and 1 more)") for reason in (e.reason for e in cohort.record.excluded))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"Effusion": lambda k: k % 2}, r"for 1 of the 2 findings of task.classes, and none for \['Mass'\]"),
        ({"label": lambda k: ["Effusion", "No Finding|Mass"][k % 2]}, "'No Finding' beside findings"),
        ({"label": lambda k: ["Mass|Mass", "Effusion"][k % 2]}, "names a finding twice"),
        ({"diagnosed": lambda k: ["Mass", "Effusion"][k % 2]}, "neither a 0/1 column for each finding"),
        ({"label": lambda k: ["Mass", "No Finding"][k % 2]}, "train has no case with 'Effusion'"),
        ({"label": lambda k: ["Mass", "Mass|Effusion"][k % 2]}, "train has no case without 'Mass'"),
    ],
)
def test_labels_that_can_not_be_meant_are_clear_errors(tmp_path: Path, columns: dict[str, Any], match: str) -> None:
    manifest(tmp_path, pictures(tmp_path, **columns))
    with pytest.raises(DataError, match=match):
        load_cohort(tmp_path, multilabel(), key=KEY)


def test_findings_that_the_task_leaves_out_are_counted_in_a_finding(tmp_path: Path) -> None:
    said = lambda k: ["Mass", "Effusion|Hernia", "Hernia"][k % 3]  # noqa: E731
    manifest(tmp_path, pictures(tmp_path, label=said))
    cohort = load_cohort(tmp_path, multilabel(), key=KEY)
    assert set(truths(cohort)) == {(), (0,), (1,)}
    message = next(f.message for f in cohort.record.findings if f.code == "data.other_findings")
    assert message.endswith("Hernia (16).")


def test_a_named_label_column_wins_over_columns_of_findings(tmp_path: Path) -> None:
    rows = pictures(tmp_path, Effusion=lambda k: 1, Mass=lambda k: 1, said=lambda k: ["Mass", "Effusion"][k % 2])
    manifest(tmp_path, rows)
    cohort = load_cohort(tmp_path, multilabel(columns=Columns(label="said")), key=KEY)
    assert set(truths(cohort)) == {(0,), (1,)}


def test_folders_of_classes_are_refused_with_the_forms_that_hold_findings(tmp_path: Path) -> None:
    png(tmp_path / "Mass" / "1.png", 1)
    with pytest.raises(DataError, match="a CSV with a 0/1 column for each"):
        load_cohort(tmp_path, multilabel(), key=KEY)


def test_made_splits_give_a_rare_finding_its_share_in_each_and_keep_patients_together() -> None:
    random = np.random.default_rng(0)
    labels = [tuple(k for k, share in enumerate((0.5, 0.2, 0.03)) if random.random() < share) for _ in range(1000)]
    members = [Member(f"p{n // 2}", label, f"x{n}", "") for n, label in enumerate(labels)]
    splits = make_splits(members, {"train": 0.6, "val": 0.2, "test": 0.2}, 1)
    assert all(len({splits[n], splits[n + 1]}) == 1 for n in range(0, 1000, 2))
    for k in range(3):
        held = [s for s, label in zip(splits, labels, strict=True) if k in label]
        assert held.count("val") / len(held) == pytest.approx(0.2, abs=0.02)


def test_a_sample_keeps_each_combination_of_findings_in_its_share() -> None:
    labels = np.array([[n % 2, n % 10 == 0] for n in range(400)], np.float32)
    rows = stratified_sample(labels, 100, 3)
    assert len(set(rows.tolist())) == 100
    assert labels[rows].mean(0).tolist() == pytest.approx(labels.mean(0).tolist(), abs=0.011)


def test_the_findings_of_real_chest_x_rays_are_read_from_a_manifest(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "kermany_cxr_224"
    with (source / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))[::25]
    for row in rows:
        target = tmp_path / row["path"]
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((source / row["path"]).read_bytes())
    said = {"none": "No Finding", "bacteria": "pneumonia|bacterial", "virus": "pneumonia|viral"}
    manifest(tmp_path, [{"path": r["path"], "patient": r["patient"], "label": said[r["pathogen"]]} for r in rows])
    findings = ("pneumonia", "bacterial", "viral")
    cohort = load_cohort(tmp_path, multilabel(findings, input=Input(size=(16, 16), channels="gray")), key=KEY)
    expected = {"none": (), "bacteria": (0, 1), "virus": (0, 2)}
    assert truths(cohort) == sorted(expected[r["pathogen"]] for r in rows)
