"""Multi-frame DICOM as pictures: one frame by name, or each a case of the same patient; as pydicom decodes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from data_helpers import KEY, codes, dicom, protocol
from dicom_volumes import enhanced, positions

from medharden.data import load_cohort
from medharden.data.formats.files import read_file
from medharden.data.stored.cases import stored_cases
from medharden.errors import DataError
from medharden.protocol import Input, Intensity, Protocol, Splits

FRAMES = np.random.default_rng(0).integers(-1000, 1000, (5, 8, 6)).astype(np.int16)
WIDE = Intensity(mode="window", low=-3000, high=3000)


def rules(frames: Any, **fields: Any) -> Protocol:
    spec = Input(frames=frames, intensity=WIDE)
    return protocol(input=spec, splits=Splits(near_duplicate_bits=None, similar_bits=None), **fields)


@pytest.mark.parametrize(("wanted", "number"), [("first", 0), ("middle", 2), (1, 0), (4, 3), (5, 4)])
def test_a_frame_is_read_as_the_file_of_that_frame_alone(tmp_path: Path, wanted: Any, number: int) -> None:
    image = read_file(dicom(tmp_path / "a.dcm", FRAMES), 2, frames=wanted)
    alone = read_file(dicom(tmp_path / "b.dcm", FRAMES[number]), 2)
    assert np.array_equal(image.values, alone.values)
    assert image.pixels == alone.pixels, "its digest is that of the same picture in a file of its own"
    assert np.array_equal(image.values[0], FRAMES[number])


def test_what_is_said_of_each_frame_holds_for_the_one_that_is_read(tmp_path: Path) -> None:
    """Slope, intercept and window of an enhanced file are those of the frame."""
    each = [
        {
            "PixelValueTransformationSequence": {"RescaleSlope": 1.0 + n, "RescaleIntercept": 10.0 * n},
            "FrameVOILUTSequence": {"WindowCenter": 100.0 * n, "WindowWidth": 50.0 + n},
        }
        for n in range(5)
    ]
    path = enhanced(tmp_path / "a.dcm", FRAMES, positions(5), each=each)
    image = read_file(path, 2, frames=4)
    assert np.array_equal(image.values[0], FRAMES[3] * 4.0 + 30.0)
    assert image.window is not None
    assert image.window.low == pytest.approx(300 - 0.5 - 52 / 2)
    assert image.windows == 1


@pytest.mark.parametrize("name", ["SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm", "examples_ybr_color.dcm"])
def test_frames_of_pydicoms_own_files_are_those_that_pydicom_decodes(name: str) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    theirs = pydicom.dcmread(path).pixel_array
    for number in (1, len(theirs)):
        image = read_file(path, 2, frames=number)
        ours = np.broadcast_to(image.values, (3, *theirs.shape[1:3]))
        assert np.array_equal(np.moveaxis(ours, 0, -1), theirs[number - 1])


def test_several_frames_are_refused_unless_one_is_named_that_is_there(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", FRAMES)
    with pytest.raises(DataError, match=r"has 5 frames, expected one \(input\.frames says which are cases"):
        read_file(path, 2)
    with pytest.raises(DataError, match=r"has 5 frames, and input\.frames asks for number 6"):
        read_file(path, 2, frames=6)
    dicom(tmp_path / "cut.dcm", FRAMES, NumberOfFrames=9)
    for wanted in ("first", 9):
        with pytest.raises(DataError, match="is cut off"):
            read_file(tmp_path / "cut.dcm", 2, frames=wanted)
    with pytest.raises(ValueError, match=r"input\.frames is of pictures; input\.dims is 3"):
        Input(dims=3, frames="all")


def cines(root: Path, patients: bool = True, cases: int = 14) -> Path:
    """Half the files have three frames, the others one."""
    for n in range(cases):
        stored = np.random.default_rng(n).integers(0, 1000, (3, 8, 6)).astype(np.int16)
        fields = {"PatientID": f"P{n // 2}"} if patients else {}
        dicom(root / "ab"[n % 2] / f"{n}.dcm", stored if n % 4 < 2 else stored[0], **fields)
    return root


def test_all_makes_each_frame_a_case_of_its_files_patient(tmp_path: Path) -> None:
    cohort = load_cohort(cines(tmp_path), rules("all"), key=KEY)
    assert len(cohort.cases) == 3 * 8 + 6
    assert "data.frames_as_cases" in codes(cohort)
    assert len({c.case for c in cohort.cases}) == 30
    assert len({c.patient for c in cohort.cases}) == 7
    by_patient = {c.patient: {d.split for d in cohort.cases if d.patient == c.patient} for c in cohort.cases}
    assert all(len(splits) == 1 for splits in by_patient.values())
    stored = np.random.default_rng(0).integers(0, 1000, (3, 8, 6))
    wanted = {((frame + 3000) / 6000).astype("f4").tobytes() for frame in stored}
    found = [np.asarray(cohort.inputs[n])[0] for n in range(30)]
    close = [any(np.allclose(np.frombuffer(w, "f4").reshape(8, 6), f, atol=1e-6) for f in found) for w in wanted]
    assert all(close)


def test_frames_that_name_no_patient_are_one_files(tmp_path: Path) -> None:
    """They are no patients of their own: all frames of a file share a pseudonym and a split."""
    cohort = load_cohort(cines(tmp_path, patients=False, cases=28), rules("all"), key=KEY)
    assert cohort.record.unnamed == len(cohort.cases)
    assert len({c.patient for c in cohort.cases}) == 28
    splits = {c.patient: {d.split for d in cohort.cases if d.patient == c.patient} for c in cohort.cases}
    assert all(len(found) == 1 for found in splits.values())


def test_frames_have_a_place_each_in_the_store(tmp_path: Path) -> None:
    data, cache = cines(tmp_path / "data"), tmp_path / "cache"
    first, again = (load_cohort(data, rules("all"), key=KEY, cache=cache) for _ in range(2))
    assert all(np.array_equal(first.inputs[n], again.inputs[n]) for n in range(30))
    assert len({np.asarray(first.inputs[n]).tobytes() for n in range(30)}) == 30


def test_processes_read_frames_too(tmp_path: Path) -> None:
    from medharden.data.formats.limits import Room
    from medharden.data.store.worker import Decoder

    path, decoder = dicom(tmp_path / "a.dcm", FRAMES), Decoder(rules("all").input, Room())
    try:
        made = decoder.decode([[path]], 3)
    finally:
        decoder.close()
    assert not isinstance(made, str), made
    assert np.allclose(made.planes[0], (FRAMES[2] + 3000.0) / 6000, atol=1e-6)


def test_a_frame_is_not_written_back_and_said_so(tmp_path: Path) -> None:
    cohort = load_cohort(cines(tmp_path), rules("all"), key=KEY)
    files = stored_cases(tmp_path, rules("all"), key=KEY)
    reasons = set()
    for case in cohort.cases:
        try:
            files.stored_values(case)
        except DataError as error:
            reasons.add(str(error))
    assert reasons == {"is one frame of a file of several, which is not written back; give it as a file of its own"}


def test_a_header_that_claims_very_many_frames_makes_no_cases(tmp_path: Path) -> None:
    cines(tmp_path)
    dicom(tmp_path / "a" / "x.dcm", FRAMES, NumberOfFrames=99_999, PatientID="X")
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path, rules("all"), key=KEY)
    assert len(caught.value.problems) == 1
