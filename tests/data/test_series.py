"""A series of single-frame DICOM files is a volume: the same as one multi-frame file holds, and as NIfTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from data_helpers import KEY, codes, dicom, manifest, protocol, window

from medharden.data import load_cohort
from medharden.data.formats.files import read_case
from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.sources.listing import list_source
from medharden.data.store.worker import Decoder
from medharden.errors import DataError
from medharden.protocol import Input, Splits, Volume

RNG = np.random.default_rng(8)
SPEC = Input(dims=3, intensity=window(-1000, 2000))
AXIAL = [1, 0, 0, 0, 1, 0]


def slices(folder: Path, seed: int, *, count: int = 4, name: str = "IM{n:03d}", **fields: object) -> np.ndarray:
    """An axial series written in a shuffled order; returns the anatomy (X, Y, Z)."""
    rng = np.random.default_rng(seed)
    anatomy = rng.integers(-1000, 2000, (6, 5, count)).astype(np.int16)
    uid = f"1.2.3.{seed}"
    for n, z in enumerate(rng.permutation(count)):
        dicom(
            folder / name.format(n=n),
            np.flip(anatomy[:, :, z], (0, 1)).T,
            **{
                "SeriesInstanceUID": uid,
                "PatientID": f"P{seed}",
                "ImagePositionPatient": [0.0, 0.0, 3.0 * z],
                "ImageOrientationPatient": AXIAL,
                "InstanceNumber": str(count - n),
            }
            | fields,
        )
    return anatomy


def read_all(folder: Path) -> StoredImage:
    with Room().file() as hold:
        return read_case(sorted(folder.iterdir()), SPEC, hold)


def cohort_folder(root: Path, count: int = 16) -> dict[str, np.ndarray]:
    return {f"{'ab'[n % 2]}/case{n}": slices(root / "ab"[n % 2] / f"case{n}", n) for n in range(count)}


def test_a_folder_of_series_is_a_case_a_series_with_slices_in_their_places(tmp_path: Path) -> None:
    anatomies = cohort_folder(tmp_path)
    cohort = load_cohort(tmp_path, protocol(input=SPEC), key=KEY)
    assert cohort.inputs.shape == (16, 1, 6, 5, 4)
    assert {"data.series"} <= codes(cohort)
    wanted = sorted(np.clip((a.astype(np.float64) + 1000) / 3000, 0, 1).ravel().tolist() for a in anatomies.values())
    found = sorted(np.asarray(cohort.inputs[n], dtype=np.float64).ravel().tolist() for n in range(16))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert len({c.patient for c in cohort.cases}) == 16


def test_a_series_is_kept_in_the_store_under_all_its_files_and_decoded_in_a_process_alike(tmp_path: Path) -> None:
    cohort_folder(tmp_path / "data")
    first = load_cohort(tmp_path / "data", protocol(input=SPEC), key=KEY, cache=tmp_path / "cache")
    again = load_cohort(tmp_path / "data", protocol(input=SPEC), key=KEY, cache=tmp_path / "cache")
    assert first.record.preprocessing == again.record.preprocessing
    case = tmp_path / "data" / "a" / "case0"
    last = sorted(case.iterdir())[-1]
    with quiet_readers():
        decoder = Decoder(SPEC, Room())
        try:
            made = decoder.decode([sorted(case.iterdir())])
        finally:
            decoder.close()
    np.testing.assert_array_equal(made.planes, ((read_all(case).values + 1000) / 3000).clip(0, 1).astype(np.float32))
    data = bytearray(last.read_bytes())
    data[-2:] = b"\x01\x02"
    last.write_bytes(data)
    changed = load_cohort(tmp_path / "data", protocol(input=SPEC), key=KEY, cache=tmp_path / "cache")
    before, after = ({c.case: c.pixels for c in cohort.cases} for cohort in (first, changed))
    assert sum(before[case] != after[case] for case in before) == 1


@pytest.mark.parametrize("named", ["folder", "uid", "file", "file without ending"])
def test_a_row_names_a_series_by_its_folder_its_uid_or_a_file(tmp_path: Path, named: str) -> None:
    anatomies = {}
    for n in range(12):
        anatomies[n] = slices(tmp_path / f"p{n}", n, name="{n}.dcm")
    ways = {"folder": "p{n}", "uid": "1.2.3.{n}", "file": "p{n}/2.dcm", "file without ending": "p{n}/2"}
    rows = [{"path": ways[named].format(n=n), "label": "ab"[n % 2]} for n in range(12)]
    cohort = load_cohort(manifest(tmp_path, rows), protocol(input=SPEC), key=KEY)
    assert (cohort.inputs.shape, "data.unlisted_files" in codes(cohort)) == ((12, 1, 6, 5, 4), False)


def test_a_folder_of_several_series_is_refused_by_row_and_each_a_case_by_class(tmp_path: Path) -> None:
    for n in range(12):
        for part in (0, 1):
            slices(tmp_path / "ab"[n % 2] / f"p{n}", 100 * part + n, name=f"{part}_{{n}}.dcm", PatientID=f"P{n}")
    each = SPEC.model_copy(update={"volume": Volume(series="each")})
    assert len(load_cohort(tmp_path, protocol(input=each), key=KEY).cases) == 24
    rows = [{"path": f"{'ab'[n % 2]}/p{n}", "label": "ab"[n % 2]} for n in range(12)]
    with pytest.raises(DataError, match="has 2 series in one examination, of 4, 4 files"):
        load_cohort(manifest(tmp_path, rows), protocol(input=SPEC), key=KEY)


def test_localisers_are_left_out_and_told(tmp_path: Path) -> None:
    cohort_folder(tmp_path)
    dicom(
        tmp_path / "a" / "case0" / "scout",
        RNG.integers(0, 9, (9, 9)).astype(np.int16),
        SeriesInstanceUID="1.2.3.0",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    cohort = load_cohort(tmp_path, protocol(input=SPEC), key=KEY)
    assert len(cohort.cases) == 16
    assert "data.localisers" in codes(cohort)


def read(folder: Path) -> np.ndarray:
    with quiet_readers():
        return read_all(folder).values[0]


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    for z in range(3):
        fields = {
            "ImagePositionPatient": [0, 0, float(z)],
            "ImageOrientationPatient": AXIAL,
            "SeriesInstanceUID": "1.2",
        }
        stored = np.full((2, 3), 10, dtype=np.int16)
        dicom(tmp_path / f"{2 - z}", stored, RescaleSlope=str(z + 1), RescaleIntercept=str(-z), **fields)
    assert read(tmp_path)[0, 0].tolist() == [10.0, 19.0, 28.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ImagePositionPatient": [0.0, 0.0, 0.0]}, "several slices in one place"),
        ({"ImagePositionPatient": [0.0, 0.0, 30.0]}, "lacks slices"),
        ({"ImagePositionPatient": None}, "no position for 1 of 5"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}, "lies in several planes"),
        ({"PatientID": "somebody else"}, "2 patients in one series"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "several kinds of pixels"),
    ],
)
def test_series_that_are_no_one_volume_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    slices(tmp_path, 3)
    fields = {"ImagePositionPatient": [0.0, 0.0, 12.0], "ImageOrientationPatient": AXIAL, "PatientID": "P3"} | change
    fields = {name: value for name, value in fields.items() if value is not None}
    dicom(tmp_path / "more", RNG.integers(0, 9, (5, 6)).astype(np.int16), SeriesInstanceUID="1.2.3.3", **fields)
    with pytest.raises(DataError, match=words):
        read(tmp_path)


def test_a_slice_of_another_size_is_refused(tmp_path: Path) -> None:
    slices(tmp_path, 3)
    fields = {"ImagePositionPatient": [0.0, 0.0, 12.0], "ImageOrientationPatient": AXIAL, "PatientID": "P3"}
    dicom(tmp_path / "more", RNG.integers(0, 9, (6, 6)).astype(np.int16), SeriesInstanceUID="1.2.3.3", **fields)
    with pytest.raises(DataError, match="of 2 sizes"):
        read(tmp_path)


def test_slices_without_a_direction_are_taken_for_axial_and_that_is_told(tmp_path: Path) -> None:
    anatomy = slices(tmp_path / "x", 5, ImageOrientationPatient=AXIAL)
    for path in (tmp_path / "x").iterdir():
        _without_direction(path)
    np.testing.assert_array_equal(read(tmp_path / "x"), anatomy)
    for n in range(16):
        slices(tmp_path / "data" / "ab"[n % 2] / f"c{n}", n)
    for path in (tmp_path / "data" / "a" / "c0").iterdir():
        _without_direction(path)
    assert "data.assumed_axial" in codes(load_cohort(tmp_path / "data", protocol(input=SPEC), key=KEY))


def _without_direction(path: Path) -> None:
    ds = pydicom.dcmread(path)
    del ds.ImageOrientationPatient
    ds.save_as(path)


@pytest.mark.parametrize("cosines", [AXIAL, [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]])
def test_a_series_is_what_simpleitk_reads_and_turns_to_ras(tmp_path: Path, cosines: list[int]) -> None:
    sitk = pytest.importorskip("SimpleITK")
    normal = np.cross(cosines[:3], cosines[3:])
    for n, k in enumerate(RNG.permutation(5)):
        dicom(
            tmp_path / f"{n}.dcm",
            RNG.integers(0, 999, (4, 6)).astype(np.int16),
            SeriesInstanceUID="1.2.3",
            ImagePositionPatient=[float(x) for x in 7 + 2.5 * k * normal],
            ImageOrientationPatient=cosines,
            PixelSpacing=[1.5, 2.0],
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(reader.Execute(), "RAS")).transpose(2, 1, 0)
    np.testing.assert_array_equal(read(tmp_path), turned)


def test_a_series_larger_than_one_file_may_take_is_refused_before_it_is_read(tmp_path: Path) -> None:
    slices(tmp_path, 3)
    with Room(2**16).file() as hold, pytest.raises(DataError, match="of memory to be read, more than"):
        read_case(sorted(tmp_path.iterdir()), SPEC, hold)


def test_slices_stay_single_images_in_two_dimensions(tmp_path: Path) -> None:
    cohort_folder(tmp_path, 8)
    spec = protocol(
        input=Input(intensity=window(-1000, 2000)), splits=Splits(near_duplicate_bits=None, similar_bits=None)
    )
    assert len(list_source(tmp_path, spec, str, 2**20).entries) == 32
