"""One writer a run directory: who would write waits for nobody, and is told who is there; readers need no lock.

The lock is the system's own on `.medharden.lock` (library `filelock`), so that of a process that died is free at once.
Some shared filesystems keep such locks to each machine. So `.medharden.holder.json`, which says who holds it, is made
where none is, and touched as long as its process lives: where that is on another machine, it is believed until it has
not been touched for two minutes, by the filesystem's own clock.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from medharden.canonical import canonical_json, parse_canonical
from medharden.errors import OutputError, RunError
from medharden.files import read_plain, require_plain
from medharden.text import neutral

__all__ = ["LOCK_FILES", "exclusive", "holder"]

_LOCK, _HOLDER = ".medharden.lock", ".medharden.holder.json"
LOCK_FILES = (_LOCK, _HOLDER)
"""Names in a run directory that are no part of the run."""

_LARGEST = 4096
_BEAT, _STALE = 20.0, 120.0  # seconds between two touches, and after which a holder elsewhere is taken to have died
_ATTEMPTS = 3
_held: dict[str, tuple[int, int]] = {}  # real path to thread and depth
_guard = threading.Lock()


@contextmanager
def exclusive(run: Path) -> Iterator[None]:
    """Holds a run directory for writing; within it, the same thread may ask again.

    Args:
        run: the run directory, made if absent.

    Raises:
        RunError: another process, or another thread of this one, holds it; or it holds links or the like.
        OutputError: it can't be written to.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run.name} can't be made: {error.strerror}; choose another folder") from error
    place, thread = os.path.realpath(run), threading.get_ident()
    with _guard:
        owner, depth = _held.get(place, (thread, 0))
        if owner == thread and depth:
            _held[place] = (thread, depth + 1)
    if owner != thread:
        raise _taken(run, f"another thread of this process ({os.getpid()})")
    if not depth:
        with _locked(run, place, thread):
            yield
        return
    try:
        yield
    finally:
        _held[place] = (thread, depth)


@contextmanager
def _locked(run: Path, place: str, thread: int) -> Iterator[None]:
    from filelock import FileLock, Timeout  # here, since who only reads must start quickly

    require_plain(run)
    try:
        lock = FileLock(Path(place) / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise _taken(run, holder(run) or "another process") from None
    except OSError as error:
        said = f"{run.name} can't be locked for writing: {error.strerror}; expected a writable folder"
        raise OutputError(said) from None
    try:
        _claim(run, Path(place))
    except RunError:
        lock.release()
        raise
    _held[place] = (thread, 1)
    ended = threading.Event()
    threading.Thread(target=_touch, args=(Path(place), ended), daemon=True, name="medharden-holder").start()
    try:
        yield
    finally:
        ended.set()
        with suppress(OSError):
            (Path(place) / _HOLDER).unlink(missing_ok=True)
            # while it is held: who has opened it meanwhile finds that what it locked is gone, and is refused
            (Path(place) / _LOCK).unlink(missing_ok=True)
        del _held[place]
        lock.release()


def holder(run: Path) -> str:
    """Process and host that hold a run directory, as they said themselves; "" where nobody said so."""
    return _who(run)[0]


def _who(run: Path) -> tuple[str, str]:
    """What a holder says of itself, and its host; "" where nobody said so."""
    try:
        said = parse_canonical(read_plain(run, _HOLDER, largest=_LARGEST))
        host = str(said["host"])
        return neutral(f"process {int(said['process'])} on {host[:100]} since {str(said['since'])[:40]}"), host
    except (OSError, RunError, ValueError, KeyError, TypeError):
        return "", ""


def _claim(run: Path, place: Path) -> None:
    """Says who holds the lock, in a file that is made by one process alone, whatever the filesystem's locks are worth.

    Raises:
        RunError: a process on another machine holds it.
    """
    me = socket.gethostname()
    said = {"process": os.getpid(), "host": me, "since": datetime.now(UTC).isoformat(timespec="seconds")}
    with suppress(OSError):  # a full disk: the lock holds all the same, and the first real write says so
        for _ in range(_ATTEMPTS):
            try:
                handle = os.open(place / _HOLDER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            except FileExistsError:
                who, host = _who(place)
                left = _STALE - abs(_age(place)) if who and host != me else 0.0
                if left > 0:
                    raise _taken(run, f"{who}, or was until {_STALE - left:.0f} s ago") from None
                (place / _HOLDER).unlink(missing_ok=True)  # of a process that died: its lock was free
                continue
            with os.fdopen(handle, "wb") as stream:
                stream.write(canonical_json(said))
            return


def _age(place: Path) -> float:
    """Seconds since a holder was touched last, by the clock of the filesystem, which this touches its own lock by."""
    os.utime(place / _LOCK)
    return (place / _LOCK).stat().st_mtime - (place / _HOLDER).stat().st_mtime


def _touch(place: Path, ended: threading.Event) -> None:
    """Shows the holder to be alive, until it has ended."""
    while not ended.wait(_BEAT):
        with suppress(OSError):
            os.utime(place / _HOLDER)


def _taken(run: Path, who: str) -> RunError:
    return RunError(
        f"{run.name} is being written by {who}; one process writes a run directory at a time: wait for it, or choose "
        "another --out (to look alone: `medharden gate --read-only`, `verify`, `report --out`)"
    )
