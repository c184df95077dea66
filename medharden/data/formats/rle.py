"""RLE of DICOM (PS3.5 Annex G): each segment decoded to the length that it must have, and no further."""

from __future__ import annotations

import struct
from itertools import pairwise

from medharden.errors import DataError

__all__ = ["decode_rle"]

_HEADER = 64


def decode_rle(frame: bytes, target: memoryview, pixels: int, samples: int, bytes_a_sample: int) -> None:
    """Decodes one frame into its place: one sample after the other (planar configuration 1), low byte first.

    Args:
        frame: the encoded frame.
        target: writable bytes, pixels * samples * bytes_a_sample of them.
        pixels: rows times columns.
        samples: of a pixel.
        bytes_a_sample: of which each has a segment of its own, the highest first.

    Raises:
        DataError: another number of segments, or a segment that gives more or fewer bytes than there are pixels.
    """
    if len(frame) < _HEADER:
        raise DataError("is cut off within its RLE header (truncated)")
    count, *offsets = struct.unpack(f"<{_HEADER // 4}I", frame[:_HEADER])
    if count != samples * bytes_a_sample:
        raise DataError(f"holds {count} RLE segments a frame, expected {samples * bytes_a_sample}")
    bounds = [*offsets[:count], len(frame)]
    if bounds[0] < _HEADER or any(one >= other for one, other in pairwise(bounds)):
        raise DataError("has RLE segments that lie outside its frame or on top of each other")
    for number in range(count):
        sample, place = divmod(number, bytes_a_sample)
        begin, end = sample * pixels * bytes_a_sample, (sample + 1) * pixels * bytes_a_sample
        decoded = _segment(frame[bounds[number] : bounds[number + 1]], pixels)
        target[begin + bytes_a_sample - 1 - place : end : bytes_a_sample] = decoded


def _segment(data: bytes, length: int) -> bytearray:
    out, place, end = bytearray(), 0, len(data)
    extend = out.extend
    while len(out) < length and place < end:
        head = data[place]
        if head < 128:
            extend(data[place + 1 : place + 2 + head])
            place += 2 + head
        elif head > 128:
            extend(data[place + 1 : place + 2] * (257 - head))
            place += 2
        else:
            place += 1
    if len(out) < length:
        raise DataError("is cut off: an RLE segment gives fewer bytes than the image has pixels (truncated)")
    if len(out) > length or data[place:].strip(b"\0"):
        raise DataError("holds RLE segments that give more bytes than the image has pixels")
    return out
