"""An append-only log of a run: one canonical JSON line an event, each bound to the one before by its hash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from medharden._version import __version__
from medharden.audit.files import digest_bytes
from medharden.audit.locking import exclusive
from medharden.audit.screening import screen_output
from medharden.canonical import canonical_json, parse_canonical
from medharden.errors import Interrupted, OutputError, RunError
from medharden.files import LARGEST_RECORD, open_plain, read_plain

__all__ = ["LOG", "TORN", "AuditLog", "Entry", "Log", "audited", "parse_log", "read_log", "verify_log"]

LOG = "audit.jsonl"
TORN = "log.torn_line_dropped"
_GENESIS = "0" * 64
_FIELDS = ("data", "event", "previous", "sequence", "time")


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        event: such as `harden.started`.
        data: plain JSON values.
        line: SHA-256 of its line, which the next one holds.
    """

    event: str
    data: dict[str, Any]
    line: str


@dataclass(frozen=True)
class Log:
    """A log whose chain was walked.

    Attributes:
        entries: every event in order.
        torn: what a crash left of a last line that was never finished; empty in a whole log.
    """

    entries: tuple[Entry, ...] = ()
    torn: bytes = b""

    @property
    def head(self) -> str:
        """SHA-256 of the last line; zeros for an empty log."""
        return self.entries[-1].line if self.entries else _GENESIS


def parse_log(data: bytes, name: str = LOG) -> Log:
    """Walks the chain of a log.

    Args:
        data: its bytes. What follows the last line's end is `torn`: a line is written with its end.
        name: of its file, for the message.

    Raises:
        RunError: a line is missing, altered or out of order, or is no event.
    """
    *lines, torn = data.split(b"\n")  # not `splitlines`: it would take a carriage return for a line's end
    entries: list[Entry] = []
    head = _GENESIS
    for number, line in enumerate(lines, start=1):
        try:
            fields = parse_canonical(line)
        except ValueError as error:
            raise RunError(f"{name}, line {number}: {error}; the log was altered or torn") from None
        if not isinstance(fields, dict) or tuple(sorted(fields)) != _FIELDS or not _typed(fields):
            raise RunError(f"{name}, line {number}: not a log entry; the log was altered or torn")
        if fields["previous"] != head or fields["sequence"] != len(entries):
            raise RunError(f"{name}, line {number}: the chain is broken; a line was altered, moved or removed")
        head = digest_bytes(line)
        entries.append(Entry(fields["event"], fields["data"], head))
    return Log(tuple(entries), torn)


def read_log(run: Path, name: str = LOG, *, torn: bool = False) -> Log:
    """Reads a log.

    Args:
        run: its folder.
        name: its file.
        torn: whether it may end in a line that was never finished, as for who is about to append.

    Raises:
        RunError: it can't be read, does not hang together, or its last line is torn.
    """
    try:
        log = parse_log(read_plain(run, name), name)
    except OSError as error:
        raise RunError(f"{name} can't be read: {error.strerror}") from error
    if log.torn and not torn:
        raise RunError(f"{name}: the last line is torn; the next stage that writes drops it, on record, and goes on")
    return log


def verify_log(path: Path) -> tuple[int, str]:
    """Walks a log's chain; returns the number of events and the SHA-256 of the last line.

    Raises:
        RunError: as `read_log`.
    """
    log = read_log(path.parent, path.name)
    return len(log.entries), log.head


def _typed(fields: dict[str, Any]) -> bool:
    texts = all(isinstance(fields[name], str) for name in ("event", "previous", "time"))
    return texts and isinstance(fields["data"], dict) and type(fields["sequence"]) is int


