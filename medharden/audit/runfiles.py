"""A run directory as one reader sees it: each file is read once, and the bytes that are parsed are those hashed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from medharden.audit.files import digest_bytes
from medharden.audit.history import RunHistory, history_of
from medharden.audit.log import LOG, Log, parse_log
from medharden.audit.records import parse_fields, parse_record
from medharden.audit.tables import parse_cases
from medharden.errors import ProtocolError, RunError
from medharden.files import open_plain, read_plain
from medharden.protocol import Protocol, parse_content, parse_protocol
from medharden.record import CaseTable

__all__ = ["RunFiles"]

T = TypeVar("T")
_LARGEST_PROTOCOL = 1_000_000


class RunFiles:
    """The files of a run directory, as they were when this reader first opened each.

    What changes underneath is not seen: a verdict, a report and a signature are of one state. Links, pipes and devices
    are refused, also as a folder on the way.
    """

    def __init__(self, run: Path) -> None:
        """Takes the run directory; opens nothing yet."""
        self.run = run
        self._data: dict[str, bytes] = {}
        self._digests: dict[str, str] = {}
        self._fields: dict[str, dict[str, Any] | None] = {}
        self._content: dict[str, Any] | None = None
        self._log: Log | None = None

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, or was when it was read."""
        return name in self._data or (self.run / name).is_file()

    def data(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            RunError: it is missing, unreadable, or no plain file.
        """
        if name not in self._data:
            try:
                data = read_plain(self.run, name)
            except OSError as error:
                raise RunError(
                    f"{name} is missing from the run directory or can't be read ({error.strerror}); "
                    "run the stage that writes it first"
                ) from error
            if self._digests.setdefault(name, digest_bytes(data)) != digest_bytes(data):
                raise RunError(f"{name} changed while it was read")
            self._data[name] = data
        return self._data[name]

    def digest(self, name: str) -> str:
        """SHA-256 of a file; one that is not parsed is not kept in memory.

        Raises:
            RunError: as `data`.
        """
        if name not in self._digests:
            try:
                with open_plain(self.run, name) as stream:
                    digest = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]
                self._digests[name] = digest.hexdigest()
            except OSError as error:
                raise RunError(f"{name} can't be read: {error.strerror}") from error
        return self._digests[name]

    def record(self, name: str, kind: type[T]) -> T:
        """A record, read strictly.

        Raises:
            RunError: as `data`; or it is no such record.
        """
        return parse_record(name, self.data(name), kind)

    def fields(self, name: str) -> dict[str, Any] | None:
        """A record's own fields, whatever this version says of them; None where there is no readable object."""
        if name not in self._fields:
            try:
                self._fields[name] = parse_fields(name, self.data(name))
            except RunError:
                self._fields[name] = None
        return self._fields[name]

    def cases(self) -> CaseTable:
        """The per-case table.

        Raises:
            RunError: as `data`; or it is no such table.
        """
        return parse_cases("cases.parquet", self.data("cases.parquet"))

    def protocol(self) -> Protocol:
        """The run's protocol.

        Raises:
            RunError: as `data`.
            ProtocolError: it is no valid protocol.
        """
        return parse_protocol(self._protocol_text(), "protocol.yaml")

    def protocol_content(self) -> dict[str, Any]:
        """The protocol's own fields, whatever this version's schema says of them.

        Raises:
            RunError: as `data`.
            ProtocolError: too large, or no readable YAML with keys and values.
        """
        if self._content is None:
            self._content = parse_content(self._protocol_text(), "protocol.yaml")
        return self._content

    def _protocol_text(self) -> str:
        data = self.data("protocol.yaml")
        if len(data) > _LARGEST_PROTOCOL:
            raise ProtocolError(f"protocol.yaml is larger than {_LARGEST_PROTOCOL} bytes; is it a protocol?")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"protocol.yaml can't be read as text: {type(error).__name__}") from error

    def log(self) -> Log:
        """The log, whose last line may be torn.

        Raises:
            RunError: as `data`; or it does not hang together.
        """
        if self._log is None:
            self._log = parse_log(self.data(LOG))
        return self._log

    def whole_log(self) -> Log:
        """The log of a run that nobody is about to write to.

        Raises:
            RunError: as `log`; or its last line is torn.
        """
        log = self.log()
        if log.torn:
            raise RunError(f"{LOG}: the last line is torn")
        return log

    def history(self) -> RunHistory:
        """What the log says; one that is not there says nothing.

        Raises:
            RunError: as `whole_log`; or an event lacks what it must hold.
        """
        return history_of(self.whole_log() if self.has(LOG) else Log())
