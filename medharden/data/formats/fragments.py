"""The frames of encapsulated DICOM pixels: fragments in order, and tables that say where they lie (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydicom.dataset import Dataset

from medharden.errors import DataError

__all__ = ["frames_of"]

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
_IMAGE_END = b"\xff\xd9"
_NEAR_END = 10  # bytes of a fragment in which pydicom looks for the end of an image


@dataclass(frozen=True)
class _Fragment:
    """One item: where it begins, from the first one, and its content."""

    offset: int
    content: bytes


def frames_of(ds: Dataset, count: int) -> list[bytes]:
    """The encoded frames.

    Raises:
        DataError: they are not as many as the header says, or a table says that they lie elsewhere.
    """
    table, fragments = _fragments(ds.PixelData)
    if not fragments:
        raise DataError("holds no pixels: its pixel data are empty")
    if len(fragments) < count:
        raise DataError(f"holds {len(fragments)} of {count} frames: it is cut off (truncated)")
    if "ExtendedOffsetTable" in ds:
        _check_extended(ds, fragments, count)
    if table:
        frames = _by_table(table, fragments, count)
    elif count == 1:
        frames = [fragments]
    elif len(fragments) == count:
        frames = [[fragment] for fragment in fragments]
    else:
        frames = _by_end(fragments)
    if len(frames) != count:
        raise DataError(f"holds {len(frames)} frames; its header says {count}")
    return [b"".join(fragment.content for fragment in frame) for frame in frames]


def _fragments(data: bytes) -> tuple[tuple[int, ...], list[_Fragment]]:
    """The basic offset table, which is the first item, and the fragments after it."""
    items, place = [], 0
    while place < len(data) and data[place:] != _DELIMITER:
        if data[place : place + 4] != _ITEM:
            raise DataError("is damaged: something stands where a fragment of its pixels should")
        start = place + 8
        end = start + int.from_bytes(data[place + 4 : start], "little")
        if end > len(data):
            raise DataError("is cut off within a fragment of its pixels (truncated)")
        items.append(_Fragment(place, data[start:end]))
        place = end
    if not items or len(items[0].content) % 4:
        raise DataError("is damaged: its pixel data do not begin with an offset table")
    table, first = items[0].content, 8 + len(items[0].content)
    fragments = [_Fragment(item.offset - first, item.content) for item in items[1:]]
    return struct.unpack(f"<{len(table) // 4}I", table), fragments


def _by_table(table: Sequence[int], fragments: Sequence[_Fragment], count: int) -> list[list[_Fragment]]:
    begin = {fragment.offset: number for number, fragment in enumerate(fragments)}
    rising = all(one < other for one, other in pairwise(table))
    if len(table) != count or table[0] or not rising or any(offset not in begin for offset in table):
        raise DataError("has an offset table that points elsewhere than to its frames")
    bounds = [*(begin[offset] for offset in table), len(fragments)]
    return [list(fragments[one:other]) for one, other in pairwise(bounds)]


def _by_end(fragments: Sequence[_Fragment]) -> list[list[_Fragment]]:
    """Frames without a table: each ends with the fragment that holds its end marker."""
    frames: list[list[_Fragment]] = [[]]
    for fragment in fragments:
        frames[-1].append(fragment)
        if _IMAGE_END in fragment.content[-_NEAR_END:]:
            frames.append([])
    return [frame for frame in frames if frame]


def _check_extended(ds: Dataset, fragments: Sequence[_Fragment], count: int) -> None:
    """An extended offset table (PS3.3 C.7.6.3.1.8) allows one fragment a frame, which may end with padding."""
    offsets, lengths = (
        struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8])
        for table in (bytes(ds.ExtendedOffsetTable), bytes(ds.get("ExtendedOffsetTableLengths") or b""))
    )
    fits = len(fragments) == count and list(offsets) == [fragment.offset for fragment in fragments]
    if not fits or len(lengths) != count:
        raise DataError("has an extended offset table that points elsewhere than to its frames")
    if any(len(f.content) - length not in (0, 1) for f, length in zip(fragments, lengths, strict=True)):
        raise DataError("has an extended offset table of other lengths than its frames have")
