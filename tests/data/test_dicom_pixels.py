"""DICOM pixels: frames and fragments, compressed and not, against pydicom; headers that unpack to very much."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from data_helpers import dicom
from image_makers import DEEP, GREY, SMOOTH, deflated, dicom_file, encoded, item_bomb, j2k_file, jpeg_file
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from medharden.data.formats.files import read_file
from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.limits import Room
from medharden.errors import DataError

FRAMES = [SMOOTH, SMOOTH[::-1].copy(), SMOOTH // 2]


def read(data: bytes, folder: Path, dims: int = 2) -> StoredImage:
    (folder / "a.dcm").write_bytes(data)
    with quiet_readers():
        return read_file(folder / "a.dcm", dims)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("frames", [1, 3])
def test_rle_of_any_depth_channels_and_frames_is_what_was_encoded(tmp_path, depth, channels, frames):
    array = np.stack([DEEP[..., :channels] + k for k in range(frames)]).astype(depth)
    array = array[..., 0] if channels == 1 else array
    path = dicom(tmp_path / "a.dcm", array[0] if channels == 1 else array[0, ..., 0])
    ds = pydicom.dcmread(path)
    ds.Rows, ds.Columns, ds.NumberOfFrames, ds.PixelData = 20, 24, frames, array.tobytes()
    if channels == 3:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.compress(RLELossless, encoding_plugin="pydicom")
    ds.save_as(path)
    if frames == 1:
        ds.NumberOfFrames = 1
    image = read(path.read_bytes(), tmp_path, 2 if frames == 1 else 3)
    wanted = array if frames > 1 else array[0]
    np.testing.assert_array_equal(image.values, np.moveaxis(wanted, -1, 0) if channels == 3 else wanted[None])


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("table", [True, False])
def test_frames_in_several_fragments_are_joined_with_and_without_a_table(tmp_path, pieces, table):
    files = [j2k_file(frame) for frame in FRAMES]
    pixels = encapsulate(files, fragments_per_frame=pieces, has_bot=table)
    image = read(dicom_file(np.stack(FRAMES), syntax=JPEG2000Lossless, pixels=pixels), tmp_path, 3)
    np.testing.assert_array_equal(image.values[0], np.stack(FRAMES))


def test_an_extended_offset_table_that_fits_is_accepted(tmp_path):
    files = [j2k_file(frame) for frame in FRAMES]
    lengths = [len(data) + len(data) % 2 for data in files]
    starts = [8 * k + sum(lengths[:k]) for k in range(3)]
    tables = {
        "ExtendedOffsetTable": struct.pack("<3Q", *starts),
        "ExtendedOffsetTableLengths": struct.pack("<3Q", *map(len, files)),
    }
    pixels = encapsulate(files, has_bot=False)
    image = read(dicom_file(np.stack(FRAMES), syntax=JPEG2000Lossless, pixels=pixels, **tables), tmp_path, 3)
    np.testing.assert_array_equal(image.values[0], np.stack(FRAMES))


def test_what_decoders_give_is_what_pydicom_gives(tmp_path):
    colour = np.dstack([GREY, GREY[::-1], GREY // 2])
    files = [
        encoded([jpeg_file(GREY)], JPEGBaseline8Bit, GREY),
        encoded([jpeg_file(colour)], JPEGBaseline8Bit, colour, PhotometricInterpretation="YBR_FULL_422"),
        encoded([j2k_file(DEEP[..., 0].copy())], JPEG2000Lossless, DEEP[..., 0].copy()),
        encoded([j2k_file(colour)], JPEG2000Lossless, colour, PhotometricInterpretation="YBR_RCT"),
    ]
    for data in files:
        found = read(data, tmp_path).values
        shown = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
        np.testing.assert_array_equal(found, np.moveaxis(shown, -1, 0) if shown.ndim == 3 else shown[None])


def test_a_codestream_may_end_with_a_byte_of_padding(tmp_path):
    for tail in (b"\0", b"\xff"):
        read(encoded([jpeg_file() + tail], JPEGBaseline8Bit), tmp_path)
        read(encoded([j2k_file() + tail], JPEG2000Lossless), tmp_path)


def test_a_jp2_file_is_read_by_its_codestream_whatever_its_boxes_claim(tmp_path):
    path = Path(get_testdata_file("GDCMJ2K_TextGBR.dcm", download=False))
    whole = path.read_bytes()
    assert whole.count(b"ihdr\0\0\1\x90") == 1
    lying = whole.replace(b"ihdr\0\0\1\x90", b"ihdr\x55\x5c\1\x90")
    assert read(lying, tmp_path).pixels == read(whole, tmp_path).pixels


@pytest.mark.parametrize("right", [True, False])
def test_deflated_files_may_end_with_a_checksum_which_then_counts(tmp_path, right):
    plain = dicom_file()
    inner = plain[plain.index(b"\x08\x00\x16\x00UI") :]
    tail = struct.pack("<II", zlib.crc32(inner) ^ (not right), len(inner))
    if right:
        np.testing.assert_array_equal(read(deflated(plain) + tail, tmp_path).values[0], SMOOTH)
    else:
        with pytest.raises(DataError, match="fails its checksum"):
            read(deflated(plain) + tail, tmp_path)


def test_a_header_of_too_many_items_is_refused_before_it_fills_the_memory(tmp_path):
    data = item_bomb(40_000)
    (tmp_path / "a.dcm").write_bytes(data)
    with Room(2**26).file() as hold, pytest.raises(DataError, match="more elements than are read"):
        read_file(tmp_path / "a.dcm", 2, hold)
    at = data.index(b"\x40\x00\x75\x02SQ") + 8
    body = data[at + 4 : data.index(b"\xfe\xff\xdd\xe0", at)]
    packed = data[:at] + struct.pack("<I", len(body)) + body + data[at + 4 + len(body) + 8 :]
    (tmp_path / "a.dcm").write_bytes(packed)
    with Room(2**26).file() as hold, pytest.raises(DataError, match="more elements than are read"):
        read_file(tmp_path / "a.dcm", 2, hold)
    read(packed, tmp_path)


def test_values_of_absurd_length_are_refused_where_they_are_used(tmp_path):
    long = ["1"] * 200_000
    at = dicom_file(WindowCenter=["1"], WindowWidth=["2"])
    place = at.index(b"\x28\x00\x50\x10DS")
    value = "\\".join(long).encode() + b" "
    element = b"\x28\x00\x50\x10UN\0\0" + struct.pack("<I", len(value)) + value
    image = read(at[:place] + element + at[place + 10 :], tmp_path)
    assert "absurd length" in image.window_problem
    assert image.window is None


def test_identifiers_are_found_wherever_they_lie_and_nothing_else_is_unpacked(tmp_path):
    inner = Dataset()
    inner.PatientID, inner.ReferencedSOPInstanceUID = "INNER", "1.2.3.4"
    data = dicom_file(PatientName="Doe^Jane", StudyDate="20200102", ReferencedImageSequence=Sequence([inner]))
    found = set(read(data, tmp_path).identifiers)
    assert {("name", "Doe^Jane"), ("date", "20200102"), ("identifier", "INNER"), ("uid", "1.2.3.4")} <= found
    again = pydicom.dcmread(tmp_path / "a.dcm")
    again.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    again.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    with quiet_readers():
        assert set(read_file(tmp_path / "b.dcm", 2).identifiers) == found


def test_samples_that_the_photometric_interpretation_does_not_have_are_refused(tmp_path):
    colour = np.dstack([SMOOTH] * 3)
    with pytest.raises(DataError, match="has 3 samples a pixel; its photometric interpretation has 1"):
        read(dicom_file(colour, PhotometricInterpretation="MONOCHROME2"), tmp_path)
