"""Files and folders that somebody names, as the cases that a view makes of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medharden.data.formats.dicomdir import DICOMDIR, series_of_dicomdir
from medharden.data.formats.files import looks_like_image
from medharden.data.formats.gathering import Unit, gather
from medharden.data.sources.channels import ChannelPatterns
from medharden.data.sources.folder import Entry, frame_suffix
from medharden.data.sources.frames import frames_of_file
from medharden.errors import DataError
from medharden.links import outside, walked
from medharden.protocol import Input

__all__ = ["Given", "given_cases"]


@dataclass(frozen=True)
class Given:
    """One case.

    Attributes:
        name: what it is called: its file as it was given, or the folder, with what tells it from others there.
        parts: the files of each channel, or of the one image that it is.
        frame: which frame of its file it is, from 1; 0 where it is the file.
        problem: why it can't be read, or "".
    """

    name: str
    parts: tuple[tuple[Path, ...], ...]
    frame: int = 0
    problem: str = ""


def given_cases(paths: Sequence[Path], spec: Input) -> list[Given]:
    """The cases of files and folders, in their order.

    A folder holds as many cases as there are images below it; where volumes are asked for, the slices of a series are
    one, and where several images are stacked, so are those that the protocol's patterns put together. Files that are
    named one by one are taken as if they lay in a folder together.

    Args:
        paths: as they were given.
        spec: the view.
    """
    cases: list[Given] = []
    for path in paths:
        if path.is_dir():
            below = _cases(path, list(_images(path)), spec)
            named = [Given(_joined(path, case.name), case.parts, case.frame, case.problem) for case in below]
            cases += named or [Given(str(path), (), problem="is a folder without an image")]
        elif path.name.upper() == DICOMDIR and path.is_file():
            cases += _of_directory(path, spec)
    files = [path for path in paths if not path.is_dir() and not (path.name.upper() == DICOMDIR and path.is_file())]
    return cases + _of_files(files, spec)


def _of_files(files: Sequence[Path], spec: Input) -> list[Given]:
    if spec.channels_from and not spec.patterned:
        count = len(spec.channels_from)
        groups = [files[n : n + count] for n in range(0, len(files), count)]
        return [
            Given(str(group[0]), tuple((path,) for path in group))
            if len(group) == count
            else Given(str(group[0]), (), problem=f"is one of {len(group)} images; the model takes {count} as channels")
            for group in groups
        ]
    if spec.dims == 2 and not spec.channels_from:
        return [framed for path in files for framed in _framed(Given(str(path), ((path,),)), spec)]
    there = [path for path in files if path.is_file()]
    missing = [Given(str(path), ((path,),)) for path in files if not path.is_file()]
    if not there:
        return missing
    given = {path.absolute(): str(path) for path in there}
    root = Path(os.path.commonpath([path.parent for path in given]))
    found = [
        Given(_as_given(case, given, root), case.parts, case.frame, case.problem)
        for case in _cases(root, list(given), spec)
    ]
    return found + missing


def _of_directory(path: Path, spec: Input) -> list[Given]:
    """The images that the records of a DICOMDIR name."""
    try:
        files = [file for members in series_of_dicomdir(path).values() for file in members]
    except DataError as error:
        return [Given(str(path), (), problem=f"can't be used: {error}")]
    below = _cases(path.parent, files, spec)
    return [Given(_joined(path.parent, case.name), case.parts, case.frame, case.problem) for case in below]


def _as_given(case: Given, given: dict[Path, str], root: Path) -> str:
    """A file as it was named; several by their folder."""
    files = [path for part in case.parts for path in part]
    return given.get(files[0], case.name) if len(files) == 1 else str(root / case.name)


def _cases(root: Path, files: list[Path], spec: Input) -> list[Given]:
    """The cases of files below a root, by their paths below it."""
    units = gather(root, files, spec).units
    if spec.channels_from:
        return _stacked(root, units, spec)
    cases = [Given(_named(root, unit), (unit.files,), problem=unit.reason) for unit in units]
    return [framed for case in cases for framed in _framed(case, spec)]


def _stacked(root: Path, units: Sequence[Unit], spec: Input) -> list[Given]:
    if not spec.patterned:
        reason = "is a folder, where the model takes images in an order that no pattern tells: name them one by one"
        return [Given("", (), problem=reason)]
    patterns = ChannelPatterns(spec.channels_from)
    groups: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
    try:
        for unit in units:
            place = patterns.place(unit.text)
            if place is not None:
                groups[place[1]].append(unit)
    except DataError as error:
        return [Given("", (), problem=f"can't be told apart: {error}")]
    cases = []
    for members in groups.values():
        order, problem = patterns.ordered([unit.text for unit in members])
        problem = next((unit.reason for unit in members if unit.reason), "") or problem
        parts = () if problem else tuple(members[place].files for place in order)
        cases.append(Given(_named(root, members[order[0] if order else 0]), parts, problem=problem))
    return cases


def _named(root: Path, unit: Unit) -> str:
    """The file or folder below the root; the first file where a folder holds others, since a UID is a header's."""
    shared = bool(unit.uid) and unit.text.endswith(f"/{unit.uid}")
    return unit.files[0].relative_to(root).as_posix() if shared else unit.text


def _framed(case: Given, spec: Input) -> Iterator[Given]:
    frames = 1
    if spec.frames == "all" and not case.problem and case.parts[0][0].is_file():
        frames = frames_of_file(Entry(case.name, "", slices=case.parts[0][:1]))
    if frames == 1:
        yield case
        return
    yield from (Given(f"{case.name}{frame_suffix(n)}", case.parts, n) for n in range(1, frames + 1))


def _joined(folder: Path, name: str) -> str:
    return str(folder / name) if name not in ("", ".") else str(folder)


def _images(folder: Path) -> Iterator[Path]:
    for here, names in walked(folder):
        for name in names:
            path = here / name
            if path.is_file() and looks_like_image(path) and not outside(folder, path):
                yield path
