"""Perturbations that cases carry from visit to visit, in two files that change places: one is read, the other written.

Within a turn (an epoch, or a measurement of the probe) each case is read as the turn before left it and written once
or more. So whatever a kill interrupts, the file that the turn is read from is whole, and a checkpoint need not hold a
copy. Each row carries a MAC over its turn, its number and the run: a row of another turn, case or run is none.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medharden import ranks
from medharden.errors import OutputError, RunError
from medharden.files import open_plain, read_at, write_at
from medharden.rows import Rows
from medharden.sizes import shown_bytes

__all__ = ["PerturbationFiles", "TwoFiles"]

_MAC = 32


@dataclass(frozen=True)
class PerturbationFiles:
    """Where a run's perturbations lie.

    Attributes:
        folder: the run directory; null for files without a name, which no later process goes on from.
        seal: key of the rows.
        binding: what the run is: protocol, cohort and model.
    """

    folder: Path | None = None
    seal: bytes = b""
    binding: str = ""

    def of(self, name: str, shape: Sequence[int]) -> TwoFiles:
        """Two files for (N, ...) codes.

        Args:
            name: of the files, to which 0 and 1 are added.
            shape: of the codes.

        Raises:
            OutputError: they can't be made.
            RunError: the run directory holds a link or the like in their place.
        """
        return TwoFiles(shape, name, self)


class TwoFiles(Rows):
    """(N, ...) int8, on the CPU; rows that were never written are not to be read."""

    def __init__(self, shape: Sequence[int], name: str, where: PerturbationFiles) -> None:
        """Opens the files, or makes them; see `PerturbationFiles.of`."""
        super().__init__(shape, torch.int8)
        self._values = math.prod(self.shape[1:])
        self._name, self._where, self._turn = name, where, 0
        self._seal = where.seal if where.folder is not None else secrets.token_bytes(32)
        self._written: set[int] = set()
        if where.folder is None and ranks.count() > 1:
            raise RunError(
                "several processes share perturbations in the run directory, which are sealed by the pseudonym key; "
                "these data were read without one: expected a key, or one process"
            )
        self._files = (self._opened(0), self._opened(1))

    def turn(self, number: int) -> None:
        """Begins a turn: what the one before wrote is read, whichever process wrote it."""
        if ranks.count() > 1 and self._turn:
            self._meet()
        self._turn = number
        self._written.clear()

    def _meet(self) -> None:
        """Has all processes see what each wrote: files are opened anew, which is when a shared filesystem looks."""
        self.flush()
        for handle in self._files:
            os.close(handle)
        self._files = (-1, -1)
        ranks.wait()
        self._files = (self._opened(0), self._opened(1))

    def take(self, rows: Sequence[int]) -> Tensor:
        """(n, ...) the rows as they were written last, in this turn or the one before.

        Raises:
            RunError: a row is not as it was written.
        """
        found = torch.empty((len(rows), *self.shape[1:]), dtype=torch.int8)
        for place, row in enumerate(rows):
            data = self._read(row, self._turn if row in self._written else self._turn - 1)
            if data is None:
                raise RunError(
                    f"{self._name} is not as this run left it: it was altered, or the disk lost something; expected "
                    "what hardening wrote. Remove harden.checkpoint and run the command again: hardening begins anew"
                )
            found[place] = torch.frombuffer(data, dtype=torch.int8).reshape(self.shape[1:])
        return found

    def __setitem__(self, key: Any, values: Tensor) -> None:
        numbers = self._numbers(key)
        values = values.detach().to("cpu", torch.int8).contiguous()
        for place, row in enumerate(numbers):
            data = values[place].reshape(-1).view(torch.uint8).numpy().tobytes()
            self._write(row, data + self._mac(row, self._turn, data))
            self._written.add(row)

    def carry(self, rows: Iterable[int]) -> None:
        """Takes rows over from the turn before."""
        for row in rows:
            self[row : row + 1] = self.take([row])

    def holds(self, turn: int, rows: Iterable[int]) -> bool:
        """Whether each of the rows is as a turn wrote it."""
        return all(self._read(row, turn) is not None for row in rows)

    def resume(self, turn: int, written: Iterable[int]) -> None:
        """Goes on within a turn, in which some rows were written."""
        self.turn(turn)
        self._written |= set(written)

    def flush(self) -> None:
        """Has what this turn wrote lie on the disk.

        Raises:
            OutputError: it can't.
        """
        try:
            os.fsync(self._files[self._turn % 2])
        except OSError as error:
            raise self._no_room(error) from None

    def remove(self) -> None:
        """Closes the files and takes them away; a second time does nothing."""
        for handle in self._files:
            os.close(handle)
        self._files = (-1, -1)
        ranks.wait()
        if self._where.folder is not None and ranks.first():
            for number in (0, 1):
                (self._where.folder / f"{self._name}.{number}").unlink(missing_ok=True)

    def __del__(self) -> None:
        for handle in getattr(self, "_files", ()):
            if handle >= 0:
                with suppress(OSError):
                    os.close(handle)

    def _read(self, row: int, turn: int) -> bytearray | None:
        """A row's bytes as a turn wrote them; null where they are others."""
        data = bytearray(self._values + _MAC)
        if not read_at(self._files[turn % 2], data, row * len(data)):
            return None
        content = data[: self._values]
        return content if hmac.compare_digest(self._mac(row, turn, content), data[self._values :]) else None

    def _write(self, row: int, data: bytes) -> None:
        try:
            write_at(self._files[self._turn % 2], data, row * (self._values + _MAC))
        except OSError as error:
            raise self._no_room(error) from None

    def _mac(self, row: int, turn: int, data: bytes | bytearray) -> bytes:
        said = f"{self._name}\0{self._where.binding}\0{turn}\0{row}\0".encode()
        return hmac.new(self._seal, said + data, hashlib.sha256).digest()

    def _opened(self, number: int) -> int:
        folder = self._where.folder
        try:
            if folder is None:
                with tempfile.TemporaryFile(prefix="medharden-") as stream:
                    return os.dup(stream.fileno())
            with open_plain(folder, f"{self._name}.{number}", os.O_RDWR | os.O_CREAT) as stream:
                os.fchmod(stream.fileno(), 0o600)
                return os.dup(stream.fileno())
        except OSError as error:
            raise self._no_room(error) from None

    def _no_room(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._name} could not be written: {error.strerror}; expected a writable run directory with "
            f"{shown_bytes(2 * len(self) * (self._values + _MAC))} free for perturbations. What was finished is kept: "
            "make room and run the command again"
        )