class AuditLog:
    """Appends events to a log; every line is on disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        """Continues or starts the log at a path."""
        self._path = path

    def append(self, event: str, **data: Any) -> str:
        """Adds one event and returns its line's SHA-256; `data` holds plain JSON values and no patient data.

        The log is read anew each time, through the descriptor that it is written through. A torn last line is dropped
        first, on record: whoever wrote it was killed before anything that depends on it was done.

        Raises:
            RunError: what is there does not hang together, or is no plain file of one name.
            OutputError: the line could not be written; the log is as it was.
            PrivacyError: the line would hold patient data.
        """
        name = self._path.name
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
            with open_plain(self._path.parent, name, flags) as stream:
                log = _to_append(stream, name)
                if log.torn:
                    os.ftruncate(stream.fileno(), os.fstat(stream.fileno()).st_size - len(log.torn))
                    dropped = {"bytes": len(log.torn), "sha256": digest_bytes(log.torn)}
                    log = Log((*log.entries, self._write(stream, log, TORN, dropped)))
                return self._write(stream, log, event, data).line
        except OSError as error:
            raise OutputError(
                f"{name} could not be written: {error.strerror}; expected a writable folder with free space"
            ) from error

    def _write(self, stream: BinaryIO, log: Log, event: str, data: dict[str, Any]) -> Entry:
        entry = {
            "data": data,
            "event": event,
            "previous": log.head,
            "sequence": len(log.entries),
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        line = canonical_json(entry)
        screen_output(self._path.name, line)
        _write_whole(stream.fileno(), line + b"\n")
        return Entry(event, data, digest_bytes(line))


def _to_append(stream: BinaryIO, name: str) -> Log:
    """What is in a log that was opened for writing."""
    status = os.fstat(stream.fileno())
    if status.st_nlink > 1:
        raise RunError(f"{name} has another name elsewhere (a hard link), which would be written to as well; copy it")
    if status.st_size > LARGEST_RECORD:
        raise RunError(f"{name} is larger than {LARGEST_RECORD} bytes; is it a log?")
    return parse_log(stream.read(), name)


def _write_whole(handle: int, data: bytes) -> None:
    """All of it, or nothing: where the disk is full the part that was written is taken back.

    Ctrl-C waits until the line stands: others may have read it by then.
    """
    before, stopped, written = os.fstat(handle).st_size, None, False
    while not written:
        try:
            while rest := data[os.fstat(handle).st_size - before :]:
                os.write(handle, rest)
            os.fsync(handle)
            written = True
        except KeyboardInterrupt as error:
            stopped = error
        except BaseException:
            with suppress(OSError):
                os.ftruncate(handle, before)
            raise
    if stopped is not None:
        raise stopped


class _NoLog(AuditLog):
    """Of a process that does not write."""

    def append(self, event: str, **data: Any) -> str:
        """Does nothing."""
        return ""


@contextmanager
def audited(run: Path, stage: str, *, closed: bool = True, writes: bool = True, **data: Any) -> Iterator[AuditLog]:
    """Holds the run directory, and logs a stage from before it opens anything until it ends, however it ends.

    Args:
        run: the run directory; its `audit.jsonl` is continued.
        stage: such as `harden`; the events are `harden.started` and `harden.finished`, `.failed` or `.interrupted`.
        closed: whether success is logged too. A signature is made over the log's end, so nothing may follow it: the
            signature's file says that it succeeded.
        writes: false for a process beside the one that writes: nothing is held, and its log keeps nothing.
        **data: plain JSON values for the first event, no patient data.

    Yields:
        The log, for further events of the stage.

    Raises:
        RunError: another process writes there.
    """
    if not writes:
        yield _NoLog(run / LOG)
        return
    with exclusive(run):
        log = AuditLog(run / LOG)
        try:
            log.append(f"{stage}.started", medharden=__version__, **data)
        except KeyboardInterrupt:
            _close(log, f"{stage}.interrupted")
            raise
        try:
            yield log
        except (KeyboardInterrupt, Interrupted):
            _close(log, f"{stage}.interrupted")
            raise
        except BaseException as error:
            # the type alone: a message may carry what a file's header said
            _close(log, f"{stage}.failed", error=type(error).__name__)
            raise
        if closed:
            log.append(f"{stage}.finished")


def _close(log: AuditLog, event: str, **data: str) -> None:
    """The last line of a stage that fails; that it can't be written is less than why the stage failed."""
    with suppress(OutputError, RunError):
        log.append(event, **data)
