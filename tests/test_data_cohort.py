"""Loading cohorts: layouts, problems found together, leakage, privacy, determinism, and the real data sets."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import KEY, class_folders, dicom, png, protocol, sized, window
from PIL import Image

from medharden.data import load_cohort, pseudonym
from medharden.errors import DataError
from medharden.protocol import Columns, Input, Intensity, Splits, Task


def codes(cohort) -> set[str]:
    return {finding.code for finding in cohort.record.findings}


def sizes(cohort) -> tuple[int, int, int]:
    return tuple(len(cohort.indices(split)) for split in ("train", "val", "test"))


def manifest(root: Path, rows: list[dict[str, object]], name: str = "manifest.csv") -> Path:
    with (root / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / name


def listed(root: Path, n: int = 20, **columns) -> list[dict[str, object]]:
    """Pictures on disk and a row for each; a column is a function of the row's number."""
    rows = []
    for k in range(n):
        png(root / "img" / f"{k}.png", k)
        rows.append({"path": f"img/{k}.png", "label": "ab"[k % 2]} | {c: f(k) for c, f in columns.items()})
    return rows


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
    with pytest.raises(ValueError, match="read-only"):
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


def ct_folder(root: Path, **header) -> Path:
    rng = np.random.default_rng(0)
    for n in range(24):
        stored = rng.integers(-1000, 1000, (8, 8)).astype(np.int16)
        fields = {name: f(n) for name, f in header.items()}
        dicom(root / ("ab"[n % 2]) / f"{n}.dcm", stored, **fields)
    return root


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


# problems


def broken_folder(root: Path) -> Path:
    class_folders(root)
    good = root / "cat" / "0.png"
    (root / "cat" / "cut.png").write_bytes(good.read_bytes()[:60])
    (root / "cat" / "empty.png").touch()
    png(root / "dog" / "wide.png", 9000, (12, 30))
    constant = png(root / "dog" / "constant.png", 1)
    Image.new("L", (10, 12), 7).save(constant)
    (root / "dog" / "old.bmp").write_bytes(b"BM")
    return root


def test_every_problem_is_listed_at_once_by_pseudonym(tmp_path):
    broken_folder(tmp_path)
    with pytest.raises(DataError, match="5 of 25 cases can't be used") as caught:
        load_cohort(tmp_path, protocol(), key=KEY)
    reasons = {p.case: p.reason for p in caught.value.problems}
    assert "truncated" in reasons[pseudonym(KEY, "case", "cat/cut.png")]
    assert reasons[pseudonym(KEY, "case", "cat/empty.png")] == "is empty"
    assert "is 12 x 30, most are 12 x 10" in reasons[pseudonym(KEY, "case", "dog/wide.png")]
    assert "constant" in reasons[pseudonym(KEY, "case", "dog/constant.png")]
    assert "not a DICOM" in reasons[pseudonym(KEY, "case", "dog/old.bmp")]
    assert all(f"{case}: {reason}" in str(caught.value) for case, reason in reasons.items())


def test_excluded_cases_stay_on_record(tmp_path):
    broken_folder(tmp_path)
    cohort = load_cohort(tmp_path, protocol(input=Input(unusable="exclude")), key=KEY)
    assert len(cohort.cases) == 20
    assert len(cohort.record.excluded) == 5
    assert "data.excluded" in codes(cohort)


def test_a_long_list_shows_twenty_and_carries_all(tmp_path):
    class_folders(tmp_path)
    for n in range(30):
        (tmp_path / "cat" / f"empty{n}.png").touch()
    with pytest.raises(DataError, match="and 10 more") as caught:
        load_cohort(tmp_path, protocol(), key=KEY)
    assert len(caught.value.problems) == 30


