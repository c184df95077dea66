"""Digests of files, and writing that leaves either the old file or the whole new one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from medharden.audit.screening import screen_output
from medharden.errors import OutputError, RunError

__all__ = ["digest_bytes", "digest_file", "stream_atomic", "write_atomic"]


def digest_bytes(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal.

    Raises:
        RunError: the file is missing or unreadable.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path.name} can't be read: {error.strerror}") from error


def write_atomic(path: Path, data: bytes) -> str:
    """Writes beside the final name, then renames: a reader sees the old file or the whole new one.

    Returns:
        The SHA-256 of what was written.

    Raises:
        OutputError: the folder can't be written to, or the disk is full; nothing is left behind.
        PrivacyError: the content would hold patient data; nothing is left behind.
    """
    stream_atomic(path, lambda stream: stream.write(data))
    return digest_bytes(data)


def stream_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """As `write_atomic`, for what is too large to be held in memory twice.

    Args:
        path: the final name.
        write: called once with the open file.

    Raises:
        OutputError: the folder can't be written to, or the disk is full; nothing is left behind.
        PrivacyError: the content would hold patient data; nothing is left behind.
    """
    beside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        screen_output(path.name, Path(beside))
        umask = os.umask(0)
        os.umask(umask)
        Path(beside).chmod(0o666 & ~umask)
        Path(beside).replace(path)
        beside = None
    except (OSError, RuntimeError) as error:
        reason = _system_error(error)
        if reason is None:
            raise
        raise OutputError(
            f"{path.name} could not be written into {path.parent.name or path.parent}: {reason.strerror}; "
            "expected a writable folder with free space"
        ) from error
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> OSError | None:
    """The system's own error behind another: torch's writer ends with one of its own when the disk is full."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
