"""Finding the cases: a folder a class, a manifest, or a MedMNIST archive."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medharden.data.formats.channels import read_parts
from medharden.data.formats.files import looks_like_image
from medharden.data.formats.image import StoredImage
from medharden.data.formats.limits import Hold
from medharden.data.sources.companions import chosen, refuse_companions, refuse_folders_of_files
from medharden.errors import DataError, Problem
from medharden.links import outside, walked
from medharden.protocol import Protocol
from medharden.record import Finding

__all__ = [
    "Entry",
    "Listing",
    "frame_suffix",
    "list_folder",
    "outside",
    "sorted_classes",
    "split_of",
    "unchosen_files",
]

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "tr", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development", "tune", "tuning", "va"), "val"),
    **dict.fromkeys(("test", "testing", "holdout", "heldout", "ts", "te", "tst"), "test"),
}
_BESIDE_WORDS = re.compile(r"[\W_]+")
_SET = re.compile(r"(?:set|split|data)$")


def split_of(word: str) -> str:
    """The split that a word names, as `Train`, `hold-out`, `test set` or `valset` do; "" where it names none."""
    plain = _BESIDE_WORDS.sub("", word).casefold()
    return _SPLIT_WORDS.get(plain) or _SPLIT_WORDS.get(_SET.sub("", plain), "")


@dataclass(frozen=True, slots=True)
class Entry:
    """One case as listed, before it is read.

    Attributes:
        text: what names the case below the data's root; stays private, only its pseudonym is shown.
        label: the class's name, or the names of the findings that are there.
        masked: names of the findings that are left out of this case.
        split: `train`, `val`, `test`, or "" where the data do not say.
        patient: the patient identifier that the data give, or "".
        root: the folder below which `text` is the path of its file; null where its files are named, or it has none.
        slices: the files of a series, a header and its image, or one file that `text` does not lead to.
        channels: the files of each channel, where several images are stacked; empty for one image.
        frame: which frame of its file it is, from 1; 0 where it is the file.
        row: place in an archive's split.
    """

    text: str
    label: str | tuple[str, ...]
    split: str = ""
    patient: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    root: Path | None = None
    slices: tuple[Path, ...] = ()
    row: int = 0
    channels: tuple[tuple[Path, ...], ...] = ()
    frame: int = 0
    masked: tuple[str, ...] = ()

    @property
    def path(self) -> Path | None:
        """Its file, the first of several; none of an archive's."""
        return next(iter(self.paths), None)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file of the case; none of an archive's."""
        return tuple(path for files in self.parts for path in files)

    @property
    def whole(self) -> str:
        """What names the file, of which it may be a frame."""
        return self.text.removesuffix(frame_suffix(self.frame)) if self.frame else self.text

    @property
    def parts(self) -> tuple[tuple[Path, ...], ...]:
        """The files of each channel, or those of the one image that it is; none of an archive's case."""
        own = self.slices or (() if self.root is None else (self.root / self.whole,))
        return self.channels or ((own,) if own else ())


def frame_suffix(number: int) -> str:
    """What stands behind a file's path in the name of one of its frames."""
    return f"#{number}"