def test_rows_that_name_no_usable_file_are_problems(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    rows = listed(root)
    png(tmp_path / "outside.png", 99)
    (root / "img" / "link.png").symlink_to(tmp_path / "outside.png")
    bad = [
        "../outside.png",
        str(tmp_path / "outside.png"),
        "img/link.png",
        "img/none.png",
        "img",
        "img/0.png",
        "C:\\x.png",
    ]
    path = manifest(root, [*rows, *({"path": b, "label": "a"} for b in bad), {"path": "img/1.png", "label": ""}])
    with path.open("a") as stream:
        stream.write("img/2.png\n,a\n")
    with pytest.raises(DataError) as caught:
        load_cohort(root, protocol(), key=KEY)
    counts = Counter(p.reason for p in caught.value.problems)
    assert counts == {
        "has a path that leaves the manifest's folder": 4,
        "is listed, but its file is missing": 1,
        "is a folder, expected one file a case": 1,
        "is listed twice": 1,
        "has no label": 1,
        "has 1 fields, expected 2": 1,
        "has no path": 1,
    }


def test_a_link_out_of_a_class_folder_is_not_followed(tmp_path):
    root = class_folders(tmp_path / "data")
    png(tmp_path / "outside.png", 99)
    (root / "cat" / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match="link that leaves"):
        load_cohort(root, protocol(), key=KEY)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda root: None, "found no class folders"),
        (lambda root: (root / "cat").mkdir(), "found no DICOM"),
        (lambda root: class_folders(root, 5, ("cat",)), "expected two classes or more, found 1: \\['cat'\\]"),
        (lambda root: [(root / n).mkdir() for n in "ab"], "found no DICOM"),
        (lambda root: class_folders(root, 2), "every split needs cases of every class"),
    ],
)
def test_data_without_cases_to_learn_from_is_refused(tmp_path, build, match):
    build(tmp_path)
    with pytest.raises(DataError, match=match):
        load_cohort(tmp_path, protocol(), key=KEY)


def test_a_path_to_nothing_or_to_another_kind_of_file_is_refused_without_repeating_it(tmp_path):
    with pytest.raises(DataError, match="nothing at the path") as caught:
        load_cohort(tmp_path / "John_Doe", protocol(), key=KEY)
    assert "Doe" not in str(caught.value)
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match=r"found a \.zip file"):
        load_cohort(tmp_path / "a.zip", protocol(), key=KEY)


# leakage


def test_a_patient_in_two_given_splits_is_refused_with_the_pair(tmp_path):
    rows = listed(
        tmp_path,
        split=lambda k: ("train", "val", "test", "test")[k // 2 % 4],
        patient=lambda k: "same" if k in (0, 4) else f"p{k}",
    )
    path = manifest(tmp_path, rows)
    with pytest.raises(DataError, match="not disjoint: 1 pairs") as caught:
        load_cohort(path, protocol(), key=KEY)
    (problem,) = caught.value.problems
    assert problem.case == pseudonym(KEY, "case", "img/0.png")
    assert pseudonym(KEY, "case", "img/4.png") in problem.reason
    assert "the same patient" in problem.reason


def test_identical_pixels_in_two_given_splits_are_refused_whatever_the_file(tmp_path):
    for k, split in enumerate(("train", "val", "test")):
        for c in "ab":
            for n in range(3):
                png(tmp_path / split / c / f"{n}.png", 100 * k + 10 * ord(c) + n)
    Image.open(tmp_path / "train" / "a" / "0.png").save(tmp_path / "test" / "a" / "9.tiff")
    with pytest.raises(DataError, match="identical pixels"):
        load_cohort(tmp_path, protocol(), key=KEY)


def test_made_splits_keep_copies_together_and_say_so(tmp_path):
    class_folders(tmp_path, 12)
    for n in range(6):
        shutil.copy(tmp_path / "cat" / f"{n}.png", tmp_path / "cat" / f"copy{n}.png")
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    by_pixels: dict[str, set[str]] = {}
    for case in cohort.cases:
        by_pixels.setdefault(case.pixels, set()).add(case.split)
    assert all(len(splits) == 1 for splits in by_pixels.values())
    finding = next(f for f in cohort.record.findings if f.code == "data.duplicates")
    assert finding.message.startswith("6 sets")


def test_one_image_under_two_labels_is_a_problem(tmp_path):
    class_folders(tmp_path)
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "dog" / "copy.png")
    with pytest.raises(DataError, match=r"same pixels as .* which has another label") as caught:
        load_cohort(tmp_path, protocol(), key=KEY)
    assert len(caught.value.problems) == 2


# privacy, determinism, stopping


