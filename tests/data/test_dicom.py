"""DICOM reading: pydicom's own files against pydicom's own VOI functions, made files against closed forms."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from data_helpers import dicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from medharden.data.formats.dicom import read_dicom
from medharden.data.formats.files import read_file
from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.view.preprocessing import Recipe, preprocess
from medharden.errors import DataError


def unit(image: StoredImage) -> np.ndarray:
    recipe = Recipe(image.window, image.inverted, image.values.shape[0], None, "stretch")
    return preprocess(torch.from_numpy(image.values), recipe).numpy()


def sample(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"pydicom ships no {name}")
    return Path(found)


def read(path: Path, dims: int = 2) -> StoredImage:
    with quiet_readers(), Room().file() as hold:
        return read_dicom(path, dims, hold)


def reference(path: Path) -> np.ndarray:
    """pydicom's modality and VOI transforms, its output range mapped to [0, 1]."""
    ds = pydicom.dcmread(path)
    low, high = (
        (-(2 ** (ds.BitsStored - 1)), 2 ** (ds.BitsStored - 1) - 1)
        if ds.PixelRepresentation
        else (0, 2**ds.BitsStored - 1)
    )
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    low, high = low * slope + intercept, high * slope + intercept
    return (apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(float) - low) / (high - low)


@pytest.mark.parametrize("name", ["693_J2KI.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm"])
def test_windowed_samples_agree_with_pydicom(name):
    image = read(sample(name))
    assert image.windows == 1
    np.testing.assert_allclose(unit(image)[0], reference(sample(name)), atol=1e-6)


def test_real_ct_of_two_vendors_agrees_with_pydicom(test_data):
    for path in sorted((test_data / "ct_contrast_dicom").glob("*.dcm"))[::12]:
        np.testing.assert_allclose(unit(read(path))[0], reference(path), atol=1e-6)


def test_without_a_window_the_whole_range_of_the_stored_type_is_used():
    image = read(sample("CT_small.dcm"))  # signed 16 bits, intercept -1024
    assert (image.window.low, image.window.high, image.windows) == (-32768 - 1024, 32767 - 1024, 0)


