"""The directory of a TIFF file or an EXIF block: its fields, looked up one by one, and the orientation in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from medharden.errors import DataError

__all__ = ["Directory", "open_directory", "orientation_of"]

_ORIENTATION = 274
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # the unsigned types, among them those of BigTIFF
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Directory:
    """One directory.

    Attributes:
        data: the whole file.
        order: `<` little endian, `>` big endian.
        fields: by tag: type, count, and where the value lies.
        following: where the next directory lies; 0 if there is none.
    """

    data: memoryview
    order: str
    fields: dict[int, tuple[int, int, int]]
    following: int

    def content(self, tag: int) -> memoryview:
        """The bytes of a field; none where it is absent.

        Raises:
            DataError: they lie outside the file.
        """
        if tag not in self.fields:
            return self.data[:0]
        kind, count, place = self.fields[tag]
        length = count * _SIZES.get(kind, 1)
        if place + length > len(self.data):
            raise DataError("is cut off: one of its fields lies beyond its end (truncated)")
        return self.data[place : place + length]

    def numbers(self, tag: int) -> list[int]:
        """The whole numbers of a field; none where it is absent.

        Raises:
            DataError: it holds something else, or lies outside the file.
        """
        if tag not in self.fields:
            return []
        kind = _NUMBERS.get(self.fields[tag][0])
        if kind is None:
            raise DataError("has a field of another type than the format asks for")
        return [int(value) for value in np.frombuffer(self.content(tag), dtype=self.order + kind).tolist()]

    def number(self, tag: int, default: int) -> int:
        """The only whole number of a field.

        Raises:
            DataError: it holds several.
        """
        found = self.numbers(tag)
        if len(found) > 1:
            raise DataError("has a field of several values where the format knows one")
        return found[0] if found else default


def open_directory(data: bytes | memoryview, place: int | None = None) -> Directory:
    """The directory at a place; the first one where none is given.

    Raises:
        DataError: there is none, or it is not whole.
    """
    view = memoryview(data)
    magic = bytes(view[:4])
    order = {b"II": "<", b"MM": ">"}.get(magic[:2], "")
    version = _number(view, order, 2, 2) if order else 0
    if version not in (42, 43):
        raise DataError("has no TIFF header")
    big = version == 43
    size, counted, entry = (8, 8, 20) if big else (4, 2, 12)
    if place is None:
        place = _number(view, order, 8 if big else 4, size)
    count = _number(view, order, place, counted)
    start = place + counted
    end = start + entry * count
    following = _number(view, order, end, size)
    fields = {}
    for at in range(start, end, entry):
        tag, kind = _number(view, order, at, 2), _number(view, order, at + 2, 2)
        values, inside = _number(view, order, at + 4, size), at + 4 + size
        if tag in fields:
            raise DataError("names one of its fields twice")
        fits = values * _SIZES.get(kind, 1) <= size
        fields[tag] = (kind, values, inside if fits else _number(view, order, inside, size))
    return Directory(view, order, fields, following)


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """How a picture is to be turned, by EXIF or, where that does not say, by XMP; 1 where neither does.

    Raises:
        DataError: the EXIF block is damaged, so that nobody can tell.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    if exif:
        try:
            directory = open_directory(exif)
            if _ORIENTATION in directory.fields:
                return directory.number(_ORIENTATION, 1)
        except DataError:
            raise DataError("has a damaged EXIF block, so that its orientation can't be told") from None
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def _number(view: memoryview, order: str, place: int, size: int) -> int:
    part = view[place : place + size]
    if len(part) < size:
        raise DataError("is cut off within its directory (truncated)")
    return int.from_bytes(part, "little" if order == "<" else "big")
