"""Colour palettes of DICOM: that a segmented one (PS3.3 C.7.9) does not unpack to more than a palette can hold."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pydicom.dataset import Dataset

from medharden.data.formats.dicom_file import raw_value
from medharden.errors import DataError

__all__ = ["check_palette"]

_MOST = 2**16  # entries of a palette
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def check_palette(ds: Dataset) -> None:
    """Holds the palettes against what they may become, before pydicom unpacks them.

    Raises:
        DataError: one of them is too long.
    """
    order = "<" if ds.file_meta.TransferSyntaxUID.is_little_endian else ">"
    for colour in ("Red", "Green", "Blue", "Alpha"):
        raw_value(ds, f"{colour}PaletteColorLookupTableData")
        data = raw_value(ds, f"Segmented{colour}PaletteColorLookupTableData")
        if isinstance(data, bytes):
            wide = int(ds.RedPaletteColorLookupTableDescriptor[2]) > 8
            words = struct.unpack(f"{order}{len(data) // 2}H", data[: len(data) // 2 * 2]) if wide else data
            if _entries(words, order, wide=wide) > _MOST:
                raise DataError("has a segmented palette that unpacks to more colours than a palette has")


def _entries(words: Sequence[int], order: str, *, wide: bool, segments: int | None = None) -> int:
    """How many entries the segments give; a copied segment may not copy in turn."""
    total = place = read = 0
    while place + 1 < len(words) and total <= _MOST and read != segments:
        kind, length = words[place], words[place + 1]
        place += 2
        if kind == _INDIRECT and segments is None:
            offset = _offset(words[place : place + (2 if wide else 4)], order)
            place += 2 if wide else 4
            total += _entries(words[offset // (2 if wide else 1) :], order, wide=wide, segments=length)
        elif kind in (_DISCRETE, _LINEAR):
            total += length
            place += length if kind == _DISCRETE else 1
        else:
            raise DataError("has a segmented palette with a segment of a kind that DICOM does not know")
        read += 1
    return total


def _offset(words: Sequence[int], order: str) -> int:
    """Bytes from the beginning of the palette, as the lower and the higher half."""
    if len(words) == 2:
        return words[1] << 16 | words[0]
    if len(words) == 4:
        first, second = struct.unpack(f"{order}2H", bytes(words))
        return int(second << 16 | first)
    raise DataError("is cut off within its palette (truncated)")
