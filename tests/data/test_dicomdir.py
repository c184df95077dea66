"""A DICOMDIR's records: the files of each series as pydicom's FileSet has them, inside the folder, in no circle."""

from __future__ import annotations

import shutil
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from data_helpers import KEY, codes, manifest, protocol
from dicom_volumes import positions, series
from pydicom.fileset import FileSet

from medharden.data import given_cases, load_cohort
from medharden.data.formats import gathering
from medharden.data.formats.dicomdir import series_of_dicomdir
from medharden.errors import DataError
from medharden.protocol import Columns, Input, Intensity, Protocol, Splits

MEDIA = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


def rules() -> Protocol:
    spec = Input(dims=3, intensity=Intensity(mode="window", low=0, high=1000))
    none = Splits(near_duplicate_bits=None, similar_bits=None)
    return protocol(input=spec, splits=none, columns=Columns(path="uid", label="label"))


def media(root: Path, count: int = 12, slices: int = 4) -> Path:
    """Series on a medium, with the DICOMDIR that pydicom writes of them and a table of their labels."""
    whole = FileSet()
    for n in range(count):
        frames = np.random.default_rng(n).integers(0, 900, (slices, 6, 5)).astype(np.int16)
        uid = f"1.2.840.7.{n}"
        more = {"PatientName": "A^B", "StudyDate": "20200101", "StudyTime": "1200", "StudyID": "1", "SeriesNumber": n}
        series(root / "made" / str(n), frames, positions(slices), uid=uid, PatientID=f"P{n}", Modality="CT", **more)
        for path in sorted((root / "made" / str(n)).iterdir()):
            whole.add(path)
    whole.write(root / "media")
    whole._stage["t"].cleanup()
    shutil.rmtree(root / "made")
    rows = [{"uid": f"1.2.840.7.{n}", "label": "ab"[n % 2]} for n in range(count)]
    manifest(root / "media", rows)
    return root / "media"


@pytest.mark.parametrize(
    "name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-reordered", "DICOMDIR-nooffset"]
)
def test_series_are_those_that_pydicom_finds_in_its_own_media(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected: dict[str, set[Path]] = defaultdict(set)
        whole = FileSet(MEDIA / "DICOMDIR")
        whole._stage["t"].cleanup()
        for instance in whole:
            expected[str(instance.SeriesInstanceUID)].add(Path(instance.path))
    found = {uid: set(files) for uid, files in series_of_dicomdir(MEDIA / name).items()}
    assert found == expected


def test_series_named_by_uid_are_found_through_the_records_and_no_other_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = media(tmp_path)
    without = tmp_path / "without"
    shutil.copytree(root, without)
    (without / "DICOMDIR").unlink()
    bare = load_cohort(without, rules(), key=KEY)
    read: list[Path] = []
    head = gathering.read_head
    monkeypatch.setattr(gathering, "read_head", lambda path, *a, **k: read.append(path) or head(path, *a, **k))
    cohort = load_cohort(root, rules(), key=KEY)
    assert len(read) == 12 * 4
    assert "data.dicomdir" in codes(cohort)
    assert "data.dicomdir" not in codes(bare)
    assert {c.pixels for c in cohort.cases} == {c.pixels for c in bare.cases}


def test_predict_takes_what_a_directory_names(tmp_path: Path) -> None:
    root = media(tmp_path, count=3)
    cases = given_cases([root / "DICOMDIR"], rules().input)
    assert [len(case.parts[0]) for case in cases] == [4, 4, 4]
    assert not any(case.problem for case in cases)
    next(p for p in root.rglob("*") if p.is_file() and p.name not in ("DICOMDIR", "manifest.csv")).unlink()
    [refused] = given_cases([root / "DICOMDIR"], rules().input)
    assert "names a file that is not there" in refused.problem


def changed(root: Path, change) -> Path:
    path = root / "DICOMDIR"
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("parts", [["..", "secret"], ["/etc", "passwd"], ["A/../..", "B"], ["OUT", "secret"]])
def test_records_that_leave_the_folder_are_refused(tmp_path: Path, parts: list[str]) -> None:
    root = media(tmp_path, count=1)
    (tmp_path / "secret").write_bytes(b"not yours")
    (root / "OUT").symlink_to(tmp_path)

    def change(ds: pydicom.Dataset) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds.DirectoryRecordSequence[-1].ReferencedFileID = parts

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = changed(root, change)
    with pytest.raises(DataError, match="names a file outside its folder"):
        series_of_dicomdir(path)


def test_records_in_a_circle_end(tmp_path: Path) -> None:
    root = media(tmp_path, count=1)

    def change(ds: pydicom.Dataset) -> None:
        images = [r for r in ds.DirectoryRecordSequence if r.DirectoryRecordType == "IMAGE"]
        images[-1].OffsetOfTheNextDirectoryRecord = images[0].seq_item_tell

    [files] = series_of_dicomdir(changed(root, change)).values()
    assert len(files) == 4


@pytest.mark.parametrize("data", [b"", b"DICOMDIR", b"\0" * 128 + b"DICM" + b"\xff" * 200])
def test_what_is_no_directory_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "DICOMDIR").write_bytes(data)
    with pytest.raises(DataError, match="DICOMDIR"):
        series_of_dicomdir(tmp_path / "DICOMDIR")


def test_a_directory_as_data_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a DICOMDIR has no labels: give a CSV in its folder"):
        load_cohort(media(tmp_path, count=1) / "DICOMDIR", rules(), key=KEY)
