"""JPEG of 12 bits (DICOM's JPEG Extended): every code walked first, since the decoder fills what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.data.formats.jpeg import JpegStream
from medharden.errors import DataError

__all__ = ["decode_jpeg12"]

_SEQUENTIAL = (0xC0, 0xC1)
_TABLES, _RESTART, _SCAN = 0xC4, 0xDD, 0xDA
_RESTARTS = re.compile(rb"\xff+[\xd0-\xd7]")
_DAMAGED = "is damaged: its compressed data are no whole image (truncated or changed)"

Table = list[tuple[int, int]]
"""Length of a code and its symbol, by the next sixteen bits; a length of 0 is no code."""


@dataclass(frozen=True)
class _Scan:
    """One scan: tables of the blocks of a unit, how many units there are, and the compressed data between restarts."""

    blocks: tuple[tuple[Table, Table], ...]
    units: int
    parts: tuple[bytes, ...]


def decode_jpeg12(data: bytes, stream: JpegStream) -> npt.NDArray[np.uint16]:
    """(H, W) grey values of a sequential JPEG of 12 bits.

    libjpeg only warns of codes that are missing or wrong, and fills in; the decoder does not hand the warning on. So
    the Huffman codes are walked here: each must exist, and they must be as many as the image has blocks.

    Args:
        data: the codestream.
        stream: what its markers say.

    Raises:
        DataError: damaged, colour or progressive, or the decoder is not installed.
    """
    try:
        import imagecodecs
    except ImportError:
        raise DataError(
            "is JPEG of 12 bits, for which imagecodecs is needed: install medharden with its extra `jpeg12`"
        ) from None
    if stream.process not in _SEQUENTIAL or stream.components != 1:
        raise DataError("is JPEG of 12 bits in colour or progressive, which is not read")
    try:
        for part, units, blocks in _parts(_scan(data, stream), _restart_interval(data, stream)):
            _walk(part, units, blocks)
    except LookupError:
        raise DataError(_DAMAGED) from None
    array: npt.NDArray[np.uint16] = imagecodecs.jpeg8_decode(data[: stream.end])
    if array.dtype != np.uint16 or array.shape != (stream.height, stream.width):
        raise DataError(_DAMAGED)
    return array


def _scan(data: bytes, stream: JpegStream) -> _Scan:
    """The only scan of a grey image; its units are its blocks of eight by eight."""
    tables: dict[int, Table] = {}
    for marker, start, end in stream.segments:
        if marker == _TABLES:
            tables |= _huffman(data[start + 4 : end])
    scans = [(start, end) for marker, start, end in stream.segments if marker == _SCAN]
    if len(scans) != 1:
        raise DataError(_DAMAGED)
    start, end = scans[0]
    following = min(place for _, place, _ in stream.segments if place >= end)
    chosen = data[start + 6]
    blocks = ((tables[chosen >> 4], tables[0x10 | (chosen & 15)]),)
    units = -(-stream.width // 8) * -(-stream.height // 8)
    return _Scan(blocks, units, tuple(_RESTARTS.split(data[end:following])))


def _restart_interval(data: bytes, stream: JpegStream) -> int:
    found = [data[start + 4 : end] for marker, start, end in stream.segments if marker == _RESTART]
    return int.from_bytes(found[-1], "big") if found else 0


def _huffman(content: bytes) -> dict[int, Table]:
    """The tables of one segment, by class and number (ITU-T T.81, C.2)."""
    found: dict[int, Table] = {}
    place = 0
    while place < len(content):
        counts, start = content[place + 1 : place + 17], place + 17
        table: Table = [(0, 0)] * 2**16
        code = 0
        for length, count in enumerate(counts, 1):
            for symbol in content[start : start + count]:
                low = code << (16 - length)
                table[low : low + (1 << (16 - length))] = [(length, symbol)] * (1 << (16 - length))
                code += 1
            start += count
            code <<= 1
        if len(table) != 2**16 or start > len(content):
            raise DataError(_DAMAGED)
        found[content[place]] = table
        place = start
    return found


def _parts(scan: _Scan, interval: int) -> Sequence[tuple[bytes, int, tuple[tuple[Table, Table], ...]]]:
    """The data between restarts, and how many units each part has."""
    each = interval or scan.units
    counts = [min(each, scan.units - done) for done in range(0, scan.units, each)]
    if len(counts) != len(scan.parts):
        raise DataError(_DAMAGED)
    return [(part, units, scan.blocks) for part, units in zip(scan.parts, counts, strict=True)]


def _walk(part: bytes, units: int, blocks: tuple[tuple[Table, Table], ...]) -> None:
    """Goes from code to code through so many units (ITU-T T.81, F.2.2).

    Raises:
        DataError: a code that does not exist, or data that end sooner or later.
    """
    plain = part.rstrip(b"\xff").replace(b"\xff\x00", b"\xff")
    padded = plain + bytes(16)
    place = held = bits = 0
    for _ in range(units):
        for first, others in blocks:
            k = 0
            while k < 64:
                if bits < 32:
                    held = ((held & ((1 << bits) - 1)) << 32) | int.from_bytes(padded[place : place + 4], "big")
                    place, bits = place + 4, bits + 32
                    if place > len(padded):
                        raise DataError(_DAMAGED)
                length, symbol = (others if k else first)[(held >> (bits - 16)) & 0xFFFF]
                extra = symbol & 15
                if not length or (not k and symbol > 15):
                    raise DataError(_DAMAGED)
                bits -= length + extra
                if not k:
                    k = 1
                elif extra:
                    k += (symbol >> 4) + 1
                elif symbol == 0xF0:
                    k += 16
                else:
                    break
            if k > 64:
                raise DataError(_DAMAGED)
    left = 8 * (len(plain) - place) + bits
    if not 0 <= left < 8:
        raise DataError(_DAMAGED)
