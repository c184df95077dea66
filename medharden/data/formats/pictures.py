"""PNG, JPEG and TIFF: each told by its first bytes, read by its own module, turned upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medharden.data.formats.image import MALFORMED, StoredImage, digest_array
from medharden.data.formats.jpeg import read_jpeg
from medharden.data.formats.limits import Hold
from medharden.data.formats.picture import upright
from medharden.data.formats.png import read_png
from medharden.data.formats.tiff import read_tiff
from medharden.data.formats.window import Window
from medharden.errors import DataError

__all__ = ["collapse", "read_picture"]

_READERS = {b"\x89P": ("png", read_png), b"\xff\xd8": ("jpeg", read_jpeg)}


def read_picture(path: Path, hold: Hold) -> StoredImage:
    """Decodes one picture, grey or colour, at the depth that it stores; the EXIF orientation is applied.

    Palettes become colour. Transparency is left aside, with a note where it hides or dims some pixels. Colour profiles
    and gamma are not applied: the stored values count.

    Raises:
        DataError: with the reason alone: damaged, truncated, several pictures, too large, or a kind that is not read.
    """
    try:
        data = hold.read(path)
        kind, read = _READERS.get(data[:2], ("tiff", read_tiff))
        picture = read(data, hold)
        array = upright(picture.array, picture.orientation)
    except MALFORMED as error:
        raise DataError(f"can't be decoded as a picture: truncated or damaged ({type(error).__name__})") from None
    return StoredImage(
        values=_planes(array).astype(np.float32),
        window=None if picture.top is None else Window(0.0, picture.top),
        format=kind,
        pixels=digest_array(array),
        inverted=picture.inverted,
        notes=picture.notes,
    )


def _planes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(C, H, W); one channel where three are equal, as in a grey picture saved as colour."""
    if array.ndim == 2:
        return array[None]
    first = array[..., 0]
    if np.array_equal(first, array[..., 1]) and np.array_equal(first, array[..., 2]):
        return first[None]
    return np.moveaxis(array, -1, 0)


def collapse(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """One channel where three are equal, as in a grey image saved as colour; (C, *spatial)."""
    if values.shape[0] == 3 and np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2]):
        return values[:1]
    return values
