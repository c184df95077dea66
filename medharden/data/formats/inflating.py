"""Inflating no more than was announced: the length is counted while it inflates, and the checksum is compared."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from medharden.errors import DataError

__all__ = ["inflated", "short_text"]

_PIECE = 2**22


def inflated(data: bytes | memoryview, length: int) -> Iterator[bytes]:
    """Inflates zlib data in pieces; together they are so many bytes, no more and no fewer, and fit the checksum.

    Raises:
        DataError: another length, a checksum that fails, or no end.
    """
    stream, left, total = zlib.decompressobj(), data, 0
    while total <= length and not stream.eof:
        try:
            piece = stream.decompress(left, min(_PIECE, length + 1 - total))
        except zlib.error as error:
            if "data check" in str(error):
                raise DataError("fails its checksum (zlib): it was damaged after it was written") from None
            raise DataError("can't be decompressed: it was damaged after it was written") from None
        left = stream.unconsumed_tail
        total += len(piece)
        if not piece and not left:
            break
        yield piece
    if total > length or stream.unused_data:
        raise DataError("holds more data than its header describes")
    if total < length or not stream.eof:
        raise DataError("is cut off: it holds fewer data than its header describes (truncated)")


def short_text(data: bytes, length: int) -> bytes:
    """Inflates a text of no more than so many bytes.

    Raises:
        DataError: it is longer, or damaged.
    """
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, length)
    except zlib.error:
        raise DataError("has a text that can't be decompressed") from None
    if not stream.eof:
        raise DataError("has a text of which a few bytes unpack to very many")
    return text
