"""Every listed case decoded once, in threads, or in processes where that is worth their start, into a store."""

from __future__ import annotations

import hashlib
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from medharden.data.formats.image import quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.sources.folder import Entry, Listing
from medharden.data.store.keeping import Kept, Store
from medharden.data.store.made import Made, made_of, single_threaded, stamp_of, threads_of_readers
from medharden.data.store.worker import Decoder
from medharden.errors import DataError, OutputError
from medharden.protocol import Input
from medharden.record import Progress

__all__ = ["read_cases"]

_TRIED = 32  # cases that tell how long the others will take
_WORTH_PROCESSES = 20.0  # seconds of reading that are left; to start processes takes a few
_AHEAD = 4  # cases in hand, or done and not yet kept, for each worker: they are in memory

T = TypeVar("T")
Outcome = tuple[str, Made | str]
"""The digest of what was read, and what was made of it, or why it can't be used."""


def read_cases(
    listing: Listing, spec: Input, store: Store, *, room: Room, workers: int, progress: Progress | None
) -> list[Kept | str]:
    """Finds every entry in the store, or reads it into it; one that can't be used gives the reason in its place.

    The readers share the room: one that needs more than is free waits for the others. Stopping (KeyboardInterrupt)
    waits for the files in hand only, and what was read by then is kept.

    Args:
        listing: what there is.
        spec: what is made of each case.
        store: where it is looked for and kept.
        room: memory that reading may take.
        workers: threads that look and read, or processes.
        progress: called with `read`, cases done and in all.

    Raises:
        OutputError: the store can't be written to, or the disk is full.
    """
    results: list[Kept | str] = [""] * len(listing.entries)
    done = count(1)

    def finish(number: int, result: Kept | str) -> None:
        results[number] = result
        if progress is not None:
            progress("read", next(done), len(results))

    def keep(number: int, outcome: Future[Outcome]) -> None:
        digest, made = _outcome(outcome)
        finish(number, made if isinstance(made, str) else store.put(digest, made))

    left: Iterable[int] = range(len(results))
    with quiet_readers():
        if store.lasting:
            left = _not_kept(listing, store, workers, finish)
        numbers = iter(left := list(left))
        started = time.monotonic()
        with _pool(workers) as pool:
            read = _reader(listing, spec, room, store.lasting)
            _each(pool, read, listing, islice(numbers, _TRIED), workers, keep)
            ahead = (time.monotonic() - started) / _TRIED * (len(left) - _TRIED)
            if workers == 1 or listing.digest is not None or ahead <= _WORTH_PROCESSES:
                _each(pool, read, listing, numbers, workers, keep)
        with _decoders(spec, room, workers) as decode, _pool(workers) as pool:
            _each(pool, _stamped(decode, store.lasting), listing, numbers, workers, keep)
    return results


def _not_kept(listing: Listing, store: Store, workers: int, finish: Callable[[int, Kept | str], None]) -> list[int]:
    """The entries that a store does not hold; what it holds is finished."""
    left: list[int] = []

    def look(entry: Entry) -> Kept | None:
        return store.find(_digest(listing, entry))

    def take(number: int, found: Future[Kept | None]) -> None:
        kept = None if found.exception() is not None else found.result()  # what is wrong is said when it is read
        if kept is None:
            left.append(number)
        else:
            finish(number, kept)

    with _pool(workers) as pool:
        _each(pool, look, listing, range(len(listing.entries)), workers, take)
    return sorted(left)


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are not waited for with all that they were given, but with what they have in hand."""
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="medharden-read", initializer=single_threaded)
    with threads_of_readers():
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _each(
    pool: ThreadPoolExecutor,
    work: Callable[[Entry], T],
    listing: Listing,
    numbers: Iterable[int],
    workers: int,
    then: Callable[[int, Future[T]], None],
) -> None:
    """Does work on entries in the pool and something with each result here, with a few in hand at a time."""
    waiting = iter(numbers)
    pending: dict[Future[T], int] = {}
    while True:
        for number in islice(waiting, _AHEAD * max(1, workers) - len(pending)):
            pending[pool.submit(work, listing.entries[number])] = number
        if not pending:
            return
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            then(pending.pop(future), future)


def _outcome(future: Future[Outcome]) -> Outcome:
    """An error that no reader foresaw gives its type alone, since its text may quote the header."""
    unforeseen = future.exception()
    if isinstance(unforeseen, OutputError):
        raise unforeseen
    return ("", f"can't be read: {type(unforeseen).__name__}") if unforeseen is not None else future.result()


def _reader(listing: Listing, spec: Input, room: Room, lasting: bool) -> Callable[[Entry], Outcome]:
    """Reads in the thread that calls."""

    def read(entry: Entry) -> Made | str:
        try:
            with room.file() as hold:
                return made_of(listing.read(entry, hold), spec)
        except DataError as error:
            return str(error)

    if listing.digest is not None:
        return lambda entry: (_digest(listing, entry) if lasting else "", read(entry))
    return _stamped(read, lasting)


def _stamped(read: Callable[[Entry], Made | str], lasting: bool) -> Callable[[Entry], Outcome]:
    """Reads a file under the digest of what was read: one that is written to meanwhile can't be used."""

    def both(entry: Entry) -> Outcome:
        if not lasting or not entry.paths:
            return "", read(entry)
        try:
            before, digest = [stamp_of(path) for path in entry.paths], _content_digest(entry)
            made = read(entry)
            if [stamp_of(path) for path in entry.paths] != before:
                made = "changed while it was read; run the command again once nothing writes to it"
        except OSError as error:
            return "", f"can't be read ({type(error).__name__})"
        return digest, made

    return both


@contextmanager
def _decoders(spec: Input, room: Room, workers: int) -> Iterator[Callable[[Entry], Made | str]]:
    """Reads in as many processes as there are threads; a thread that calls uses the one that is free."""
    every = [Decoder(spec, room) for _ in range(workers)]
    free: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
    for decoder in every:
        free.put(decoder)

    def decode(entry: Entry) -> Made | str:
        decoder = free.get()
        try:
            return decoder.decode(entry.parts, entry.frame)
        finally:
            free.put(decoder)

    try:
        yield decode
    finally:
        for decoder in every:
            decoder.close()


def _digest(listing: Listing, entry: Entry) -> str:
    if entry.paths:
        return _content_digest(entry)
    return listing.digest(entry) if listing.digest is not None else ""


def _content_digest(entry: Entry) -> str:
    """What names the content of a case: that of its image, of each of its channels in their order, of its frame."""
    each = [_files_digest(files) for files in entry.parts]
    whole = each[0] if len(each) == 1 else blake3("\n".join(each).encode()).hexdigest() + ".channels"
    return f"{whole}.frame{entry.frame}" if entry.frame else whole


def _files_digest(paths: Sequence[Path]) -> str:
    """What names the content of an image: that of its file, or of all files of a series in whatever order."""
    digests = sorted(map(_file_digest, paths))
    return digests[0] if len(digests) == 1 else blake3("\n".join(digests).encode()).hexdigest() + ".series"


def _file_digest(path: Path) -> str:
    """BLAKE3 of the content, with the ending of the name, which may say what a file without a mark is."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, blake3)  # type: ignore[arg-type]  # the stubs ask for more than is used
        return digest.hexdigest() + "".join(path.suffixes[-2:]).lower()[-16:]
