"""An append-only log of a run: one canonical JSON line an event, each bound to the one before by its hash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medharden import __version__
from medharden.audit.files import digest_bytes
from medharden.audit.screening import screen_output
from medharden.canonical import canonical_json
from medharden.errors import Interrupted, OutputError, RunError

__all__ = ["AuditLog", "audited", "verify_log"]

_GENESIS = "0" * 64


class AuditLog:
    """Appends events to `audit.jsonl`; every line is on disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        """Opens or starts the log at a path."""
        self._path = path

    def append(self, event: str, **data: Any) -> None:
        """Adds one event; `data` holds plain JSON values and no patient data.

        Raises:
            RunError: the log there does not hang together; a torn last line (a crash while writing) is refused,
                not repaired.
            OutputError: the line could not be written.
            PrivacyError: the line would hold patient data.
        """
        # read anew each time: a stage and the run around it write to the same log in turn
        sequence, head = verify_log(self._path) if self._path.exists() else (0, _GENESIS)
        entry = {
            "data": data,
            "event": event,
            "previous": head,
            "sequence": sequence,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        line = canonical_json(entry)
        screen_output(self._path.name, line)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as stream:
                stream.write(line + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(
                f"{self._path.name} could not be written: {error.strerror}; expected a writable folder with free space"
            ) from error


def verify_log(path: Path) -> tuple[int, str]:
    """Walks the chain.

    Returns:
        The number of events and the hash of the last line.

    Raises:
        RunError: a line is missing, altered, out of order or torn.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path.name} can't be read: {error.strerror}") from error
    head, count = _GENESIS, 0
    lines = data.split(b"\n")  # not `splitlines`: it would take a carriage return for a line's end
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        try:
            entry = json.loads(line)
            intact = entry["previous"] == head and entry["sequence"] == count and canonical_json(entry) == line
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path.name}, line {number}: not a log entry; the log was altered or torn") from error
        if not intact:
            raise RunError(f"{path.name}, line {number}: the chain is broken; a line was altered, moved or removed")
        head, count = digest_bytes(line), count + 1
    if data and not data.endswith(b"\n"):
        raise RunError(f"{path.name}: the last line is torn")
    return count, head


@contextmanager
def audited(run: Path, stage: str, *, closed: bool = True, **data: Any) -> Iterator[AuditLog]:
    """Logs a stage from before it opens anything until it ends, however it ends.

    Args:
        run: the run directory; its `audit.jsonl` is continued.
        stage: such as `harden`; the events are `harden.started` and `harden.finished`, `.failed` or `.interrupted`.
        closed: whether success is logged too. A signature is made over the log's end, so nothing may follow it: the
            signature's file says that it succeeded.
        **data: plain JSON values for the first event, no patient data.

    Yields:
        The log, for further events of the stage.
    """
    log = AuditLog(run / "audit.jsonl")
    try:
        log.append(f"{stage}.started", medharden=__version__, **data)
        yield log
    except (KeyboardInterrupt, Interrupted):
        log.append(f"{stage}.interrupted")
        raise
    except BaseException as error:
        # the type alone: a message may carry what a file's header said
        log.append(f"{stage}.failed", error=type(error).__name__)
        raise
    if closed:
        log.append(f"{stage}.finished")
