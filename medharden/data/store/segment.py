"""One file of decoded cases, appended to by one process and never rewritten; each is held to its digest when read.

It is read and not mapped: what is mapped counts as the process's memory, and a file that another process cuts short
would end this one with a bus error instead of a message.
"""

from __future__ import annotations

import hmac
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from medharden.errors import DataError, OutputError
from medharden.files import read_at, write_at

__all__ = ["Segment", "not_kept"]

Floats = npt.NDArray[np.float32]

_ALTERED = (
    "a decoded case is not as it was kept: the cache was altered or damaged after it was opened; expected the same "
    "bytes. Remove it (`medharden cache remove`) and run the command again"
)
_UNREADABLE = (
    "a decoded case can't be read from the cache: {}; expected a disk that gives back what was kept. Run the command "
    "again; where it fails again, remove the cache (`medharden cache remove`), which has cases decoded anew"
)


class Segment:
    """Cases of any shapes, one after the other, as little-endian float32."""

    def __init__(self, handle: int, size: int = 0) -> None:
        """Takes over an open descriptor, and how much of the file is in use."""
        self._handle, self.size = handle, size

    @classmethod
    def unnamed(cls, folder: Path | None) -> Segment:
        """One that no name leads to: it is gone when this process ends, in whatever way.

        Raises:
            OutputError: the folder can't be written to.
        """
        try:
            with tempfile.TemporaryFile(prefix="medharden-", dir=folder) as stream:
                return cls(os.dup(stream.fileno()))
        except OSError as error:
            raise not_kept(error) from None

    def append(self, planes: Floats) -> int:
        """Writes a case at the end; returns its offset.

        Raises:
            OutputError: the disk is full, or the file can't be written to.
        """
        start = self.size
        try:
            write_at(self._handle, planes.reshape(-1).view(np.uint8).data, start)
        except OSError as error:
            raise not_kept(error) from None
        self.size = start + planes.nbytes
        return start

    def read(self, offset: int, shape: Sequence[int], digest: bytes, into: Floats | None = None) -> Floats:
        """A case as it was written.

        Args:
            offset: of `append`.
            shape: (planes, *spatial).
            digest: BLAKE3 of its bytes.
            into: contiguous array of this shape to read into, which spares a copy; null takes a new one.

        Raises:
            DataError: the bytes are others, or can't be read; what `into` then holds is of no use.
        """
        planes = np.empty(tuple(shape), dtype="<f4") if into is None else into
        whole = planes.reshape(-1).view(np.uint8).data
        try:
            there = read_at(self._handle, whole, offset)
        except OSError as error:
            raise DataError(_UNREADABLE.format(error.strerror)) from None
        if not there or not hmac.compare_digest(blake3(whole).digest(), digest):
            raise DataError(_ALTERED)
        return planes

    def flush(self) -> None:
        """Has the system write to the disk what it holds in memory."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


def not_kept(error: OSError) -> OutputError:
    """The disk is full, or the place can't be written to."""
    return OutputError(
        f"decoded cases could not be kept: {error.strerror}; expected room on a disk that can be written to: choose "
        "another place with --cache, or, without it, with the environment variable TMPDIR"
    )
