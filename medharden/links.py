"""Links in the data: those that leave its folder are refused unless they are to be followed, and circles end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["followed", "leads_back", "leaves", "links_followed", "outside", "set_followed", "walked"]

_FOLLOWED: ContextVar[bool] = ContextVar("links_followed", default=False)


def set_followed(on: bool) -> None:
    """Says whether, from here on, links that leave the folder of the data are followed, as by `--follow-links`."""
    _FOLLOWED.set(on)


def followed() -> bool:
    """Whether they are."""
    return _FOLLOWED.get()


@contextmanager
def links_followed() -> Iterator[None]:
    """Follows links that leave the folder of the data, for as long as it lasts."""
    token = _FOLLOWED.set(True)
    try:
        yield
    finally:
        _FOLLOWED.reset(token)


def leaves(root: Path, path: Path) -> bool:
    """Whether a path, links followed, lies outside a folder; links in a circle lead nowhere and count as outside."""
    try:
        return not _real(path).is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return True


def outside(root: Path, path: Path) -> bool:
    """Whether a path is none of a folder's: it leaves it, unless links are followed and it leads somewhere."""
    return leaves(root, path) and not (_FOLLOWED.get() and _exists(path))


def leads_back(top: Path, folder: Path) -> bool:
    """Whether a folder is a link to the data's own folder, to one above it, or to one below that is walked anyway."""
    if not folder.is_symlink():
        return False
    try:
        there, whole = _real(folder), top.resolve()
    except (OSError, RuntimeError):
        return True
    if whole.is_relative_to(there):
        return True
    inside = there.relative_to(whole).parts if there.is_relative_to(whole) else (".",)
    return not any(part.startswith((".", "__")) for part in inside)


def walked(root: Path, top: Path | None = None, back: list[Path] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Each visible folder below a root with the names of its visible files, sorted.

    Linked folders are entered where links are followed, each folder once, and none that leads back into the data: its
    files lie there under their own path already, and links in a circle end.

    Args:
        root: where to begin; it is entered whatever it is.
        top: the data's folder, of which the root is a part; null where it is all.
        back: takes the linked folders that lead back, and were not entered.
    """
    seen: set[tuple[int, int]] = set()
    for here, below, names in os.walk(root, followlinks=_FOLLOWED.get()):
        below[:] = sorted(b for b in below if not b.startswith((".", "__")))
        if _FOLLOWED.get():
            found = os.stat(here)
            if (found.st_dev, found.st_ino) in seen:
                below[:] = []
                continue
            seen.add((found.st_dev, found.st_ino))
            returning = [b for b in below if leads_back(top or root, Path(here, b))]
            below[:] = [b for b in below if b not in returning]
            if back is not None:
                back += [Path(here, b) for b in returning]
        yield Path(here), sorted(n for n in names if not n.startswith("."))


def _real(path: Path) -> Path:
    """Where a path leads, there or not.

    Raises:
        OSError: links in a circle, on every version of Python: from 3.13 on `Path.resolve` lets them pass.
    """
    try:
        return Path(os.path.realpath(path, strict=True))
    except (FileNotFoundError, NotADirectoryError):
        return path.resolve()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, RuntimeError):
        return False
