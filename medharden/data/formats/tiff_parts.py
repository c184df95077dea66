"""The strips or tiles of a TIFF page as rows of bytes: where they lie, whether they fit, how they are unpacked."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from medharden.data.formats.directory import Directory
from medharden.data.formats.inflating import inflated
from medharden.data.formats.jpeg import check_entropy, walk_jpeg
from medharden.errors import DataError

__all__ = ["Layout", "Part", "keeps_differences", "layout_of", "parts_of", "unpack", "unpack_jpeg", "uses_jpeg"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS, _TABLES, _SUBSAMPLING = 322, 323, 324, 325, 347, 530
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_PLAIN, _LZW, _JPEG, _DEFLATE, _PACKBITS = (1,), (5,), (7,), (8, 32946), (32773,)
_OTHERS = {
    2: "CCITT", 3: "CCITT fax", 4: "CCITT fax", 6: "old-style JPEG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA",
    50000: "Zstandard", 50001: "WebP",
}  # fmt: skip

_Fields = dict[int, tuple[int, tuple[int, ...]]]  # by tag: type and values


@dataclass(frozen=True)
class Layout:
    """How a page is cut.

    Attributes:
        width, height: of the page.
        across, down: how many parts lie side by side, and one below the other.
        columns, rows: of one part; the last strip has fewer rows.
        planes: 1, or one for each channel.
        tiled: whether the parts are tiles, which are padded to their full size.
    """

    width: int
    height: int
    across: int
    down: int
    columns: int
    rows: int
    planes: int
    tiled: bool

    @property
    def pixels(self) -> int:
        """Of the page, with what its tiles are padded by."""
        return self.across * self.columns * (self.down * self.rows if self.tiled else self.height)

    def rows_of(self, number: int) -> int:
        """How many rows a part of one plane has."""
        return self.rows if self.tiled else min(self.rows, self.height - number * self.rows)


@dataclass(frozen=True)
class Part:
    """One strip or tile as it lies in the file, and how many rows it has."""

    content: memoryview
    rows: int


def layout_of(directory: Directory, samples: int) -> Layout:
    """How the directory says that the page is cut.

    Raises:
        DataError: it contradicts itself.
    """
    width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
    tiled = _TILES in directory.fields
    columns = directory.number(_TILE_WIDTH, 0) if tiled else width
    rows = directory.number(_TILE_HEIGHT, 0) if tiled else min(height, directory.number(_ROWS_PER_STRIP, height))
    planar = directory.number(_PLANAR, 1)
    if min(width, height, columns, rows) < 1 or planar not in (1, 2) or (tiled and _STRIPS in directory.fields):
        raise DataError("has a directory that contradicts itself: no size, or strips and tiles")
    planes = samples if planar == 2 else 1
    return Layout(width, height, -(-width // columns), -(-height // rows), columns, rows, planes, tiled)


def parts_of(directory: Directory, layout: Layout, row_bytes: int) -> list[list[Part]]:
    """The strips or tiles of each plane.

    Args:
        directory: of the page.
        layout: as `layout_of` gives it.
        row_bytes: of one row of one part, when unpacked.

    Raises:
        DataError: they are not as many as the page needs, lie outside the file or on top of each other.
    """
    offsets = directory.numbers(_TILES if layout.tiled else _STRIPS)
    counts = directory.numbers(_TILE_COUNTS if layout.tiled else _STRIP_COUNTS)
    one = layout.across * layout.down
    if len(offsets) != one * layout.planes:
        raise DataError(f"has {len(offsets)} strips or tiles; its size asks for {one * layout.planes}")
    rows = [layout.rows_of(number % one) for number in range(len(offsets))]
    if not counts and directory.number(_COMPRESSION, 1) in _PLAIN:
        counts = [row_bytes * count for count in rows]
    if len(counts) != len(offsets):
        raise DataError("does not say how long each of its strips or tiles is")
    last = 0
    for offset, count in sorted(zip(offsets, counts, strict=True)):
        if offset + count > len(directory.data):
            raise DataError("is cut off: a strip or tile lies beyond its end (truncated)")
        if offset < last or not count:
            raise DataError("is damaged: its strips or tiles are empty, or lie on top of each other")
        last = offset + count
    parts = [Part(directory.data[o : o + c], r) for o, c, r in zip(offsets, counts, rows, strict=True)]
    return [parts[start : start + one] for start in range(0, len(parts), one)]


def unpack(directory: Directory, parts: Sequence[Part], layout: Layout, row_bytes: int) -> npt.NDArray[np.uint8]:
    """(rows of all parts, row_bytes) the bytes of one plane.

    Raises:
        DataError: a part holds more or fewer, fails its checksum, or is compressed in a way that is not read.
    """
    compression = directory.number(_COMPRESSION, 1)
    rows = sum(part.rows for part in parts)
    if compression in _PLAIN:
        data = b"".join(_whole(part, layout, row_bytes) for part in parts)
    elif compression in _DEFLATE:
        data = b"".join(piece for part in parts for piece in inflated(part.content, part.rows * row_bytes))
    elif compression in (*_LZW, *_PACKBITS):
        tags: _Fields = {_BITS: (_SHORT, (8,)), _PHOTOMETRIC: (_SHORT, (1,)), _SAMPLES: (_SHORT, (1,))}
        as_bytes = Layout(row_bytes, rows, 1, len(parts), row_bytes, layout.rows, 1, tiled=False)
        return _by_libtiff(tags, as_bytes, parts, compression)
    else:
        name = _OTHERS.get(compression, "something unknown")
        raise DataError(f"is compressed as {name}; expected none, LZW, Deflate, PackBits or JPEG in TIFF")
    return np.frombuffer(data, dtype=np.uint8).reshape(rows, row_bytes)


def _whole(part: Part, layout: Layout, row_bytes: int) -> memoryview:
    """An uncompressed part; some programs pad the last strip to the size of the others."""
    wanted, padded = part.rows * row_bytes, layout.rows * row_bytes
    if len(part.content) not in (wanted, padded):
        raise DataError("has strips or tiles of another length than their size asks for")
    return part.content[:wanted]


def unpack_jpeg(directory: Directory, parts: Sequence[Part], layout: Layout, samples: int) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, 3) the page whose strips or tiles are JPEG images.

    Raises:
        DataError: one of them is damaged, or of another size or kind than the directory says.
    """
    tables = bytes(directory.content(_TABLES))
    for part in parts:
        stream = bytes(part.content)
        if tables:
            stream = tables[:-2] + stream[2:]
        said = walk_jpeg(stream)
        fits = said.width == layout.columns and part.rows <= said.height <= layout.rows
        if not fits or said.components != samples or not said.ordinary:
            raise DataError("has strips or tiles that are JPEG images of another size or kind than its directory says")
        check_entropy(stream, said)
    tags: _Fields = {
        _BITS: (_SHORT, (8,) * samples),
        _PHOTOMETRIC: (_SHORT, (directory.number(_PHOTOMETRIC, 1),)),
        _SAMPLES: (_SHORT, (samples,)),
    }
    if tables:
        tags[_TABLES] = (_UNDEFINED, tuple(tables))
    if _SUBSAMPLING in directory.fields:
        tags[_SUBSAMPLING] = (_SHORT, tuple(directory.numbers(_SUBSAMPLING)))
    return _by_libtiff(tags, layout, parts, *_JPEG)


