"""One decoded image in stored units, as the readers hand it on."""

from __future__ import annotations

import hashlib
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from medharden.data.preprocessing import Window
from medharden.errors import DataError

__all__ = ["LARGEST_VALUES", "MALFORMED", "StoredImage", "check_size", "digest_array", "quiet_readers"]

LARGEST_VALUES = 2**28
"""A case may hold this many values (a 512 x 512 x 1024 scan); more is refused before it is decoded."""

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
        values: (C, *spatial) float32 in rescaled units (HU for CT); C is 3 only where the channels differ.
        window: the file's own window, else the data type's whole range, else None (floating point).
        inverted: low values are bright (MONOCHROME1).
        format: `dicom`, `nifti`, `png`, `jpeg`, `tiff` or `npz`.
        pixels: SHA-256 of the decoded stored array with its shape and data type.
        windows: how many windows the file offers; 0 means that `window` is the data type's range.
        patient: the header's patient identifier, or "".
        attributes: `sex`, `age`, `site` and `scanner` where the header has them.
        identifiers: kind and value of what the header says of who the patient is; they enter no record.
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


def digest_array(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 of an array's data type, shape and values, whatever its byte order in memory."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = f"{little.dtype.str}{list(little.shape)}".encode()
    return hashlib.sha256(head + b"\0" + little.tobytes()).hexdigest()


def check_size(*shape: int) -> None:
    """Refuses what would not fit in memory, before it is decoded.

    Raises:
        DataError: more than `LARGEST_VALUES` values, or none.
    """
    count = 1
    for extent in shape:
        count *= int(extent)
    if count <= 0:
        raise DataError("holds no values")
    if count > LARGEST_VALUES:
        raise DataError(f"holds {count} values, more than the {LARGEST_VALUES} that are read")


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Silences the format libraries, whose warnings and log lines quote header values.

    The filter is the process's, because worker threads share it; both are put back afterwards.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel", "nibabel.global", "PIL")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
