"""PNG: every chunk with its checksum, the pixel data to their last byte, 16 bits kept; filters through Pillow."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medharden.data.formats.directory import orientation_of
from medharden.data.formats.inflating import inflated, short_text
from medharden.data.formats.limits import Hold
from medharden.data.formats.picture import TRANSPARENCY, Picture
from medharden.errors import DataError

__all__ = ["read_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _PALETTE: (1, 2, 4, 8), _RGB: (8, 16), _GREY_ALPHA: (8, 16), _RGBA: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_LONGEST_TEXT = 2**20  # compressed, and what is read of it
_XMP = b"XML:com.adobe.xmp\0"
_RAW_EXIF = b"Raw profile type exif\0"


@dataclass
class _Chunks:
    """What of the chunks is used."""

    head: bytes = b""
    idat: list[memoryview] = field(default_factory=list)
    kept: dict[bytes, bytes] = field(default_factory=dict)
    frames: int = 1
    xmp: bytes = b""


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    depth: int
    colour: int
    interlaced: int

    @property
    def length(self) -> int:
        """Bytes that the pixel data inflate to: a filter's number before each row, of each pass where interlaced."""
        passes = _ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, across, down in passes:
            columns = -(-(self.width - left) // across)
            rows = -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * self.depth * _SAMPLES[self.colour] + 7) // 8)
        return total


def read_png(data: bytes, hold: Hold) -> Picture:
    """Decodes one PNG picture at its own depth; alpha is left aside, with a note where it hides something.

    Raises:
        DataError: a checksum that fails, cut off, too large, longer or shorter than it says, several pictures.
    """
    chunks = _read_chunks(data)
    head = _header(chunks.head)
    if chunks.frames != 1:
        raise DataError(f"holds {chunks.frames} pictures (animated PNG), expected one; save the one that is meant")
    shape = head.height, head.width, 3 if head.colour == _PALETTE else _SAMPLES[head.colour]
    hold.take_values(shape, max(1, head.depth // 8), beside=2 * len(data))
    idat = b"".join(chunks.idat)
    for _ in inflated(idat, head.length):
        pass
    array, hidden = _pixels(head, idat, chunks.kept.get(b"PLTE", b""), chunks.kept.get(b"tRNS", b""))
    orientation = orientation_of(chunks.kept.get(b"eXIf", b""), chunks.xmp)
    top = 65535.0 if head.depth == 16 else 255.0
    return Picture(array, top, orientation=orientation, notes=(TRANSPARENCY,) if hidden else ())


def _read_chunks(data: bytes) -> _Chunks:
    """Every chunk up to the last, each held against its checksum."""
    found, place = _Chunks(), len(_SIGNATURE)
    names: list[bytes] = []
    view = memoryview(data)
    while not names or names[-1] != b"IEND":
        end = place + 12 + int.from_bytes(view[place : place + 4], "big")
        if len(data) < place + 12 or len(data) < end:
            raise DataError("is cut off: it has no end chunk (truncated)")
        name, content = bytes(view[place + 4 : place + 8]), view[place + 8 : end - 4]
        if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise DataError("fails a checksum (PNG chunk): it was damaged after it was written")
        if name == b"IDAT" and b"IDAT" in names and names[-1] != b"IDAT":
            raise DataError("is damaged: its pixel data lie in two places")
        _keep(found, name, content, first=not names)
        names.append(name)
        place = end
    if place != len(data):
        raise DataError("goes on after the end of the picture; it was damaged, or holds something else too")
    return found


def _keep(found: _Chunks, name: bytes, content: memoryview, *, first: bool) -> None:
    if first != (name == b"IHDR") or (name in found.kept and name != b"IDAT"):
        raise DataError("is damaged: its chunks are not in the order that PNG asks for")
    if name[:1].isupper() and name not in _CRITICAL:
        raise DataError("holds a critical chunk that is not known")
    if name == b"IHDR":
        found.head = bytes(content)
    elif name == b"IDAT":
        found.idat.append(content)
    elif name in (b"PLTE", b"tRNS", b"eXIf"):
        found.kept[name] = bytes(content)
    elif name == b"acTL":
        found.frames = int.from_bytes(content[:4], "big")
    elif name in (b"iTXt", b"zTXt", b"tEXt") and not found.xmp:
        _keep_orientation(found, name, bytes(content[:_LONGEST_TEXT]))


def _keep_orientation(found: _Chunks, name: bytes, content: bytes) -> None:
    """XMP, and EXIF as ImageMagick writes it; both may say how the picture is to be turned."""
    if name == b"iTXt" and content.startswith(_XMP):
        compressed, rest = content[len(_XMP) : len(_XMP) + 1], content[len(_XMP) + 2 :]
        text = rest.split(b"\0", 2)[-1]
        found.xmp = short_text(text, _LONGEST_TEXT) if compressed == b"\1" else text
    elif name != b"iTXt" and content.startswith(_RAW_EXIF) and b"eXIf" not in found.kept:
        text = content[len(_RAW_EXIF) :]
        text = short_text(text[1:], _LONGEST_TEXT) if name == b"zTXt" else text
        found.kept[b"eXIf"] = bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))


