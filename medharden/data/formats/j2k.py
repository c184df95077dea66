"""JPEG 2000: what a codestream says of its image, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from medharden.errors import DataError

__all__ = ["J2kStream", "bare_j2k", "walk_j2k"]

_SIZE, _CODING, _COMPONENT_CODING, _TILE, _DATA, _END = 0x51, 0x52, 0x53, 0x90, 0x93, 0xD9
_MOST_LEVELS = 32
_TILE_BYTES, _PACKET_BYTES, _BLOCK_BYTES = 2**13, 2**10, 2**9  # what OpenJPEG keeps of each, roughly


@dataclass(frozen=True)
class J2kStream:
    """What the markers of one image say.

    Attributes:
        height, width, components, precision: of the image; the largest where its channels differ.
        memory: bytes that a decoder needs for tiles, packets and code blocks, roughly, beside the pixels.
        end: where the image ends, after its last marker.
    """

    height: int
    width: int
    components: int
    precision: int
    memory: int
    end: int


@dataclass(frozen=True)
class _Coding:
    """How some part of the image is divided: layers, resolutions from the coarsest on, values of a code block."""

    layers: int
    precincts: tuple[tuple[int, int], ...]
    block: int

    def packets(self, width: int, height: int) -> int:
        """Of one layer of one component of a tile, at all resolutions."""
        count = 0
        for down, (across, along) in enumerate(reversed(self.precincts)):
            columns, rows = -(-width >> down), -(-height >> down)
            count += (-(-columns >> across)) * (-(-rows >> along))
        return count


def walk_j2k(data: bytes) -> J2kStream:
    """Follows the tile-parts of a codestream, bare or in a JP2 file, from its start to its end.

    Raises:
        DataError: it is cut off, lacks tiles, or describes more packets than it has bytes.
    """
    place = _codestream(data)
    if data[place : place + 4] != b"\xff\x4f\xff\x51":
        raise DataError("holds something else than JPEG 2000 data")
    place, size = place + 2, b""
    codings: list[_Coding] = []
    tiles: set[int] = set()
    while True:
        marker, content, following = _segment(data, place)
        if marker == _END:
            break
        if marker == _SIZE:
            size = content
        elif marker == _TILE:
            tiles.add(int.from_bytes(content[:2], "big"))
            following = _tile_part_end(data, place, content)
            codings += _codings(data, place + 12, size)
        else:
            codings += _coding(marker, content, size)
        place = following
    return _described(size, codings, tiles, place + 2)


def bare_j2k(data: bytes) -> bytes:
    """The codestream alone, without the boxes of a JP2 file, which may claim another size or a palette."""
    return data[_codestream(data) :]


def _codestream(data: bytes) -> int:
    """Where the codestream begins: at once, or in a box of a JP2 file."""
    if data[4:8] != b"jP  ":
        return 0
    place = 0
    while place + 8 <= len(data):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        head = 16 if length == 1 else 8
        if name == b"jp2c":
            return place + head
        length = int.from_bytes(data[place + 8 : place + 16], "big") if length == 1 else length
        if length < head:
            break
        place += length
    raise DataError("holds something else than JPEG 2000 data")


def _segment(data: bytes, place: int) -> tuple[int, bytes, int]:
    """Marker, content and end of the segment at a place; the end of the image and the start of data have none."""
    if len(data) < place + 2:
        raise DataError("is cut off: it has no end marker (truncated)")
    if data[place] != 0xFF:
        raise DataError("is damaged: something stands where a marker of JPEG 2000 should")
    marker = data[place + 1]
    if marker in (_DATA, _END):
        return marker, b"", place + 2
    end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    if end > len(data) or end < place + 4:
        raise DataError("is cut off within a segment (truncated)")
    return marker, data[place + 4 : end], end


def _tile_part_end(data: bytes, place: int, content: bytes) -> int:
    length = int.from_bytes(content[2:6], "big")
    end = place + length if length else data.rfind(b"\xff\xd9")
    if end > len(data) or end < place + 14:
        raise DataError("is cut off within a tile (truncated)")
    return end


def _codings(data: bytes, place: int, size: bytes) -> Iterator[_Coding]:
    """Those of a tile-part's own header."""
    marker = 0
    while marker != _DATA:
        marker, content, place = _segment(data, place)
        if marker == _END:
            raise DataError("is damaged: a tile of it has no data")
        yield from _coding(marker, content, size)


def _coding(marker: int, content: bytes, size: bytes) -> Iterator[_Coding]:
    if marker not in (_CODING, _COMPONENT_CODING):
        return
    own_precincts = content[0] & 1 if marker == _CODING else content[2 if len(size) > 36 + 3 * 256 else 1] & 1
    rest = content[5:] if marker == _CODING else content[3 if len(size) > 36 + 3 * 256 else 2 :]
    layers = int.from_bytes(content[2:4], "big") if marker == _CODING else 1
    levels = rest[0]
    sizes = rest[5 : 6 + levels] if own_precincts else b"\xff" * (levels + 1)
    if levels > _MOST_LEVELS or len(sizes) != levels + 1:
        raise DataError("is damaged: its resolutions are not those of JPEG 2000")
    precincts = tuple((value & 15, value >> 4) for value in sizes)
    yield _Coding(layers, precincts, 2 ** ((rest[1] & 15) + (rest[2] & 15) + 4))


def _described(size: bytes, codings: list[_Coding], tiles: set[int], end: int) -> J2kStream:
    numbers = [int.from_bytes(size[at : at + 4], "big") for at in range(2, 34, 4)]
    across, down, left, top, columns, rows, shift_x, shift_y = numbers
    components = int.from_bytes(size[34:36], "big")
    width, height = across - left, down - top
    if min(width, height, columns, rows, components) < 1 or len(size) != 36 + 3 * components or not codings:
        raise DataError("is damaged: its size is not one of JPEG 2000")
    if any(step != 1 for at in range(components) for step in size[37 + 3 * at : 39 + 3 * at]):
        raise DataError("stores some channels at a coarser resolution (JPEG 2000), which is not read")
    count = -(-(across - shift_x) // columns) * -(-(down - shift_y) // rows)
    if len(tiles) != count or max(tiles) >= count:
        raise DataError(f"holds {len(tiles)} of its {count} tiles (JPEG 2000): it is cut off (truncated)")
    tile = min(columns, width), min(rows, height)
    packets = components * max(coding.packets(*tile) for coding in codings)
    if packets * count * max(coding.layers for coding in codings) > 2 * end:
        raise DataError("describes more packets (JPEG 2000) than it has bytes: it is cut off (truncated)")
    blocks = components * tile[0] * tile[1] // min(coding.block for coding in codings)
    memory = _TILE_BYTES * count + _PACKET_BYTES * packets + _BLOCK_BYTES * blocks
    precision = max((size[36 + 3 * at] & 127) + 1 for at in range(components))
    return J2kStream(height, width, components, precision, memory, end)
