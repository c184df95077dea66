"""Other forms of what is handed over: splits, labels, companions and patients, as other archives write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_helpers import KEY, codes, listed, manifest, png, protocol, sizes

from medharden.data.cohort import Cohort, load_cohort
from medharden.errors import DataError
from medharden.protocol import Columns, Protocol, Splits, Task

APART = Splits(near_duplicate_bits=None, similar_bits=None)
SEVERAL = Task(kind="multilabel", classes=("Effusion", "Mass"))


def spec(**fields: object) -> Protocol:
    return protocol(splits=APART, **fields)


def table(root: Path, **columns) -> Cohort:
    return load_cohort(manifest(root, listed(root, 40, **columns), "m.csv"), spec(), key=KEY)


@pytest.mark.parametrize(
    "words",
    [
        ("trainset", "valset", "testset"),
        ("tr", "va", "te"),
        ("Train Set", "validation_set", "TEST-SET"),
        ("training", "held out", "test split"),
        ("train", "tuning", "Hold Out"),
    ],
)
def test_words_of_splits_are_known_in_a_column_and_as_folders(tmp_path, words):
    given = table(tmp_path / "t", split=lambda n: words[0 if n < 24 else 1 if n < 32 else 2])
    if "held out" not in words:
        assert (sizes(given), given.record.splits_from) == ((24, 8, 8), "given")
    for k, word in enumerate((words[0], words[2])):
        for n in range(12):
            png(tmp_path / "f" / word / "ab"[n % 2] / f"{n}.png", 100 * k + n)
    assert load_cohort(tmp_path / "f", spec(), key=KEY).classes == ("a", "b")


@pytest.mark.parametrize("folders", [("imagesTr", "imagesTs"), ("images", "other"), ("img",) * 2])
def test_a_folder_of_images_is_no_class(tmp_path, folders):
    for k, folder in enumerate(folders):
        for n in range(12):
            png(tmp_path / folder / f"{n}.png", 100 * k + n)
    with pytest.raises(DataError, match=r"a folder of that name holds images, and is no class"):
        load_cohort(tmp_path, spec(), key=KEY)


@pytest.mark.parametrize(
    "word", ["#N/A", "<NA>", "N.A.", "n.a.", "--", ".", "[]", "Not available", "undefined", "not known", "TBD", "—"]
)
def test_ways_to_write_no_label_make_no_class(tmp_path, word):
    with pytest.raises(DataError, match="6 of 40 cases can't be used") as caught:
        table(tmp_path, label=lambda n: word if n % 7 == 0 else "ab"[n % 2])
    assert {problem.reason for problem in caught.value.problems} == {"has no label"}


def test_plus_is_a_label_and_true_is_one(tmp_path):
    assert table(tmp_path / "a", label=lambda n: ("+", "neg")[n % 2]).classes == ("+", "neg")
    cohort = table(tmp_path / "b", label=lambda n: ("True", "0", "1.0", "false")[n % 4])
    assert cohort.classes == ("0", "1")
    assert sorted(case.label for case in cohort.cases) == [0] * 20 + [1] * 20


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("-1", "0", "1.0"), "13 labels are -1 beside 1 and 0"),
        (("[0, 1]", "[1, 0]", "[1, 0]"), "40 labels are lists of 1 and 0"),
        (("0|1|0", "1|0|0", "0|0|1"), "40 labels are lists of 1 and 0"),
    ],
)
def test_labels_that_would_be_classes_of_their_own_by_mistake_are_refused(tmp_path, labels, words):
    with pytest.raises(DataError, match=words.replace("[", r"\[")):
        table(tmp_path, label=lambda n: labels[(n + 1) % 3])


@pytest.mark.parametrize(
    "both",
    [
        "Effusion\tMass",
        "Effusion+Mass",
        "Effusion & Mass",
        "Effusion and Mass",
        "['Effusion' 'Mass']",
        "[\n'Effusion'\n 'Mass']",
        "array(['Effusion', 'Mass'], dtype=object)",
    ],
)
def test_more_ways_to_list_findings_in_a_cell(tmp_path, both):
    named = ["Effusion", "Mass", both, "No Finding"]
    rows = [row | {"finding": named[n % 4]} for n, row in enumerate(listed(tmp_path, 40))]
    least = tuple({"metric": metric, "margin": 0.1} for metric in ("accuracy", "recall"))
    given = spec(task=SEVERAL, columns=Columns(label="finding"), endpoints={"noninferiority": least})
    cohort = load_cohort(manifest(tmp_path, rows, "m.csv"), given, key=KEY)
    assert sorted(case.label for case in cohort.cases) == [()] * 10 + [(0,)] * 10 + [(0, 1)] * 10 + [(1,)] * 10


@pytest.mark.parametrize("form", ["{}_lesion", "{}_tumor", "{} overlay", "{}-m", "{}_leftMask", "{}.bin"])
def test_what_is_put_to_the_names_of_other_files_is_no_case_of_its_own(tmp_path, form):
    for n in range(24):
        png(tmp_path / "ab"[n % 2] / f"im{n}.png", n)
        if n < 9:
            png(tmp_path / "ab"[n % 2] / f"{form.format(f'im{n}')}.png", 500 + n)
    mark = form.removeprefix("{}").lower()
    with pytest.raises(DataError, match="9 with a name of the form") as caught:
        load_cohort(tmp_path, spec(), key=KEY)
    assert f"cases.exclude: ['*{mark}.*']" in str(caught.value)
    given = spec(cases={"exclude": (f"*{mark}.*",)})
    assert len(load_cohort(tmp_path, given, key=KEY).cases) == 24


@pytest.mark.parametrize(
    "names",
    [("x{:04d}_frontal", "x{:04d}_lateral"), ("{}_left", "{}_right"), ("{:08d}-1", "{:08d}-2"), ("v_{}_s1", "v_{}_s2")],
)
def test_names_that_differ_in_their_end_alone_are_kept_together_and_said(tmp_path, names):
    for n in range(30):
        for k, name in enumerate(names):
            png(tmp_path / "ab"[n % 2] / f"{name.format(n)}.png", 100 * k + n)
    cohort = load_cohort(tmp_path, spec(), key=KEY)
    told = next(f for f in cohort.record.findings if f.code == "data.patients_in_paths")
    assert "splits.patient_from" in told.message
    of = {case.pixels: case.split for case in cohort.cases}
    pattern = told.message.partition('"')[2].partition('"')[0] or told.message.split("'")[1]
    named = load_cohort(tmp_path, protocol(splits=APART.model_copy(update={"patient_from": pattern})), key=KEY)
    groups: dict[str, set[str]] = {}
    for case in named.cases:
        groups.setdefault(case.patient, set()).add(of[case.pixels])
    assert len(groups) == 30
    assert all(len(splits) == 1 for splits in groups.values())


def test_lists_of_a_datalist_are_joined_where_two_are_one_split_and_refused_under_other_names(tmp_path):
    for n in range(40):
        png(tmp_path / f"{n}.png", n)
    cases = [{"image": f"{n}.png", "label": n % 2} for n in range(40)]
    parts = {"training": cases[:20], "val": cases[20:26], "validation": cases[26:32], "testing": cases[32:]}
    (tmp_path / "datalist.json").write_text(json.dumps(parts))
    cohort = load_cohort(tmp_path / "datalist.json", spec(), key=KEY)
    assert sizes(cohort) == (20, 12, 8)
    assert "data.unlisted_files" not in codes(cohort)
    (tmp_path / "datalist.json").write_text(json.dumps({"training": cases[:30], "external": cases[30:]}))
    with pytest.raises(DataError, match="1 lists of cases under other names"):
        load_cohort(tmp_path / "datalist.json", spec(), key=KEY)


@pytest.mark.parametrize("named", [False, True])
def test_a_file_with_an_object_a_line_and_a_decathlon_s_list_are_tables(tmp_path, named):
    rows = [
        {"file_name": row["path"], "label": row["label"], "patient": n} for n, row in enumerate(listed(tmp_path, 24))
    ]
    lines = tmp_path / "metadata.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    cohort = load_cohort(lines if named else tmp_path, spec(), key=KEY)
    assert (len(cohort.cases), cohort.classes, cohort.record.grouped_by) == (24, ("a", "b"), "patient")
    lines.write_text(json.dumps(rows[0]) + "\n[1, 2]\n")
    with pytest.raises(DataError):
        load_cohort(lines, spec(), key=KEY)
    lines.unlink()
    cases = [{"image": row["file_name"], "label": row["label"]} for row in rows]
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "Task", "training": cases[:18], "test": cases[18:]}))
    assert sizes(load_cohort(tmp_path, spec(), key=KEY))[2] == 6


def test_a_sheet_and_another_encoding_are_told_how_to_be_saved(tmp_path):
    listed(tmp_path, 4)
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    (tmp_path / "m.csv").write_bytes("path;label\nimg/0.png;gr\u00fcn\n".encode("latin-1"))
    for name in ("labels.xlsx", "m.csv"):
        with pytest.raises(DataError, match="as CSV in UTF-8"):
            load_cohort(tmp_path / name, spec(), key=KEY)


def test_one_folder_beside_a_table_that_does_not_fit_says_why_the_table_does_not(tmp_path):
    rows = listed(tmp_path, 12, Edema=lambda n: n % 2, Mass=lambda n: 1 - n % 3 % 2)
    manifest(tmp_path, [{k: v for k, v in row.items() if k != "label"} for row in rows], "train.csv")
    (tmp_path / "img").rename(tmp_path / "set")
    with pytest.raises(DataError, match=r"CSV file 1 of 1: .* of the 2 columns that hold 1 and 0 not exactly one"):
        load_cohort(tmp_path, spec(), key=KEY)
