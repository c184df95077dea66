"""The pixels of a DICOM data set: as many bytes and frames as its header says, decoded through pydicom.

pydicom drops what is too much with a warning, follows offset tables wherever they point, and hands a codestream on to
its decoder whatever size that claims. All of it is held against the header here, before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import as_pixel_options, get_decoder, pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from medharden.data.formats.fragments import frames_of
from medharden.data.formats.j2k import bare_j2k, walk_j2k
from medharden.data.formats.jpeg import check_entropy, check_marks, walk_jpeg
from medharden.data.formats.jpeg12 import decode_jpeg12
from medharden.data.formats.limits import Hold
from medharden.data.formats.rle import decode_rle
from medharden.errors import DataError

__all__ = ["check_length", "stored_values"]

_DECODED = 8  # bytes that GDCM and pydicom need for one value of a frame, beside those that any array needs
_PLUGIN = "gdcm"  # alone: what it can't decode is not tried with another decoder, for which nothing was counted
_CONVERTED = 4  # bytes for a value of colour, which pydicom turns from YBR to RGB all at once

_HUFFMAN, _LOSSLESS, _LS = (0xC0, 0xC1, 0xC2), (0xC3,), (0xF7,)
_KINDS = {  # markers of the frame and bits that a transfer syntax allows; GDCM crashes over some others
    JPEGBaseline8Bit: (_HUFFMAN, (8,)),
    JPEGExtended12Bit: (_HUFFMAN, (8, 12)),
    JPEGLossless: (_LOSSLESS, range(2, 17)),
    JPEGLosslessSV1: (_LOSSLESS, range(2, 17)),
    JPEGLSLossless: (_LS, range(2, 17)),
    JPEGLSNearLossless: (_LS, range(2, 17)),
}


@dataclass(frozen=True)
class _Claim:
    """What the header says of the pixels."""

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def stored_values(ds: Dataset, hold: Hold, *, outputs: int, beside: int) -> npt.NDArray[Any]:
    """The stored values as decoded: (*spatial) grey, (*spatial, 3) colour, the frames first where there are several.

    Args:
        ds: the data set.
        hold: the memory that the file may take.
        outputs: channels that the image will have.
        beside: bytes that are held beside the image.

    Raises:
        DataError: too large, fewer or more bytes or frames than the header says, or a codestream that is damaged or of
            another size.
    """
    frames = int(ds.get("NumberOfFrames") or 1)
    claim = _Claim(int(ds.Rows), int(ds.Columns), frames, int(ds.SamplesPerPixel), int(ds.BitsAllocated))
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    if not syntax.is_encapsulated:
        _take(hold, claim, outputs, beside)
        check_length(ds)
        native: npt.NDArray[Any] = pixel_array(ds, view_only=True)
        return native
    decoder = get_decoder(syntax)
    encoded = frames_of(ds, claim.frames)
    memory = max(_check_size(frame, claim, syntax) for frame in encoded)
    _take(hold, claim, outputs, 3 * beside + memory + _DECODED * claim.pixels * claim.samples)
    if syntax == RLELossless:
        return _from_rle(ds, encoded, claim)
    if syntax in JPEGTransferSyntaxes:
        for frame in encoded:
            check_entropy(frame, walk_jpeg(frame))
    if (
        syntax == JPEGExtended12Bit
        and claim.samples == 1
        and any(walk_jpeg(frame).precision == 12 for frame in encoded)
    ):
        return _from_jpeg12(ds, encoded, claim)
    if syntax in JPEG2000TransferSyntaxes:
        encoded = [bare_j2k(frame) for frame in encoded]
    array: npt.NDArray[Any] = decoder.as_array(encapsulate(encoded), decoding_plugin=_PLUGIN, **_options(ds))[0]
    return array


def _options(ds: Dataset) -> dict[str, Any]:
    """What pydicom needs to know of the pixels; the frames are given to it one after the other, without tables."""
    options: dict[str, Any] = as_pixel_options(ds, pixel_keyword="PixelData", allow_excess_frames=False)
    options.pop("extended_offsets", None)
    return options


def _take(hold: Hold, claim: _Claim, outputs: int, beside: int) -> None:
    shape = claim.frames, claim.rows, claim.columns, max(claim.samples, outputs)
    converted = _CONVERTED * claim.frames * claim.pixels * claim.samples if claim.samples > 1 else 0
    hold.take_values(shape, claim.allocated // 8, beside=beside + converted)


def check_length(ds: Dataset) -> None:
    """Raises: DataError, where uncompressed pixels are fewer or more bytes than the header says."""
    wanted, found = get_expected_length(ds), len(ds.PixelData)
    if found < wanted:
        raise DataError(f"is cut off: {wanted - found} of {wanted} bytes of its pixels are missing (truncated)")
    if found > wanted + wanted % 2:
        raise DataError(
            f"holds {found - wanted} bytes of pixels beyond the {wanted} that its rows, columns, frames and bits give"
        )


def _check_size(frame: bytes, claim: _Claim, syntax: UID) -> int:
    """Holds the size that a codestream claims against the header; returns what its decoder needs beside the pixels."""
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        jpeg = walk_jpeg(frame)
        processes, depths = _KINDS[syntax]
        if jpeg.process not in processes or jpeg.precision not in depths or jpeg.precision > claim.allocated:
            raise DataError(f"holds a JPEG image of another kind ({jpeg.precision} bits) than its header says")
        check_marks(frame, jpeg)
        size, end, memory = (jpeg.height, jpeg.width, jpeg.components), jpeg.end, 0
    elif syntax in JPEG2000TransferSyntaxes:
        j2k = walk_j2k(frame)
        if j2k.precision > claim.allocated:
            raise DataError(f"holds a JPEG 2000 image of {j2k.precision} bits; its header allocates {claim.allocated}")
        size, end, memory = (j2k.height, j2k.width, j2k.components), j2k.end, j2k.memory
    else:
        return 0
    if size != (claim.rows, claim.columns, claim.samples):
        raise DataError("holds compressed pixels of another size than its header says (rows, columns, samples)")
    if frame[end:].strip(b"\0\xff"):
        raise DataError("holds a compressed frame that goes on after its end")
    return memory


def _from_jpeg12(ds: Dataset, encoded: Sequence[bytes], claim: _Claim) -> npt.NDArray[Any]:
    """Frames of 12 bits, with the sign that the header gives them."""
    values = np.empty((claim.frames, claim.rows, claim.columns), dtype=np.uint16)
    for number, frame in enumerate(encoded):
        stream = walk_jpeg(frame)
        if stream.precision != 12 or claim.allocated != 16:
            raise DataError("holds frames of 8 and of 12 bits, or allocates fewer than it stores")
        values[number] = decode_jpeg12(frame, stream)
    signed: npt.NDArray[Any] = values
    if int(ds.PixelRepresentation):
        shift = 16 - int(ds.BitsStored)
        signed = (values << shift).view(np.int16) >> shift
    return signed if claim.frames > 1 else signed[0]


def _from_rle(ds: Dataset, encoded: Sequence[bytes], claim: _Claim) -> npt.NDArray[Any]:
    length = claim.pixels * claim.samples * claim.allocated // 8
    decoded = bytearray(claim.frames * length)
    view = memoryview(decoded)
    for number, frame in enumerate(encoded):
        target = view[number * length : (number + 1) * length]
        decode_rle(frame, target, claim.pixels, claim.samples, claim.allocated // 8)
    options = _options(ds) | {"view_only": True}
    if claim.samples > 1:
        options["planar_configuration"] = 1
        if options["photometric_interpretation"] == "YBR_FULL_422":  # subsampled where it is not encoded, and not here
            options["photometric_interpretation"] = "YBR_FULL"
    array: npt.NDArray[Any] = get_decoder(ExplicitVRLittleEndian).as_array(decoded, **options)[0]
    return array
