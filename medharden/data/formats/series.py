"""A series of single-frame DICOM files as one volume: which files belong together, and their slices in space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.errors import BytesLengthException, InvalidDicomError

from medharden.data.formats.dicom import open_dicom, place_of
from medharden.data.formats.dicom_file import read_header
from medharden.data.formats.files import read_file, sniff
from medharden.data.formats.geometry import grid_of
from medharden.data.formats.image import MALFORMED, StoredImage, quiet_readers
from medharden.data.formats.limits import Hold, Room
from medharden.data.formats.window import Window
from medharden.errors import DataError

__all__ = ["ASSUMED_AXIAL", "Slice", "read_files", "slice_of"]

_BESIDE = 2**22  # bytes that reading one slice may take beside its values and its file
_VALUE, _FILE = 64, 4  # bytes for a value and for a byte of the file of the one slice in hand
_HEADER_ROOM = 2**27
_TAGS = ("SeriesInstanceUID", "NumberOfFrames", "ImageType", "Rows", "Columns", "PixelRepresentation")

_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ASSUMED_AXIAL = "data.assumed_axial"

Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """What a DICOM file of one frame says of the series that it is part of.

    Attributes:
        series: its Series Instance UID; it identifies, and enters no record.
        localiser: whether it is an overview on which slices are planned, and none itself.
    """

    series: str
    localiser: bool


def slice_of(path: Path) -> Slice | None:
    """What series a file is a slice of; None for any other file, or one that can't be read."""
    try:
        if sniff(path) != "dicom":
            return None
        with quiet_readers(), Room(_HEADER_ROOM).file() as hold:
            ds = read_header(path, _TAGS, hold)
            if "Rows" not in ds or int(ds.get("NumberOfFrames") or 1) != 1 or not ds.get("SeriesInstanceUID"):
                return None
            kinds = ds.get("ImageType") or ()
            parts = [kinds] if isinstance(kinds, str) else [str(kind) for kind in kinds]
            return Slice(str(ds.SeriesInstanceUID), any(part.upper() == "LOCALIZER" for part in parts))
    except (*MALFORMED, DataError, InvalidDicomError, BytesLengthException):
        return None


def read_files(paths: Sequence[Path], dims: int, hold: Hold | None = None) -> StoredImage:
    """Decodes a case: one file, or the slices of one series.

    Args:
        paths: one, or those of a series in any order.
        dims: spatial dimensions that are expected.
        hold: the memory that it may take; None allows the usual amount.

    Raises:
        DataError: as `read_file`; or the slices are no one volume.
    """
    if len(paths) == 1:
        return read_file(paths[0], dims, hold)
    if hold is None:
        with Room().file() as hold:
            return read_files(paths, dims, hold)
    if dims != 3:
        raise DataError("is a series of slices; the protocol's input.dims is 2 (set input.dims: 3)")
    return _volume(paths, hold)


def _volume(paths: Sequence[Path], hold: Hold) -> StoredImage:
    with Room(_HEADER_ROOM).file() as small:
        try:
            first = read_header(paths[0], _TAGS, small)
            pixels = int(first.Rows) * int(first.Columns)
        except (*MALFORMED, InvalidDicomError, BytesLengthException) as error:
            raise DataError(f"has a slice that can't be read ({type(error).__name__})") from None
    beside = _BESIDE + _FILE * max(path.stat().st_size for path in paths) + _VALUE * pixels
    hold.take_values((len(paths), pixels), 4, beside=beside)
    room = Room(beside)
    values: Floats = np.empty((0, 0, 0), dtype=np.float32)
    padding: npt.NDArray[np.bool_] | None = None
    images, places, directions = [], [], []
    for number, path in enumerate(paths):
        with room.file() as share:
            ds, image, _ = open_dicom(path, 2, share)
            place, direction = place_of(ds)
        if image.values.shape[0] != 1:
            raise DataError("is a series of colour slices, expected grey")
        if not number:
            values = np.empty((len(paths), *image.values.shape[1:]), dtype=np.float32)
            padding = np.zeros(values.shape, dtype=np.bool_)
        if image.values.shape[1:] != values.shape[1:]:
            raise DataError("is a series of slices of several sizes, expected one volume")
        values[number] = image.values[0]
        if image.padding is not None and padding is not None:
            padding[number] = image.padding
        places.append(place)
        directions.append(direction)
        images.append(replace(image, values=image.values[:, :0, :0], padding=None))
    notes, turned = _directions(np.array(places), directions)
    grid = grid_of(np.array(places), turned)
    joined = _joined(
        [images[n] for n in grid.order],
        grid.volume(values)[None],
        grid.volume(padding) if padding is not None and padding.any() else None,
    )
    return replace(joined, notes=(*joined.notes, *notes))


def _directions(places: _Doubles, said: Sequence[Sequence[float]]) -> tuple[tuple[str, ...], _Doubles]:
    """(F, 6) directions of rows and columns, and a note where they had to be assumed.

    Slices that do not say how they lie are taken to be axial where their places differ from bottom to top alone.
    """
    if all(said):
        return (), np.array(said)
    if any(said) or np.ptp(places[:, :2], axis=0).max() > 0:
        raise DataError("is a series whose slices do not say how they lie (Image Orientation)")
    return (ASSUMED_AXIAL,), np.array([_AXIAL])


def _joined(slices: Sequence[StoredImage], values: Floats, padding: npt.NDArray[np.bool_] | None) -> StoredImage:
    """One image of slices in their order; of what differs from slice to slice, the first one's counts."""
    first = slices[0]
    if len({s.inverted for s in slices}) > 1:
        raise DataError("is a series of slices with black and white exchanged in some, expected one volume")
    if len({s.patient for s in slices}) > 1:
        raise DataError("is a series whose slices name several patients")
    window, windows = first.window, max(s.windows for s in slices)
    if not windows:  # the whole range, which may be another one in each slice
        ends = [s.window for s in slices if s.window is not None]
        window = Window(min(e.low for e in ends), max(e.high for e in ends)) if ends else None
    elif len({s.window for s in slices}) > 1:
        windows += 1
    digest = hashlib.sha256("".join(s.pixels for s in slices).encode()).hexdigest()
    return StoredImage(
        values=values,
        window=window,
        format="dicom",
        pixels=digest,
        inverted=first.inverted,
        windows=windows,
        patient=first.patient,
        attributes=first.attributes,
        identifiers=tuple(dict.fromkeys(pair for s in slices for pair in s.identifiers)),
        padding=padding,
        window_problem=next((s.window_problem for s in slices if s.window_problem), ""),
        notes=tuple(dict.fromkeys(note for s in slices for note in s.notes)),
    )
