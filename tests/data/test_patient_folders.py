"""Folders whose names look like those of subjects: the finding names the pattern, and no two splits part one."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from data_helpers import KEY, codes, manifest, png, protocol

from medharden.data.cohort import Cohort, load_cohort
from medharden.errors import DataError
from medharden.protocol import Splits

APART = Splits(near_duplicate_bits=None, similar_bits=None)
FORMS = {
    "S": lambda p: f"S{p + 1:03d}",
    "S of several lengths": lambda p: f"S{p + 1:03d}" if p % 3 else f"S00{p + 10}",
    "s with a sign": lambda p: f"s_{p:04d}",
    "pt": lambda p: f"pt-{p + 7}",
    "mixed": lambda p: (f"S{p:03d}", f"S{p:04d}", f"pt-{p}")[p % 3],
}


def texts(form: str, place: str) -> list[str]:
    return [place.format(c="ab"[n // 3 % 2], p=FORMS[form](n // 3), n=n) for n in range(60)]


def write(root: Path, names: list[str]) -> None:
    for n, name in enumerate(names):
        png(root / name, n)


def told(cohort: Cohort) -> str:
    return next(f.message for f in cohort.record.findings if f.code == "data.patients_in_paths")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("place", "pattern"), [("{c}/{p}/{n}.png", "*/{patient}/**"), ("{p}/{n}.png", "{patient}/**")])
def test_subjects_are_named_by_the_pattern_and_kept_in_one_split(tmp_path, form, place, pattern):
    names = texts(form, place)
    write(tmp_path, names)
    if place.startswith("{p}"):
        manifest(tmp_path, [{"path": name, "label": "ab"[n // 3 % 2]} for n, name in enumerate(names)])
    cohort = load_cohort(tmp_path, protocol(splits=APART), key=KEY)
    assert f"splits.patient_from: {pattern!r}" in told(cohort)
    assert "20 of which hold several cases" in told(cohort)
    named = load_cohort(tmp_path, protocol(splits=APART.model_copy(update={"patient_from": pattern})), key=KEY)
    assert len({case.patient for case in named.cases}) == 20
    of = {case.case: case.patient for case in named.cases}
    splits = defaultdict(set)
    for case in cohort.cases:
        splits[of[case.case]].add(case.split)
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize("form", FORMS)
def test_given_splits_that_part_subjects_are_refused(tmp_path, form):
    names = texts(form, "{c}/{p}/{n}.png")
    write(tmp_path, [f"{('train', 'val', 'test')[n % 3]}/{name}" for n, name in enumerate(names)])
    with pytest.raises(DataError, match="the splits part 20 of what seem to be patients"):
        load_cohort(tmp_path, protocol(splits=APART), key=KEY)


@pytest.mark.parametrize("form", FORMS)
def test_subjects_alone_are_no_classes(tmp_path, form):
    write(tmp_path, texts(form, "{p}/{n}.png"))
    with pytest.raises(DataError, match="numbered as parts of an archive or as patients"):
        load_cohort(tmp_path, protocol(splits=APART), key=KEY)


@pytest.mark.parametrize("place", ["{c}/{n}.png", "{s}/{c}/{n}.png", "{c}/s{k}/{n}.png", "{c}/series{k:03d}/{n}.png"])
@pytest.mark.parametrize("classes", [("S001", "S002"), ("pt-1", "pt-2")])
def test_folders_of_classes_splits_and_series_are_no_subjects(tmp_path, place, classes):
    split = ("train", "val", "test")
    names = [place.format(c=classes[n // 3 % 2], s=split[n % 3], k=n // 6, n=n) for n in range(60)]
    write(tmp_path, names)
    spec = protocol(splits=APART, task={"classes": classes})
    cohort = load_cohort(tmp_path, spec, key=KEY)
    assert cohort.classes == classes
    assert "data.patients_in_paths" not in codes(cohort)


def test_studies_below_patients_are_not_taken_for_subjects(tmp_path):
    names = [f"{'ab'[n // 6 % 2]}/p1{n // 6:04d}/s5{n // 3:04d}/{n}.png" for n in range(60)]
    write(tmp_path, names)
    assert "'*/{patient}/**'" in told(load_cohort(tmp_path, protocol(splits=APART), key=KEY))
