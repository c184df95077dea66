"""Every file that pydicom ships: read to the pixels that pydicom's own pipeline gives, or refused with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from data_helpers import dicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGExtended12Bit

from medharden.data.formats.dicom import open_dicom, read_dicom
from medharden.data.formats.header import header_identifiers
from medharden.data.formats.image import quiet_readers
from medharden.data.formats.limits import Room
from medharden.errors import DataError

imagecodecs = pytest.importorskip("imagecodecs")
ROOT = Path(pydicom.__file__).parent / "data"
FILES = sorted(p for p in ROOT.rglob("*") if p.is_file() and (p.suffix in (".dcm", "") or "DICOMDIR" in p.name))
TWELVE_BITS = ("JPEG-lossy.dcm", "JPGExtended.dcm")  # which pydicom has no decoder for here
READABLE = {  # by pydicom, and refused here: reason and number of files
    "stores 32 bits a value, expected 8 or 16": 8,
    "stores 1 bits a value, expected 8 or 16": 2,
    "holds 128 bytes of pixels beyond the 8192 that its rows, columns, frames and bits give": 1,
}


def stored(path: Path) -> np.ndarray:
    with quiet_readers():
        try:
            with Room().file() as hold:
                return open_dicom(path, 2, hold)[2]
        except DataError as error:
            if "frames, expected one" not in str(error):
                raise
        with Room().file() as hold:
            return open_dicom(path, 3, hold)[2]


def by_pydicom(path: Path) -> np.ndarray | None:
    with quiet_readers():
        try:
            return pydicom.dcmread(path, force=True).pixel_array
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            return None


def test_every_file_is_read_to_the_same_pixels_or_refused_with_a_reason():
    same, refused, neither = Counter(), Counter(), 0
    for path in FILES:
        wanted = by_pydicom(path)
        try:
            found = stored(path)
        except DataError as error:
            if wanted is not None:
                refused[str(error)] += 1
            neither += wanted is None
            continue
        if path.name in TWELVE_BITS:
            assert wanted is None
            continue
        assert wanted is not None, path.name
        np.testing.assert_array_equal(found, wanted, err_msg=path.name)
        assert found.dtype.kind == wanted.dtype.kind
        same[path.suffix] += 1
    assert dict(refused) == READABLE
    assert sum(same.values()) + neither + sum(refused.values()) + len(TWELVE_BITS) == len(FILES)
    assert sum(same.values()) >= 80


def twelve(path: Path, frames: np.ndarray, change=lambda data: data, **fields: object) -> Path:
    """A file of 12-bit JPEG, frame by frame."""
    encoded = [change(imagecodecs.jpeg8_encode(frame, level=98, bitspersample=12)) for frame in frames]
    ds = pydicom.dcmread(dicom(path, frames if len(frames) > 1 else frames[0], BitsStored=12, HighBit=11, **fields))
    ds.file_meta.TransferSyntaxUID, ds.PixelData = JPEGExtended12Bit, encapsulate(encoded)
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path, enforce_file_format=True)
    return path


RAMP = np.stack([np.add.outer(np.arange(67) * 20, np.arange(50) * 30 + k) for k in (0, 700)]).astype(np.uint16)


@pytest.mark.parametrize("count", [1, 2])
def test_jpeg_of_12_bits_is_read_to_what_was_encoded(tmp_path, count):
    path = twelve(tmp_path / "a.dcm", RAMP[:count])
    assert abs(stored(path).astype(int) - (RAMP if count > 1 else RAMP[0])).max() <= 8
    assert stored(path).max() > 2**8


def test_signed_jpeg_of_12_bits_keeps_its_sign(tmp_path):
    frame = np.where(RAMP[:1] > 2047, RAMP[:1], RAMP[:1] % 2048)
    found = stored(twelve(tmp_path / "a.dcm", frame, PixelRepresentation=1)).astype(int)
    wanted = np.where(frame[0] > 2047, frame[0].astype(int) - 4096, frame[0])
    far = abs(wanted) < 2000  # values beside the wrap may end on its other side
    assert np.median(abs(found - wanted)[far]) <= 4
    assert found.min() < -1000


def cut_in_half(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


def without_some(data: bytes) -> bytes:
    middle = 2 * len(data) // 3
    return data[:middle] + data[middle + 40 :]


@pytest.mark.parametrize("change", [cut_in_half, without_some])
def test_damaged_jpeg_of_12_bits_is_refused_though_its_decoder_says_nothing(tmp_path, change):
    path = twelve(tmp_path / "a.dcm", RAMP[:1], change)
    with quiet_readers(), Room().file() as hold, pytest.raises(DataError, match="is damaged"):
        read_dicom(path, 2, hold)


def test_identifying_dates_and_uids_of_every_header_are_those_that_pydicom_gives():
    compared = Counter()
    for path in FILES:
        with quiet_readers():
            wanted: Counter[str] = Counter()

            def note(_, element, wanted=wanted):
                if element.VR in ("UI", "DA", "DT") and element.value:
                    values = element.value if element.VM > 1 else [element.value]
                    wanted.update(str(v) for v in values if str(v) and not str(v).startswith("1.2.840.10008."))

            ds = pydicom.dcmread(path, force=True)
            found = {text for kind, text in header_identifiers(ds) if kind in ("uid", "date")}
            pydicom.dcmread(path, force=True).walk(note)
        assert set(wanted) == found, path.name
        compared.update(kind for kind, _ in header_identifiers(ds))
    assert compared["uid"] > 500
    assert compared["date"] > 100