def test_no_planted_identity_reaches_an_error_or_the_record(tmp_path):
    canary = "ZZCANARY"
    root = tmp_path / canary
    header = {
        "PatientID": lambda n: f"{canary}-{n // 2}",
        "PatientName": lambda n: f"{canary}^Jane",
        "InstitutionName": lambda n: canary,
        "AccessionNumber": lambda n: canary,
        "StudyDate": lambda n: canary,  # not a date: pydicom warns and quotes it
        "ImageComments": lambda n: canary,
    }
    with pytest.warns(UserWarning, match="Invalid value"):
        ct_folder(root, **header)
    for path in list(root.rglob("*.dcm")):
        path.rename(path.with_name(f"{canary}{path.name}"))
    good = load_cohort(root, protocol(), key=KEY)
    assert canary not in json.dumps(asdict(good.record))
    assert canary not in "".join(c.case + c.patient for c in good.cases)
    files = sorted(root.rglob("*.dcm"))
    files[0].write_bytes(files[0].read_bytes()[:-50])
    files[1].write_bytes(files[1].read_bytes()[:300])
    files[2].write_bytes(files[2].read_bytes().replace(b"MONOCHROME2", canary.encode() + b"NOT"))
    with pytest.raises(DataError) as caught:
        load_cohort(root, protocol(), key=KEY)
    assert len(caught.value.problems) == 3
    error: BaseException | None = caught.value
    while error is not None:
        assert canary not in str(error) + repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_the_same_data_give_the_same_record_with_any_number_of_workers(tmp_path):
    class_folders(tmp_path)
    one = load_cohort(tmp_path, sized(6, 6), key=KEY, workers=1)
    many = load_cohort(tmp_path, sized(6, 6), key=KEY, workers=4)
    assert one.record == many.record
    np.testing.assert_array_equal(one.inputs, many.inputs)


def test_another_key_changes_pseudonyms_and_nothing_else(tmp_path):
    class_folders(tmp_path)
    one, other = (load_cohort(tmp_path, protocol(), key=k) for k in (KEY, b"another key of 32 bytes........."))
    assert [c.split for c in one.cases] == [c.split for c in other.cases]
    assert not {c.case for c in one.cases} & {c.case for c in other.cases}
    assert one.record.key_id != other.record.key_id
    assert one.record.preprocessing == other.record.preprocessing


def test_preprocessing_is_named_by_the_recipe_and_by_what_it_made(tmp_path):
    class_folders(tmp_path)
    digests = {
        load_cohort(tmp_path, p, key=KEY).record.preprocessing
        for p in (protocol(), sized(12, 10), sized(6, 6), sized(6, 6, fit="pad"))
    }
    assert len(digests) == 4
    before = load_cohort(tmp_path, protocol(), key=KEY)
    first = before.cases[before.indices("test")[0]]
    path = next(
        p for p in tmp_path.rglob("*.png") if pseudonym(KEY, "case", p.relative_to(tmp_path).as_posix()) == first.case
    )
    png(path, 31337)
    assert load_cohort(tmp_path, protocol(), key=KEY).record.preprocessing != before.record.preprocessing


def test_splits_follow_the_protocols_seed_and_shares(tmp_path):
    class_folders(tmp_path, 20)
    a = load_cohort(tmp_path, protocol(seed=1), key=KEY)
    b = load_cohort(tmp_path, protocol(seed=2), key=KEY)
    assert sizes(a) == sizes(b) == (24, 8, 8)
    assert [c.split for c in a.cases] != [c.split for c in b.cases]
    halves = protocol(splits=Splits(train=0.5, val=0.25, test=0.25))
    assert sizes(load_cohort(tmp_path, halves, key=KEY)) == (20, 10, 10)


def test_progress_counts_every_case_and_an_interrupt_stops_at_once(tmp_path):
    class_folders(tmp_path, 100)
    seen = []
    load_cohort(tmp_path, protocol(), key=KEY, progress=lambda *a: seen.append(a))
    assert seen == [("read", n, 200) for n in range(1, 201)]

    def stop(stage, done, total):
        seen.append(done)
        raise KeyboardInterrupt

    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        load_cohort(tmp_path, protocol(), key=KEY, progress=stop)
    assert seen == [1]


