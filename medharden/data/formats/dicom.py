"""DICOM images through pydicom: modality transform, own window, colour, frames; no header text in any error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medharden.data.formats.dicom_file import open_data_set, raw_value
from medharden.data.formats.dicom_pixels import stored_values
from medharden.data.formats.geometry import Grid, grid_of
from medharden.data.formats.header import header_identifiers
from medharden.data.formats.image import MALFORMED, StoredImage, digest_array, slabs
from medharden.data.formats.limits import Hold
from medharden.data.formats.palette import check_palette
from medharden.data.formats.pictures import collapse
from medharden.data.formats.window import Window
from medharden.errors import DataError

__all__ = [
    "FRAMES_AS_STORED",
    "functional_groups",
    "open_dicom",
    "padding_of",
    "place_of",
    "read_dicom",
    "rescale_of",
    "stored_range",
]

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_ALLOCATED = (8, 16)
FRAMES_AS_STORED = "data.frames_as_stored"


def read_dicom(path: Path, dims: int, hold: Hold) -> StoredImage:
    """Decodes one DICOM image in rescaled units; several frames are one volume where `dims` is 3.

    Raises:
        DataError: with the reason alone: no pixels, truncated, too large, other frames than `dims` asks for, an
            unsupported photometric interpretation, bit depth or window.
    """
    return open_dicom(path, dims, hold)[1]


def open_dicom(path: Path, dims: int, hold: Hold) -> tuple[Dataset, StoredImage, npt.NDArray[Any]]:
    """The data set, its image, and the stored values as decoded: (*spatial) grey, (*spatial, 3) colour.

    Raises:
        DataError: as `read_dicom`.
    """
    try:
        ds, size = open_data_set(path, hold)
        return ds, *_decode(ds, dims, hold, size)
    except (*MALFORMED, InvalidDicomError, BytesLengthException) as error:
        raise DataError(f"can't be decoded as DICOM: truncated or damaged ({type(error).__name__})") from None


def _decode(ds: Dataset, dims: int, hold: Hold, size: int) -> tuple[StoredImage, npt.NDArray[Any]]:
    photometric = _checked(ds, dims)
    try:
        stored = stored_values(ds, hold, outputs=1 if photometric in _GREY else 3, beside=size)
    except (RuntimeError, NotImplementedError):
        syntax = ds.file_meta.TransferSyntaxUID
        known = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "an unknown encoding"
        raise DataError(
            f"can't be decompressed ({known}): damaged, or pydicom has no decoder for it here (see pylibjpeg, gdcm)"
        ) from None
    padding, problem = None, ""
    window: Window | None
    if photometric in _GREY:
        values, window, windows, problem = _grey(ds, stored)
        padding = padding_of(ds, stored)
    else:
        values, window, windows = _colour(ds, stored, photometric), _whole_colour(ds, photometric), 1
    grid = _grid(ds) if _frames(ds) > 1 else None
    if grid is not None:
        values = np.stack([grid.volume(plane) for plane in values]) if len(values) > 1 else grid.volume(values[0])[None]
        padding = None if padding is None else grid.volume(padding)
    image = StoredImage(
        values=values,
        window=window,
        format="dicom",
        pixels=digest_array(stored),
        inverted=photometric == "MONOCHROME1",
        windows=windows,
        patient=_text(ds, "PatientID"),
        attributes=_attributes(ds),
        identifiers=header_identifiers(ds),
        padding=padding,
        window_problem=problem,
        notes=(FRAMES_AS_STORED,) if _frames(ds) > 1 and grid is None else (),
    )
    return image, stored


def _checked(ds: Dataset, dims: int) -> str:
    """The photometric interpretation, after everything that can be refused before the pixels are decoded."""
    if "PixelData" not in ds:
        raise DataError("holds no integer pixels (a report, structure set, or floating-point map?)")
    photometric = _text(ds, "PhotometricInterpretation")
    if photometric not in (*_GREY, *_COLOUR, _PALETTE):
        raise DataError("has a photometric interpretation that is not supported; expected grey, RGB, YBR or palette")
    samples = 1 if photometric in (*_GREY, _PALETTE) else 3
    if int(ds.SamplesPerPixel) != samples:
        raise DataError(f"has {int(ds.SamplesPerPixel)} samples a pixel; its photometric interpretation has {samples}")
    if ds.BitsAllocated not in _ALLOCATED:
        raise DataError(f"stores {int(ds.BitsAllocated)} bits a value, expected 8 or 16")
    if int(ds.HighBit) != int(ds.BitsStored) - 1:
        raise DataError(
            f"has a high bit of {int(ds.HighBit)} for {int(ds.BitsStored)} bits stored, where DICOM asks for "
            f"{int(ds.BitsStored) - 1}: which bits hold the value can't be told"
        )
    frames = _frames(ds)
    if dims == 2 and frames != 1:
        raise DataError(f"has {frames} frames, expected one (volumes need input.dims: 3)")
    if dims == 3 and frames == 1:
        raise DataError("has a single frame; input.dims is 3")
    return photometric


def _frames(ds: Dataset) -> int:
    return int(ds.get("NumberOfFrames") or 1)


def _grid(ds: Dataset) -> Grid | None:
    """Where the frames of an enhanced image lie, or None where it does not say.

    Raises:
        DataError: they are no one volume.
    """
    places = functional_groups(ds, "PlanePositionSequence")
    directions = functional_groups(ds, "PlaneOrientationSequence")
    if not places or not directions:
        return None
    positions = [_numbers(group.PlanePositionSequence[0], "ImagePositionPatient") for group in places]
    cosines = [_numbers(group.PlaneOrientationSequence[0], "ImageOrientationPatient") for group in directions]
    if len(positions) != _frames(ds):
        raise DataError("has several frames at one place: time points, echoes or energies, expected one volume")
    if {len(p) for p in positions} != {3} or {len(c) for c in cosines} != {6}:
        raise DataError("has frames without a place or direction")
    return grid_of(np.array(positions), np.array(cosines))


def place_of(ds: Dataset) -> tuple[list[float], list[float]]:
    """Where a single frame lies: (3,) its first pixel in mm, and (6,) the directions of rows and columns, or none.

    Raises:
        DataError: the file does not say.
    """
    position, cosines = _numbers(ds, "ImagePositionPatient"), _numbers(ds, "ImageOrientationPatient")
    if len(position) != 3:
        raise DataError(
            "is a series whose slices do not say where they lie (Image Position), so their order is unknown"
        )
    if len(cosines) not in (0, 6):
        raise DataError("is a series whose slices do not say how they lie (Image Orientation)")
    return position, cosines


def padding_of(ds: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where the pixel padding value, or the range it opens, says that there is no image (PS3.3 C.7.5.1.1.2)."""
    value, limit = raw_value(ds, "PixelPaddingValue"), raw_value(ds, "PixelPaddingRangeLimit")
    if value is None:
        return None
    signed = bool(int(ds.PixelRepresentation))
    written = [int(str(v)) for v in (value, value if limit is None else limit)]
    # a negative value is often written as unsigned, with the same sixteen bits
    ends = [v - 2**16 if signed and v >= 2**15 else v for v in written]
    padding: npt.NDArray[np.bool_] = (stored >= min(ends)) & (stored <= max(ends))
    return padding


