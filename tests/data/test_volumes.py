"""Volumes of DICOM frames against the same anatomy as NIfTI, and DICOM files of which a part is broken."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from data_helpers import KEY, codes, dicom, protocol, window
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medharden.data import load_cohort
from medharden.data.formats.files import looks_like_image, read_file
from medharden.data.view.case import recipe_for
from medharden.errors import DataError
from medharden.protocol import Input, Intensity

RNG = np.random.default_rng(5)
ANATOMY = RNG.integers(-1000, 2000, (6, 5, 4)).astype(np.int16)
"""(X, Y, Z): left to right, back to front, bottom to top."""

# row and column direction in DICOM's axes (to the left, back, top), the axis of slices, and a slice
PLANES = {
    "axial": ([1, 0, 0, 0, 1, 0], 2, lambda k: np.flip(ANATOMY[:, :, k], (0, 1)).T),
    "coronal": ([1, 0, 0, 0, 0, -1], 1, lambda k: np.flip(ANATOMY[:, k, :], (0, 1)).T),
    "sagittal": ([0, 1, 0, 0, 0, -1], 0, lambda k: np.flip(ANATOMY[k, :, :], (0, 1)).T),
}


def place_of(axis: int, k: int, spacing: float = 2.5) -> list[float]:
    position = [0.0, 0.0, 0.0]
    position[axis] = (spacing if axis == 2 else -spacing) * k
    return position


def group(position: list[float]) -> Dataset:
    plane, item = Dataset(), Dataset()
    plane.ImagePositionPatient = position
    item.PlanePositionSequence = Sequence([plane])
    return item


def directions(*cosines: float) -> Sequence:
    plane, item = Dataset(), Dataset()
    plane.ImageOrientationPatient = list(cosines)
    item.PlaneOrientationSequence = Sequence([plane])
    return Sequence([item])


def enhanced(path: Path, frames: list[np.ndarray], places: list[list[float]], cosines: list[float]) -> Path:
    return dicom(
        path,
        np.stack(frames),
        SharedFunctionalGroupsSequence=directions(*cosines),
        PerFrameFunctionalGroupsSequence=Sequence([group(p) for p in places]),
    )


@pytest.mark.parametrize("order", ["up", "down", "shuffled"])
@pytest.mark.parametrize("plane", PLANES)
def test_frames_in_any_order_and_plane_are_the_volume_that_nifti_holds(tmp_path: Path, plane: str, order: str) -> None:
    cosines, axis, slice_of = PLANES[plane]
    numbers = list(range(ANATOMY.shape[axis]))
    numbers = {"up": numbers, "down": numbers[::-1], "shuffled": list(RNG.permutation(numbers))}[order]
    path = enhanced(tmp_path / "a.dcm", [slice_of(k) for k in numbers], [place_of(axis, k) for k in numbers], cosines)
    flipped = nib.Nifti1Image(np.flip(ANATOMY, (0, 2)), np.diag([-2.0, 3.0, -2.5, 1.0]))
    nib.save(flipped, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_file(tmp_path / "a.nii.gz", 3).values[0], ANATOMY)
    np.testing.assert_array_equal(read_file(path, 3).values[0], ANATOMY)


def test_each_frame_keeps_its_own_rescale_when_frames_are_sorted(tmp_path: Path) -> None:
    frames, groups = [np.full((2, 3), n, dtype=np.int16) for n in range(3)], []
    for k in (2, 0, 1):
        item, rescale = group([0, 0, float(k)]), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = "1", str(100 * k)
        item.PixelValueTransformationSequence = Sequence([rescale])
        groups.append(item)
    path = dicom(
        tmp_path / "a.dcm",
        np.stack(frames),
        SharedFunctionalGroupsSequence=directions(1, 0, 0, 0, 1, 0),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
    )
    assert read_file(path, 3).values[0, 0, 0].tolist() == [1.0, 102.0, 200.0]


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([0, 1, 2, 0, 1, 2], "several slices in one place, at 3 of 3"),
        ([0, 1, 2, 4, 5, 6], "lacks slices: 1 gaps among 6 slices"),
        ([0, 1, 2, 3, 4, float("nan")], "positions that are no numbers"),
    ],
)
def test_frames_that_are_no_one_volume_are_refused(tmp_path: Path, places: list[float], words: str) -> None:
    frames = [RNG.integers(0, 9, (3, 4)).astype(np.int16) for _ in places]
    path = enhanced(tmp_path / "a.dcm", frames, [[0, 0, z] for z in places], [1, 0, 0, 0, 1, 0])
    with pytest.raises(DataError, match=words):
        read_file(path, 3)


def test_slices_of_a_tilted_gantry_are_noted_and_those_of_several_directions_refused(tmp_path: Path) -> None:
    frames = [RNG.integers(0, 9, (3, 4)).astype(np.int16) for _ in range(4)]
    tilted = enhanced(tmp_path / "t.dcm", frames, [[0, 2.0 * k, 5.0 * k] for k in range(4)], [1, 0, 0, 0, 1, 0])
    assert read_file(tilted, 3).notes == ("data.gantry_tilt",)
    skewed = enhanced(tmp_path / "s.dcm", frames, [[0, 0, k] for k in range(4)], [1, 0, 0, 0.5, 1, 0])
    with pytest.raises(DataError, match="no directions"):
        read_file(skewed, 3)
    groups = [group([0, 0, float(k)]) for k in range(4)]
    for k, item in enumerate(groups):
        cosines = [1, 0, 0, 0, 1, 0] if k else [1, 0, 0, 0, 0, 1]
        item.PlaneOrientationSequence = directions(*cosines)[0].PlaneOrientationSequence
    both = dicom(tmp_path / "b.dcm", np.stack(frames), PerFrameFunctionalGroupsSequence=Sequence(groups))
    with pytest.raises(DataError, match="several planes"):
        read_file(both, 3)


def test_frames_without_places_are_stacked_as_stored_and_that_is_told(tmp_path: Path) -> None:
    for c in "ab":
        for n in range(10):
            dicom(tmp_path / c / f"{n}.dcm", RNG.integers(0, 99, (4, 5, 6)).astype(np.int16))
    cohort = load_cohort(tmp_path, protocol(input=Input(dims=3, intensity=window(0, 99))), key=KEY)
    assert cohort.inputs.shape[1:] == (1, 4, 5, 6)
    assert "data.frames_as_stored" in codes(cohort)


# --- files of which a part is broken


def table(entries: list[int], said: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [said, 0, 16])
    item.add_new("LUTData", "US", entries)
    return Sequence([item])


def raw(path: Path, keyword: str, value: str) -> Path:
    """The file with an element's text as it is, which pydicom would not write."""
    ds = pydicom.dcmread(path)
    setattr(ds, keyword, "7" * (len(value) + len(value) % 2))
    ds.save_as(path)
    data = path.read_bytes()
    old = b"7" * (len(value) + len(value) % 2)
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, value.encode().ljust(len(old))))
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"WindowCenter": "1", "WindowWidth": "0"}, "width that DICOM forbids"),
        ({"WindowCenter": "1", "WindowWidth": "9", "VOILUTFunction": "LOG"}, "function that is not supported"),
        ({"VOILUTSequence": table([1, 2, 3], 9)}, "does not match its description"),
    ],
)
def test_a_broken_window_is_no_matter_where_the_protocol_gives_one(
    tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    image = read_file(dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.int16).reshape(4, 4), **fields), 2)
    assert recipe_for(image, Input(intensity=window(0, 8))).window.high == 8
    with pytest.raises(DataError, match=words):
        recipe_for(image, Input())


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("WindowCenter", "100\\", "WindowCenter\\) with an empty value"),
        ("RescaleSlope", "1,55555", r"RescaleSlope\) with a decimal comma"),
        ("RescaleIntercept", "abcdefg", r"RescaleIntercept\) that is no number"),
    ],
)
def test_numbers_that_are_none_are_told_as_such(tmp_path: Path, keyword: str, value: str, words: str) -> None:
    fields = {"WindowCenter": "5", "WindowWidth": "9", "RescaleSlope": "1", "RescaleIntercept": "0"}
    path = dicom(tmp_path / "a.dcm", np.zeros((4, 4), dtype=np.int16) + np.arange(4, dtype=np.int16), **fields)
    raw(path, keyword, value)
    with pytest.raises(DataError, match=words) as caught:
        recipe_for(read_file(path, 2), Input())
    assert value not in str(caught.value)