def keeps_differences(directory: Directory) -> bool:
    """Whether the compression is one of those that may store differences."""
    return directory.number(_COMPRESSION, 1) in (*_LZW, *_DEFLATE)


def uses_jpeg(directory: Directory) -> bool:
    """Whether strips or tiles are JPEG images."""
    return directory.number(_COMPRESSION, 1) in _JPEG


def _by_libtiff(tags: _Fields, layout: Layout, parts: Sequence[Part], compression: int) -> npt.NDArray[np.uint8]:
    """Unpacks through libtiff, from a TIFF file that holds the given fields and parts and nothing else."""
    places, place = [], 8
    for part in parts:
        places.append(place)
        place += len(part.content)
    at, length = (_TILES, _TILE_COUNTS) if layout.tiled else (_STRIPS, _STRIP_COUNTS)
    fields = tags | {
        _WIDTH: (_LONG, (layout.width,)),
        _HEIGHT: (_LONG, (layout.height,)),
        _COMPRESSION: (_SHORT, (compression,)),
        _PLANAR: (_SHORT, (1,)),
        at: (_LONG, tuple(places)),
        length: (_LONG, tuple(len(part.content) for part in parts)),
    }
    if layout.tiled:
        fields |= {_TILE_WIDTH: (_LONG, (layout.columns,)), _TILE_HEIGHT: (_LONG, (layout.rows,))}
    else:
        fields |= {_ROWS_PER_STRIP: (_LONG, (layout.rows,))}
    directory = b"".join(_written(fields, place))
    file = b"".join((struct.pack("<2sHI", b"II", 42, place), *(part.content for part in parts), directory))
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as picture:
        return np.asarray(picture)


def _written(fields: _Fields, place: int) -> Iterator[bytes]:
    """A directory that begins at a place, and after it the values that do not fit into it."""
    letters = {_SHORT: "H", _LONG: "I", _UNDEFINED: "B"}
    beyond = place + 2 + 12 * len(fields) + 4
    values = []
    yield struct.pack("<H", len(fields))
    for tag, (kind, numbers) in sorted(fields.items()):
        content = struct.pack(f"<{len(numbers)}{letters[kind]}", *numbers)
        if len(content) <= 4:
            yield struct.pack("<HHI4s", tag, kind, len(numbers), content)
        else:
            yield struct.pack("<HHII", tag, kind, len(numbers), beyond)
            beyond += len(content)
            values.append(content)
    yield b"\0\0\0\0"
    yield from values