def test_inputs_past_the_memory_limit_lie_on_disk_and_are_the_same(tmp_path):
    root = class_folders(tmp_path / "data")
    png(root / "dog" / "5.png", 4444, colour=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    whole = load_cohort(root, protocol(), key=KEY)
    mapped = load_cohort(root, protocol(), key=KEY, memory_limit=2000, scratch=scratch)
    assert isinstance(mapped.inputs, np.memmap)
    np.testing.assert_array_equal(whole.inputs, mapped.inputs)
    assert torch.equal(whole.batch([1, 2])[0], mapped.batch(np.array([1, 2]))[0])
    del mapped
    assert not list(scratch.iterdir())


# real data


def test_chest_x_rays_split_by_patient_as_one_channel(test_data, tmp_path):
    source = test_data / "kermany_cxr_224"
    with (source / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    rows = rows[:30] + rows[-30:]
    for row in rows:
        (tmp_path / row["path"]).parent.mkdir(exist_ok=True)
        shutil.copy(source / row["path"], tmp_path / row["path"])
    manifest(tmp_path, rows)
    cohort = load_cohort(tmp_path, sized(64, 64), key=KEY)
    assert cohort.inputs.shape == (60, 1, 64, 64)
    assert cohort.classes == ("normal", "pneumonia")
    assert len({c.patient for c in cohort.cases}) == len({r["patient"] for r in rows})
    assert cohort.source.formats == {"jpeg": 60}


def test_ct_slices_of_two_vendors_agree_in_hounsfield_units(test_data):
    p = sized(64, 64, intensity=window(-1000.0, 1000.0))
    cohort = load_cohort(
        test_data / "ct_contrast_dicom", p.model_copy(update={"columns": Columns(label="contrast")}), key=KEY
    )
    assert (cohort.record.formats, cohort.record.grouped_by) == ({"dicom": 60}, "patient")
    assert Counter(c.label for c in cohort.cases) == {0: 30, 1: 30}
    assert len({c.patient for c in cohort.cases}) == 32
    body = cohort.inputs[:, 0, 24:40, 24:40].mean((1, 2)) * 2000 - 1000
    assert (np.abs(body) < 600).all()
    assert {v.split()[0] for v in cohort.source.attributes["scanner"]} >= {"GE", "SIEMENS"}


def test_pet_volumes_are_normalised_each_by_itself(test_data):
    spec = Input(dims=3, size=(24, 28, 24), intensity=Intensity(mode="percentile", low=1.0, high=99.0))
    cohort = load_cohort(test_data / "cdi_fdgpet", protocol(input=spec), key=KEY)
    assert cohort.inputs.shape == (20, 1, 24, 28, 24)
    assert cohort.source.native_shapes == {"79x95x79": 20}
    assert set(cohort.source.attributes) == {"sex", "age"}
    spread = cohort.inputs.reshape(20, -1).mean(1)
    assert 0.1 < spread.min() < spread.max() < 0.7


def test_breast_ultrasound_holds_one_image_under_two_labels(test_data):
    path = test_data / "medmnist28" / "breastmnist.npz"
    with pytest.raises(DataError, match="2 of 780 cases"):
        load_cohort(path, protocol(), key=KEY)
    cohort = load_cohort(path, protocol(input=Input(unusable="exclude")), key=KEY)
    assert sizes(cohort) == (545, 78, 155)
    assert cohort.record.splits_from == "given"


def test_adrenal_volumes_are_averaged_down(test_data, tmp_path):
    with np.load(test_data / "adrenalmnist3d_64" / "adrenalmnist3d_64.npz") as whole:
        part = {name: whole[name][:24] for name in whole.files}
    np.savez(tmp_path / "part.npz", **part)
    cohort = load_cohort(tmp_path / "part.npz", protocol(input=Input(dims=3, size=(32, 32, 32))), key=KEY)
    assert cohort.inputs.shape == (72, 1, 32, 32, 32)
    blocks = part["train_images"][0].reshape(32, 2, 32, 2, 32, 2).mean((1, 3, 5)) / 255
    np.testing.assert_allclose(cohort.inputs[0, 0], blocks, atol=1e-6)


def test_pseudonyms_are_all_the_record_says_of_a_case(tmp_path):
    class_folders(tmp_path)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert all(
        re.fullmatch("[0-9a-f]{16}", c.case) and re.fullmatch("[0-9a-f]{64}", c.pixels) for c in cohort.record.cases
    )
    assert len({c.case for c in cohort.record.cases}) == 20
