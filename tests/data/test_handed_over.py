"""Layouts that hospitals, challenges and archives hand over: what is a case, where it lies, whose it is."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data_helpers import KEY, class_folders, codes, listed, manifest, png, protocol, sizes

from medharden.data import load_cohort
from medharden.data.sources.listing import list_source
from medharden.errors import DataError
from medharden.protocol import Cases, Columns, Endpoints, Input, Margin, Patients, Splits, Task
from medharden.protocol.sourcing import Join
from medharden.record import present

ONLY_CASES = Splits(near_duplicate_bits=None, similar_bits=None)


def findings_task(*names: str, **fields: object):
    margins = (Margin(metric="accuracy", margin=0.1), Margin(metric="recall", margin=0.1))
    return protocol(task=Task(kind="multilabel", classes=names, **fields), endpoints=Endpoints(noninferiority=margins))


def table(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def pictures(root: Path, texts: list[str]) -> None:
    for n, text in enumerate(texts):
        png(root / text, n)


def volume(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 100, (4, 5, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


# --- masks, segmentations, modalities


@pytest.mark.parametrize(
    ("image", "mask", "pattern"),
    [
        ("images/{n}.png", "masks/{n}.png", "*/masks/*"),
        ("{n}.png", "Segmentation/{n}.png", "*/Segmentation/*"),
        ("{n}.png", "lung_masks/{n}.png", "*/lung_masks/*"),
        ("case ({n}).png", "case ({n})_mask.png", "*_mask.*"),
        ("case{n}.png", "case{n}_mask_1.png", "*_mask_*.*"),
        ("{n}.png", "{n}-seg.png", "*-seg.*"),
        ("{n}.png", "mask_{n}.png", "mask_*"),
        ("{n}/image.png", "{n}/mask.png", "mask.*"),
    ],
)
def test_masks_beside_images_are_refused_and_the_pattern_in_the_message_leaves_them_out(
    tmp_path: Path, image: str, mask: str, pattern: str
) -> None:
    for c in "ab":
        for n in range(10):
            png(tmp_path / c / image.format(n=n), 100 * ord(c) + n)
            png(tmp_path / c / mask.format(n=n), 100 * ord(c) + n + 50)
    with pytest.raises(DataError, match="20 with ") as caught:
        load_cohort(tmp_path, protocol(), key=KEY)
    assert repr(pattern) in str(caught.value)
    cohort = load_cohort(tmp_path, protocol(cases=Cases(exclude=(pattern,))), key=KEY)
    assert len(cohort.cases) == 20
    assert "data.unchosen_files" in codes(cohort)


def test_every_file_is_a_case_where_the_protocol_says_so_and_a_class_may_be_called_mask(tmp_path: Path) -> None:
    class_folders(tmp_path, classes=("mask", "no_mask"))
    assert len(load_cohort(tmp_path, protocol(), key=KEY).cases) == 20
    pictures(tmp_path / "mask", ["0_mask.png"])
    assert len(load_cohort(tmp_path, protocol(cases=Cases(include=("*",)), splits=ONLY_CASES), key=KEY).cases) == 21


@pytest.mark.parametrize("name", ["{patient}_{part}.nii.gz", "{part}.nii.gz"])
def test_modalities_of_one_examination_are_no_cases_and_one_can_be_named(tmp_path: Path, name: str) -> None:
    for grade in ("HGG", "LGG"):
        for n in range(6):
            for k, part in enumerate(("flair", "t1", "t1ce", "t2", "seg")):
                place = tmp_path / grade / f"Brats_{grade}_{n}" / name.format(patient=f"Brats_{grade}_{n}", part=part)
                volume(place, 1000 * n + 10 * k + len(grade) + ord(grade[0]))
    spec = Input(dims=3)
    with pytest.raises(DataError, match="12 with a name that ends in 't1ce'") as caught:
        load_cohort(tmp_path, protocol(input=spec), key=KEY)
    assert "seg" in str(caught.value)
    rule = Cases(include=("*flair.nii.gz",))
    cohort = load_cohort(
        tmp_path, protocol(input=spec, cases=rule, splits=Splits(patient_from="*/{patient}/*")), key=KEY
    )
    assert (len(cohort.cases), len({c.patient for c in cohort.cases})) == (12, 12)
    assert cohort.record.grouped_by == "patient"


# --- patients that only a path names


@pytest.mark.parametrize(
    ("text", "pattern", "shape"),
    [
        ("{c}/patient{p:05d}/study1/view{v}.png", "*/{patient}/**", "patient#####"),
        ("{c}/p1/p{p:08d}/s{v}/x.png", "*/*/{patient}/**", "p########"),
        ("{c}/{p:07d}/{v}.png", "*/{patient}/**", "#######"),
        ("{c}/person{p}_virus_{v}.png", "**/person{patient}_*", "person#"),
    ],
)
def test_views_of_what_looks_like_a_patient_stay_together_and_the_pattern_is_told(
    tmp_path: Path, text: str, pattern: str, shape: str
) -> None:
    texts = [text.format(c="ab"[p % 2], p=p, v=v) for p in range(20) for v in (1, 2)]
    pictures(tmp_path, texts)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    [found] = [f.message for f in cohort.record.findings if f.code == "data.patients_in_paths"]
    assert shape in found
    assert repr(pattern) in found
    assert "20 of which hold several" in found
    assert cohort.record.unnamed == 40
    named = load_cohort(tmp_path, protocol(splits=Splits(patient_from=pattern)), key=KEY)
    assert (named.record.unnamed, len({c.patient for c in named.cases})) == (0, 20)
    split_of: dict[str, set[str]] = {}
    by_patient = {c.case: c.patient for c in named.cases}
    for case in cohort.cases:
        split_of.setdefault(by_patient[case.case], set()).add(case.split)
    assert all(len(splits) == 1 for splits in split_of.values())


def test_given_splits_that_part_what_looks_like_a_patient_are_refused_unless_each_case_is_one(tmp_path: Path) -> None:
    texts = [
        f"{s}/{c}/patient{n:04d}/view{v}.png"
        for s in ("train", "val", "test")
        for c in "ab"
        for n in range(4)
        for v in (1, 2)
    ]
    pictures(tmp_path, [t.replace("patient", f"patient{'12'[t.split('/')[1] == 'b']}") for t in texts])
    with pytest.raises(DataError, match=r"splits part 8 of what seem to be patients.*patient#####"):
        load_cohort(tmp_path, protocol(), key=KEY)
    alone = Splits(patients=Patients(unit="each_case", reason="numbers are a day's"))
    assert len(load_cohort(tmp_path, protocol(splits=alone), key=KEY).cases) == 48


@pytest.mark.parametrize(
    "text", ["{c}/images_{b:03d}/{n}.png", "{c}/site{b}/{n}.png", "{c}/{n}.png", "{c}/series{b}/{n}.png"]
)
def test_batches_sites_and_series_are_not_taken_for_patients(tmp_path: Path, text: str) -> None:
    pictures(tmp_path, [text.format(c="ab"[n % 2], b=n // 4, n=n) for n in range(40)])
    assert "data.patients_in_paths" not in codes(load_cohort(tmp_path, protocol(), key=KEY))


def test_a_pattern_that_does_not_fit_every_path_says_how_many(tmp_path: Path) -> None:
    class_folders(tmp_path)
    with pytest.raises(DataError, match=r"20 of 20 cases have a path .* that splits.patient_from does not fit"):
        load_cohort(tmp_path, protocol(splits=Splits(patient_from="x/{patient}.png")), key=KEY)
    with pytest.raises(ValueError, match=r"must hold \{patient\} once"):
        Splits(patient_from="*/*.png")


# --- where a listed file lies


@pytest.mark.parametrize(
    ("lies", "written"),
    [
        ("train/p{n}/x.png", "Archive-v1.0/train/p{n}/x.png"),
        ("images_00{d}/images/{n:08d}_000.png", "{n:08d}_000.png"),
        ("ISIC_{n:07d}.png", "ISIC_{n:07d}"),
        ("stage_2/{n:08x}-aaaa.png", "{n:08x}-aaaa"),
        ("Bild/M\u00e4rz {n}.PNG", "bild/Ma\u0308rz {n}.png"),
        ("a/{n}.png", "{root}/a/{n}.png"),
        ("a/{n}.png", "a\\{n}.png"),
        ("v1.0.{n}.png", "v1.0.{n}"),
    ],
)
def test_files_are_found_whatever_a_manifest_calls_them_and_that_is_told(
    tmp_path: Path, lies: str, written: str
) -> None:
    texts = [lies.format(n=n, d=n % 3) for n in range(20)]
    pictures(tmp_path, texts)
    rows = [[written.format(n=n, root=tmp_path), "ab"[n % 2]] for n in range(20)]
    cohort = load_cohort(table(tmp_path / "t.csv", ["image", "label"], rows), protocol(), key=KEY)
    straight = load_cohort(
        table(tmp_path / "t.csv", ["image", "label"], [[t, "ab"[n % 2]] for n, t in enumerate(texts)]),
        protocol(),
        key=KEY,
    )
    assert [(c.case, c.label) for c in cohort.cases] == [(c.case, c.label) for c in straight.cases]
    assert ("data.paths_found" in codes(cohort)) == ("\\" not in written)


def test_a_name_that_fits_two_files_is_refused_and_one_under_another_folder_is_no_fit(tmp_path: Path) -> None:
    pictures(tmp_path, [f"{folder}/{n}.png" for folder in ("x", "y") for n in range(5)])
    with pytest.raises(DataError, match="by a path that fits 2 files"):
        load_cohort(
            manifest(tmp_path, [{"path": f"{n}.png", "label": "ab"[n % 2]} for n in range(5)]), protocol(), key=KEY
        )
    with pytest.raises(DataError, match=r"not one of the 5 files .* lie 10 files with the ending of an image"):
        load_cohort(
            manifest(tmp_path, [{"path": f"z/{n}.png", "label": "ab"[n % 2]} for n in range(5)]), protocol(), key=KEY
        )


def test_an_absolute_path_outside_the_folder_stays_refused(tmp_path: Path) -> None:
    png(tmp_path / "out.png", 1)
    rows = listed(tmp_path / "in", 10)
    with pytest.raises(DataError, match="leaves the manifest's folder"):
        load_cohort(
            manifest(tmp_path / "in", [*rows, {"path": tmp_path / "out.png", "label": "a"}]), protocol(), key=KEY
        )


@pytest.mark.parametrize("word", ["validate", "valid", "Dev", "tune"])
def test_split_words_of_public_sets_are_known(tmp_path: Path, word: str) -> None:
    words = ("train", word, "holdout")
    rows = listed(tmp_path, 24, split=lambda k: words[k // 2 % 3])
    assert sizes(load_cohort(manifest(tmp_path, rows), protocol(), key=KEY)) == (8, 8, 8)


# --- labels


def expected(cohort, task: tuple[str, ...]) -> list[set[str]]:
    return [{task[k] for k in present(c.label)} for c in cohort.cases]


@pytest.mark.parametrize(
    "cells",
    [
        ("No Finding", "Effusion", "Mass", "Effusion|Mass"),
        ("No Finding", "Effusion", "Mass", "Effusion, Mass"),
        ("No Finding", "Effusion", "Mass", "Mass; Effusion"),
        ("normal", " EFFUSION", "mass ", "effusion/mass"),
        ("['normal']", "['effusion']", "['mass']", "['effusion', ' mass']"),
        ('["normal"]', '["effusion"]', '["mass"]', '["effusion", "mass"]'),
        ("No Finding", "Effusion", "Mass", "Effusion\nMass"),
    ],
)
def test_findings_in_one_cell_are_read_whatever_joins_them(tmp_path: Path, cells: tuple[str, ...]) -> None:
    rows = [{"path": r["path"], "labels": cells[n % 4]} for n, r in enumerate(listed(tmp_path, 40))]
    cohort = load_cohort(manifest(tmp_path, rows), findings_task("Effusion", "Mass"), key=KEY)
    found = sorted(map(sorted, expected(cohort, ("Effusion", "Mass"))))
    assert found == [[]] * 10 + [["Effusion"]] * 10 + [["Effusion", "Mass"]] * 10 + [["Mass"]] * 10


def test_a_cell_with_another_joiner_is_no_case_without_findings(tmp_path: Path) -> None:
    cells = ("No Finding", "Effusion|Mass", "Mass", "Effusion")
    rows = [{"path": r["path"], "labels": cells[n % 4]} for n, r in enumerate(listed(tmp_path, 40))]
    rows[5]["labels"], rows[9]["labels"] = "Effusion & Mass", "Effusion,Mass"
    with pytest.raises(DataError, match="joined in another way") as caught:
        load_cohort(manifest(tmp_path, rows), findings_task("Effusion", "Mass"), key=KEY)
    assert len(caught.value.problems) == 2


def test_a_column_that_names_none_of_the_findings_is_refused(tmp_path: Path) -> None:
    rows = [{"path": r["path"], "labels": "Pneumonia"} for r in listed(tmp_path)]
    with pytest.raises(DataError, match=r"none of the 20 cells .* names one of task.classes"):
        load_cohort(manifest(tmp_path, rows), findings_task("Effusion", "Mass"), key=KEY)


@pytest.mark.parametrize("words", [("1.0", "1", "2", "10"), ("1e0", "1.", "2.0", "10")])
def test_classes_that_are_numbers_count_by_value_and_in_that_order(tmp_path: Path, words: tuple[str, ...]) -> None:
    rows = [{"path": r["path"], "label": words[n % 4]} for n, r in enumerate(listed(tmp_path, 40))]
    cohort = load_cohort(manifest(tmp_path, rows), protocol(), key=KEY)
    assert cohort.classes == ("1", "2", "10")
    assert "data.label_spellings" in codes(cohort)


def test_capitals_and_blanks_make_no_class_and_words_for_nothing_no_label(tmp_path: Path) -> None:
    words = ("Normal", "normal ", "sick", "SICK")
    rows = [{"path": r["path"], "label": words[n % 4]} for n, r in enumerate(listed(tmp_path, 42))]
    rows[40]["label"], rows[41]["label"] = "nan", "N/A"
    with pytest.raises(DataError, match="has no label") as caught:
        load_cohort(manifest(tmp_path, rows), protocol(task=Task(classes=("normal", "Sick"))), key=KEY)
    assert len(caught.value.problems) == 2
    cohort = load_cohort(manifest(tmp_path, rows[:40]), protocol(task=Task(classes=("normal", "Sick"))), key=KEY)
    assert cohort.classes == ("normal", "Sick")


@pytest.mark.parametrize("named", [None, ("NV", "mel")])
def test_a_column_for_each_class_is_read(tmp_path: Path, named: tuple[str, ...] | None) -> None:
    rows = [{"image": f"img/{n}", "MEL": float(n % 2 == 0), "NV": float(n % 2)} for n, _ in enumerate(listed(tmp_path))]
    cohort = load_cohort(manifest(tmp_path, rows), protocol(task=Task(classes=named)), key=KEY)
    assert cohort.classes == (named or ("MEL", "NV"))
    nv = {"mel": 0, "MEL": 0, "NV": 1}
    by_pixels = load_cohort(
        manifest(tmp_path, [{"path": f"img/{n}.png", "label": ("MEL", "NV")[n % 2]} for n in range(20)]),
        protocol(),
        key=KEY,
    )
    assert {c.case: nv[cohort.classes[c.label]] for c in cohort.cases} == {c.case: c.label for c in by_pixels.cases}


def test_one_file_in_several_rows_is_one_case_and_a_contradiction_leaves_it_out(tmp_path: Path) -> None:
    for n in range(20):
        png(tmp_path / "stage_2" / f"{n:04d}-a.png", n)
    rows = [[f"{n:04d}-a", x, n % 2] for n in range(20) for x in ([1, 2] if n % 2 else [""])]
    spec = protocol(columns=Columns(path="patientId", label="Target"))
    cohort = load_cohort(table(tmp_path / "t.csv", ["patientId", "x", "Target"], rows), spec, key=KEY)
    assert (len(cohort.cases), len({c.patient for c in cohort.cases})) == (20, 20)
    rows.append(["0001-a", "", 0])
    with pytest.raises(DataError, match="is listed 3 times, with different labels"):
        load_cohort(table(tmp_path / "t.csv", ["patientId", "x", "Target"], rows), spec, key=KEY)


# --- uncertain and missing


def chexpert(root: Path) -> Path:
    rows = []
    for n in range(48):
        text = f"train/patient{n // 2:05d}/study1/view{n % 2}.png"
        png(root / text, n)
        rows.append(
            [
                f"CheXpert-v1.0-small/{text}",
                "Female",
                ["0.0", "1.0", "-1.0", ""][n // 2 % 4],
                ["1.0", "0.0"][n // 8 % 2],
            ]
        )
    return table(root / "train.csv", ["Path", "Sex", "Lung Opacity", "Edema"], rows)


@pytest.mark.parametrize(
    ("uncertain", "missing", "cases", "opacity"),
    [
        ("absent", "absent", 48, 12),
        ("present", "absent", 48, 24),
        ("exclude", "absent", 36, 12),
        ("exclude", "exclude", 24, 12),
    ],
)
def test_uncertain_and_missing_labels_are_what_the_protocol_takes_them_for(
    tmp_path: Path, uncertain: str, missing: str, cases: int, opacity: int
) -> None:
    given = findings_task("Lung Opacity", "edema", uncertain=uncertain, missing=missing)
    given = given.model_copy(update={"splits": Splits(patient_from="**/{patient}/study*/*")})
    cohort = load_cohort(chexpert(tmp_path), given, key=KEY)
    assert (len(cohort.cases), sum(0 in present(c.label) for c in cohort.cases)) == (cases, opacity)
    assert len(cohort.record.excluded) == 48 - cases
    [finding] = [f.message for f in cohort.record.findings if f.code == "data.unclear_labels"]
    assert "Lung Opacity 12 missing, 12 uncertain" in finding
    assert "By the protocol" in finding


def test_without_a_rule_uncertain_and_missing_labels_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Lung Opacity 12 missing, 12 uncertain") as caught:
        load_cohort(chexpert(tmp_path), findings_task("Lung Opacity", "Edema", uncertain="absent"), key=KEY)
    assert len(caught.value.problems) == 12
    with pytest.raises(ValueError, match=r"are for task.kind multilabel"):
        Task(uncertain="absent")


# --- several tables


def mimic(root: Path) -> Path:
    labels, splits = [], []
    for n in range(36):
        dicom, study, subject = f"{n:04x}-b", 50_000_000 + n // 2, 10_000_000 + n // 2
        png(root / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.png", n)
        splits.append([dicom, study, subject, ("train", "validate", "test")[n // 12]])
        if n % 2:
            labels.append([subject, study, float(n // 2 % 2)])
    table(root / "chexpert.csv", ["subject_id", "study_id", "Edema"], labels)
    return table(root / "split.csv", ["dicom_id", "study_id", "subject_id", "split"], splits)


def test_several_tables_are_joined_on_their_keys(tmp_path: Path) -> None:
    join = Join(table="chexpert.csv", on=("subject_id", "study_id"))
    spec = protocol(columns=Columns(path="dicom_id", label="Edema", join=(join,)))
    cohort = load_cohort(mimic(tmp_path), spec, key=KEY)
    assert (sizes(cohort), cohort.classes) == ((12, 12, 12), ("0", "1"))
    assert len({c.patient for c in cohort.cases}) == 18
    for bad, words in (
        (Join(table="none.csv", on=("study_id",)), "no such table"),
        (Join(table="../x.csv", on=("study_id",)), "no such table"),
        (Join(table="chexpert.csv", on=("dicom_id",)), "is not in both tables"),
    ):
        with pytest.raises(DataError, match=words):
            load_cohort(
                tmp_path / "split.csv", protocol(columns=Columns(path="dicom_id", label="Edema", join=(bad,))), key=KEY
            )
    shutil.copy(tmp_path / "chexpert.csv", tmp_path / "more.csv")
    with (tmp_path / "more.csv").open("a") as stream:
        stream.write("10000000,50000000,9\n")
    twice = Join(table="more.csv", on=("study_id",))
    with pytest.raises(DataError, match="say different things"):
        load_cohort(
            tmp_path / "split.csv", protocol(columns=Columns(path="dicom_id", label="Edema", join=(twice,))), key=KEY
        )


def test_where_no_table_fits_each_is_told_why(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", ["x", "y"], [[1, 2]])
    table(tmp_path / "b.csv", ["path", "path"], [[1, 2]])
    with pytest.raises(
        DataError, match=r"CSV file 1 of 2: .*no column for the path.*CSV file 2 of 2: .*names a column twice"
    ):
        load_cohort(tmp_path, protocol(), key=KEY)


# --- datalists


def datalist(root: Path, content: object) -> Path:
    (root / "datalist.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root / "datalist.json"


@pytest.mark.parametrize("lists", [("training",), ("training", "validation", "test")])
def test_a_datalist_of_monai_is_read(tmp_path: Path, lists: tuple[str, ...]) -> None:
    content: dict[str, object] = {"name": "x", "numTraining": 24}
    for n in range(24):
        volume(tmp_path / "imagesTr" / f"{n}.nii.gz", n)
        case = {"image": f"./imagesTr/{n}.nii.gz", "label": n // 3 % 2, "fold": n % 5, "subject_id": f"s{n}"}
        content.setdefault(lists[n % len(lists)], []).append(case)
    path = datalist(tmp_path, content)
    for source in (path, tmp_path):
        cohort = load_cohort(source, protocol(input=Input(dims=3)), key=KEY)
        assert (len(cohort.cases), cohort.classes, cohort.record.grouped_by) == (24, ("0", "1"), "patient")
        assert cohort.record.splits_from == ("made" if len(lists) == 1 else "given")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "can't be read as JSON"),
        ("{", "can't be read as JSON"),
        ([], "no list of cases"),
        ({"training": []}, "no list of cases"),
        ({"training": [1, {"image": 2}, {"image": ["a", "b"], "label": 0}]}, "lists up to 2 images a case"),
    ],
)
def test_what_is_no_datalist_is_refused(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_cohort(datalist(tmp_path, content), protocol(), key=KEY)


def test_a_case_of_several_images_is_refused_and_not_cut_to_one(tmp_path: Path) -> None:
    cases = []
    for n in range(10):
        volume(tmp_path / f"{n}.nii.gz", n)
        cases.append({"image": f"{n}.nii.gz", "label": n % 2})
    cases.append({"image": ["0.nii.gz", "1.nii.gz"], "label": 0})
    with pytest.raises(DataError, match="lists up to 2 images a case"):
        load_cohort(datalist(tmp_path, {"training": cases}), protocol(input=Input(dims=3)), key=KEY)


@pytest.mark.parametrize(
    "mask",
    [
        *("labelsTr/{n}.png", "labels/{n}.png", "x{n}_lesion_mask.png", "x{n}_annotated.png", "x{n}_label.png"),
        *("x{n}_superpixels.png", "x{n}Mask.png", "other/y{n}_mask.png"),
    ],
)
def test_masks_under_further_names_are_refused_and_the_pattern_leaves_them_out(tmp_path: Path, mask: str) -> None:
    for label in "ab":
        pictures(tmp_path / label, [f"x{n}.png" for n in range(10)] + [mask.format(n=n) for n in range(10)])
    with pytest.raises(DataError, match=r"20 with a .*leave them out with cases\.exclude: ") as caught:
        load_cohort(tmp_path, protocol(splits=ONLY_CASES), key=KEY)
    pattern = str(caught.value).split("cases.exclude: ['")[1].split("'")[0]
    # the same pictures stand under both classes, so that only the listing is asked
    left = list_source(tmp_path, protocol(cases=Cases(exclude=(pattern,))), lambda text: text, 2**30)
    assert len(left.entries) == 20


def test_masks_whose_images_are_not_there_are_refused(tmp_path: Path) -> None:
    for label in "ab":
        pictures(tmp_path / label, [f"x{n}_mask.png" for n in range(10)])
    with pytest.raises(DataError, match="20 with a name of the form"):
        load_cohort(tmp_path, protocol(), key=KEY)


@pytest.mark.parametrize("names", [("images", "masks"), ("imagesTr", "labelsTr"), ("img", "annotations")])
def test_a_folder_of_images_and_one_of_masks_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    class_folders(tmp_path, classes=names)
    with pytest.raises(DataError, match="a folder of images and one of masks or labels are no classes"):
        load_cohort(tmp_path, protocol(), key=KEY)


def test_masks_that_a_manifest_lists_are_refused(tmp_path: Path) -> None:
    texts = [f"{n}{mark}.png" for n in range(20) for mark in ("", "_mask")]
    pictures(tmp_path, texts)
    path = table(tmp_path / "manifest.csv", ["path", "label"], [[t, "ab"[n // 2 % 2]] for n, t in enumerate(texts)])
    with pytest.raises(DataError, match="20 with a name of the form"):
        load_cohort(path, protocol(), key=KEY)
    assert len(load_cohort(path, protocol(cases=Cases(exclude=("*_mask.*",))), key=KEY).cases) == 20


def test_a_manifest_may_list_cases_of_a_class_that_is_called_mask(tmp_path: Path) -> None:
    class_folders(tmp_path, classes=("mask", "none_worn"))
    rows = [[f"{c}/{n}.png", c] for c in ("mask", "none_worn") for n in range(10)]
    path = table(tmp_path / "manifest.csv", ["path", "label"], rows)
    assert len(load_cohort(path, protocol(), key=KEY).cases) == 20


@pytest.mark.parametrize("cell", ["Effusion - Mass", "Effusion Mass", "mass with effusion"])
def test_a_name_that_holds_two_findings_is_no_case_without_findings(tmp_path: Path, cell: str) -> None:
    pictures(tmp_path, [f"{n}.png" for n in range(40)])
    said = ["Effusion", "Mass", "No Finding", cell]
    path = table(tmp_path / "manifest.csv", ["path", "label"], [[f"{n}.png", said[n % 4]] for n in range(40)])
    with pytest.raises(DataError, match=r"10 of 40 cases can't be used(?s:.*)joined in another way"):
        load_cohort(path, findings_task("Effusion", "Mass"), key=KEY)
