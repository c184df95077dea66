"""PNG, JPEG and TIFF through Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from medharden.data.preprocessing import Window
from medharden.data.stored import MALFORMED, StoredImage, check_size, digest_array
from medharden.errors import DataError

__all__ = ["collapse", "read_picture"]

_FORMATS = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "TIFF": "tiff"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def read_picture(path: Path) -> StoredImage:
    """Decodes one picture: grey of 8 or 16 bits, or colour of 8 bits.

    Palettes become colour, transparency is dropped, the EXIF orientation is applied. Pillow reads 16-bit colour
    PNG as 8-bit colour.

    Raises:
        DataError: with the reason alone: truncated, several pages, too large, or no such picture.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as picture:
            check_size(*picture.size, len(picture.getbands()))
            pages = int(getattr(picture, "n_frames", 1))
            if pages > 1 and picture.format == "TIFF":
                raise DataError(f"has {pages} pages, expected one")
            kind = _FORMATS[picture.format or ""]
            top, inverted = _range(picture)
            picture.load()
            array = np.asarray(_plain(ImageOps.exif_transpose(picture)))
    except Image.DecompressionBombError:
        raise DataError("has more pixels than are read safely") from None
    except MALFORMED as error:
        raise DataError(f"can't be decoded as a picture: truncated or damaged ({type(error).__name__})") from None
    planes = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]
    return StoredImage(
        values=collapse(planes.astype(np.float32)),
        window=None if top is None else Window(0.0, top),
        format=kind,
        pixels=digest_array(array),
        inverted=inverted,
    )


def collapse(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """One channel where three are equal, as in a grey image saved as colour; (C, *spatial)."""
    if values.shape[0] == 3 and np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2]):
        return values[:1]
    return values


def _range(picture: Image.Image) -> tuple[float | None, bool]:
    """The largest value that the picture's bit depth holds, and whether 0 is white."""
    if picture.mode in ("F", "I") and picture.format != "PNG":
        return None, False
    if picture.mode not in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        return 255.0, False
    if picture.format != "TIFF":
        return 65535.0, False
    tags = picture.tag_v2  # type: ignore[attr-defined]
    return float(2 ** int(tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1), tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _plain(picture: Image.Image) -> Image.Image:
    """The same picture in a mode that is a plain array."""
    if picture.mode in ("L", "RGB", "F", "I") or picture.mode.startswith("I;16"):
        return picture
    return picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")
