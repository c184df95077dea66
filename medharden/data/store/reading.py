"""Decoding and preprocessing every listed case once, in threads, into memory or onto disk."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.limits import Hold, Room
from medharden.data.sources.folder import Entry, Listing
from medharden.data.view.case import ReadCase, case_of
from medharden.errors import DataError, OutputError
from medharden.protocol import Input
from medharden.record import Progress

__all__ = ["Shelf", "assemble", "read_cases"]

Floats = npt.NDArray[np.float32]


class Shelf:
    """Holds model inputs until all are read: in memory up to a limit, then on disk, one file each."""

    def __init__(self, limit: int, folder: Path) -> None:
        self._limit, self._folder, self._bytes = limit, folder, 0
        self._kept: dict[int, Floats | Path] = {}

    def put(self, number: int, array: Floats) -> None:
        """Keeps one input.

        Raises:
            OutputError: the disk is full.
        """
        self._bytes += array.nbytes
        if self._bytes <= self._limit:
            self._kept[number] = array
            return
        path = self._folder / f"{number}.npy"
        try:
            np.save(path, array, allow_pickle=False)
        except OSError as error:
            raise OutputError(f"decoded cases could not be kept on disk: {error.strerror}; expected room") from None
        self._kept[number] = path

    def take(self, number: int) -> Floats:
        """Hands one input out and forgets it."""
        kept = self._kept.pop(number)
        if isinstance(kept, np.ndarray):
            return kept
        array: Floats = np.load(kept, allow_pickle=False)
        kept.unlink()
        return array


def read_cases(
    listing: Listing, spec: Input, shelf: Shelf, *, room: Room, workers: int, progress: Progress | None
) -> list[ReadCase | str]:
    """Reads every entry; a case that can't be used gives the reason in its place.

    The threads share the room: one that needs more than is free waits for the others. Stopping (KeyboardInterrupt)
    waits for the files in hand only.
    """
    results: list[ReadCase | str] = [""] * len(listing.entries)
    with quiet_readers():
        pool = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="medharden-read")
        try:
            pending = {pool.submit(_read, listing.read, e, spec, room): n for n, e in enumerate(listing.entries)}
            for done, future in enumerate(as_completed(pending), start=1):
                number = pending.pop(future)
                results[number] = _kept(future, number, shelf)
                if progress is not None:
                    progress("read", done, len(listing.entries))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return results


def _kept(future: Future[tuple[ReadCase, Floats] | str], number: int, shelf: Shelf) -> ReadCase | str:
    """Shelves the input; an error that no reader foresaw gives its type alone, since its text may quote the header."""
    unforeseen = future.exception()
    if unforeseen is not None:
        return f"can't be read: {type(unforeseen).__name__}"
    outcome = future.result()
    if isinstance(outcome, str):
        return outcome
    shelf.put(number, outcome[1])
    return outcome[0]


def _read(
    read: Callable[[Entry, Hold], StoredImage], entry: Entry, spec: Input, room: Room
) -> tuple[ReadCase, Floats] | str:
    try:
        with room.file() as hold:
            return case_of(read(entry, hold), spec)
    except DataError as error:
        return str(error)


def assemble(
    shelf: Shelf, numbers: Sequence[int], shape: tuple[int, ...], *, limit: int, scratch: Path | None
) -> Floats:
    """(N, *shape) read-only, in memory where it fits, else mapped from a file; grey becomes colour where asked.

    Raises:
        OutputError: the file can't be written.
    """
    whole = (len(numbers), *shape)
    if 4 * int(np.prod(whole, dtype=np.int64)) <= limit:
        inputs = np.empty(whole, dtype=np.float32)
        for row, number in enumerate(numbers):
            inputs[row] = shelf.take(number)
        inputs.flags.writeable = False
        return inputs
    try:
        folder = tempfile.TemporaryDirectory(prefix="medharden-", dir=scratch, ignore_cleanup_errors=True)
        path = Path(folder.name) / "inputs.npy"
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=whole)
        for row, number in enumerate(numbers):
            mapped[row] = shelf.take(number)
        mapped.flush()
        del mapped
        on_disk: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise OutputError(f"the cohort could not be kept on disk: {error.strerror}; expected room") from None
    weakref.finalize(on_disk, folder.cleanup)
    return on_disk
