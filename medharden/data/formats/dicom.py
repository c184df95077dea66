"""DICOM images through pydicom: modality transform, own window, colour, frames; no header text in any error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medharden.data.formats.dicom_file import open_data_set, raw_value
from medharden.data.formats.dicom_pixels import stored_values
from medharden.data.formats.header import header_identifiers
from medharden.data.formats.image import MALFORMED, StoredImage, digest_array, digest_parts, slabs
from medharden.data.formats.limits import Hold
from medharden.data.formats.numbers import number_of, text_of
from medharden.data.formats.one_frame import frame_number, reduce_to_frame
from medharden.data.formats.palette import check_palette
from medharden.data.formats.pictures import collapse
from medharden.data.formats.placing import frame_slices, functional_groups, number_of_frames
from medharden.data.formats.stack import Arrangement, arrange
from medharden.data.formats.voi import OwnWindow, own_window
from medharden.data.formats.window import Window
from medharden.errors import DataError
from medharden.protocol import Frames, Volume

__all__ = ["open_dicom", "padding_of", "read_dicom", "rescale_of", "stored_range"]

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_ALLOCATED = (8, 16)


def read_dicom(path: Path, dims: int, hold: Hold, volume: Volume | None = None, frames: Frames = "one") -> StoredImage:
    """Decodes one DICOM image in rescaled units; several frames are one volume where `dims` is 3.

    Frames that have positions are sorted by them and reoriented to the closest canonical axes (RAS+): (D, H, W) are
    left to right, back to front and bottom to top, as of NIfTI. Without positions they lie as stored, with a note.

    Raises:
        DataError: with the reason alone: no pixels, truncated, too large, other frames than `dims` asks for, frames
            that are several volumes or none, an unsupported photometric interpretation or bit depth.
    """
    return open_dicom(path, dims, hold, volume, frames)[1]


def open_dicom(
    path: Path, dims: int, hold: Hold, volume: Volume | None = None, frames: Frames = "one"
) -> tuple[Dataset, StoredImage, npt.NDArray[Any]]:
    """The data set, its image, and the stored values as decoded: (*spatial) grey, (*spatial, 3) colour.

    Raises:
        DataError: as `read_dicom`.
    """
    try:
        ds, size = open_data_set(path, hold)
        if dims == 2 and "PixelData" in ds:
            reduce_to_frame(ds, frame_number(frames, number_of_frames(ds)))
        return ds, *_decode(ds, dims, hold, size, volume or Volume())
    except (*MALFORMED, InvalidDicomError, BytesLengthException) as error:
        raise DataError(f"can't be decoded as DICOM: truncated or damaged ({type(error).__name__})") from None


def _decode(ds: Dataset, dims: int, hold: Hold, size: int, volume: Volume) -> tuple[StoredImage, npt.NDArray[Any]]:
    photometric = _checked(ds, dims)
    arrangement = arrange(frame_slices(ds), volume) if dims == 3 else None
    size += _mask_bytes(ds)
    try:
        stored = stored_values(ds, hold, outputs=1 if photometric in _GREY else 3, beside=size)
    except (RuntimeError, NotImplementedError):
        syntax = ds.file_meta.TransferSyntaxUID
        known = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "an unknown encoding"
        raise DataError(
            f"can't be decompressed ({known}): damaged, or pydicom has no decoder for it here (GDCM)"
        ) from None
    if photometric in _GREY:
        values, padding = _grey(ds, stored, arrangement)
        first = 0 if arrangement is None else arrangement.order[0]
        whole, own = _whole_grey(ds), own_window(ds, first)
    else:
        values, padding = _colour(ds, stored, photometric, arrangement), None
        whole, own = _whole_colour(ds, photometric), OwnWindow(None, 1)
    frames = stored if arrangement is None else (stored[n] for n in arrangement.order)
    shape = stored.shape if arrangement is None else (len(arrangement.order), *stored.shape[1:])
    image = StoredImage(
        values=values,
        window=None if own.unusable else own.window or whole,
        format="dicom",
        pixels=digest_array(stored) if arrangement is None else digest_parts(stored.dtype, shape, frames),
        inverted=photometric == "MONOCHROME1",
        windows=own.offered,
        window_problem=own.unusable,
        padding=padding,
        patient=text_of(ds, "PatientID"),
        attributes=_attributes(ds),
        identifiers=header_identifiers(ds),
        notes=() if arrangement is None else arrangement.notes,
        affine=None if arrangement is None else arrangement.placed(int(ds.Rows), int(ds.Columns)),
    )
    return image, stored


def _checked(ds: Dataset, dims: int) -> str:
    """The photometric interpretation, after everything that can be refused before the pixels are decoded."""
    if "PixelData" not in ds:
        raise DataError("holds no integer pixels (a report, structure set, or floating-point map?)")
    photometric = text_of(ds, "PhotometricInterpretation")
    if photometric not in (*_GREY, *_COLOUR, _PALETTE):
        raise DataError("has a photometric interpretation that is not supported; expected grey, RGB, YBR or palette")
    samples = 1 if photometric in (*_GREY, _PALETTE) else 3
    if int(ds.SamplesPerPixel) != samples:
        raise DataError(f"has {int(ds.SamplesPerPixel)} samples a pixel; its photometric interpretation has {samples}")
    _check_bits(ds)
    frames = number_of_frames(ds)
    if dims == 3 and frames == 1:
        raise DataError("has a single frame; input.dims is 3")
    return photometric


def _check_bits(ds: Dataset) -> None:
    """Refuses bits that lie otherwise than the standard asks (PS3.5 8.1.1): they would be read as other values."""
    allocated, bits = int(ds.BitsAllocated), int(ds.BitsStored)
    if allocated not in _ALLOCATED:
        raise DataError(f"stores {allocated} bits a value, expected 8 or 16")
    if not 1 <= bits <= allocated:
        raise DataError(f"says that {bits} of {allocated} bits are used (BitsStored)")
    if "HighBit" in ds and int(ds.HighBit) != bits - 1:
        raise DataError(
            f"says that its highest bit is {int(ds.HighBit)} of {bits} bits stored (HighBit); DICOM allows {bits - 1} "
            "alone, so where the values lie in their bits can't be told"
        )


def _grey(
    ds: Dataset, stored: npt.NDArray[Any], arrangement: Arrangement | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """(1, *spatial) rescaled units (PS3.3 C.11.1), and where there is padding."""
    asis, order = arrangement is None, np.arange(len(stored)) if arrangement is None else np.array(arrangement.order)
    arrangement = arrangement or Arrangement((), None)
    shape = len(order), *stored.shape[1:]
    values, ordered = arrangement.room(shape, np.float32)
    mask, masked = arrangement.room(shape, np.bool_) if _mask_bytes(ds) else (None, None)
    if table := ds.get("ModalityLUTSequence"):
        raw_value(table[0], "LUTData")
    slopes, intercepts = rescale_of(ds)
    kind = np.float32 if _exact(slopes, intercepts, stored.dtype) else np.float64
    slopes, intercepts, spread = slopes.astype(kind), intercepts.astype(kind), (-1, *[1] * (stored.ndim - 1))
    for part in slabs(shape):
        taken = stored[part] if asis else stored[order[part]]
        if table:
            ordered[part] = apply_modality_lut(taken, ds)
        else:
            one = slice(None) if slopes.size == 1 else order[part]
            scaled = np.multiply(taken, slopes[one].reshape(spread), dtype=kind)
            scaled += intercepts[one].reshape(spread)
            ordered[part] = scaled
        if masked is not None:
            masked[part] = padding_of(ds, taken)
    return values[None], mask if mask is not None and mask.any() else None


def _exact(slopes: npt.NDArray[np.float64], intercepts: npt.NDArray[np.float64], stored: np.dtype[Any]) -> bool:
    """Whether rescaling in float32 gives what float64 does: whole numbers of 24 bits at most throughout."""
    whole = all(bool((each == np.rint(each)).all()) for each in (slopes, intercepts))
    most = 2 ** (8 * stored.itemsize)
    return whole and float(np.abs(slopes).max()) * most + float(np.abs(intercepts).max()) <= 2**24


def _whole_grey(ds: Dataset) -> Window:
    """What the bits stored can hold, in rescaled units."""
    if ds.get("ModalityLUTSequence"):
        return Window(0.0, float(2 ** int(ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1))
    slopes, intercepts = rescale_of(ds)
    low, high = stored_range(ds)
    ends = np.concatenate([low * slopes + intercepts, high * slopes + intercepts])
    return Window(float(ends.min()), float(ends.max()))


def _mask_bytes(ds: Dataset) -> int:
    """What the mask of padding takes in memory; nothing where the file knows none."""
    if ds.get("PixelPaddingValue") is None:
        return 0
    return number_of_frames(ds) * int(ds.Rows) * int(ds.Columns)


def padding_of(ds: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where the pixel padding value, or the range it opens, says that there is no image (PS3.3 C.7.5.1.1.2).

    Args:
        ds: the data set.
        stored: values of any shape.
    """
    value = raw_value(ds, "PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = raw_value(ds, "PixelPaddingRangeLimit")
    ends = [_as_stored(ds, one) for one in (value, value if limit is None else limit)]
    padding: npt.NDArray[np.bool_] = (stored >= min(ends)) & (stored <= max(ends))
    return padding


def _as_stored(ds: Dataset, value: Any) -> int:
    """A padding value with the sign of the pixels, whichever way it is written: both have the same sixteen bits."""
    if isinstance(value, bytes):  # of a value representation that pydicom does not know without the pixels'
        value = int.from_bytes(value[:2], "little" if ds.file_meta.TransferSyntaxUID.is_little_endian else "big")
    number, signed = int(value), bool(int(ds.PixelRepresentation))
    if signed and number >= 2**15:
        return number - 2**16
    return number + 2**16 if not signed and number < 0 else number


def rescale_of(ds: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Slope and intercept, one for all frames or one a frame (enhanced multi-frame images)."""
    groups = functional_groups(ds, "PixelValueTransformationSequence")
    items = [group.PixelValueTransformationSequence[0] for group in groups] or [ds]
    slopes = [number_of(item, "RescaleSlope", 1.0) for item in items]
    intercepts = [number_of(item, "RescaleIntercept", 0.0) for item in items]
    if 0.0 in slopes:
        raise DataError("has a rescale slope of 0")
    return np.array(slopes), np.array(intercepts)


def stored_range(ds: Dataset) -> tuple[int, int]:
    """Smallest and largest value that the bits stored can hold, signed or unsigned (PS3.5 section 8.1.1)."""
    bits = int(ds.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(ds.PixelRepresentation) else (0, 2**bits - 1)


def _colour(
    ds: Dataset, stored: npt.NDArray[Any], photometric: str, arrangement: Arrangement | None
) -> npt.NDArray[np.float32]:
    """(1 or 3, *spatial) stored colour levels."""
    if photometric == _PALETTE:
        check_palette(ds)
        stored = apply_color_lut(stored, ds)
    if stored.shape[-1] != 3:
        raise DataError(f"has {stored.shape[-1]} colour channels, expected 3")
    if arrangement is None:
        return collapse(np.moveaxis(stored, -1, 0).astype(np.float32))
    planes = []
    for channel in range(3):
        values, ordered = arrangement.room((len(arrangement.order), *stored.shape[1:3]), np.float32)
        for place, number in enumerate(arrangement.order):
            ordered[place] = stored[number, ..., channel]
        planes.append(values)
    return collapse(np.stack(planes))


def _whole_colour(ds: Dataset, photometric: str) -> Window:
    bits = int(ds.RedPaletteColorLookupTableDescriptor[2]) if photometric == _PALETTE else int(ds.BitsStored)
    return Window(0.0, float(2**bits - 1))


def _attributes(ds: Dataset) -> dict[str, str]:
    scanner = " ".join(part for part in (text_of(ds, "Manufacturer"), text_of(ds, "ManufacturerModelName")) if part)
    found = {
        "sex": text_of(ds, "PatientSex"),
        "age": text_of(ds, "PatientAge"),
        "site": text_of(ds, "InstitutionName"),
        "scanner": scanner,
    }
    return {name: value for name, value in found.items() if value}
