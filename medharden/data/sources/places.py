"""Where the file lies that a manifest's row names: as written, in other folders or capitals, without its ending."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from medharden.data.formats.files import IMAGE_ENDINGS
from medharden.data.formats.gathering import Unit
from medharden.data.sources.foreign import Foreign, Parts, parts_of
from medharden.data.sources.series import SeriesBelow
from medharden.links import outside, walked

__all__ = ["FOLDER", "LEAVES", "MISSING", "Found", "Places", "is_uid"]

LEAVES = "has a path that leaves the manifest's folder"
_LINK = "is a link that leaves the manifest's folder (medharden --follow-links follows it)"
MISSING = "is listed, but its file is missing"
FOLDER = "is a folder, expected one file a case"
_MOST_SHOWN = 6
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


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


@dataclass(frozen=True)
class _Fitting:
    """How many files fit, and the first of them."""

    count: int = 0
    text: str = ""


class _Ends:
    """Files by the ends of their paths: found at once however many are called alike, as in `view1_frontal.jpg`."""

    def __init__(self, files: Iterable[tuple[Parts, str]]) -> None:
        """Takes each file's path in its plain form, and as it is."""
        self._whole: dict[str, _Fitting] = {}
        self._ends: dict[str, _Fitting] = {}
        for parts, text in files:
            for length in range(1, len(parts) + 1):
                _add(self._ends, "/".join(parts[-length:]), text)
            _add(self._whole, "/".join(parts), text)

    def find(self, wanted: Parts) -> _Fitting:
        """The files whose path ends as the wanted one, or is the longest end of it."""
        found = self._ends.get("/".join(wanted))
        if found is not None:
            return found
        shorter = (self._whole.get("/".join(wanted[first:])) for first in range(1, len(wanted)))
        return next((fitting for fitting in shorter if fitting is not None), _Fitting())

    def whole(self, wanted: Parts) -> _Fitting:
        """The files of that very path."""
        return self._whole.get("/".join(wanted), _Fitting())

    def named(self, name: str) -> bool:
        """Whether some file is called so, in whatever folder."""
        return name in self._ends


def _add(held: dict[str, _Fitting], end: str, text: str) -> None:
    known = held.get(end)
    held[end] = _Fitting(1, text) if known is None else _Fitting(known.count + 1, known.text)


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
        self.foreign = Foreign()

    def expect(self, written: Iterable[str]) -> None:
        """Takes all rows' paths, before any is looked for: those of another machine are used together or not at all."""
        absolute = [text for text in written if parts_of(text) and "\0" not in text and self._inside(text) is None]
        lacking = [text for text in absolute if not _is_there(text)]
        if absolute:
            here = len(absolute) - len(lacking)
            self.foreign = Foreign.of(map(parts_of, lacking), self._end, self._named, here)

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
        if found.problem == MISSING and is_uid(written):
            named = series.of_uid(written)
            if len(named) > 1:
                return Found(written, f"is a series of {len(named)} patients, where a UID must name one")
            return _found(named[0]) if named else found
        unit = None if found.problem else series.of_file(found.text)
        return found if unit is None else _found(unit)

    def _find(self, written: str) -> Found:
        if not written or "\0" in written:
            return Found(written, LEAVES if written else "")
        text = PurePosixPath(written.replace("\\", "/")).as_posix()
        place = PurePosixPath(text)
        if place.is_absolute() or PureWindowsPath(text).drive:
            return self._absolute(text)
        if ".." in place.parts:
            return Found(text, LEAVES)
        try:
            path = self.root / text
            if outside(self.root, path):
                return Found(text, _LINK if path.exists() else LEAVES)
            if path.is_dir():
                return Found(text, FOLDER)
            if path.is_file():
                return Found(text)
        except (OSError, ValueError):
            return Found(text, "has a path that can't be opened")
        return self._elsewhere(place.parts, text)

    def _absolute(self, text: str) -> Found:
        """An absolute path is used where it lies below the root; of another machine, where all such are found there."""
        inside = self._inside(text)
        if inside is not None:
            self.ways["an absolute path"] += 1
            return self._find(inside)
        here = self.foreign.used.get(parts_of(text))
        if here is None:
            return Found(text, LEAVES)
        self.ways[self.foreign.way] += 1
        return Found(here, FOLDER if (self.root / here).is_dir() else "")

    def _inside(self, text: str) -> str | None:
        """The path below the root of an absolute path of this machine that lies there."""
        try:
            path = Path(text)
            return path.resolve().relative_to(self.root.resolve()).as_posix() if path.is_absolute() else None
        except (OSError, ValueError, RuntimeError):
            return None

    def _end(self, parts: Parts) -> tuple[int, str]:
        """How many files or folders have that very path below the root, and the first."""
        wanted = tuple(map(_plain, parts))
        fitting = self._by_name.whole(wanted)
        fitting = fitting if fitting.count else self._by_stem.whole(wanted)
        fitting = fitting if fitting.count else self._folder("/".join(parts))
        return (
            (0, "") if fitting.count and outside(self.root, self.root / fitting.text) else (fitting.count, fitting.text)
        )

    def _folder(self, text: str) -> _Fitting:
        try:
            return _Fitting(1, text) if (self.root / text).is_dir() else _Fitting()
        except (OSError, ValueError):
            return _Fitting()

    def _named(self, name: str) -> bool:
        return self._by_name.named(_plain(name)) or self._by_stem.named(_plain(name))

    def _elsewhere(self, parts: Parts, text: str) -> Found:
        wanted = tuple(_plain(part) for part in parts)
        fitting, way = self._by_name.find(wanted), "in other folders or capitals"
        if not fitting.count:
            fitting, way = self._by_stem.find(wanted), "with an ending added"
        if not fitting.count:
            return Found(text, MISSING)
        if fitting.count > 1:
            return Found(text, f"is listed by a path that fits {fitting.count} files; write more of its folders")
        if outside(self.root, self.root / fitting.text):
            return Found(text, _LINK)
        self.ways[way] += 1
        return Found(fitting.text)

    @cached_property
    def _files(self) -> list[str]:
        found = []
        for here, names in walked(self.root):
            folder = here.relative_to(self.root).as_posix()
            found += [name if folder == "." else f"{folder}/{name}" for name in names]
        return found

    @cached_property
    def _by_name(self) -> _Ends:
        return _Ends((tuple(map(_plain, PurePosixPath(text).parts)), text) for text in self._files)

    @cached_property
    def _by_stem(self) -> _Ends:
        def stems() -> Iterator[tuple[Parts, str]]:
            for text in self._files:
                *folders, name = map(_plain, PurePosixPath(text).parts)
                ending = next((e for e in IMAGE_ENDINGS if name.endswith(e)), "")
                if ending:
                    yield (*folders, name.removesuffix(ending)), text

        return _Ends(stems())

    @property
    def images(self) -> int:
        """How many files below the root have the ending of an image."""
        return sum(text.lower().endswith(IMAGE_ENDINGS) for text in self._files)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def is_uid(written: str) -> bool:
    """Whether a row's path may be a UID of DICOM."""
    return _UID.fullmatch(written) is not None


def _is_there(text: str) -> bool:
    try:
        return Path(text).is_absolute() and Path(text).exists()
    except (OSError, ValueError):
        return False
