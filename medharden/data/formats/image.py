"""One decoded image in stored units, as the readers hand it on."""

from __future__ import annotations

import hashlib
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from medharden.data.formats.window import Window

__all__ = ["MALFORMED", "StoredImage", "digest_array", "digest_parts", "quiet_readers", "slabs"]

_CHUNK = 2**20  # values that are converted at a time

MALFORMED = (
    ArithmeticError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What the format libraries raise on malformed files. Their texts may quote the file's header, so they are dropped."""


@dataclass(frozen=True, eq=False)
class StoredImage:
    """One decoded case before preprocessing.

    Attributes:
        values: (C, *spatial) float32 in rescaled units (HU for CT); C is 3 only where the colours differ.
        window: the file's own window, else the data type's whole range, else None (floating point).
        inverted: low values are bright (MONOCHROME1).
        format: `dicom`, `nifti`, `png`, `jpeg`, `tiff` or `npz`.
        pixels: SHA-256 of the decoded stored array with its shape and data type.
        windows: how many windows the file offers; 0 means that `window` is the data type's range.
        patient: the header's patient identifier, or "".
        attributes: `sex`, `age`, `site` and `scanner` where the header has them.
        identifiers: kind and value of what the header says of who the patient is; they enter no record.
        padding: (*spatial) bool, values that the file marks as no part of the image; null where it marks none.
        window_problem: why `window` is null where the file has one that can't be used.
        notes: codes of findings about what was left aside, such as `data.transparency`.
        affine: 4 x 4, indices of a volume to millimetres, RAS+; null where its format has none.
        stacked: windows of the channels where each is an image of its own (`window` is then null); C is their number.
    """

    values: npt.NDArray[np.float32]
    window: Window | None
    format: str
    pixels: str
    inverted: bool = False
    windows: int = 0
    patient: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    identifiers: tuple[tuple[str, str], ...] = ()
    padding: npt.NDArray[np.bool_] | None = None
    window_problem: str = ""
    notes: tuple[str, ...] = ()
    affine: tuple[tuple[float, ...], ...] | None = None
    stacked: tuple[Window | None, ...] = ()


def digest_array(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 of an array's data type, shape and values, whatever its byte order in memory."""
    return digest_parts(array.dtype, array.shape, (array[part] for part in slabs(array.shape)))


def digest_parts(dtype: np.dtype[Any], shape: Sequence[int], parts: Iterable[npt.NDArray[np.generic]]) -> str:
    """The digest of an array that comes in parts of its first axis, one after the other."""
    kind = dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{kind.str}{list(shape)}".encode() + b"\0")
    for part in parts:
        digest.update(np.ascontiguousarray(part, dtype=kind).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Parts of the first axis, of some million values each, so that work on a large array needs little memory."""
    rows = shape[0] if shape else 0
    step = max(1, _CHUNK * rows // max(1, math.prod(shape)))
    return (slice(start, start + step) for start in range(0, rows, step))


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Silences the format libraries, whose warnings and log lines quote header values, and has Pillow refuse cut files.

    All of this is the process's, because worker threads share it; it is put back afterwards. Pillow's own limit of
    pixels gives way to the one that is counted here: whatever is given to Pillow was counted before.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel", "nibabel.global", "PIL")]
    levels = [logger.level for logger in loggers]
    pillow = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = pillow
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
