"""Which listed files are one case together: slices of a series, a header with its image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from medharden.data.formats.dicomdir import dicomdir_of, series_of_dicomdir
from medharden.data.formats.files import looks_like_image
from medharden.data.formats.gathering import LEFT_ASIDE, Unit, gather
from medharden.data.sources.folder import Entry, Listing
from medharden.errors import Problem
from medharden.links import outside, walked
from medharden.protocol import Input
from medharden.record import Finding

__all__ = ["SeriesBelow", "as_case", "found_in_directory", "in_series", "left_aside"]


def in_series(listing: Listing, root: Path, spec: Input, name: Callable[[str], str]) -> Listing:
    """The files of class folders put together to cases, class by class and split by split.

    Args:
        listing: an entry a file.
        root: of the data.
        spec: the protocol's input.
        name: gives a case's pseudonym.
    """
    found: dict[tuple[str | tuple[str, ...], str], list[Entry]] = defaultdict(list)
    for entry in listing.entries:
        found[entry.label, entry.split].append(entry)
    entries: list[Entry] = []
    problems, aside, joined = list(listing.problems), Counter[str](), Counter[str]()
    for (label, split), members in found.items():
        gathered = gather(root, [path for entry in members for path in entry.paths], spec)
        aside += gathered.aside
        for unit in gathered.units:
            if unit.reason:
                problems.append(Problem(name(unit.text), unit.reason, label, split))
                continue
            entries.append(as_case(Entry(unit.text, label, split, root=root), unit.files))
            joined["series"] += len(unit.files) > 1
            joined["files"] += len(unit.files) if len(unit.files) > 1 else 0
    findings = [*listing.findings, *left_aside(aside)]
    if joined["series"]:
        message = f"{joined['files']} files were put together to {joined['series']} cases (series, header and image)."
        findings.append(Finding("data.series", "info", message))
    return replace(listing, entries=tuple(entries), problems=tuple(problems), findings=tuple(findings))


def as_case(entry: Entry, files: Iterable[Path]) -> Entry:
    """A case of these files."""
    ordered = tuple(files)
    return entry if ordered == entry.paths else replace(entry, root=None, slices=ordered)


def left_aside(aside: Counter[str]) -> tuple[Finding, ...]:
    """What was not taken for a case though it is DICOM, for the record."""
    return tuple(Finding(code, "info", f"{aside[code]} {what}.") for code, what in LEFT_ASIDE.items() if aside[code])


def found_in_directory(series: SeriesBelow) -> tuple[Finding, ...]:
    """That a DICOMDIR said which files are a series, for the record."""
    if not series.from_directory:
        return ()
    message = (
        f"{len(series.from_directory)} series are made of the files that the records of the DICOMDIR name; others of "
        "their UID were not looked for."
    )
    return (Finding("data.dicomdir", "info", message),)


class SeriesBelow:
    """The volumes in the folders below a root, for the rows of a manifest that name a folder, a series or a slice.

    Attributes:
        aside: how many files were left aside in the folders that rows name, by code of finding.
        from_directory: the series that were found through the records of a DICOMDIR.
    """

    def __init__(self, root: Path, spec: Input) -> None:
        """Takes the data's root and what the protocol says of the input; a folder is read when a row asks for it."""
        self._root, self._spec = root, spec
        self._each = spec.model_copy(update={"volume": spec.volume.model_copy(update={"series": "each"})})
        self._beside: dict[Path, dict[Path, Unit]] = {}
        self._by_uid: dict[str, list[Unit]] | None = None
        self._listed: dict[str, tuple[Path, ...]] | None = None
        self.from_directory: set[str] = set()
        self.aside: Counter[str] = Counter()

    def of_folder(self, folder: str) -> tuple[Unit, ...]:
        """The cases of a folder, by the protocol's `input.volume.series`."""
        found = gather(self._root, self._images(self._root / folder), self._spec)
        self.aside += found.aside
        return found.units

    def of_uid(self, uid: str) -> list[Unit]:
        """The series of a UID, wherever it lies; several where patients share it.

        Where the root has a DICOMDIR that knows it, its files are those that the records name; no other is opened.
        """
        if self._listed is None:
            directory = dicomdir_of(self._root)
            self._listed = {} if directory is None else series_of_dicomdir(directory)
        if uid in self._listed:
            self.from_directory.add(uid)
            return [unit for unit in gather(self._root, self._listed[uid], self._each).units if unit.uid == uid]
        if self._by_uid is None:
            self._by_uid = defaultdict(list)
            for unit in gather(self._root, self._images(self._root), self._each).units:
                self._by_uid[unit.uid].append(unit)
        return self._by_uid.get(uid, [])

    def of_file(self, text: str) -> Unit | None:
        """What a file is one of several of, in its folder; None where it is a case alone."""
        path = self._root / text
        if path.parent not in self._beside:
            images = [p for p in sorted(path.parent.iterdir()) if self._is_image(p)]
            units = gather(self._root, images, self._each).units
            self._beside[path.parent] = {file: unit for unit in units if len(unit.files) > 1 for file in unit.files}
        return self._beside[path.parent].get(path)

    def _images(self, folder: Path) -> Iterator[Path]:
        for here, names in walked(folder):
            yield from (path for n in names if self._is_image(path := here / n))

    def _is_image(self, path: Path) -> bool:
        return path.is_file() and looks_like_image(path) and not outside(self._root, path)