def test_bits_stored_limit_the_range_and_a_negative_slope_keeps_it_rising(tmp_path):
    stored = np.arange(16, dtype=np.uint16).reshape(4, 4)
    image = read(dicom(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11, RescaleSlope="-2", RescaleIntercept="5"))
    assert (image.window.low, image.window.high) == (-2 * 4095 + 5, 5)
    np.testing.assert_array_equal(image.values[0], 5 - 2.0 * stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_signed_and_unsigned_values_survive_with_their_sign(tmp_path, dtype):
    info = np.iinfo(dtype)
    stored = np.array([[info.min, 0], [1, info.max]], dtype=dtype)
    image = read(dicom(tmp_path / "a.dcm", stored))
    np.testing.assert_array_equal(image.values[0], stored.astype(np.float32))
    np.testing.assert_allclose(unit(image)[0, [0, 1], [0, 1]], [0, 1])


def test_monochrome1_is_inverted_after_the_window_and_keeps_its_stored_values(tmp_path):
    stored = np.arange(100, dtype=np.int16).reshape(10, 10)
    fields = {"WindowCenter": "50", "WindowWidth": "21"}
    plain = read(dicom(tmp_path / "2.dcm", stored, **fields))
    film = read(dicom(tmp_path / "1.dcm", stored, PhotometricInterpretation="MONOCHROME1", **fields))
    assert film.inverted
    np.testing.assert_array_equal(film.values, plain.values)
    np.testing.assert_allclose(unit(film), 1 - unit(plain), atol=1e-7)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_each_window_function_agrees_with_pydicom(tmp_path, function):
    stored = np.arange(-32, 32, dtype=np.int16).reshape(8, 8)
    path = dicom(
        tmp_path / "a.dcm", stored, WindowCenter=["3", "9"], WindowWidth=["20", "40"], VOILUTFunction=function,
        RescaleSlope="1", RescaleIntercept="0",
    )  # fmt: skip
    image = read(path)
    assert image.windows == 2
    np.testing.assert_allclose(unit(image)[0], reference(path), atol=1e-6)


def lookup(first: int, entries: list[int], bits: int, representation: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", representation, [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def test_voi_table_is_used_before_a_window_and_clamps_at_its_ends(tmp_path):
    stored = np.array([[-5, -2], [0, 9]], dtype=np.int16)
    table = lookup(-2, [0, 100, 255], 8, "SS")
    image = read(dicom(tmp_path / "a.dcm", stored, VOILUTSequence=Sequence([table]), WindowCenter="0", WindowWidth="9"))
    assert image.windows == 2
    np.testing.assert_allclose(unit(image)[0], np.array([[0, 0], [255, 255]]) / 255, atol=1e-6)
    np.testing.assert_allclose(image.window(torch.tensor([-1.0])).item(), 100 / 255, atol=1e-6)


def test_modality_table_gives_the_rescaled_units(tmp_path):
    stored = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    table = lookup(1, [10, 20, 1000], 16)
    image = read(dicom(tmp_path / "a.dcm", stored, ModalityLUTSequence=Sequence([table])))
    np.testing.assert_array_equal(image.values[0], [[10, 10], [20, 1000]])
    assert (image.window.low, image.window.high) == (0, 65535)


def test_enhanced_frames_are_rescaled_each_by_its_own_group(tmp_path):
    stored = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    groups = []
    for intercept in (0, -1000):
        rescale = Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = "2", str(intercept)
        group = Dataset()
        group.PixelValueTransformationSequence = Sequence([rescale])
        groups.append(group)
    path = dicom(tmp_path / "a.dcm", stored, PerFrameFunctionalGroupsSequence=Sequence(groups))
    values = read(path, dims=3).values
    np.testing.assert_array_equal(values[0], stored * 2.0 + np.array([0, -1000]).reshape(2, 1, 1))


def test_colour_samples_become_three_channels_over_the_whole_range():
    rgb = read(sample("SC_rgb_small_odd.dcm"))
    np.testing.assert_array_equal(
        rgb.values, np.moveaxis(pydicom.dcmread(sample("SC_rgb_small_odd.dcm")).pixel_array, -1, 0)
    )
    ybr = read(sample("SC_ybr_full_422_uncompressed.dcm"))
    red = ybr.values[:, 5, 50]  # the top bar of this test picture is pure red
    assert red[0] > 240
    assert red[1:].max() < 20
    assert ybr.window.high == 255
    palette = read(sample("examples_palette.dcm"))
    assert palette.values.shape[0] == 3
    assert 0.9 < unit(palette).max() <= 1


def test_frames_are_a_volume_in_three_dimensions_and_a_problem_in_two(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.arange(30 * 12, dtype=np.int16).reshape(30, 3, 4))
    assert read(path, dims=3).values.shape == (1, 30, 3, 4)
    with pytest.raises(DataError, match="has 30 frames, expected one"):
        read(path)
    with pytest.raises(DataError, match="single frame"):
        read(sample("MR_small.dcm"), dims=3)


def test_a_file_without_preamble_is_read_by_its_name(tmp_path):
    whole = dicom(tmp_path / "whole.dcm", np.arange(16, dtype=np.int16).reshape(4, 4))
    ds = pydicom.dcmread(whole)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    bare = tmp_path / "bare.dcm"
    body = Dataset({element.tag: element for element in ds})
    body.save_as(bare, implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert read_file(bare, 2).pixels == read_file(whole, 2).pixels


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated.dcm", "truncated"),
        ("rtplan.dcm", "holds no integer pixels"),
        ("rtdose_1frame.dcm", "stores 32 bits"),
        ("liver_1frame.dcm", "stores 1 bits"),
    ],
)
def test_malformed_and_unsuitable_samples_say_why(name, reason):
    with pytest.raises(DataError, match=reason):
        read(sample(name))


@pytest.mark.parametrize(
    "fields",
    [
        {"RescaleSlope": "0"},
        {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 15},
        {"BitsStored": 17, "HighBit": 16},
        {"RescaleSlope": ["1", "2"]},
        {"PhotometricInterpretation": "HSV"},
        {"Rows": None},
        {"BitsStored": None},
    ],
)
def test_header_nonsense_is_a_problem_and_never_a_crash(tmp_path, fields):
    path = dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.int16).reshape(4, 4), **fields)
    with pytest.raises(DataError):
        read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"WindowCenter": "1", "WindowWidth": "0.5"},
        {"WindowCenter": "1", "WindowWidth": "-3", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "1", "WindowWidth": "3", "VOILUTFunction": "CUBIC"},
    ],
)
def test_a_window_that_is_nonsense_is_none_and_the_reason_is_kept(tmp_path, fields):
    image = read(dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.int16).reshape(4, 4), **fields))
    assert image.window is None
    assert image.window_problem.startswith("has a window")


