"""One writer a run directory: who would write waits for nobody, and is told who is there; readers need no lock.

The lock is the system's own on `.medharden.lock` (library `filelock`), so that of a process that died is free at once.
`.medharden.holder.json` says who holds it, for the message alone; nothing rests on it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from medharden.audit.files import write_atomic
from medharden.canonical import canonical_json, parse_canonical
from medharden.errors import OutputError, RunError
from medharden.files import read_plain, require_plain
from medharden.text import neutral

__all__ = ["LOCK_FILES", "exclusive", "holder"]

_LOCK, _HOLDER = ".medharden.lock", ".medharden.holder.json"
LOCK_FILES = (_LOCK, _HOLDER)
"""Names in a run directory that are no part of the run."""

_LARGEST = 4096
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
    _held[place] = (thread, 1)
    try:
        _say_who(Path(place))
        yield
    finally:
        with suppress(OSError):
            (Path(place) / _HOLDER).unlink(missing_ok=True)
            # while it is held: who has opened it meanwhile finds that what it locked is gone, and is refused
            (Path(place) / _LOCK).unlink(missing_ok=True)
        del _held[place]
        lock.release()


def holder(run: Path) -> str:
    """Process and host that hold a run directory, as they said themselves; "" where nobody said so."""
    try:
        said = parse_canonical(read_plain(run, _HOLDER, largest=_LARGEST))
        return neutral(f"process {int(said['process'])} on {str(said['host'])[:100]} since {str(said['since'])[:40]}")
    except (OSError, RunError, ValueError, KeyError, TypeError):
        return ""


def _say_who(run: Path) -> None:
    said = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(OutputError):  # a full disk: the lock holds all the same, and the first real write says so
        write_atomic(run / _HOLDER, canonical_json(said))


def _taken(run: Path, who: str) -> RunError:
    return RunError(
        f"{run.name} is being written by {who}; one process writes a run directory at a time: wait for it, or choose "
        "another --out (to look alone: `medharden gate --read-only`, `verify`, `report --out`)"
    )
