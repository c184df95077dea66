"""Records to canonical JSON (RFC 8785) and back, strictly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from medharden.audit.files import write_atomic
from medharden.canonical import canonical_json, parse_canonical
from medharden.errors import RunError
from medharden.files import read_plain

__all__ = ["parse_fields", "parse_record", "read_record", "write_record"]

T = TypeVar("T")


def write_record(path: Path, record: Any) -> str:
    """Writes a record as canonical JSON; returns the file's SHA-256.

    Raises:
        OutputError: the file can't be written.
    """
    return write_atomic(path, canonical_json(record) + b"\n")


def read_record(path: Path, kind: type[T]) -> T:
    """Reads a record back, refusing unknown keys, wrong types and other bytes than it is written as.

    Raises:
        RunError: the file is missing, no plain file, no canonical JSON, or no such record.
    """
    try:
        data = read_plain(path.parent, path.name)
    except OSError as error:
        raise RunError(
            f"{path.name} is missing from the run directory or can't be read ({error.strerror}); "
            "run the stage that writes it first"
        ) from error
    return parse_record(path.name, data, kind)


def parse_record(name: str, data: bytes, kind: type[T]) -> T:
    """A record from a file's bytes; as `read_record`."""
    parse_fields(name, data)
    try:
        return _adapter(kind).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{name} is not a {kind.__name__} record: {where}: {first['msg']}") from error


def parse_fields(name: str, data: bytes) -> dict[str, Any]:
    """The fields of a record of any version, which is canonical JSON and one line.

    Raises:
        RunError: it is not.
    """
    try:
        if not data.endswith(b"\n"):
            raise ValueError("does not end as a record does; was it cut off?")
        fields = parse_canonical(data[:-1])
    except ValueError as error:
        raise RunError(f"{name} {error}; records are read as they were written, or not at all") from None
    if not isinstance(fields, dict):
        raise RunError(f"{name} holds no record")
    return fields


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(_strict(kind))


def _strict(kind: type[T]) -> type[T]:
    """Pydantic reads standard dataclasses; this attribute makes it refuse unknown keys."""
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "__pydantic_config__"):
        kind.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
    return kind
