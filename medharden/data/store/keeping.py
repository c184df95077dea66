"""The decoded store: cases by the digest of their file, in scratch for one command or in a cache for later ones."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from medharden.data.store.cache import new_file, opened, require_private
from medharden.data.store.journal import Line, lines_of, written
from medharden.data.store.made import Made
from medharden.data.store.segment import Segment, not_kept
from medharden.data.view.case import ReadCase
from medharden.errors import DataError, OutputError

__all__ = ["Kept", "Place", "Store"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """Where the input of a case lies in a store."""

    segment: Segment = field(repr=False)
    offset: int
    shape: tuple[int, ...]
    digest: bytes

    def read(self, into: Floats | None = None) -> Floats:
        """(1 or C, *spatial) as it was made; one plane where all are equal.

        Args:
            into: contiguous array of the case's shape to read into; null takes a new one.

        Raises:
            DataError: it is not as it was kept.
        """
        return self.segment.read(self.offset, self.shape, self.digest, into)


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """A case in a store.

    Attributes:
        case: what is known of it beside its input.
        place: where that lies.
        packed: its perceptual hash in 32 bytes; empty for a picture of one value.
    """

    case: ReadCase
    place: Place
    packed: bytes

    @property
    def hash(self) -> npt.NDArray[np.bool_] | None:
        """(256,) bits of its perceptual hash, or null for a picture of one value."""
        return np.unpackbits(np.frombuffer(self.packed, dtype=np.uint8)).astype(np.bool_) if self.packed else None


class Store:
    """Cases that were decoded, each once.

    A process writes a segment and a journal of its own and no other's, so that several may use one cache at once, on
    several machines too. A case counts as kept once its line is in the journal; what was torn is decoded anew.
    """

    def __init__(self, folder: Path | None = None, seal: bytes = b"", scratch: Path | None = None) -> None:
        """Opens a store of a cache, or one that goes with this process.

        Args:
            folder: of `view_folder`; null keeps cases in an unnamed file.
            seal: key of the lines.
            scratch: where an unnamed file goes; null takes the system's temporary folder.

        Raises:
            OutputError: the folder is another's, open to others, or can't be read.
        """
        self._folder, self._seal, self._scratch = folder, seal, scratch
        self._known: dict[str, list[Kept]] = defaultdict(list)
        self._own: Segment | None = None
        self._journal, self._name = -1, ""
        if folder is not None and folder.exists():
            require_private(folder)
            for path in sorted(folder.glob("cases-*.jsonl")):
                self._learn(path)

    @property
    def lasting(self) -> bool:
        """Whether later commands find what is kept."""
        return self._folder is not None

    def find(self, file: str) -> Kept | None:
        """The case of a file by its digest; null where it is not kept, or no longer as it was written."""
        return next((kept for kept in self._known.get(file, ()) if _whole(kept)), None)

    def put(self, file: str, made: Made) -> Kept:
        """Keeps a case under its file's digest.

        Raises:
            OutputError: the disk is full, or the place can't be written to.
        """
        own = self._own or self._begin()
        offset = own.append(made.planes)
        line = Line(file, offset, made.planes.shape, made.digest.hex(), made.hash.hex(), made.case)
        if self._folder is not None:
            try:
                self._write(written(line, self._seal, f"{self._folder.name}/{self._name}"))
            except OSError as error:
                raise not_kept(error) from None
        return _kept(line, own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Has what was written lie on the disk; cases that were found or put can be read on, and no more are found."""
        self._known.clear()
        if self._own is not None and self._folder is not None:
            try:
                self._own.flush()
                os.fsync(self._journal)
            except OSError as error:
                raise not_kept(error) from None

    def _begin(self) -> Segment:
        if self._folder is None:
            self._own = Segment.unnamed(self._scratch)
            return self._own
        self._name = f"cases-{secrets.token_hex(8)}"
        self._own = Segment(new_file(self._folder, f"{self._name}.bin"))
        self._journal = new_file(self._folder, f"{self._name}.jsonl")
        return self._own

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._journal, data) :]

    def _learn(self, path: Path) -> None:
        name = path.name.removesuffix(".jsonl")
        try:
            with os.fdopen(opened(path), "rb") as stream:
                handle = opened(path.with_suffix(".bin"))
                segment = Segment(handle, os.fstat(handle).st_size)
                for line in lines_of(stream, self._seal, f"{path.parent.name}/{name}"):
                    self._known[line.file].append(_kept(line, segment))
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"the cache can't be read: {error.strerror}; expected a folder of yours") from None

    def __del__(self) -> None:
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1


def _whole(kept: Kept) -> bool:
    try:
        kept.place.read()
    except DataError:
        return False
    return True


def _kept(line: Line, segment: Segment) -> Kept:
    place = Place(segment, line.offset, line.shape, bytes.fromhex(line.digest))
    return Kept(line.case, place, bytes.fromhex(line.hash))
