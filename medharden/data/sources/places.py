"""Where the file lies that a manifest's row names: as written, in other folders or capitals, without its ending."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from medharden.data.formats.files import IMAGE_ENDINGS
from medharden.data.formats.gathering import Unit
from medharden.data.sources.folder import outside
from medharden.data.sources.series import SeriesBelow

__all__ = ["FOLDER", "MISSING", "Found", "Places"]

_LEAVES = "has a path that leaves the manifest's folder"
_LINK = "is a link that leaves the manifest's folder"
MISSING = "is listed, but its file is missing"
FOLDER = "is a folder, expected one file a case"
_MOST_SHOWN = 6
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The file of a row.

    Attributes:
        text: its path below the root; what the row says where there is no such file.
        problem: why it can't be used, or "".
        slices: the files of the series that the row names.
        channels: the files of each channel, where the row names several images.
    """

    text: str
    problem: str = ""
    slices: tuple[Path, ...] = ()
    channels: tuple[tuple[Path, ...], ...] = ()


def _found(unit: Unit) -> Found:
    return Found(unit.text, unit.reason, unit.files)


class Places:
    """The files below a root, looked for by what the rows of a manifest call them.

    A row fits a file where one's path is the end of the other's: folders in front may lack in either, as an archive's
    own top folder does once it is unpacked elsewhere. Capitals, Unicode forms and the ending of an image's name don't
    count, unless several files fit.
    """

    def __init__(self, root: Path) -> None:
        """Takes the data's root; nothing above it is looked at."""
        self.root = root
        self.ways: Counter[str] = Counter()

    def find(self, written: str, series: SeriesBelow | None = None) -> Found:
        """The file that a row means, or the series.

        Args:
            written: the row's path.
            series: the series below the root, where volumes are asked for.
        """
        found = self._find(written)
        if series is None:
            return found
        if found.problem == FOLDER:
            below = series.of_folder(found.text)
            if len(below) > 1:
                counts = sorted((len(unit.files) for unit in below), reverse=True)
                shown = ", ".join(map(str, counts[:_MOST_SHOWN])) + (", ..." if len(counts) > _MOST_SHOWN else "")
                return Found(
                    found.text,
                    f"is a folder of {len(below)} series, of {shown} files, expected one; name it by its series UID",
                )
            return _found(below[0]) if below else found
        if found.problem == MISSING and _UID.fullmatch(written):
            named = series.of_uid(written)
            if len(named) > 1:
                return Found(written, f"is a series of {len(named)} patients, where a UID must name one")
            return _found(named[0]) if named else found
        unit = None if found.problem else series.of_file(found.text)
        return found if unit is None else _found(unit)

    def _find(self, written: str) -> Found:
        if not written or "\0" in written:
            return Found(written, _LEAVES if written else "")
        text = PurePosixPath(written.replace("\\", "/")).as_posix()
        place = PurePosixPath(text)
        if place.is_absolute() or PureWindowsPath(text).drive:
            return self._absolute(text)
        if ".." in place.parts:
            return Found(text, _LEAVES)
        try:
            path = self.root / text
            if outside(self.root, path):
                return Found(text, _LINK if path.exists() else _LEAVES)
            if path.is_dir():
                return Found(text, FOLDER)
            if path.is_file():
                return Found(text)
        except (OSError, ValueError):
            return Found(text, "has a path that can't be opened")
        return self._elsewhere(place.parts, text)

    def _absolute(self, text: str) -> Found:
        """An absolute path is used where it lies below the root."""
        try:
            inside = Path(text).resolve().relative_to(self.root.resolve()).as_posix()
        except (OSError, ValueError, RuntimeError):
            return Found(text, _LEAVES)
        self.ways["an absolute path"] += 1
        return self._find(inside)

    def _elsewhere(self, parts: Parts, text: str) -> Found:
        wanted = tuple(_plain(part) for part in parts)
        fitting = self._fitting(wanted, self._by_name.get(wanted[-1], ()))
        way = "in other folders or capitals"
        if not fitting:
            fitting = self._fitting(wanted, self._by_stem.get(wanted[-1], ()))
            way = "with an ending added"
        if not fitting:
            return Found(text, MISSING)
        if len(fitting) > 1:
            return Found(text, f"is listed by a path that fits {len(fitting)} files; write more of its folders")
        if outside(self.root, self.root / fitting[0]):
            return Found(text, _LINK)
        self.ways[way] += 1
        return Found(fitting[0])

    def _fitting(self, wanted: Parts, places: tuple[str, ...] | list[str]) -> list[str]:
        """The files of which one path, folders alone, is the end of the other; the longest agreement alone."""
        best: list[str] = []
        depth = -1
        for text in places:
            folders = tuple(_plain(part) for part in PurePosixPath(text).parts[:-1])
            shared = min(len(folders), len(wanted) - 1)
            if folders[len(folders) - shared :] != wanted[len(wanted) - 1 - shared : -1]:
                continue
            if shared > depth:
                best, depth = [], shared
            if shared == depth:
                best.append(text)
        return best

    @cached_property
    def _files(self) -> list[str]:
        found = []
        for here, below, names in os.walk(self.root):
            below[:] = sorted(b for b in below if not b.startswith((".", "__")))
            folder = Path(here).relative_to(self.root).as_posix()
            found += [name if folder == "." else f"{folder}/{name}" for name in names if not name.startswith(".")]
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        for text in self._files:
            names[_plain(PurePosixPath(text).name)].append(text)
        return names

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = defaultdict(list)
        for name, texts in self._by_name.items():
            ending = next((e for e in IMAGE_ENDINGS if name.endswith(e)), "")
            if ending:
                stems[name.removesuffix(ending)] += texts
        return stems

    @property
    def images(self) -> int:
        """How many files below the root have the ending of an image."""
        return sum(text.lower().endswith(IMAGE_ENDINGS) for text in self._files)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