def _grey(ds: Dataset, stored: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], Window | None, int, str]:
    """Rescaled units (PS3.3 C.11.1), the window in force, how many the file offers (0: the whole range).

    The window is None where the file's own can't be used; last is why. The protocol may need none.
    """
    values = np.empty(stored.shape, dtype=np.float32)
    if ds.get("ModalityLUTSequence"):
        raw_value(ds.ModalityLUTSequence[0], "LUTData")
        for part in slabs(stored.shape):
            values[part] = apply_modality_lut(stored[part], ds)
        whole = Window(0.0, float(2 ** int(ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1))
    else:
        slope, intercept = rescale_of(ds)
        spread = (-1, *[1] * (stored.ndim - 1))
        for part in slabs(stored.shape):
            one = slice(None) if slope.size == 1 else part
            values[part] = stored[part].astype(np.float64) * slope[one].reshape(spread) + intercept[one].reshape(spread)
        low, high = stored_range(ds)
        ends = np.concatenate([low * slope + intercept, high * slope + intercept])
        whole = Window(float(ends.min()), float(ends.max()))
    try:
        window, windows = _own_window(ds)
    except DataError as error:
        return values[None], None, 1, str(error)
    except MALFORMED:
        return values[None], None, 1, "has a window or VOI table that is broken"
    return values[None], window or whole, windows, ""


def rescale_of(ds: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Slope and intercept, one for all frames or one a frame (enhanced multi-frame images)."""
    groups = functional_groups(ds, "PixelValueTransformationSequence")
    items = [group.PixelValueTransformationSequence[0] for group in groups] or [ds]
    slopes = [_number(item, "RescaleSlope", 1.0) for item in items]
    intercepts = [_number(item, "RescaleIntercept", 0.0) for item in items]
    if 0.0 in slopes:
        raise DataError("has a rescale slope of 0")
    return np.array(slopes), np.array(intercepts)


def functional_groups(ds: Dataset, name: str) -> list[Dataset]:
    """The functional groups that hold a sequence: one shared by all frames, or one a frame, or none."""
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = [group for group in ds.get(sequence) or [] if group.get(name)]
        if groups and len(groups) not in (1, _frames(ds)):
            raise DataError("describes some of its frames only")
        if groups:
            return groups
    return []


def stored_range(ds: Dataset) -> tuple[int, int]:
    """Smallest and largest value that the bits stored can hold, signed or unsigned (PS3.5 section 8.1.1)."""
    bits = int(ds.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(ds.PixelRepresentation) else (0, 2**bits - 1)


def _own_window(ds: Dataset) -> tuple[Window | None, int]:
    """The first VOI table or window (PS3.3 C.11.2), tables before windows, and how many the file offers."""
    groups = functional_groups(ds, "FrameVOILUTSequence")
    items = [group.FrameVOILUTSequence[0] for group in groups] or [ds]
    item = items[0]
    tables = list(item.get("VOILUTSequence") or [])
    centers, widths = _numbers(item, "WindowCenter"), _numbers(item, "WindowWidth")
    offered = len(tables) + min(len(centers), len(widths))
    if tables:
        return _table(tables[0], ds), offered
    if not centers or not widths:
        return None, 0
    if any(_numbers(i, "WindowCenter") != centers or _numbers(i, "WindowWidth") != widths for i in items):
        offered += 1  # frames with windows of their own: the first frame's serves the volume
    return _function(item, centers[0], widths[0]), offered


def _function(item: Dataset, center: float, width: float) -> Window:
    function = (_text(item, "VOILUTFunction") or "LINEAR").upper()
    if not np.isfinite([center, width]).all() or width <= 0 or (function == "LINEAR" and width < 1):
        raise DataError("has a window of a width that DICOM forbids")
    if function == "LINEAR":
        return Window.linear(center, width)
    if function == "LINEAR_EXACT":
        return Window.exact(center, width)
    if function == "SIGMOID":
        return Window.sigmoid(center, width)
    raise DataError("has a window function that is not supported; expected LINEAR, LINEAR_EXACT or SIGMOID")


def _table(item: Dataset, ds: Dataset) -> Window:
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries or 2**16
    if first >= 2**15 and int(ds.PixelRepresentation) and not ds.get("ModalityLUTSequence"):
        first -= 2**16  # written as unsigned, meant as signed (PS3.3 C.11.2.1.1)
    data = raw_value(item, "LUTData")
    if isinstance(data, bytes):
        little = ds.file_meta.TransferSyntaxUID.is_little_endian
        data = np.frombuffer(data, dtype="<u2" if little else ">u2")
    levels = np.asarray(data, dtype=np.float64)[:entries]
    if levels.size != entries or not 8 <= bits <= 16:
        raise DataError("has a VOI lookup table that does not match its description")
    return Window(float(first), float(first + entries - 1), "table", tuple((levels / (2**bits - 1)).tolist()))


def _colour(ds: Dataset, stored: npt.NDArray[Any], photometric: str) -> npt.NDArray[np.float32]:
    """(1 or 3, *spatial) stored colour levels."""
    if photometric == _PALETTE:
        check_palette(ds)
        stored = apply_color_lut(stored, ds)
    if stored.shape[-1] != 3:
        raise DataError(f"has {stored.shape[-1]} colour channels, expected 3")
    return collapse(np.moveaxis(stored, -1, 0).astype(np.float32))


def _whole_colour(ds: Dataset, photometric: str) -> Window:
    bits = int(ds.RedPaletteColorLookupTableDescriptor[2]) if photometric == _PALETTE else int(ds.BitsStored)
    return Window(0.0, float(2**bits - 1))


def _attributes(ds: Dataset) -> dict[str, str]:
    scanner = " ".join(part for part in (_text(ds, "Manufacturer"), _text(ds, "ManufacturerModelName")) if part)
    found = {
        "sex": _text(ds, "PatientSex"),
        "age": _text(ds, "PatientAge"),
        "site": _text(ds, "InstitutionName"),
        "scanner": scanner,
    }
    return {name: value for name, value in found.items() if value}


def _text(ds: Dataset, name: str) -> str:
    value = raw_value(ds, name)
    return "" if value is None else str(value).strip()


def _numbers(ds: Dataset, name: str) -> list[float]:
    try:
        value: Any = raw_value(ds, name)
        if value is None or value == "":
            return []
        return [float(v) for v in value] if isinstance(value, (list, tuple, MultiValue)) else [float(value)]
    except (ValueError, TypeError, ArithmeticError):
        raise DataError(_no_number(ds, name)) from None


def _no_number(ds: Dataset, name: str) -> str:
    """What is wrong with an element that should hold numbers; its value is not quoted."""
    element = ds.get_item(name)
    value = element.value if element is not None else b""
    if isinstance(value, (list, tuple, MultiValue)):
        value = "\\".join(map(str, value)).encode("ascii", "replace")
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    if "," in text:
        return f"has a decimal comma in {name}, where DICOM asks for a point"
    if any(not part.strip() for part in text.split("\\")):
        return f"has several values in {name}, of which one is empty"
    return f"has no number in {name}"


def _number(ds: Dataset, name: str, default: float) -> float:
    numbers = _numbers(ds, name)
    return numbers[0] if numbers else default
