"""Multi-frame DICOM as volumes: sorted by position, oriented as NIfTI is, one stack, time point or echo alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import dicom
from dicom_volumes import AXIAL, CORONAL, FRAMES, OBLIQUE, PRONE, SAGITTAL, canonical, enhanced, positions
from pydicom.dataset import Dataset

from medharden.data.formats.dicom import read_dicom
from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.limits import Room
from medharden.errors import DataError
from medharden.protocol import Volume


def read(path: Path, **wanted: int) -> StoredImage:
    with quiet_readers(), Room().file() as hold:
        return read_dicom(path, 3, hold, Volume(**wanted))


@pytest.mark.parametrize("orientation", [AXIAL, PRONE, SAGITTAL, CORONAL, OBLIQUE])
def test_frames_in_any_order_and_plane_give_the_volume_that_nibabel_gives(tmp_path, orientation):
    places = positions(len(FRAMES), orientation)
    wanted = canonical(FRAMES, places, orientation)
    digests = set()
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4]):
        image = read(enhanced(tmp_path / "a.dcm", FRAMES[order], places[order], orientation))
        np.testing.assert_array_equal(image.values[0], wanted)
        assert image.values.flags.c_contiguous
        digests.add(image.pixels)
    assert len(digests) == 1


def test_each_frame_keeps_its_own_slope_where_frames_are_sorted(tmp_path):
    order = [4, 2, 0, 6, 1, 3, 5]
    places = positions(7)
    each = [
        {"PixelValueTransformationSequence": {"RescaleSlope": n + 1, "RescaleIntercept": -n, "RescaleType": "HU"}}
        for n in order
    ]
    image = read(enhanced(tmp_path / "a.dcm", FRAMES[order], places[order], each=each))
    scaled = FRAMES.astype(float) * np.arange(1, 8)[:, None, None] - np.arange(7)[:, None, None]
    np.testing.assert_array_equal(image.values[0], canonical(scaled, places, AXIAL))


def test_colour_frames_are_sorted_and_turned_too(tmp_path):
    frames = np.random.default_rng(6).integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
    places, order = positions(4), [2, 0, 3, 1]
    path = enhanced(
        tmp_path / "a.dcm", frames[order], places[order], SamplesPerPixel=3, PhotometricInterpretation="RGB",
        PlanarConfiguration=0, NumberOfFrames=4, Rows=5, Columns=6,
    )  # fmt: skip
    image = read(path)
    for channel in range(3):
        np.testing.assert_array_equal(image.values[channel], canonical(frames[..., channel], places, AXIAL))


STACKS = [{"FrameContentSequence": {"StackID": s, "InStackPositionNumber": 1}} for s in "1122"]
TIMES = [{"FrameContentSequence": {"TemporalPositionIndex": t}} for t in (2, 2, 1, 1)]
ECHOES = [{"MREchoSequence": {"EffectiveEchoTime": t}} for t in (4.6, 2.3, 4.6, 2.3)]
WEIGHTS = [{"MRDiffusionSequence": {"DiffusionBValue": t}} for t in (0.0, 1000.0, 0.0, 1000.0)]
KINDS = [{"MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", k, "NONE"]}} for k in ("M", "P", "M", "P")]


@pytest.mark.parametrize(
    ("name", "each", "places", "chosen"),
    [
        ("stack", STACKS, [0, 1, 7, 8], [2, 3]),
        ("time", TIMES, [0, 1, 0, 1], [0, 1]),
        ("echo", ECHOES, [0, 0, 1, 1], [0, 2]),
        ("diffusion", WEIGHTS, [0, 0, 1, 1], [1, 3]),
        ("kind", KINDS, [1, 1, 0, 0], [3, 1]),
    ],
)
def test_several_volumes_in_one_file_are_refused_unless_one_is_named(tmp_path, name, each, places, chosen):
    at = positions(9)[places]
    path = enhanced(tmp_path / "a.dcm", FRAMES[:4], at, each=each)
    with pytest.raises(DataError, match=rf"2 .*input\.volume\.{name}"):
        read(path)
    image = read(path, **{name: 2})
    np.testing.assert_array_equal(image.values[0], canonical(FRAMES[chosen], at[chosen], AXIAL))
    with pytest.raises(DataError, match=rf"has 2 .*input\.volume\.{name} is 3"):
        read(path, **{name: 3})


def test_two_frames_in_one_place_that_no_header_tells_apart_are_refused(tmp_path):
    places = positions(3)[[0, 1, 1, 2]]
    with pytest.raises(DataError, match=r"several slices in one place, at 1 of 3 places.*nothing in the headers"):
        read(enhanced(tmp_path / "a.dcm", FRAMES[:4], places))


def test_a_missing_frame_is_a_gap_and_uneven_distances_are_told(tmp_path):
    places = positions(9)
    with pytest.raises(DataError, match=r"lacks slices: 1 gaps among 7 slices that lie 2\.5 mm apart, where about 2"):
        read(enhanced(tmp_path / "a.dcm", FRAMES, places[[0, 1, 2, 5, 6, 7, 8]]))
    uneven = positions(7) + np.array([0, 0, 0.9])[None] * (np.arange(7) > 3)[:, None]
    with pytest.raises(DataError, match=r"uneven distances, from 2\.5 to 3\.4 mm"):
        read(enhanced(tmp_path / "b.dcm", FRAMES, uneven))


def test_positions_that_a_writer_rounded_to_a_tenth_of_a_millimetre_are_regular(tmp_path):
    places = positions(7, step=0.625)
    image = read(enhanced(tmp_path / "a.dcm", FRAMES, places.round(1)))
    np.testing.assert_array_equal(image.values[0], canonical(FRAMES, places, AXIAL))


def test_frames_turned_against_each_other_are_no_volume(tmp_path):
    each = [{"PlaneOrientationSequence": {"ImageOrientationPatient": list(o)}} for o in (AXIAL, CORONAL, SAGITTAL)]
    path = enhanced(tmp_path / "a.dcm", FRAMES[:3], positions(3), each=each, SharedFunctionalGroupsSequence=[Dataset()])
    with pytest.raises(DataError, match="lies in several planes: 2 of 3"):
        read(path)


def test_a_tilted_gantry_is_noted_and_slices_side_by_side_are_refused(tmp_path):
    tilted = positions(7) + np.arange(7)[:, None] * np.array([0, 0.5, 0])
    image = read(enhanced(tmp_path / "a.dcm", FRAMES, tilted))
    assert image.notes == ("data.gantry_tilt",)
    np.testing.assert_array_equal(image.values[0], canonical(FRAMES, positions(7), AXIAL))
    beside = positions(7) + np.arange(7)[:, None] * np.array([0, 9.0, 0])
    with pytest.raises(DataError, match="lie side by side"):
        read(enhanced(tmp_path / "b.dcm", FRAMES, beside))


def test_frames_without_positions_stay_as_they_are_stored_with_a_note(tmp_path):
    image = read(dicom(tmp_path / "a.dcm", FRAMES))
    assert image.notes == ("data.frames_as_stored",)
    np.testing.assert_array_equal(image.values[0], FRAMES)


@pytest.mark.parametrize("vector", ["EnergyWindowVector", "PhaseVector", "TimeSlotVector"])
def test_nuclear_frames_of_several_windows_or_phases_are_refused(tmp_path, vector):
    path = dicom(tmp_path / "a.dcm", FRAMES[:4], **{vector: [1, 1, 2, 2]})
    with pytest.raises(DataError, match="holds frames of 2 "):
        read(path)


@pytest.mark.parametrize(
    ("orientation", "message"),
    [((1.0, 0, 0, 1.0, 0, 0), "not at right angles"), ((0.0, 0, 0, 0, 1.0, 0), "no directions")],
)
def test_directions_that_are_none_are_refused(tmp_path, orientation, message):
    with pytest.raises(DataError, match=message):
        read(enhanced(tmp_path / "a.dcm", FRAMES, positions(7), orientation))