@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        source: `folder`, `manifest`, `npz`, or `dataset` of Python.
        classes: class names as the data give them, sorted.
        read: decodes one entry within the memory that it may take, or raises DataError with the reason alone. An entry
            with a path is its files as `read_parts` reads them.
        left_out: cases that the protocol's own rules leave out, and rows that repeat another; they go on record and
            are no errors.
        digest: names the content of an entry without a path; null where each has one.
    """

    source: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    read: Callable[[Entry, Hold], StoredImage]
    problems: tuple[Problem, ...] = ()
    findings: tuple[Finding, ...] = ()
    left_out: tuple[Problem, ...] = ()
    digest: Callable[[Entry], str] | None = None


def list_folder(root: Path, protocol: Protocol, name: Callable[[str], str]) -> Listing:
    """One folder a class, below train, val and test where there are such.

    Args:
        root: the folder.
        protocol: says how many dimensions a case has.
        name: gives a case's pseudonym.

    Raises:
        DataError: there are no class folders, or split folders and others beside them, or the task is multi-label.
    """
    if protocol.task.multilabel:
        raise DataError(
            "folders give each case one class; for task.kind multilabel expected a CSV with a 0/1 column for each "
            "finding, or with one column of findings joined by '|', or a MedMNIST .npz file"
        )
    back: list[Path] = []
    folders = _subfolders(root, root, back)
    splits = [f for f in folders if split_of(f.name)]
    if {f.name for f in splits} == set(protocol.task.classes or ()):
        splits = []
    if splits and len(splits) != len(folders):
        raise DataError(
            f"expected folders for splits or for classes, found both: {len(splits)} named as splits and "
            f"{len(folders) - len(splits)} others; move the others away or put every class below each split"
        )
    places = [(split_of(s.name), c) for s in splits for c in _subfolders(s, root, back)] if splits else []
    places = places or [("", c) for c in folders if not splits]
    if not places:
        raise DataError(
            "expected a folder for each class (below train, val and test if the data are split), a CSV with a path and "
            "a label column, or a MedMNIST .npz file; found no class folders"
        )
    refuse_folders_of_files((c.name for _, c in places), protocol.task.classes)
    entries, problems, ignored, unchosen = [], [], 0, 0
    below: list[tuple[str, str]] = []
    for split, folder in places:
        for path in _files(folder, root, back):
            text = path.relative_to(root).as_posix()
            if not looks_like_image(path):
                ignored += 1
                continue
            if not chosen(text, protocol.cases):
                unchosen += 1
                continue
            below.append((path.relative_to(folder).as_posix(), folder.relative_to(root).as_posix()))
            if outside(root, path):
                problems.append(
                    Problem(
                        name(text),
                        "is a link that leaves the data's folder (medharden --follow-links follows it)",
                        folder.name,
                        split,
                    )
                )
            else:
                entries.append(Entry(text=text, label=folder.name, split=split, root=root))
    if not protocol.input.channels_from:
        refuse_companions(below, protocol.cases)
    ignored += sum(f.is_file() and not f.name.startswith(".") for f in root.iterdir())
    entries, twice, apart = _each_once(entries, name)
    return Listing(
        source="folder",
        classes=sorted_classes({c.name for _, c in places}),
        entries=tuple(sorted(entries, key=lambda e: e.text)),
        read=lambda entry, hold: read_parts(entry.parts, protocol.input.at_frame(entry.frame), hold),
        problems=(*problems, *apart),
        findings=(*_ignored(ignored), *unchosen_files(unchosen), *_linked(len(back), twice)),
    )


def _each_once(entries: list[Entry], name: Callable[[str], str]) -> tuple[list[Entry], int, list[Problem]]:
    """Each file under one path, how many further paths lead to one, and files that lie under several classes or splits.

    Paths that are no links come first: they stay when links are not followed.
    """
    same: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        found = os.stat(entry.path or "")
        same[(found.st_dev, found.st_ino) if found.st_ino else (0, len(same))].append(entry)
    kept, twice, problems = [], 0, []
    for members in same.values():
        places = {(member.label, member.split) for member in members}
        if len(places) == 1:
            kept.append(min(members, key=_through_links))
            twice += len(members) - 1
            continue
        said = f"is one file under {len(members)} paths, of different classes or splits (links)"
        problems += [Problem(name(m.text), said, m.label, m.split, n > 0) for n, m in enumerate(members)]
    return kept, twice, problems


def _through_links(entry: Entry) -> tuple[bool, str]:
    path = entry.path or Path()
    return path.resolve() != path.absolute(), entry.text


def _linked(back: int, twice: int) -> tuple[Finding, ...]:
    """That links lead to what the data have under another path."""
    told = [f"{back} linked folders lead back into the data and were not entered"] if back else []
    told += [f"{twice} paths lead to files that have another path too; each file is one case"] if twice else []
    return (Finding("data.links_back", "info", f"{'; '.join(told)}."),) if told else ()


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """Class names in order; numbers by value, so that 10 follows 9."""
    if all(n.isdecimal() and n.isascii() for n in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _ignored(count: int) -> tuple[Finding, ...]:
    if not count:
        return ()
    return (Finding("data.ignored_files", "info", f"{count} files that are no images were left aside."),)


def unchosen_files(count: int) -> tuple[Finding, ...]:
    """That the protocol's rule left image files out."""
    if not count:
        return ()
    message = f"{count} image files are no cases by cases.include and cases.exclude of the protocol, and were left out."
    return (Finding("data.unchosen_files", "info", message),)


def _subfolders(folder: Path, root: Path, back: list[Path]) -> list[Path]:
    """The visible folders in a folder, but links that lead back to the data's own folder or above."""
    found = []
    for path in sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith((".", "__"))):
        if path.is_symlink() and root.resolve().is_relative_to(path.resolve()):
            back.append(path)
        else:
            found.append(path)
    return found


def _files(folder: Path, root: Path, back: list[Path]) -> Iterator[Path]:
    """Every visible file below a folder."""
    return (here / name for here, names in walked(folder, root, back) for name in names)
