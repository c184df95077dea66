"""Stored values and back to files: bits, scaling, orientation, de-identification, and what can't be written."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from data_helpers import KEY, conformance, dicom, protocol, window
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medharden.data.cohort import Case
from medharden.data.formats.files import read_file
from medharden.data.formats.image import quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.pseudonyms import keyed_digest
from medharden.data.sources.folder import Entry, Listing
from medharden.data.stored.cases import StoredCases, read_back
from medharden.data.stored.dicom_writing import Marks, dicom_bytes, dicom_values
from medharden.data.stored.nifti_writing import nifti_bytes, nifti_values
from medharden.data.stored.values import StoredValues, budget_in_counts, input_of, movable_values, to_input
from medharden.errors import DataError
from medharden.protocol import Input, Intensity, ThreatModel

MARKS = Marks(case="c0ffee00c0ffee00", patient="beef0000beef0000", number=3, change="moved", key=KEY, origin="a/b")
HU4 = ThreatModel(space="stored", eps=4, unit="HU")


def values_of(path: Path, dims: int = 2) -> StoredValues:
    with quiet_readers(), Room().file() as hold:
        return dicom_values(path, dims, hold)


def volume_of(path: Path) -> StoredValues:
    with quiet_readers(), Room().file() as hold:
        return nifti_values(path, hold)


def volume_bytes(path: Path, stored: np.ndarray) -> bytes:
    with quiet_readers(), Room().file() as hold:
        return nifti_bytes(path, stored, hold)


def moved(stored_values: StoredValues, counts: int, seed: int = 0) -> np.ndarray:
    step = np.random.default_rng(seed).integers(-counts, counts + 1, stored_values.stored.shape)
    return np.where(
        stored_values.padding,
        stored_values.stored,
        np.clip(stored_values.stored + step, stored_values.lowest, stored_values.highest),
    )


def rewritten(path: Path, stored: np.ndarray, to: Path, dims: int = 2) -> Path:
    with quiet_readers(), Room().file() as hold:
        to.write_bytes(dicom_bytes(path, dims, stored, MARKS, hold)[0])
    return to


def cases_of(path: Path, image_pixels: str, dims: int = 2) -> tuple[StoredCases, Case]:
    entry = Entry(text="x", label="a", slices=(path,))
    listing = Listing("folder", ("a", "b"), (entry,), read=lambda e, hold: read_file(path, dims, hold))
    case = Case("c", "p", "test", 0, keyed_digest(KEY, "pixels", image_pixels), {})
    return StoredCases(listing, {"c": entry}, dims, KEY), case


# --- DICOM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_stored_values_come_back_from_the_file_as_they_were_written(tmp_path, dtype, photometric):
    info = np.iinfo(dtype)
    stored = np.random.default_rng(1).integers(info.min, info.max, (7, 9), dtype=dtype, endpoint=True)
    source = dicom(
        tmp_path / "a.dcm", stored, PhotometricInterpretation=photometric, RescaleSlope="0.5", RescaleIntercept="-7",
        WindowCenter=["3", "5"], WindowWidth=["20", "40"],
    )  # fmt: skip
    stored_values = values_of(source)
    assert (stored_values.lowest, stored_values.highest) == (info.min, info.max)
    changed = moved(stored_values, 3)
    ds = pydicom.dcmread(rewritten(source, changed, tmp_path / "b.dcm"))
    np.testing.assert_array_equal(ds.pixel_array, changed[0])
    assert ds.pixel_array.dtype == dtype
    for name in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
                 "WindowCenter", "WindowWidth", "PhotometricInterpretation", "Rows", "Columns"):  # fmt: skip
        assert ds[name].value == pydicom.dcmread(source)[name].value
    spec = Input(size=(5, 5))
    again = input_of(read_back(tmp_path / "b.dcm", 2), spec, 1)
    assert torch.equal(again, to_input(stored_values, spec, 1)(torch.from_numpy(changed).double()))


def test_bits_stored_bound_the_values_and_not_the_bytes(tmp_path):
    stored = np.array([[0, 4095], [1, 4094]], dtype=np.uint16)
    source = dicom(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11)
    stored_values = values_of(source)
    assert (stored_values.lowest, stored_values.highest) == (0, 4095)
    ds = pydicom.dcmread(rewritten(source, stored_values.stored, tmp_path / "b.dcm"))
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)


@pytest.mark.parametrize(
    ("slope", "eps", "counts"), [("1", 4, 4), ("1.0002441", 4, 3), ("-2", 5, 2), ("0.1", 0.3, 3), ("0.5", 4.4, 8)]
)
def test_a_budget_in_hu_is_rounded_down_to_whole_counts(tmp_path, slope, eps, counts):
    path = dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.int16).reshape(4, 4), RescaleSlope=slope,
                 RescaleIntercept="0")  # fmt: skip
    threat = ThreatModel(space="stored", eps=eps, unit="HU")
    assert budget_in_counts(values_of(path), threat, Input()) == counts
    assert counts * abs(float(slope)) <= eps + 1e-9


def test_budgets_in_counts_and_in_input_units_are_translated_by_the_file(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.int16).reshape(4, 4), RescaleSlope="2",
                 RescaleIntercept="0")  # fmt: skip
    spec = Input(intensity=window(0, 400))
    for threat, counts in (
        (ThreatModel(space="stored", eps=3, unit="counts"), 3),
        (ThreatModel(eps=0.02), 4),
        (ThreatModel(eps=5.1, unit="1/255"), 4),
    ):
        assert budget_in_counts(values_of(path), threat, spec) == counts
    with pytest.raises(DataError, match="larger than the budget"):
        budget_in_counts(values_of(path), ThreatModel(space="stored", eps=1, unit="HU"), spec)


def test_padding_is_never_moved_even_if_its_value_was_written_as_unsigned(tmp_path):
    stored = np.array([[-2000, -2000], [5, 40]], dtype=np.int16)
    for value, vr in ((-2000, "SS"), (63536, "US")):
        path = dicom(tmp_path / "a.dcm", stored)
        ds = pydicom.dcmread(path)
        ds.add_new("PixelPaddingValue", vr, value)
        ds.save_as(path)
        np.testing.assert_array_equal(values_of(path).padding[0], stored == -2000)


def test_only_values_that_the_window_can_show_are_movable(tmp_path):
    stored = np.array([[-200, -163], [0, 243], [245, 900]], dtype=np.int16)
    path = dicom(tmp_path / "a.dcm", stored, RescaleSlope="1", RescaleIntercept="0")
    movable = movable_values(values_of(path), 4, Input(intensity=window(-160, 240)))
    np.testing.assert_array_equal(movable[0], [[False, True], [True, True], [False, False]])


def test_the_gradient_pulls_values_in_from_beyond_the_window(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.array([[-162, 0]], dtype=np.int16), RescaleSlope="2", RescaleIntercept="0")
    way = to_input(values_of(path), Input(intensity=window(-200, 200)), 1)
    stored = torch.tensor([[[-162.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(way(stored).sum(), stored)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 2 / 400), rtol=1e-5, atol=0)


def test_the_way_to_the_input_is_the_loaders_in_every_intensity_mode(tmp_path):
    stored = np.random.default_rng(2).integers(-900, 900, (40, 30), dtype=np.int16)
    path = dicom(tmp_path / "a.dcm", stored, RescaleSlope="1.3", RescaleIntercept="-7.5", WindowCenter="0",
                 WindowWidth="900", VOILUTFunction="SIGMOID", PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    stored_values = values_of(path)
    changed = moved(stored_values, 5)
    file = rewritten(path, changed, tmp_path / "b.dcm")
    for intensity in (Intensity(), window(-300, 300), Intensity(mode="percentile", low=5, high=90)):
        for fit in ("stretch", "pad"):
            spec = Input(size=(16, 16), fit=fit, intensity=intensity)
            expected = input_of(read_back(file, 2), spec, 3)
            assert torch.equal(to_input(stored_values, spec, 3)(torch.from_numpy(changed).double()), expected)


def canary(ds: Dataset) -> list[str]:
    """Plants what no output may hold; returns it."""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Kanarienvogel^Tweety", "KANARIE-4711", "19610813"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20190304"
    ds.InstitutionName, ds.ReferringPhysicianName, ds.AccessionNumber = "Klinik Kanarie", "Kanarie^Doc", "KANACC77"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4711.815.1", "1.2.3.4711.815.2"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4711.815.3"
    ds.FrameOfReferenceUID = "1.2.3.4711.815.4"
    ds.BodyPartExamined, ds.ImageType = "KANARIE", ["ORIGINAL", "PRIMARY", "KANARIE"]
    ds.WindowCenterWidthExplanation, ds.ImageComments = "KANARIE", "KANARIE wept"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = 4711001, 4711002, 4711003
    ds.KVP, ds.DeviceSerialNumber, ds.StudyID = "19610813", "KANA-SER", "KANSTUDY"
    inner = Dataset()
    inner.PatientID, inner.ReferencedSOPInstanceUID = "KANARIE-4712", "1.2.3.4711.815.5"
    ds.ReferencedImageSequence = Sequence([inner])
    ds.OtherPatientIDsSequence = Sequence([inner])
    block = ds.private_block(0x0029, "KANARIE PRIVATE", create=True)
    block.add_new(0x10, "LO", "KANARIE-4713")
    ds.preamble = b"KANARIE PREAMBLE".ljust(128, b"\0")
    return ["kanari", "tweety", "19610813", "20190304", "4711.815", "471100", "kanacc", "kana-ser", "kanstudy"]


def test_nothing_of_who_the_patient_is_stands_in_the_written_file(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.int16).reshape(8, 8), RescaleSlope="1",
                 RescaleIntercept="0")  # fmt: skip
    ds = pydicom.dcmread(path)
    planted = canary(ds)
    ds.save_as(path, enforce_file_format=True)
    written = rewritten(path, moved(values_of(path), 2), tmp_path / "b.dcm").read_bytes().lower()
    assert [word for word in planted if word.encode() in written] == []


def test_the_written_file_says_that_it_is_derived_deidentified_and_no_patients_image(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.int16).reshape(8, 8), ImageType=["ORIGINAL", "PRIMARY",
                 "AXIAL"], StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", LossyImageCompression="01",
                 LossyImageCompressionRatio="8", LossyImageCompressionMethod="ISO_10918_1")  # fmt: skip
    stored_values = values_of(path)
    first = pydicom.dcmread(rewritten(path, moved(stored_values, 2), tmp_path / "b.dcm"))
    again = pydicom.dcmread(rewritten(path, moved(stored_values, 2), tmp_path / "c.dcm"))
    other = pydicom.dcmread(rewritten(path, moved(stored_values, 2, seed=9), tmp_path / "d.dcm"))
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.DerivationDescription == "moved"
    assert first.SourceImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID
    assert first.PatientIdentityRemoved == "YES"
    assert first.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert (first.PatientID, first.LossyImageCompression) == (MARKS.patient, "01")
    assert "NOT FOR CLINICAL USE" in first.SeriesDescription
    assert first.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert first == again
    assert first.SOPInstanceUID != other.SOPInstanceUID
    assert first.SeriesInstanceUID == other.SeriesInstanceUID
    uids = [e.value for e in first.iterall() if e.VR == "UI" and not e.value.startswith("1.2.840.10008.")]
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


@pytest.mark.parametrize("vendor", ["ID_0000", "ID_0031", "ID_0074", "ID_0080"])
def test_a_written_ct_slice_has_no_error_that_its_source_has_not(test_data, tmp_path, vendor):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    source = next((test_data / "ct_contrast_dicom").glob(f"{vendor}*.dcm"))
    stored_values = values_of(source)
    counts = budget_in_counts(stored_values, HU4, Input())
    written = rewritten(source, moved(stored_values, counts), tmp_path / "b.dcm")
    assert not conformance(written) - conformance(source)
    now, then = (pydicom.dcmread(p).pixel_array.astype(int) for p in (written, source))
    assert 0 < np.abs(now - then).max() * abs(stored_values.slope) <= 4
    padding = pydicom.dcmread(source).get("PixelPaddingValue")
    assert padding is None or (now[stored_values.padding[0]] == then[stored_values.padding[0]]).all()


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_bigendian.dcm", "693_J2KI.dcm", "SC_rgb_small_odd.dcm", "JPEG2000.dcm"]
)
def test_other_kinds_and_encodings_come_back_uncompressed_and_conformant(tmp_path, name):
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"pydicom ships no {name}")
    stored_values = values_of(Path(found))
    changed = moved(stored_values, 2)
    written = rewritten(Path(found), changed, tmp_path / "b.dcm")
    np.testing.assert_array_equal(values_of(written).stored, changed)
    if shutil.which("dciodvfy"):
        assert not conformance(written) - conformance(Path(found))


def test_what_was_compressed_with_loss_says_so_when_it_is_written(tmp_path):
    found = get_testdata_file("SC_rgb_jpeg_dcmtk.dcm", download=False)
    if found is None:
        pytest.skip("pydicom ships no SC_rgb_jpeg_dcmtk.dcm")
    ds = pydicom.dcmread(rewritten(Path(found), values_of(Path(found)).stored, tmp_path / "b.dcm"))
    assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert ds.PhotometricInterpretation == "RGB"


def table() -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [3, 0, 16])
    item.add_new("LUTData", "US", [1, 2, 3])
    return Sequence([item])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "text is burned into its pixels"),
        ({"ModalityLUTSequence": table()}, "has a modality lookup table"),
        ({"SOPClassUID": "1.2.3.4"}, "names no kind of DICOM object"),
    ],
)
def test_what_can_not_be_written_back_is_refused_with_its_reason(tmp_path, fields, reason):
    path = dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.uint16).reshape(4, 4), **fields)
    with pytest.raises(DataError, match=reason):
        values_of(path)


# --- NIfTI and pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1)])
def test_a_slice_comes_back_as_it_was_written_in_the_shape_of_its_file(tmp_path, shape):
    path, written = tmp_path / "a.nii", tmp_path / "b.nii.gz"
    values = np.random.default_rng(2).integers(-90, 90, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-0.5, 0.5, 2, 1])), path)
    with quiet_readers(), Room().file() as hold:
        stored_values = nifti_values(path, hold, 2)
        changed = moved(stored_values, 3)
        written.write_bytes(nifti_bytes(path, changed, hold))
    np.testing.assert_array_equal(read_back(written, 2).values, changed)
    again = nib.load(written)
    assert again.shape == shape
    np.testing.assert_array_equal(np.asarray(again.dataobj).reshape(6, 9), changed[0].T)
    np.testing.assert_array_equal(again.affine, nib.load(path).affine)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_volume_comes_back_in_its_own_orientation_scaling_and_type(tmp_path, kind, order):
    array = np.random.default_rng(3).integers(-500, 500, (4, 5, 6), dtype=np.int16).astype(f"{order}i2")
    affine = np.array([[0, 0, -2.0, 9], [-1.5, 0, 0, 8], [0, 3.0, 0, 7], [0, 0, 0, 1]])
    image = kind(array, affine)
    image.header.set_slope_inter(0.25, -3)
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = b"KANARIE", b"KANARIE", b"KANARIE"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"KANARIE"))
    path, written = tmp_path / "KANARIE.nii", tmp_path / "b.nii.gz"
    nib.save(image, path)
    stored_values = volume_of(path)
    assert (stored_values.lowest, stored_values.highest, stored_values.slope) == (-32768, 32767, 0.25)
    changed = moved(stored_values, 3)
    written.write_bytes(volume_bytes(path, changed))
    np.testing.assert_array_equal(volume_of(written).stored, changed)
    one, two = nib.load(path), nib.load(written)
    np.testing.assert_array_equal(one.affine, two.affine)
    assert one.get_data_dtype() == two.get_data_dtype()
    assert np.abs(np.asanyarray(one.dataobj) - np.asanyarray(two.dataobj)).max() == 3 * 0.25
    assert b"KANARIE" not in nib.openers.Opener(str(written)).read()
    assert budget_in_counts(stored_values, ThreatModel(space="stored", eps=1, unit="HU"), Input(dims=3)) == 4


def test_a_real_volume_keeps_its_geometry(test_data, tmp_path):
    path = test_data / "cdi_fdgpet" / "AD1.nii.gz"
    stored_values = volume_of(path)
    written = tmp_path / "b.nii.gz"
    written.write_bytes(volume_bytes(path, moved(stored_values, 5)))
    spec = Input(dims=3, size=(16, 16, 16), intensity=Intensity(mode="percentile", low=1, high=99))
    changed = torch.from_numpy(moved(stored_values, 5)).double()
    assert torch.equal(input_of(read_back(written, 3), spec, 1), to_input(stored_values, spec, 1)(changed))
    np.testing.assert_array_equal(nib.load(path).affine, nib.load(written).affine)


def test_floating_point_volumes_have_no_lattice(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((3, 3, 3)).astype(np.float32), np.eye(4)), path)
    with pytest.raises(DataError, match="stores float32 values, which have no lattice"):
        volume_of(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_pictures_come_back_as_png_with_the_values_that_were_written(tmp_path, mode, suffix):
    if suffix == ".jpg" and mode not in ("L", "RGB"):
        pytest.skip("JPEG has no such mode")
    rng = np.random.default_rng(4)
    shape = (9, 8, 3) if mode == "RGB" else (9, 8)
    top = 65536 if mode == "I;16" else 256
    array = rng.integers(0, top, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.fromarray(array)
    path = tmp_path / f"a{suffix}"
    (picture.convert("P") if mode == "P" else picture).save(path)
    files, case = cases_of(path, read_back(path, 2).pixels)
    stored_values = files.stored_values(case)
    changed = moved(stored_values, 2)
    written = files.written(case, stored_values, changed, MARKS)
    assert written.suffix == ".png"
    (tmp_path / "b.png").write_bytes(written.data)
    np.testing.assert_array_equal(read_back(tmp_path / "b.png", 2).values, changed)
    spec = protocol().input
    assert torch.equal(
        input_of(read_back(tmp_path / "b.png", 2), spec, 3), to_input(stored_values, spec, 3)(torch.from_numpy(changed))
    )


def test_a_file_that_changed_since_the_cohort_was_read_is_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.arange(16, dtype=np.int16).reshape(4, 4))
    files, case = cases_of(path, "other pixels")
    with pytest.raises(DataError, match="changed since it was read first"):
        files.stored_values(case)
