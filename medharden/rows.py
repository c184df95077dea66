"""Cases that lie in files and are read as they are asked for: what grows with the cohort is no tensor in memory.

`Cases` is a tensor or `Rows`; code that goes through cases by their rows, or part by part, takes either.
"""

from __future__ import annotations

import math
import os
import tempfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from medharden.errors import OutputError
from medharden.files import read_at, write_at

__all__ = ["Cases", "Overlay", "RowFile", "Rows", "copy_of", "joined", "parts", "read_ahead", "select"]
__all__ += ["single_thread_pool"]

Key = TypeVar("Key")
Read = TypeVar("Read")

_AHEAD = 2  # parts that are read while one is in use


class Rows(ABC):
    """(N, ...) values of one type that are read by row; an index gives a tensor of its own.

    Attributes:
        shape: of all of them.
        dtype: of the values.
        device: where what is read is put.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self.shape, self.dtype, self.device = torch.Size(shape), dtype, torch.device(device)

    @abstractmethod
    def take(self, rows: Sequence[int]) -> Tensor:
        """(n, ...) the rows in this order, on the device."""

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """Axes, with that of the cases."""
        return len(self.shape)

    def is_floating_point(self) -> bool:
        """As of a tensor."""
        return self.dtype.is_floating_point

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, int):
            return self.take([range(len(self))[key]])[0]
        return self.take(self._numbers(key))

    def _numbers(self, key: Any) -> list[int]:
        if isinstance(key, Tensor):
            key = key.cpu()
        numbers: list[int] = torch.arange(len(self))[key].tolist()
        return numbers


Cases = Tensor | Rows


def joined(found: Iterable[Tensor], count: int) -> Tensor:
    """(count, ...) as `torch.cat` makes it of the parts, each written where it belongs as it comes.

    Many small tensors that stay would keep the heap from using again what lies between them.
    """
    whole, done = torch.empty(0), 0
    for part in found:
        if not done:
            whole = part.new_empty((count, *part.shape[1:]))
        whole[done : done + len(part)] = part
        done += len(part)
    return whole


class RowFile(Rows):
    """Rows in a file without a name, which goes with the process in whatever way it ends; they start at zero."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        """Makes the file, which takes room as rows are written.

        Raises:
            OutputError: the temporary folder can't be written to.
        """
        super().__init__(shape, dtype, device)
        self._file = -1
        self._size = math.prod(self.shape[1:]) * torch.empty(0, dtype=dtype).element_size()
        try:
            with tempfile.TemporaryFile(prefix="medharden-") as stream:
                self._file = os.dup(stream.fileno())
            os.ftruncate(self._file, len(self) * self._size)
        except OSError as error:
            raise _no_room(error) from None

    def take(self, rows: Sequence[int]) -> Tensor:
        """(n, ...) the rows as they were written last."""
        found = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for place, row in enumerate(rows):
            read_at(self._file, _bytes(found[place]), row * self._size)
        return found.to(self.device)

    def __setitem__(self, key: Any, values: Tensor) -> None:
        values = values.detach().to("cpu", self.dtype).contiguous()
        try:
            for place, row in enumerate(self._numbers(key)):
                write_at(self._file, _bytes(values[place]), row * self._size)
        except OSError as error:
            raise _no_room(error) from None

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Overlay(Rows):
    """Rows that start as others are, and of which those that were written are held in a file.

    Attributes:
        written: the rows that were written.
    """

    def __init__(self, base: Cases) -> None:
        """Takes what the rows start as; it is not changed."""
        super().__init__(base.shape, base.dtype, base.device)
        self._base, self._own = base, RowFile(base.shape, base.dtype)
        self.written: set[int] = set()

    def take(self, rows: Sequence[int]) -> Tensor:
        """(n, ...) the rows as they were written last, or started."""
        own = [row in self.written for row in rows]
        sources = ((self._own, True), (self._base, False))
        for source, chosen in sources:
            if all(one is chosen for one in own):
                return source[torch.tensor(rows, dtype=torch.int64)].to(self.device)
        found = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype, device=self.device)
        for source, chosen in sources:
            places = [place for place, one in enumerate(own) if one is chosen]
            found[places] = source[torch.tensor([rows[place] for place in places])].to(self.device)
        return found

    def __setitem__(self, key: Any, values: Tensor) -> None:
        numbers = self._numbers(key)
        self._own[torch.tensor(numbers, dtype=torch.int64)] = values
        self.written |= set(numbers)


class _Selected(Rows):
    """Some rows of others, in an order of their own."""

    def __init__(self, base: Rows, rows: Sequence[int]) -> None:
        super().__init__((len(rows), *base.shape[1:]), base.dtype, base.device)
        self._base, self._rows = base, tuple(rows)

    def take(self, rows: Sequence[int]) -> Tensor:
        return self._base.take([self._rows[row] for row in rows])


def select(cases: Cases, rows: Tensor) -> Cases:
    """(n, ...) some of the cases, read when they are asked for where they lie in a file.

    Args:
        cases: (N, ...).
        rows: (n,) int64.
    """
    return cases[rows] if isinstance(cases, Tensor) else _Selected(cases, rows.tolist())


def copy_of(cases: Cases) -> Tensor | Overlay:
    """The cases, to be written to."""
    return cases.detach().clone() if isinstance(cases, Tensor) else Overlay(cases)


def parts(cases: Cases, size: int) -> Iterator[Tensor]:
    """The cases in their order, so many at a time; the next are read while these are in use, and none beyond."""
    if isinstance(cases, Tensor):
        yield from torch.split(cases, size)
    else:
        starts = range(0, len(cases), size)
        yield from read_ahead(lambda start: cases[start : start + size], starts, 1)


def single_thread_pool(name: str) -> ThreadPoolExecutor:
    """One thread, which computes by itself: helpers of its own would wait, spinning, on the cores of who calls.

    With them a training step took 2.6 times as long on two cores. What the thread sets is also what the matrix library
    takes everywhere, and threads that come after, so that it is put back.
    """

    def alone() -> None:
        torch.get_num_threads()  # a thread that was never asked takes the process's number later on
        torch.set_num_threads(1)

    pool, before = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name), torch.get_num_threads()
    pool.submit(alone).result()
    torch.set_num_threads(before)
    return pool


def read_ahead(read: Callable[[Key], Read], keys: Iterable[Key], ahead: int = _AHEAD) -> Iterator[Read]:
    """What is read for each key, in order, while what came before is in use; in a thread, so that it may not wait.

    Args:
        read: called in another thread, for one key at a time.
        keys: in order.
        ahead: how many may be in memory beside the one in use.
    """
    with single_thread_pool("medharden-ahead") as pool:
        waiting: deque[Future[Read]] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(read, key))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _bytes(row: Tensor) -> memoryview:
    return row.reshape(-1).view(torch.uint8).numpy().data


def _no_room(error: OSError) -> OutputError:
    return OutputError(
        f"what does not fit into memory could not be written to the temporary folder: {error.strerror}; expected free "
        "space there: choose another folder with the environment variable TMPDIR"
    )