def test_a_header_value_of_a_length_that_its_type_forbids_is_a_problem(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.int16).reshape(4, 4))
    rows = b"\x28\x00\x10\x00US"
    path.write_bytes(path.read_bytes().replace(rows + b"\x02\x00\x04\x00", rows + b"\x01\x00\x04"))
    with pytest.raises(DataError, match="truncated or damaged"):
        read(path)


def test_a_huge_declared_size_is_refused_before_decoding(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.int16), Rows=65535, Columns=65535)
    with pytest.raises(DataError, match="more than"):
        read(path)


def test_every_sample_of_pydicom_is_read_or_refused_in_words():
    folder = sample("CT_small.dcm").parent
    outcomes, reasons = [], []
    with quiet_readers():
        for path in sorted(folder.glob("*.dcm")):
            try:
                outcomes.append(np.isfinite(read_file(path, 2).values).all())
            except DataError as error:
                outcomes.append(None)
                reasons.append(str(error))
    assert outcomes.count(True) >= 40
    assert False not in outcomes
    assert all(reasons)


def test_reading_silences_the_libraries_and_gives_the_filters_back(caplog):
    before = list(warnings.filters)
    with quiet_readers():
        warnings.warn("Invalid value for VR UI: 'SECRET'", stacklevel=1)
        logging.getLogger("pydicom").warning("SECRET")
    assert list(warnings.filters) == before
    assert "SECRET" not in caplog.text


def test_header_names_patient_site_and_scanner(tmp_path):
    path = dicom(
        tmp_path / "a.dcm", np.arange(4, dtype=np.int16).reshape(2, 2), PatientID=" P1 ", PatientSex="F",
        PatientAge="045Y", InstitutionName="Somewhere", Manufacturer="Maker", ManufacturerModelName="Model",
    )  # fmt: skip
    image = read(path)
    assert image.patient == "P1"
    assert image.attributes == {"sex": "F", "age": "045Y", "site": "Somewhere", "scanner": "Maker Model"}


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize(
    ("slope", "intercept"), [("1", "-1024"), ("2", "0"), ("-3", "7"), ("255", "-8"), ("0.1", "-1024"), ("4095", "0.5")]
)
def test_rescaled_values_are_those_of_double_precision_to_the_last_bit(tmp_path, kind, slope, intercept):
    stored = np.linspace(np.iinfo(kind).min, np.iinfo(kind).max, 256).round().astype(kind).reshape(16, 16)
    path = dicom(tmp_path / "a.dcm", stored, RescaleSlope=slope, RescaleIntercept=intercept)
    wanted = (stored.astype(np.float64) * float(slope) + float(intercept)).astype(np.float32)
    np.testing.assert_array_equal(read_file(path, 2).values[0], wanted)
