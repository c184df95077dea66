"""Series of single-frame DICOM files as volumes: put together, sorted, checked, one case each."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its own documentation names it so
from data_helpers import KEY, dicom, protocol
from dicom_volumes import AXIAL, CORONAL, FRAMES, OBLIQUE, PRONE, SAGITTAL, canonical, enhanced, positions, series

from medharden.data.cohort import Cohort, load_cohort
from medharden.data.formats.files import read_case, read_file
from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.pseudonyms import pseudonym
from medharden.data.store import reading
from medharden.errors import DataError
from medharden.protocol import Input, Volume

PLACES = positions(7)


def read(folder: Path, limit: int = 2**28, **wanted: object) -> StoredImage:
    with quiet_readers(), Room(limit).file() as hold:
        return read_case(sorted(folder.rglob("*.*")), Input(dims=3, volume=Volume(**wanted)), hold)


def cohort(source: Path, cache: Path | None = None, **volume: object) -> Cohort:
    spec = Input(dims=3, size=(6, 6, 6), volume=Volume(**volume))
    return load_cohort(source, protocol(input=spec), key=KEY, cache=cache)


def hospital(root: Path, per_class: int = 8, **fields: object) -> Path:
    """A class a folder, a patient a folder below it, and a series in that."""
    for k, name in enumerate(("healthy", "ill")):
        for n in range(per_class):
            frames = np.random.default_rng(100 * k + n).integers(0, 900, FRAMES.shape).astype(np.int16)
            uid = f"2.25.{k + 1}{n:03d}"
            series(root / name / f"p{n}", frames, PLACES, uid=uid, PatientID=f"{name}{n}", **fields)
    return root


@pytest.mark.parametrize("orientation", [AXIAL, PRONE, SAGITTAL, CORONAL, OBLIQUE])
def test_a_series_is_the_volume_that_itk_and_nibabel_give_and_the_enhanced_file_too(tmp_path, orientation):
    places, shuffled = positions(7, orientation), [3, 0, 6, 1, 5, 2, 4]
    names = [f"{k}.dcm" for k in shuffled]
    slopes = [{"RescaleSlope": str(1 + n), "RescaleIntercept": str(-n)} for n in range(7)]
    folder = series(tmp_path / "s", FRAMES, places, orientation, names=names, each=slopes)
    image = read(folder)
    scaled = FRAMES * (1 + np.arange(7))[:, None, None] - np.arange(7)[:, None, None]
    np.testing.assert_array_equal(image.values[0], canonical(scaled, places, orientation).astype(np.float32))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    oriented = sitk.DICOMOrient(reader.Execute(), "LPS")  # rises to left, back, head; ours to right, front, head
    by_itk = sitk.GetArrayFromImage(oriented).transpose(2, 1, 0)[::-1, ::-1]
    np.testing.assert_allclose(image.values[0], by_itk, atol=1e-3)
    groups = [
        {"PixelValueTransformationSequence": slope | {"RescaleType": "HU"}} for slope in (slopes[k] for k in shuffled)
    ]
    other = enhanced(tmp_path / "e.dcm", FRAMES[shuffled], places[shuffled], orientation, each=groups)
    with quiet_readers():
        multi = read_file(other, 3)
    np.testing.assert_array_equal(image.values, multi.values)
    assert (image.pixels, image.window) == (multi.pixels, multi.window)


def test_one_series_is_one_case_under_the_pseudonym_of_its_folder(tmp_path):
    found = cohort(hospital(tmp_path / "data"))
    assert len(found.cases) == 16
    assert len({case.patient for case in found.cases}) == 16
    assert found.source.native_shapes == {"6x5x7": 16}
    assert pseudonym(KEY, "case", "ill/p3") in {case.case for case in found.cases}


def test_files_without_ending_and_preamble_are_slices_too(tmp_path):
    root = hospital(tmp_path / "data")
    for path in root.rglob("*.dcm"):
        path.with_suffix("").write_bytes(path.read_bytes()[132:])
        path.unlink()
    assert len(cohort(root).cases) == 16


@pytest.mark.parametrize("named", ["folder", "uid", "file", "every file"])
def test_a_row_may_name_a_folder_a_series_uid_or_a_slice(tmp_path, named):
    root = hospital(tmp_path / "data")
    rows = []
    for path in sorted(root.rglob("0.dcm")):
        text = path.parent.relative_to(root).as_posix()
        uid = str(pydicom.dcmread(path).SeriesInstanceUID)
        cells = {"folder": [text], "uid": [uid], "file": [f"{text}/3.dcm"]}
        rows += [(cell, path.parts[-3]) for cell in cells.get(named, [f"{text}/{k}.dcm" for k in range(7)])]
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    by_folder = cohort(root)
    assert len(by_folder.cases) == 16
    assert pseudonym(KEY, "case", "ill/p3") in {case.case for case in by_folder.cases}
    joined = [f.message for f in by_folder.record.findings if f.code == "data.repeated_rows"]
    assert ("96 rows" in joined[0]) if named == "every file" else not joined


def test_rows_of_one_series_that_contradict_each_other_leave_it_out(tmp_path):
    root = hospital(tmp_path / "data")
    rows = [(f"{c}/p{n}/{k}.dcm", "ill" if (c, n, k) == ("healthy", 0, 4) else c)
            for c in ("healthy", "ill") for n in range(8) for k in range(7)]  # fmt: skip
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    with pytest.raises(DataError, match="listed 7 times, with different labels"):
        cohort(root)


def test_a_row_that_names_a_folder_of_several_series_or_an_unknown_uid_is_told_why(tmp_path):
    root = hospital(tmp_path / "data")
    rows = [("ill", "ill"), ("2.25.4711.1", "ill"), *((f"{c}/p{n}", c) for c in ("healthy", "ill") for n in range(8))]
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    with pytest.raises(DataError) as caught:
        cohort(root)
    assert "is a folder of 8 series, of 7, 7, 7, 7, 7, 7, ... files" in str(caught.value)
    assert "is listed, but its file is missing" in str(caught.value)


def two_series(root: Path, second: int, **fields: object) -> Path:
    """A second series in each examination, below the same folder."""
    hospital(root, StudyInstanceUID=None)
    for folder in [p for p in root.glob("*/*") if p.is_dir()]:
        first = pydicom.dcmread(folder / "0.dcm")
        names = [f"b{k}.dcm" for k in range(second)]
        rng = np.random.default_rng(int(str(first.SeriesInstanceUID)[5:]))
        frames = rng.integers(0, 900, (second, 5, 6)).astype(np.int16)
        given = {"PatientID": str(first.PatientID), "StudyInstanceUID": None} | fields
        series(folder, frames, positions(second), uid=f"{first.SeriesInstanceUID}9", names=names, **given)
    return root


def test_several_series_of_one_examination_are_refused_unless_a_rule_chooses(tmp_path):
    root = two_series(tmp_path / "data", 4)
    with pytest.raises(DataError, match=r"2 series in one examination, of 7, 4 files; set input\.volume\.series"):
        cohort(root)
    largest = cohort(root, series="largest")
    assert len(largest.cases) == 16
    assert largest.source.native_shapes == {"6x5x7": 16}
    assert "16 series beside the largest" in next(f.message for f in largest.record.findings if "other" in f.code)
    each = cohort(root, series="each")
    assert len(each.cases) == 32
    assert len({case.patient for case in each.cases}) == 16


def test_of_series_of_one_size_none_is_the_largest(tmp_path):
    with pytest.raises(DataError, match="2 series of 7 files each, of which none is the largest"):
        cohort(two_series(tmp_path / "data", 7), series="largest")


def test_localisers_reports_and_segmentations_beside_a_series_are_left_aside_and_counted(tmp_path):
    root = two_series(tmp_path / "data", 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for folder in [p for p in root.glob("*/*") if p.is_dir()]:
        dicom(folder / "x1.dcm", FRAMES.astype(np.uint8), Modality="SEG")
        report = pydicom.dcmread(folder / "0.dcm")
        for name in ("PixelData", "Rows", "Columns"):
            delattr(report, name)
        report.save_as(folder / "x2.dcm")
    found = cohort(root)
    assert found.source.native_shapes == {"6x5x7": 16}
    said = {f.code: f.message for f in found.record.findings}
    assert said["data.localisers"].startswith("32 ")
    assert said["data.no_images"].startswith("32 ")


def test_a_series_that_lies_in_two_folders_is_one_volume(tmp_path):
    root = hospital(tmp_path / "data")
    for folder in [p for p in root.glob("*/*") if p.is_dir()]:
        (folder / "more").mkdir()
        for k in (0, 3, 5):
            (folder / f"{k}.dcm").rename(folder / "more" / f"{k}.dcm")
    assert cohort(root).source.native_shapes == {"6x5x7": 16}


def broken(folder: Path, change: str) -> Path:
    given = {
        "gap": {"names": [f"{k}.dcm" for k in range(7)]},
        "copy": {},
        "sizes": {},
        "patients": {"each": [{"PatientID": "P2" if k == 3 else "P1"} for k in range(7)]},
        "nowhere": {"ImagePositionPatient": None},
        "one nowhere": {"each": [{"ImagePositionPatient": None} if k == 2 else {} for k in range(7)]},
        "cut": {},
        "echoes": {"each": [{"EchoTime": str(2.5 + k % 2)} for k in range(7)]},
    }[change]
    places = PLACES if change != "echoes" else positions(4)[[0, 0, 1, 1, 2, 2, 3]]
    series(folder, FRAMES, places, **given)
    if change == "gap":
        (folder / "4.dcm").unlink()
    if change == "copy":
        shutil.copy(folder / "4.dcm", folder / "copy.dcm")
    if change == "sizes":
        dicom(folder / "scout.dcm", np.zeros((9, 9), np.int16), SeriesInstanceUID="2.25.77", PatientID="P1")
    if change == "cut":
        data = (folder / "4.dcm").read_bytes()
        (folder / "4.dcm").write_bytes(data[:-9])
    return folder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("gap", r"lacks slices: 1 gaps among 6 slices that lie 2\.5 mm apart, where about 1 are missing"),
        ("copy", r"several slices in one place, at 1 of 7 places, and nothing in the headers tells them apart"),
        ("sizes", r"has slices of 2 sizes in one series"),
        ("patients", r"holds slices of 2 patients in one series"),
        ("nowhere", r"gives no positions in its 7 files"),
        ("one nowhere", r"gives no position for 1 of 7 slices"),
        ("cut", r"has a slice that is cut off"),
        ("echoes", r"2 echoes; name the one that is meant, from 1 to 2"),
    ],
)
def test_a_series_that_is_no_whole_volume_is_refused_with_the_reason(tmp_path, change, reason):
    with pytest.raises(DataError, match=reason):
        read(broken(tmp_path / "s", change))


def test_a_slice_whose_header_can_not_be_read_leaves_its_series_out_even_at_the_end(tmp_path):
    root = hospital(tmp_path / "data")
    (root / "ill" / "p0" / "6.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    with pytest.raises(DataError, match=r"1 of 16 cases can't be used:\n.*has a slice that"):
        cohort(root)


def test_slices_without_an_orientation_are_taken_for_axial_and_that_is_said(tmp_path):
    image = read(series(tmp_path / "s", FRAMES, PLACES, ImageOrientationPatient=None))
    np.testing.assert_array_equal(image.values[0], canonical(FRAMES, PLACES, AXIAL))
    assert image.notes == ("data.assumed_axial",)
    found = cohort(hospital(tmp_path / "data", ImageOrientationPatient=None))
    assert any(f.code == "data.assumed_axial" and f.message.startswith("16 of 16") for f in found.record.findings)


def test_windows_that_differ_from_slice_to_slice_are_counted_as_several(tmp_path):
    each = [{"WindowCenter": str(40 + k), "WindowWidth": "400"} for k in range(7)]
    image = read(series(tmp_path / "s", FRAMES, PLACES, each=each))
    assert (image.windows, image.window.low) == (2, 40 - 0.5 - 399 / 2)


def test_padding_of_slices_is_left_out_of_percentiles(tmp_path):
    frames = FRAMES.copy()
    frames[2, 0] = -2000
    image = read(series(tmp_path / "s", frames, PLACES, PixelPaddingValue=-2000))
    np.testing.assert_array_equal(image.padding, canonical((frames == -2000).astype(np.uint8), PLACES, AXIAL) == 1)


def test_a_series_is_found_in_the_cache_by_all_its_files_whatever_their_names(tmp_path, monkeypatch):
    root, cache = hospital(tmp_path / "data"), tmp_path / "cache"
    first = cohort(root, cache)
    decoded: list[int] = []
    real = reading.made_of
    monkeypatch.setattr(reading, "made_of", lambda image, spec: decoded.append(1) or real(image, spec))
    for path in (root / "ill").rglob("*.dcm"):
        path.rename(path.with_name(f"x{path.name}"))
    assert cohort(root, cache).record == first.record
    assert not decoded
    ds = pydicom.dcmread(root / "ill" / "p0" / "x4.dcm")
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(root / "ill" / "p0" / "x4.dcm")
    assert cohort(root, cache).record != first.record
    assert len(decoded) == 1


def test_processes_read_series_as_threads_do(tmp_path, monkeypatch):
    root = hospital(tmp_path / "data")
    plain = cohort(root)
    monkeypatch.setattr(reading, "_TRIED", 2)
    monkeypatch.setattr(reading, "_WORTH_PROCESSES", 0.0)
    assert cohort(root).record == plain.record


def test_a_series_asks_for_its_memory_before_it_takes_it(tmp_path):
    folder = series(tmp_path / "s", FRAMES, PLACES)
    with pytest.raises(DataError, match="of memory to be read"):
        read(folder, limit=2**20)
