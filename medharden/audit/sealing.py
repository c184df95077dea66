"""Files that a stage goes on from, sealed under a key that lies outside of the run directory.

Who can write to a run directory could otherwise put there what an unfinished stage has not seen. A seal is HMAC-SHA256
over the file's name and content, 32 bytes at the file's end; without the key, or under another, a file is as good as
none.
"""

from __future__ import annotations

import hashlib
import hmac
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from medharden.audit.files import stream_atomic
from medharden.errors import RunError
from medharden.files import open_plain, read_plain

__all__ = ["open_sealed", "open_sealed_stream", "write_sealed"]

_SIZE = 32
_LARGEST = 2**36
_CHUNK = 2**20


class _Sealed:
    """A stream that takes a digest of all that is written."""

    def __init__(self, stream: BinaryIO, mac: hmac.HMAC) -> None:
        self._stream, self._mac = stream, mac

    def write(self, data: bytes) -> int:
        self._mac.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


def write_sealed(path: Path, write: Callable[[BinaryIO], object], seal: bytes) -> None:
    """Writes a file with its seal; writes none where there is no key.

    Args:
        path: the final name.
        write: called once with a stream that takes `write` and `flush` alone.
        seal: the key; empty for none.

    Raises:
        OutputError: the folder can't be written to, or the disk is full; nothing is left behind.
    """
    if not seal:
        return

    def both(stream: BinaryIO) -> None:
        mac = _mac(seal, path.name)
        write(cast(BinaryIO, _Sealed(stream, mac)))
        stream.write(mac.digest())

    stream_atomic(path, both)


def open_sealed(run: Path, name: str, seal: bytes) -> bytes | None:
    """A sealed file's content, read once; null where there is no such file.

    Args:
        run: the run directory.
        name: the file's name.
        seal: the key; empty for none.

    Raises:
        RunError: it is no plain file, can't be read, or is not sealed under this key.
    """
    try:
        data = read_plain(run, name, largest=_LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{name} can't be read: {error.strerror}") from error
    content, found = data[:-_SIZE], data[-_SIZE:]
    mac = _mac(seal, name)
    mac.update(content)
    if not seal or not hmac.compare_digest(mac.digest(), found):
        raise _unsealed(name)
    return content


def open_sealed_stream(run: Path, name: str, seal: bytes) -> BinaryIO | None:
    """As `open_sealed`, for what is too large to be held in memory: a copy without a name, which nobody can alter.

    Raises:
        RunError: it is no plain file, can't be read or copied, or is not sealed under this key.
    """
    mac, found = _mac(seal, name), b""
    with ExitStack() as unless_kept:
        try:
            stream = unless_kept.enter_context(open_plain(run, name))
            copy = cast(BinaryIO, tempfile.TemporaryFile(prefix="medharden-"))  # noqa: SIM115 - it is handed on
            unless_kept.callback(copy.close)
            while chunk := stream.read(_CHUNK):
                content, found = (found + chunk)[:-_SIZE], (found + chunk)[-_SIZE:]
                mac.update(content)
                copy.write(content)
            copy.seek(0)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{name} can't be read: {error.strerror}") from error
        if not seal or not hmac.compare_digest(mac.digest(), found):
            raise _unsealed(name)
        unless_kept.pop_all()
        stream.close()
    return copy


def _unsealed(name: str) -> RunError:
    return RunError(f"{name} is not sealed under this pseudonym key: it was altered, or written under another key")


def _mac(seal: bytes, name: str) -> hmac.HMAC:
    return hmac.new(seal, name.encode() + b"\0", hashlib.sha256)
