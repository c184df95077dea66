"""Which listed DICOM files are slices of one volume: a series is a case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from medharden.data.formats.series import slice_of
from medharden.data.sources.folder import Entry
from medharden.record import Finding

__all__ = ["Grouped", "SeriesBelow", "as_case", "in_series"]


@dataclass(frozen=True)
class Grouped:
    """Entries of which slices have become volumes.

    Attributes:
        entries: other files, and a case for each series.
        findings: how many series there are, of how many files, and how many overviews were left out.
    """

    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]


def in_series(entries: Sequence[Entry]) -> Grouped:
    """Slices of one series, class, split and folder become one case; localisers are left out.

    Args:
        entries: files of class folders.
    """
    found: dict[tuple[str, object, str, str], list[Entry]] = defaultdict(list)
    others, localisers = [], 0
    for entry in entries:
        said = slice_of(entry.path) if entry.path is not None else None
        if said is None:
            others.append(entry)
        elif said.localiser:
            localisers += 1
        else:
            folder = PurePosixPath(entry.text).parent.as_posix()
            found[folder, entry.label, entry.split, said.series].append(entry)
    alone = defaultdict(set)
    for folder, _, _, series in found:
        alone[folder].add(series)
    cases = []
    for (folder, _, _, series), parts in found.items():
        text = folder if len(alone[folder]) == 1 else f"{folder}/{series}"
        cases.append(as_case(replace(parts[0], text=text), [p.path for p in parts if p.path is not None]))
    return Grouped((*others, *cases), _said(len(cases), sum(map(len, found.values())), localisers))


def as_case(entry: Entry, files: Iterable[Path]) -> Entry:
    """A case of the slices in these files."""
    ordered = tuple(sorted(files))
    return replace(entry, path=ordered[0], slices=ordered if len(ordered) > 1 else ())


def _said(series: int, files: int, localisers: int) -> tuple[Finding, ...]:
    found = []
    if series:
        message = f"{files} DICOM files are slices of {series} series; each series is a case."
        found.append(Finding("data.series", "info", message))
    if localisers:
        message = f"{localisers} localisers (overview images) were left out of the series."
        found.append(Finding("data.localisers", "info", message))
    return tuple(found)


class SeriesBelow:
    """The series in the folders below a root, for the rows of a manifest that name a folder, a series or a slice."""

    def __init__(self, root: Path) -> None:
        """Takes the data's root; a folder is read when a row asks for it."""
        self._root = root
        self._folders: dict[str, dict[str, list[Path]]] = {}
        self._all: dict[str, list[Path]] | None = None

    def of_folder(self, folder: str) -> dict[str, list[Path]]:
        """Series to its files, of those below a folder."""
        if folder not in self._folders:
            found: dict[str, list[Path]] = defaultdict(list)
            for path in sorted((self._root / folder).rglob("*")):
                said = (
                    slice_of(path) if path.is_file() and path.resolve().is_relative_to(self._root.resolve()) else None
                )
                if said is not None and not said.localiser:
                    found[said.series].append(path)
            self._folders[folder] = found
        return self._folders[folder]

    def of_uid(self, uid: str) -> list[Path]:
        """The files of a series by its UID, wherever they lie."""
        if self._all is None:
            self._all = self.of_folder("")
        return self._all.get(uid, [])

    def of_file(self, text: str) -> list[Path]:
        """The files of the series that a file is a slice of, in its folder; none where it is no slice."""
        said = slice_of(self._root / text)
        if said is None:
            return []
        place = self._root / text
        below = self.of_folder(PurePosixPath(text).parent.as_posix())
        return [path for path in below.get(said.series, []) if path.parent == place.parent]
