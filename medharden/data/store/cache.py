"""The folder of a cache: one folder a view and key, for its owner alone; how it is found, listed and removed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rfc8785
import torch

from medharden._version import __version__
from medharden.data.pseudonyms import keyed_digest
from medharden.errors import OutputError
from medharden.protocol import Input

__all__ = ["CachedView", "cached_views", "make_folder", "new_file", "opened", "remove_views", "require_private"]
__all__ += ["RETRIEVED", "retrieved_folder", "view_folder"]

RETRIEVED = "dicomweb-"
"""What the names of folders begin with that hold series from a server, as they came."""

_FORMAT = 1
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# Decoded patient images; backups leave it out.\n"
_ABOUT = "store.json"
_VIEW = re.compile(r"[0-9a-f]{32}")
_FROM_SERVER = re.compile(RETRIEVED + r"[0-9a-f]{32}")
_OURS = re.compile(r"cases-[0-9a-f]{16}\.(bin|jsonl)|store\.json")
_READERS = (
    *(
        "gdcm",
        "imagecodecs",
        "imagehash",
        "nibabel",
        "numpy",
        "pillow",
        "pydicom",
        "python-gdcm",
        "scipy",
        "simplejpeg",
    ),
    "torch",
)


@dataclass(frozen=True)
class CachedView:
    """One store of a cache.

    Attributes:
        name: of its folder.
        cases: how many lines its journals hold, whether they are whole or not.
        bytes: on the disk.
        changed: seconds since 1970 when something was added last.
        input: what the protocol said of the input, as it says of itself.
    """

    name: str
    cases: int
    bytes: int
    changed: float
    input: dict[str, Any]


def view_folder(cache: Path, spec: Input, key: bytes) -> Path:
    """Where cases of one view are kept under one pseudonym key; made where it is not there yet.

    A view is what the protocol says of the input, the code that decodes, the libraries under it and the kind of
    processor: with any of these changed, cases are decoded anew.

    Raises:
        OutputError: it can't be made, or others can reach into it.
    """
    folder = cache / keyed_digest(key, "decoded cases", _view(spec))[:32]
    if not folder.exists():
        make_folder(cache)
        _write_new(cache, _TAG, _TAG_TEXT)
        make_folder(folder)
    require_private(folder)
    about = {"format": _FORMAT, "medharden": __version__, "input": spec.model_dump(mode="json")}
    _write_new(folder, _ABOUT, json.dumps(about).encode())
    return folder


def retrieved_folder(cache: Path, name: str) -> Path:
    """Where series of a server are kept; made where it is not there yet.

    Raises:
        OutputError: it can't be made, or others can reach into it.
    """
    folder = cache / name
    if not folder.exists():
        make_folder(cache)
        _write_new(cache, _TAG, _TAG_TEXT)
        make_folder(folder)
    require_private(folder)
    return folder


def make_folder(folder: Path) -> None:
    """Makes a folder for its owner alone.

    Raises:
        OutputError: it can't be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _no_place(error) from None


def require_private(folder: Path) -> None:
    """Refuses a store that is a link, another's, or open to others.

    Raises:
        OutputError: with what was found.
    """
    try:
        found = folder.lstat()
    except OSError as error:
        raise _no_place(error) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OutputError(
            "the cache holds patient images, and its folder must be a folder of yours that nobody else can enter "
            f"(mode 0700); found mode {stat.S_IMODE(found.st_mode):04o} of user {found.st_uid}: remove it, or choose "
            "another --cache"
        )


def new_file(folder: Path, name: str) -> int:
    """A descriptor to read and write a new file, of mode 0600.

    Raises:
        OutputError: it can't be made.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(folder / name, flags, 0o600)
    except OSError as error:
        raise _no_place(error) from None


def opened(path: Path) -> int:
    """A descriptor to read a plain file of the cache, links not followed.

    Raises:
        OSError: it can't be read, or is no plain file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it holds what is no plain file")
    return handle


