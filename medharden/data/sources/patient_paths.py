"""Patients that only a path names: by the protocol's pattern, and the pattern that paths seem to follow."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from medharden.data.sources.folder import Entry, split_of
from medharden.errors import DataError
from medharden.protocol.sourcing import PATIENT

__all__ = ["SeenPatients", "named_by_path", "seen_patients"]

_FEWEST, _LARGEST, _SHARE = 3, 0.2, 0.9
_DIGITS = re.compile(r"\d+")
_NO_PATIENT = re.compile(
    r"(im|imgs?|images?|part|batch|fold|chunk|shard|data|dir|set|slices?|sites?|cent(er|re)s?|scanners?|hospitals?|grade|class|"
    r"stage|year|train|val|test|version|v|visit|views?|stud(y|ies)|series|s)?[_\- ]*#",
    re.IGNORECASE,
)
_LONG_NUMBER = 4
_SUBJECT, _SUBJECT_DIGITS = re.compile(r"s[_\- ]?#", re.IGNORECASE), 3  # s5000 below p1000 is a study, S001 a subject
_BEGINNING = re.compile(r"(?P<before>(?:[a-z]+[_\-])?)(?P<id>[a-z]*\d+)(?P<sign>[_\-])[a-z0-9][^/]*", re.IGNORECASE)
_PREFIX = re.compile(r"((?:patient|person|subject|sub|pat|pid|case|p)[_\- ]?\d+)(?=[_\-. ])", re.IGNORECASE)


def named_by_path(entries: Sequence[Entry], pattern: str) -> list[Entry]:
    """The entries with the patient that the pattern finds in each path, where nothing else named one.

    Args:
        entries: of a folder or a manifest.
        pattern: `splits.patient_from`.

    Raises:
        DataError: paths that do not fit the pattern, by their number.
    """
    form = re.compile(_expression(pattern), re.DOTALL)
    found = [entry if entry.patient else _named(entry, form) for entry in entries]
    unfit = sum(not entry.patient for entry in found)
    if unfit:
        raise DataError(
            f"{unfit} of {len(entries)} cases have a path below the data's root that splits.patient_from does not fit; "
            f"`*` stands for what is within one name, `**` for any folders, {PATIENT} for the patient"
        )
    return found


def _named(entry: Entry, form: re.Pattern[str]) -> Entry:
    found = form.fullmatch(entry.text)
    return entry if found is None else replace(entry, patient=found["patient"])


def _expression(pattern: str) -> str:
    parts = re.split(r"(\{patient\}|\*\*/|\*\*|\*|\?)", pattern)
    means = {PATIENT: r"(?P<patient>[^/]+?)", "**/": r"(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(means.get(part, re.escape(part)) for part in parts)


@dataclass(frozen=True)
class SeenPatients:
    """What paths seem to say of who the patients are.

    Attributes:
        shape: of the names, with `#` for digits, such as `patient#####`.
        pattern: what could be written as `splits.patient_from`.
        groups: by row, what seems to be its patient.
    """

    shape: str
    pattern: str
    groups: dict[int, str]

    @property
    def shared(self) -> int:
        """How many of these seem to have several cases."""
        counts: dict[str, int] = defaultdict(int)
        for group in self.groups.values():
            counts[group] += 1
        return sum(n > 1 for n in counts.values())


def seen_patients(texts: Sequence[tuple[int, str]], classes: Collection[str]) -> SeenPatients | None:
    """Folders, or beginnings of file names, that look like patients and hold several cases.

    It is the outermost folder whose names are all of one form with a number, that is many, and of which none holds
    more than a fifth of the cases; folders of classes, splits, batches, sites and series are none.

    Args:
        texts: row and path of the cases that name no patient.
        classes: names that are folders of classes.
    """
    places = [(row, PurePosixPath(text)) for row, text in texts]
    deepest = max((len(place.parts) - 1 for _, place in places), default=0)
    known = {name.casefold() for name in classes}
    within = False
    apart = known | {part.casefold() for _, place in places for part in place.parts[:-1] if split_of(part)}
    for depth in range(deepest):
        named = {
            row: (place.parts[depth], "/".join(p for p in place.parts[:depth] if p.casefold() not in apart))
            for row, place in places
            if len(place.parts) - 1 > depth and place.parts[depth].casefold() not in apart
        }
        shape = _common_shape([name for name, _ in named.values()], len(places), within)
        if shape:
            before = "/".join(["*"] * depth)
            pattern = f"{before}/{PATIENT}/**" if before else f"{PATIENT}/**"
            found = SeenPatients(shape, pattern, {row: f"{above}/{name}" for row, (name, above) in named.items()})
            if _plausible(found, len(places)):
                return found
            within = True
    return _by_file_name(places)


def _common_shape(names: list[str], total: int, within: bool) -> str:
    """The form of most names: with a number, and none of what is no patient; of several forms the most common.

    Args:
        names: of the folders of one depth, one a case.
        total: how many cases there are.
        within: whether folders of such a form lie above, so that `s5000` may be a study of `p1000`.
    """
    shapes: dict[str, list[str]] = defaultdict(list)
    for name in names:
        shapes[_DIGITS.sub("#", name)].append(name)
    fitting = {shape: held for shape, held in shapes.items() if _may_be_patients(shape, held, within)}
    if sum(map(len, fitting.values())) < _SHARE * total or not fitting:
        return ""
    most = max(fitting.values(), key=len)
    return _DIGITS.sub(lambda run: "#" * len(run[0]), max(most, key=len))


def _may_be_patients(shape: str, names: list[str], within: bool) -> bool:
    if "#" not in shape:
        return False
    if not _NO_PATIENT.fullmatch(shape):
        return True
    digits = min(len(run) for name in names for run in _DIGITS.findall(name)[:1])
    subjects = _SUBJECT.fullmatch(shape) is not None and not within and digits >= _SUBJECT_DIGITS
    return subjects or (shape == "#" and digits >= _LONG_NUMBER)


def _plausible(found: SeenPatients, total: int) -> bool:
    counts: dict[str, int] = defaultdict(int)
    for group in found.groups.values():
        counts[group] += 1
    return len(counts) >= _FEWEST and max(counts.values()) <= max(2.0, _LARGEST * total) and found.shared > 0


def _by_file_name(places: Sequence[tuple[int, PurePosixPath]]) -> SeenPatients | None:
    named = {row: found for row, place in places if (found := _PREFIX.match(place.name)) is not None}
    if len(named) < _FEWEST:
        return _by_beginning(places)
    first = next(iter(named.values()))
    pattern = f"**/{_DIGITS.split(first[1])[0]}{PATIENT}{first.string[first.end()]}*"
    groups = {row: found[1].casefold() for row, found in named.items()}
    seen = SeenPatients(_DIGITS.sub("#", first[1]), pattern, groups)
    return seen if _plausible(seen, len(places)) else None


def _by_beginning(places: Sequence[tuple[int, PurePosixPath]]) -> SeenPatients | None:
    """Names of one number that differ in their end alone: views, sides, visits or slices, as `0012_left`, `0012_right`.

    Most names must share their beginning, which holds a number and no sign that parts, but for one word before it.
    """
    found = {row: _BEGINNING.fullmatch(place.name) for row, place in places}
    parts = {row: match for row, match in found.items() if match is not None}
    signs = {(match["before"].casefold(), match["sign"]) for match in parts.values()}
    if len(parts) < _SHARE * len(places) or len(signs) != 1:
        return None
    groups = {row: (match["before"] + match["id"]).casefold() for row, match in parts.items()}
    counts = Counter(groups.values())
    if sum(n for n in counts.values() if n > 1) < len(places) / 2:
        return None
    before, sign = next((match["before"], match["sign"]) for match in parts.values())
    shape = _DIGITS.sub(lambda run: "#" * len(run[0]), max(groups.values(), key=len))
    seen = SeenPatients(shape, f"**/{before}{PATIENT}{sign}*", groups)
    return seen if _plausible(seen, len(places)) else None
