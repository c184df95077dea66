"""How much memory reading may take: a limit for one file, which all reader threads of a command share."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medharden.errors import DataError, ProtocolError
from medharden.protocol import Input
from medharden.sizes import MAX_DECODED, shown_bytes

__all__ = ["Hold", "MoreNeededError", "Room", "Share", "room_for"]

_UNKNOWN = 64 * 2**20  # a file of up to so many bytes may be read before it is known what it becomes
_VALUE = 8  # float32 in rescaled units, and as much again on the way to model input
_SPREAD = 20  # the same, and three channels where the protocol wants colour of grey images in their native size


class Hold:
    """What one file takes of the room that the readers share."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0

    @property
    def limit(self) -> int:
        """Bytes that this file may take."""
        return self._room.limit

    def take(self, need: int) -> None:
        """Waits until so many bytes are free for this file, in all.

        Asked for more than it holds already, it would have to wait for others that may be waiting for it. So a reader
        that does not know yet what it needs calls `take_all` first, and everybody else asks once.

        Raises:
            DataError: the file needs more than one file may take.
        """
        if need > self.limit:
            raise DataError(
                f"needs {shown_bytes(need)} of memory to be read, more than the {shown_bytes(self.limit)} that one "
                "file may take (raise --max-decoded if the file is what it should be)"
            )
        if need <= self._held:
            return
        assert not self._held, "asked for more while holding some"  # noqa: S101
        self._room._take(need)
        self._held = need

    def take_all(self) -> None:
        """Waits until no other file is being read; what this one needs is known later."""
        self.take(self.limit)

    def take_values(self, shape: Iterable[int], itemsize: int, *, beside: int = 0) -> int:
        """Waits for the memory that an array needs on its way from the file to model input.

        Args:
            shape: of the array, as the file claims it.
            itemsize: bytes of one value as stored.
            beside: bytes that are held beside the array, such as those of the file.

        Returns:
            How many values there are.

        Raises:
            DataError: none, or more than one file may take.
        """
        count = math.prod(int(extent) for extent in shape)
        if count <= 0:
            raise DataError("holds no values")
        self.take(beside + self._room.output_bytes + count * max(self._room.value_bytes, 2 * itemsize + 4))
        return count

    def read(self, path: Path) -> bytes:
        """A whole file, if it is not larger than what it may become.

        Raises:
            DataError: it is larger.
            OSError: it can't be read.
        """
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            self.admit(size)
            return stream.read(size)

    def admit(self, size: int) -> None:
        """Lets a file of so many bytes be read before its claims are known; a large one only when it is alone.

        Raises:
            DataError: the file is larger than what it may become.
        """
        if size > self.limit:
            self.take(size)
        if size > min(_UNKNOWN, self.limit // 4):
            self.take_all()

    def _give_back(self) -> None:
        self._room._take(-self._held)
        self._held = 0


class MoreNeededError(Exception):
    """One of several images needs more than its share, which was taken for all of them by what the first needed."""


class Share(Hold):
    """The share of each of several images that one case is made of, all of which are held until it is made."""

    def __init__(self, whole: Hold, parts: int, *, everything: bool = False) -> None:
        """Takes the case's hold and the number of images.

        Args:
            whole: of the case; takes for all images what the first one needs.
            parts: how many images.
            everything: whether all that there is was taken, so that each image has an equal part of that.
        """
        super().__init__(whole._room)
        self._whole, self._parts = whole, parts
        if everything:
            whole.take_all()
            self._held = self.limit

    @property
    def limit(self) -> int:
        """Bytes that one image may take."""
        return self._whole.limit // self._parts

    def take(self, need: int) -> None:
        """Waits for so many bytes for each image.

        Raises:
            DataError: the image needs more than one of so many may take.
            MoreNeededError: it needs more than the first one did.
        """
        if need > self.limit:
            self._whole.take(max(need * self._parts, self._whole.limit + 1))
        if need <= self._held:
            return
        if self._held:
            raise MoreNeededError
        self._whole.take(need * self._parts)
        self._held = need


class Room:
    """Memory for reading: what one file may take, and what all that are being read at one time take together.

    So the number of threads does not multiply what a hostile file can take: large files are read one after the other.
    """

    def __init__(self, limit: int = MAX_DECODED, *, value_bytes: int = _VALUE, output_bytes: int = 0) -> None:
        """Takes the limit, what a value takes until it is model input, and what model input takes; in bytes."""
        self.limit, self.value_bytes, self.output_bytes = limit, value_bytes, output_bytes
        self._free = limit
        self._changed = threading.Condition()

    @property
    def limits(self) -> dict[str, int]:
        """What another room like this one is made with."""
        return {"limit": self.limit, "value_bytes": self.value_bytes, "output_bytes": self.output_bytes}

    @contextmanager
    def file(self) -> Iterator[Hold]:
        """One file's share, from before it is opened until its model input is made."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            hold._give_back()

    def _take(self, need: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= need)
            self._free -= need
            self._changed.notify_all()


def room_for(limit: int, spec: Input) -> Room:
    """The room of a command whose model input the protocol describes.

    Raises:
        ProtocolError: the limit is below what the protocol's own input size takes.
    """
    output = 2 * 4 * spec.largest * (1 if spec.channels == "gray" else 3)  # as made, and as padded
    least = output + (spec.largest or 1) * _VALUE
    if limit < least:
        raise ProtocolError(
            f"one file may take {shown_bytes(limit)} of memory (--max-decoded); the protocol's input.size needs "
            f"{shown_bytes(least)} at least"
        )
    spread = spec.channels == "rgb" and not spec.largest
    return Room(limit, value_bytes=_SPREAD if spread else _VALUE, output_bytes=output)