def _header(content: bytes) -> _Header:
    if len(content) != 13:
        raise DataError("is damaged: its header has another length than PNG asks for")
    width, height = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")
    depth, colour, compression, filtering, interlaced = content[8:]
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlaced > 1:
        raise DataError("is of a kind that PNG does not know (bit depth, colour type, compression or interlacing)")
    return _Header(width, height, depth, colour, interlaced)


def _pixels(head: _Header, idat: bytes, palette: bytes, transparent: bytes) -> tuple[npt.NDArray[Any], bool]:
    """(H, W) or (H, W, 3) at the file's depth, and whether transparency hides or dims some of it."""

    def unfiltered(mode: str, rawmode: str) -> npt.NDArray[Any]:
        picture = Image.frombytes(mode, (head.width, head.height), idat, "zip", rawmode, head.interlaced)
        return np.asarray(picture)

    if head.depth == 16:
        planes = _sixteen(head.colour, unfiltered)
    elif head.colour == _GREY and head.depth == 1:
        planes = unfiltered("1", "1").astype(np.uint8) * np.uint8(255)
    elif head.colour in (_GREY, _PALETTE):
        mode = "L" if head.colour == _GREY else "P"
        planes = unfiltered(mode, mode if head.depth == 8 else f"{mode};{head.depth}")
    else:
        mode = {_RGB: "RGB", _GREY_ALPHA: "LA", _RGBA: "RGBA"}[head.colour]
        planes = unfiltered(mode, mode)
    if head.colour == _PALETTE:
        return _painted(planes, palette, transparent)
    if head.colour in (_GREY_ALPHA, _RGBA):
        hidden = int(planes[..., -1].min()) < np.iinfo(planes.dtype).max
        plain = planes[..., 0] if head.colour == _GREY_ALPHA else planes[..., :3]
        return np.ascontiguousarray(plain), hidden
    return planes, bool(transparent) and _keyed(head, planes, transparent)


def _sixteen(colour: int, unfiltered: Callable[[str, str], npt.NDArray[Any]]) -> npt.NDArray[np.uint16]:
    """Pillow has no 16-bit colour. The filters work on bytes, so that both halves of each value can be had from it."""
    mode = {_RGB: "RGB", _RGBA: "RGBA", _GREY: "LA", _GREY_ALPHA: "RGBA"}[colour]
    if colour in (_RGB, _RGBA):
        values = unfiltered(mode, f"{mode};16B").astype(np.uint16)
        values <<= 8
        values |= unfiltered(mode, f"{mode};16L")
        return values
    halves = np.ascontiguousarray(unfiltered(mode, mode)).view(">u2").astype(np.uint16)
    return halves[..., 0] if colour == _GREY else halves


def _painted(places: npt.NDArray[Any], palette: bytes, transparent: bytes) -> tuple[npt.NDArray[Any], bool]:
    colours = np.frombuffer(palette, dtype=np.uint8)
    if not palette or len(palette) % 3 or int(places.max()) >= len(palette) // 3:
        raise DataError("uses colours that its palette does not have")
    alpha = np.full(256, 255, dtype=np.uint8)
    alpha[: len(transparent)] = np.frombuffer(transparent[:256], dtype=np.uint8)
    hidden = bool(transparent) and int(alpha[places].min()) < 255
    return colours.reshape(-1, 3)[places], hidden


def _keyed(head: _Header, planes: npt.NDArray[Any], transparent: bytes) -> bool:
    """Whether some pixel has the one colour that counts as transparent."""
    key = np.frombuffer(transparent, dtype=">u2").astype(np.int64)
    if len(key) != _SAMPLES[head.colour]:
        raise DataError("is damaged: its transparent colour has another number of channels than it has")
    if head.depth < 8:
        key = key * (255 // (2**head.depth - 1))
    same = planes == (key if head.colour == _RGB else key[0])
    return bool((same.all(axis=-1) if head.colour == _RGB else same).any())
