"""Loading cohorts: folders, manifests, classes, patients and attributes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from data_helpers import (
    KEY,
    class_folders,
    codes,
    ct_folder,
    listed,
    manifest,
    png,
    protocol,
    sizes,
    window,
)

from medharden.data import load_cohort
from medharden.errors import DataError
from medharden.protocol import Columns, Input, Task

# layouts


def test_class_folders_become_a_cohort_in_zero_to_one(tmp_path):
    class_folders(tmp_path)
    png(tmp_path / "cat" / "nested" / "more.png", 5000)
    (tmp_path / "cat" / "notes.txt").write_text("notes")
    (tmp_path / "cat" / ".hidden.png").write_text("hidden")
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert cohort.classes == ("cat", "dog")
    assert (cohort.record.source, cohort.record.splits_from, cohort.record.grouped_by) == ("folder", "made", "case")
    assert cohort.inputs.shape == (21, 1, 12, 10)
    assert sum(sizes(cohort)) == 21
    assert codes(cohort) == {"data.no_patients", "data.ignored_files"}
    inputs, labels = cohort.batch([3, 0])
    assert (inputs.dtype, labels.dtype, inputs.shape) == (torch.float32, torch.int64, (2, 1, 12, 10))
    inputs.fill_(0)
    assert cohort.inputs[3].max() > 0.5
    with pytest.raises(TypeError, match="item assignment"):
        cohort.inputs[0] = 0


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TESTING")])
def test_given_split_folders_are_kept(tmp_path, names):
    for k, split in enumerate(names):
        for c in "ab":
            for n in range(2 + k):
                png(tmp_path / split / c / f"{n}.png", 100 * k + 10 * ord(c) + n)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert (sizes(cohort), cohort.record.splits_from) == ((4, 6, 8), "given")


def test_without_validation_it_is_made_from_train_alone(tmp_path):
    for split, n in (("train", 20), ("test", 5)):
        class_folders(tmp_path / split, n)
        for c in ("cat", "dog"):
            for k in range(n):
                png(tmp_path / split / c / f"{k}.png", 10_000 * len(split) + 100 * ord(c[0]) + k)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert (sizes(cohort), cohort.record.splits_from) == ((30, 10, 10), "given, val made")


def test_split_and_class_folders_side_by_side_are_refused(tmp_path):
    class_folders(tmp_path / "train")
    class_folders(tmp_path)
    with pytest.raises(DataError, match="found both: 1 named as splits and 2 others"):
        load_cohort(tmp_path, protocol(), key=KEY)


def test_manifest_columns_are_found_by_their_usual_names(tmp_path):
    rows = listed(tmp_path, Patient_ID=lambda k: f"p{k // 2}", age=lambda k: 30 + k % 3)
    rows = [{"Image": r["path"], "Diagnosis": r["label"], **{c: r[c] for c in ("Patient_ID", "age")}} for r in rows]
    manifest(tmp_path, rows)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert (cohort.record.source, cohort.record.grouped_by) == ("manifest", "patient")
    assert len({c.patient for c in cohort.cases}) == 10
    assert cohort.source.attributes == {"age": {"30": 7, "31": 7, "32": 6}}
    assert "age" not in json.dumps(asdict(cohort.record))


def test_the_protocol_names_columns_where_the_header_is_ambiguous(tmp_path):
    rows = listed(tmp_path, 20, grade=lambda k: k % 2, side=lambda k: "LR"[k // 2 % 2])
    rows = [{"file": r["path"], "grade": r["grade"], "side": r["side"]} for r in rows]
    path = manifest(tmp_path, rows, "table.csv")
    with pytest.raises(DataError, match=r"\['file', 'grade', 'side'\].*columns"):
        load_cohort(path, protocol(), key=KEY)
    cohort = load_cohort(path, protocol(columns=Columns(label="side")), key=KEY)
    assert cohort.classes == ("L", "R")
    with pytest.raises(DataError, match=r"columns.label is 'sides'"):
        load_cohort(path, protocol(columns=Columns(label="sides")), key=KEY)


def test_two_columns_for_one_role_are_never_guessed_between(tmp_path):
    rows = listed(tmp_path, target=lambda k: k % 3)
    path = manifest(tmp_path, rows)
    with pytest.raises(DataError, match=r"\['label', 'target'\] could each be the label"):
        load_cohort(path, protocol(), key=KEY)


def test_a_single_likely_column_is_taken_as_the_label_and_said(tmp_path):
    rows = [{"file": r["path"], "kind": r["label"]} for r in listed(tmp_path)]
    manifest(tmp_path, rows, "labels.csv")
    assert "data.label_column" in codes(load_cohort(tmp_path, protocol(), key=KEY))


def test_the_first_case_of_a_table_without_headings_is_not_repeated(tmp_path):
    rows = listed(tmp_path, 12)
    cases = [f"{row['path']},Doe^John,1961-03-04,{row['label']}" for row in rows]
    for lines in (cases, [cases[0].replace("Doe^John", rows[0]["path"]), *cases[1:]]):
        (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
        with pytest.raises(DataError, match="the first line must name the columns") as caught:
            load_cohort(tmp_path, protocol(), key=KEY)
        assert not [word for word in ("Doe", "1961", rows[0]["path"]) if word in str(caught.value)]


def test_manifest_splits_are_kept_and_numbered_folds_are_an_attribute(tmp_path):
    rows = listed(tmp_path, split=lambda k: ("train", "validation", "test", "test")[k // 2 % 4])
    path = manifest(tmp_path, rows)
    assert load_cohort(path, protocol(), key=KEY).record.splits_from == "given"
    path = manifest(tmp_path, [r | {"split": k % 5} for k, r in enumerate(rows)])
    cohort = load_cohort(path, protocol(), key=KEY)
    assert cohort.record.splits_from == "made"
    assert set(cohort.source.attributes) == {"split"}
    path = manifest(tmp_path, [r | {"split": "elsewhere" if k == 3 else r["split"]} for k, r in enumerate(rows)])
    with pytest.raises(DataError, match="1 rows of the manifest name no split"):
        load_cohort(path, protocol(), key=KEY)


def test_semicolons_and_a_byte_order_mark_are_read(tmp_path):
    rows = listed(tmp_path)
    text = "path;label\n" + "\n".join(f"{r['path']};{r['label']}" for r in rows)
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8-sig")
    assert len(load_cohort(tmp_path, protocol(), key=KEY).cases) == 20


def test_classes_follow_the_protocols_order_and_must_be_the_same_set(tmp_path):
    class_folders(tmp_path)
    cohort = load_cohort(tmp_path, protocol(task=Task(classes=("dog", "cat"), positive="cat")), key=KEY)
    assert cohort.classes == ("dog", "cat")
    assert cohort.cases[0].label == 1
    with pytest.raises(DataError, match=r"\['dog', 'cow'\]; the data have \['cat', 'dog'\]"):
        load_cohort(tmp_path, protocol(task=Task(classes=("dog", "cow"))), key=KEY)
    with pytest.raises(DataError, match="positive is 'cow'"):
        load_cohort(tmp_path, protocol(task=Task(positive="cow")), key=KEY)


def test_numbered_classes_are_in_order_of_value(tmp_path):
    class_folders(tmp_path, 5, ("10", "2", "1"))
    assert load_cohort(tmp_path, protocol(), key=KEY).classes == ("1", "2", "10")


# patients and attributes from DICOM headers


def test_patients_come_from_the_header_where_no_manifest_names_them(tmp_path):
    ct_folder(tmp_path, PatientID=lambda n: f"ID{n // 3}", PatientSex=lambda n: "FM"[n % 2])
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert cohort.record.grouped_by == "patient"
    by_patient: dict[str, set[str]] = {}
    for case in cohort.cases:
        by_patient.setdefault(case.patient, set()).add(case.split)
    assert len(by_patient) == 8
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert cohort.source.attributes == {"sex": {"F": 12, "M": 12}}
    assert codes(cohort) == {"data.no_window"}


def test_a_manifests_own_columns_win_over_the_header(tmp_path):
    ct_folder(tmp_path, PatientID=lambda n: f"ID{n // 3}", PatientSex=lambda n: "M")
    rows = [{"path": f"{'ab'[n % 2]}/{n}.dcm", "label": "ab"[n % 2], "subject": f"s{n}", "Sex": "F"} for n in range(24)]
    manifest(tmp_path, rows)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert len({c.patient for c in cohort.cases}) == 24
    assert cohort.source.attributes == {"Sex": {"F": 24}}


def test_some_cases_without_a_patient_are_a_finding(tmp_path):
    ct_folder(tmp_path, PatientID=lambda n: f"ID{n}" if n % 3 else "")
    assert "data.missing_patients" in codes(load_cohort(tmp_path, protocol(), key=KEY))


def test_several_windows_and_an_empty_window_are_findings(tmp_path):
    ct_folder(tmp_path, WindowCenter=lambda n: ["40", "500"], WindowWidth=lambda n: ["400", "1500"])
    assert "data.several_windows" in codes(load_cohort(tmp_path, protocol(), key=KEY))
    blank = protocol(input=Input(intensity=window(5000.0, 6000.0)))
    assert "data.flat_inputs" in codes(load_cohort(tmp_path, blank, key=KEY))


def test_attribute_columns_of_many_values_show_their_number_alone(tmp_path):
    path = manifest(tmp_path, listed(tmp_path, 40, name=lambda k: f"Doe^{k}"))
    assert load_cohort(path, protocol(), key=KEY).source.attributes == {"name": {"(40 different values)": 40}}


@pytest.mark.parametrize("heading", ["name", "Patient Name", "MRN", "accession_no", "study_uid"])
def test_a_column_whose_heading_tells_of_people_shows_no_value_however_few_there_are(tmp_path, heading):
    rows = listed(tmp_path, 24, sex=lambda k: "FM"[k % 2])
    path = manifest(tmp_path, [row | {heading: f"Doe^{k % 3}"} for k, row in enumerate(rows)])
    shown = load_cohort(path, protocol(), key=KEY).source.attributes
    assert shown == {"sex": {"F": 12, "M": 12}, heading: {"(3 different values)": 24}}