def cached_views(cache: Path) -> Iterator[CachedView]:
    """What a cache holds, in the order of names.

    Raises:
        OutputError: there is no such folder, or it is no cache.
    """
    for folder in _stores(cache):
        if _FROM_SERVER.fullmatch(folder.name):
            yield _of_server(folder)
            continue
        files = [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]
        sizes = {path: path.lstat() for path in files}
        try:
            said = json.loads((folder / _ABOUT).read_bytes())["input"]
        except (OSError, ValueError, KeyError, TypeError):
            said = {}
        yield CachedView(
            name=folder.name,
            cases=sum(_lines(path) for path in files if path.suffix == ".jsonl"),
            bytes=sum(found.st_size for found in sizes.values()),
            changed=max((found.st_mtime for found in sizes.values()), default=0.0),
            input=said if isinstance(said, dict) else {},
        )


def remove_views(cache: Path, names: tuple[str, ...]) -> int:
    """Removes stores, all of them where none is named; returns how many.

    Nothing else is touched: files of other names stay, and so does the folder that holds them.

    Raises:
        OutputError: a store is not there, or can't be removed.
    """
    stores = {folder.name: folder for folder in _stores(cache)}
    unknown = [name for name in names if name not in stores]
    if unknown:
        raise OutputError(f"the cache has no store {unknown[0][:32]!r}; `medharden cache list` names those that it has")
    try:
        for name in names or stores:
            if _FROM_SERVER.fullmatch(name):
                shutil.rmtree(stores[name])
                continue
            for path in list(stores[name].iterdir()):
                if _OURS.fullmatch(path.name):
                    path.unlink()
            if not any(stores[name].iterdir()):
                stores[name].rmdir()
        if not names and {path.name for path in cache.iterdir()} <= {_TAG}:
            (cache / _TAG).unlink(missing_ok=True)
            cache.rmdir()
    except OSError as error:
        raise OutputError(f"the cache can't be removed: {error.strerror}; expected a folder of yours") from None
    return len(names or stores)


def _stores(cache: Path) -> list[Path]:
    try:
        if not (cache / _TAG).is_file():
            raise OutputError("there is no cache of medharden in that folder; expected what --cache was given")
        found = [p for p in cache.iterdir() if _ours(p.name) and p.is_dir() and not p.is_symlink()]
    except OSError as error:
        raise OutputError(f"the cache can't be read: {error.strerror}; expected a folder of yours") from None
    return sorted(found)


def _ours(name: str) -> bool:
    return _VIEW.fullmatch(name) is not None or _FROM_SERVER.fullmatch(name) is not None


def _of_server(folder: Path) -> CachedView:
    """Series from a server as a store; a series counts as a case, and each file once."""
    series = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    files = [path.lstat() for one in series for path in one.iterdir()]
    return CachedView(
        name=folder.name,
        cases=len(series),
        bytes=sum(found.st_size for found in files),
        changed=max((found.st_mtime for found in files), default=0.0),
        input={},
    )


def _lines(path: Path) -> int:
    with os.fdopen(opened(path), "rb") as stream:
        return sum(part.count(b"\n") for part in iter(lambda: stream.read(2**20), b""))


def _write_new(folder: Path, name: str, data: bytes) -> None:
    """Writes a small file where none is; a read-only cache that has what is asked for needs none."""
    if (folder / name).exists():
        return
    try:
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise _no_place(error) from None
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)


def _view(spec: Input) -> str:
    said: dict[str, Any] = {
        "format": _FORMAT,
        "input": spec.model_dump(mode="json", exclude={"unusable"}),
        "code": _code(),
        "libraries": {name: _version(name) for name in _READERS},
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    return hashlib.sha256(rfc8785.dumps(said)).hexdigest()


@functools.cache
def _code() -> str:
    """SHA-256 over this package's own sources: other code may decode otherwise."""
    package, total = Path(__file__).resolve().parent.parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(path.relative_to(package).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _no_place(error: OSError) -> OutputError:
    return OutputError(
        f"the cache can't be used: {error.strerror}; expected a folder of yours with free space, on a disk that can be "
        "written to (or leave --cache out)"
    )
