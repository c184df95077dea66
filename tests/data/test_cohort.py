"""Loading cohorts: problems found together, leakage, privacy, determinism, and the real data sets."""

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
from data_helpers import (
    KEY,
    class_folders,
    codes,
    ct_folder,
    listed,
    manifest,
    png,
    protocol,
    sized,
    sizes,
    window,
)
from PIL import Image

from medharden.data import load_cohort, pseudonym
from medharden.data.formats.files import read_file
from medharden.data.formats.limits import Room
from medharden.data.sources.folder import Entry, Listing
from medharden.data.store.keeping import Store
from medharden.data.store.reading import read_cases
from medharden.errors import DataError
from medharden.protocol import Columns, Input, Intensity, Splits, Task

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
        "has a path that leaves the manifest's folder": 3,
        "is a link that leaves the manifest's folder (medharden --follow-links follows it)": 1,
        "is listed, but its file is missing": 1,
        "is a folder, expected one file a case": 1,
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


def test_folders_of_patients_taken_for_classes_are_counted_and_not_named(tmp_path):
    names = [f"Doe_{k:02d}" for k in range(24)]
    class_folders(tmp_path, 1, names)
    for task in (Task(), Task(classes=("cat", "dog"))):
        with pytest.raises(DataError, match="24 different ones; are these folders") as caught:
            load_cohort(tmp_path, protocol(task=task), key=KEY)
        assert "Doe" not in str(caught.value)


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


def test_rows_that_are_there_twice_without_a_patient_count_as_one_patients(tmp_path):
    class_folders(tmp_path, 12)
    once = load_cohort(tmp_path, protocol(), key=KEY)
    for image in sorted(tmp_path.rglob("*.png")):
        shutil.copy(image, image.with_name(f"again{image.name}"))
    twice = load_cohort(tmp_path, protocol(), key=KEY)
    assert len(twice.cases) == 2 * len(once.cases)
    patients = Counter(case.patient for case in twice.cases)
    assert set(patients.values()) == {2}
    assert len({case.case for case in twice.cases}) == len(twice.cases)
    assert len({(case.patient, case.pixels) for case in twice.cases}) == len(patients)
    [finding] = [f for f in twice.record.findings if f.code == "data.duplicates"]
    assert finding.message.startswith("24 sets of identical images name no patient")
    assert {"data.no_patients", "data.duplicates"} <= codes(twice)


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


def test_an_error_that_no_reader_foresaw_shows_its_type_and_not_its_text(tmp_path):
    class UnheardError(Exception):
        pass

    def read(entry, hold):
        raise UnheardError("PatientName: Jane Doe")

    listing = Listing(source="folder", classes=("a", "b"), entries=(Entry("a/1.png", "a"),), read=read)
    results = read_cases(listing, Input(), Store(), room=Room(), workers=1, progress=None)
    assert results == ["can't be read: UnheardError"]


def test_the_same_data_give_the_same_record_with_any_number_of_workers(tmp_path):
    class_folders(tmp_path)
    one = load_cohort(tmp_path, sized(6, 6), key=KEY, workers=1)
    many = load_cohort(tmp_path, sized(6, 6), key=KEY, workers=4)
    assert one.record == many.record
    np.testing.assert_array_equal(one.inputs, many.inputs)


def test_another_key_changes_all_that_names_a_case_and_no_split(tmp_path):
    class_folders(tmp_path)
    one, other = (load_cohort(tmp_path, protocol(), key=k) for k in (KEY, b"another key of 32 bytes........."))
    assert [c.split for c in one.cases] == [c.split for c in other.cases]
    assert not {c.case for c in one.cases} & {c.case for c in other.cases}
    assert not {c.pixels for c in one.cases} & {c.pixels for c in other.cases}
    assert one.record.key_id != other.record.key_id
    assert one.record.preprocessing != other.record.preprocessing, "it holds what was made of one case"


def test_who_has_an_image_can_not_find_it_in_the_record(tmp_path):
    class_folders(tmp_path)
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    plain = {read_file(path, 2).pixels for path in tmp_path.rglob("*.png")}
    assert len(plain) == len({c.pixels for c in cohort.record.cases}) == 20
    assert not plain & {c.pixels for c in cohort.record.cases}


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


def test_inputs_lie_in_a_file_without_a_name_and_are_the_same_each_time(tmp_path):
    root = class_folders(tmp_path / "data")
    png(root / "dog" / "5.png", 4444, colour=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    whole = load_cohort(root, protocol(), key=KEY)
    again = load_cohort(root, protocol(), key=KEY, scratch=scratch)
    assert not list(scratch.iterdir())
    np.testing.assert_array_equal(whole.inputs, again.inputs)
    assert torch.equal(whole.batch([1, 2])[0], again.batch(np.array([1, 2]))[0])


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
    spread = np.asarray(cohort.inputs).reshape(20, -1).mean(1)
    assert 0.1 < spread.min() < spread.max() < 0.7


def test_breast_ultrasound_holds_one_image_under_two_labels(test_data):
    path = test_data / "medmnist28" / "breastmnist.npz"
    with pytest.raises(DataError, match="2 of 780 cases"):
        load_cohort(path, protocol(), key=KEY)
    with pytest.raises(DataError, match="44 pairs of cases lie in two splits"):
        load_cohort(path, protocol(input=Input(unusable="exclude")), key=KEY)
    unchecked = protocol(input=Input(unusable="exclude"), splits=Splits(near_duplicate_bits=None))
    cohort = load_cohort(path, unchecked, key=KEY)
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
