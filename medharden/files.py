"""Opening files of a run directory: plain files alone, no link followed on the way, each read once; parts of a file.

What is parsed must be what was hashed, so a reader takes the bytes once, through one descriptor, and both hashes and
parses these.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from medharden.errors import RunError

__all__ = ["LARGEST_RECORD", "irregular", "open_plain", "read_at", "read_plain", "require_plain", "write_at"]

LARGEST_RECORD = 2**30
"""Bytes of the largest file of a run directory that is held in memory: the weights of a large network."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not to wait for the other end of a pipe


def open_plain(folder: Path, name: str, flags: int = _READ) -> BinaryIO:
    """Opens a file below a folder, where neither it nor a folder on the way to it is a link.

    Args:
        folder: the run directory; the path to it may hold links, which are the user's own.
        name: with forward slashes.
        flags: of `os.open`; without O_NOFOLLOW it is added.

    Raises:
        FileNotFoundError: there is no such file.
        RunError: it is a link, a folder, a pipe or a device.
        OSError: it can't be read.
    """
    *parents, last = name.split("/")
    here = os.open(folder, _FOLDER)
    try:
        for parent in parents:
            below = _open(parent, _FOLDER | os.O_NOFOLLOW, here, name)
            os.close(here)
            here = below
        handle = _open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, here, name)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _irregular(name)
    return os.fdopen(handle, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b")


def read_at(handle: int, into: memoryview | bytearray, offset: int) -> bool:
    """Fills a buffer from a place in a file; whether the file had as many bytes there.

    Raises:
        OSError: it can't be read.
    """
    left = memoryview(into)
    while left:
        read = os.preadv(handle, [left], offset)
        if not read:
            return False
        left, offset = left[read:], offset + read
    return True


def write_at(handle: int, data: bytes | memoryview, offset: int) -> None:
    """Writes all of the data to a place in a file.

    Raises:
        OSError: it can't be written, or there is no room.
    """
    left = memoryview(data)
    while left:
        done = os.pwrite(handle, left, offset)
        left, offset = left[done:], offset + done


def read_plain(folder: Path, name: str, *, largest: int = LARGEST_RECORD) -> bytes:
    """A file's bytes, read once.

    Args:
        folder: the run directory.
        name: with forward slashes.
        largest: more bytes than these are refused before they are read.

    Raises:
        FileNotFoundError: there is no such file.
        RunError: it is no plain file, or too large.
        OSError: it can't be read.
    """
    with open_plain(folder, name) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > largest:
            raise RunError(f"{name} is larger than {largest} bytes; is it what it is named after?")
        data = stream.read(size + 1)
    if len(data) != size:
        raise RunError(f"{name} changed its size while it was read")
    return data


def irregular(folder: Path) -> tuple[str, ...]:
    """Names below a folder, with forward slashes, of links, pipes and devices: all but plain files and folders."""
    found = []
    for here, folders, names in os.walk(folder):
        for name in (*names, *folders):
            path = Path(here) / name
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                found.append(path.relative_to(folder).as_posix())
    return tuple(sorted(found))


def require_plain(folder: Path) -> None:
    """Refuses a run directory that holds anything but plain files and folders, before one of them is opened.

    Raises:
        RunError: with the names.
    """
    names = irregular(folder)
    if names:
        raise _irregular(", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""))


def _open(name: str, flags: int, folder: int, shown: str) -> int:
    try:
        return os.open(name, flags, 0o644, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except OSError:
            raise error from None
        wanted = stat.S_ISDIR if flags & os.O_DIRECTORY else stat.S_ISREG
        if not wanted(mode):
            raise _irregular(shown) from None
        raise


def _irregular(names: str) -> RunError:
    return RunError(
        f"{names}: a run directory holds plain files alone, and this is a link, a pipe or the like; replace it by the "
        "file itself"
    )