def test_a_high_bit_that_the_standard_forbids_is_refused(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.uint16).reshape(4, 4), BitsStored=12, HighBit=15)
    with pytest.raises(DataError, match="highest bit is 15 of 12 bits stored"):
        read_file(path, 2)


@pytest.mark.parametrize("limit", [None, -1900])
def test_padding_does_not_count_in_percentiles(tmp_path: Path, limit: int | None) -> None:
    stored = RNG.integers(0, 1000, (20, 20)).astype(np.int16)
    stored[:10] = -2000 if limit is None else RNG.integers(-2000, -1900, (10, 20))
    more = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    spec = Input(intensity=Intensity(mode="percentile", low=1, high=99))
    image = read_file(dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000, **more), 2)
    found = recipe_for(image, spec).window
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(stored[10:], [1, 99])))


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_files_without_ending_and_preamble_are_cases(tmp_path: Path, syntax: str) -> None:
    for n in range(20):
        path = dicom(tmp_path / "ab"[n % 2] / f"IM{n:04d}", RNG.integers(0, 99, (8, 8)).astype(np.int16))
        ds = pydicom.dcmread(path)
        del ds.file_meta
        Dataset(ds).save_as(path, implicit_vr=syntax == "implicit", little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert (len(cohort.cases), cohort.record.formats) == (20, {"dicom": 20})


@pytest.mark.parametrize("content", [b"", b"README", b"\x08\x00", b"\x08\x00text of some length here", b"#!/bin/sh\n"])
def test_other_files_without_ending_are_no_cases(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "LICENSE").write_bytes(content)
    assert not looks_like_image(tmp_path / "LICENSE")
