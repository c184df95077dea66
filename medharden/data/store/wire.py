"""What a decoding process and its parent say to each other: JSON and bytes, which can carry no program.

The process reads files that may be hostile with decoders written in C. What it answers is data, whatever became of it.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from medharden.data.store.journal import case_from
from medharden.data.store.made import Made

__all__ = ["Channel", "heard", "said_of"]

_HEAD = struct.Struct(">IQ")
_LONGEST = 64 * 2**20  # bytes of JSON


class Channel:
    """Messages over two pipes: the lengths of both parts, a JSON object, bytes."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        """Takes the end that is read and the end that is written."""
        self._source, self._sink = source, sink

    def send(self, said: dict[str, Any], body: bytes | memoryview = b"") -> None:
        """Sends one message.

        Raises:
            OSError: nobody reads any more.
        """
        text = json.dumps(said, separators=(",", ":")).encode("ascii")
        self._sink.write(_HEAD.pack(len(text), len(body)))
        self._sink.write(text)
        self._sink.write(body)
        self._sink.flush()

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Waits for one message.

        Raises:
            EOFError: nobody writes any more.
            ValueError: it is none; its bytes are taken only as far as its own object accounts for them.
        """
        length, size = _HEAD.unpack(self._exactly(_HEAD.size))
        if length > _LONGEST:
            raise ValueError("a message too long")
        said = json.loads(self._exactly(length))
        if not isinstance(said, dict) or size != _size_of(said):
            raise ValueError("no message")
        return said, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) != size:
            raise EOFError
        return data


def said_of(answer: Made | str) -> tuple[dict[str, Any], bytes | memoryview]:
    """A case, or why it can't be used, as a message."""
    if isinstance(answer, str):
        return {"reason": answer}, b""
    said = {
        "case": asdict(answer.case),
        "planes": list(answer.planes.shape),
        "digest": answer.digest.hex(),
        "hash": answer.hash.hex(),
    }
    return said, answer.planes.reshape(-1).view(np.uint8).data


def heard(said: dict[str, Any], body: bytes) -> Made | str:
    """The case, or why it can't be used, that a message is.

    Raises:
        KeyError, TypeError, ValueError: it is neither.
    """
    if "reason" in said:
        return str(said["reason"])
    planes = np.frombuffer(body, dtype="<f4").reshape(said["planes"])
    return Made(case_from(said["case"]), planes, bytes.fromhex(said["digest"]), bytes.fromhex(said["hash"]))


def _size_of(said: dict[str, Any]) -> int:
    """Bytes that a message's object accounts for."""
    return 4 * math.prod(said["planes"]) if "planes" in said else 0
