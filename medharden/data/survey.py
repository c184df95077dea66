"""`survey()`: what a source holds, from its listing and a few of its files, before a protocol is written for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from medharden.data.checks.identity import name_patients
from medharden.data.formats.channels import read_parts
from medharden.data.formats.image import StoredImage
from medharden.data.formats.limits import Hold, room_for
from medharden.data.formats.stack import FRAMES_AS_STORED
from medharden.data.pseudonyms import pseudonym
from medharden.data.sampled import split_sizes
from medharden.data.sources.companions import CompanionsError
from medharden.data.sources.folder import Entry, Listing
from medharden.data.sources.guessing import with_findings_of
from medharden.data.sources.listing import list_source
from medharden.data.sources.patient_paths import named_by_path, seen_patients
from medharden.data.store.keeping import Kept, Store
from medharden.data.store.reading import read_cases
from medharden.data.view.case import ReadCase
from medharden.errors import DataError
from medharden.protocol import Channel, Frames, Input, Intensity, Protocol, Volume
from medharden.sizes import MAX_DECODED
from medharden.text import neutral

__all__ = ["Survey", "survey"]

_MEMORY_LIMIT = 2**30
_MOST = 16
_FEWEST_VALUES, _MOST_VALUES = 2, 12
_NO_GROUP = ("modality",)
_FEWEST_SLICES = 3
_SEVERAL = "series in one examination"


@dataclass(frozen=True)
class Survey:
    """What was seen; no path and no name of a case.

    Attributes:
        source: `folder`, `manifest` or `npz`.
        classes: names as the data give them, sorted.
        multilabel: whether a case may have several findings.
        cases: of each split, about where splits are to be made.
        given: whether the data give the splits.
        shares: of all cases, those of each class or with each finding.
        patients: whether cases name patients, in the manifest or in the sampled headers.
        dims: spatial dimensions.
        shape: the most common stored shape; `alike` whether the sample has no other.
        channels: 1, or 3 where some sampled case has colour.
        formats: kinds of file.
        modality: the DICOM modality of the sample, or "".
        low, high: of the sample's rescaled values.
        windows: whether every sampled file offers a window of its own.
        groups: columns of few values, in which subgroups could be looked at, with their values' number.
        unreadable: of `tried` sampled cases.
        files: how many there are where cases are series of slices, which could be cases, too; else 0.
        rules: under which this was seen: what the protocol says of columns, files, channels, frames, unclear labels and
            patients, or what it would have to say.
    """

    source: str
    classes: tuple[str, ...]
    multilabel: bool
    cases: dict[str, int]
    given: bool
    shares: dict[str, float]
    patients: bool
    dims: int
    shape: tuple[int, ...]
    alike: bool
    channels: int
    formats: tuple[str, ...]
    modality: str
    low: float
    high: float
    windows: bool
    groups: dict[str, int]
    unreadable: int
    tried: int
    files: int
    rules: Protocol


def survey(
    source: Path,
    protocol: Protocol,
    *,
    key: bytes,
    workers: int = 2,
    max_decoded: int = MAX_DECODED,
    volumes: bool = True,
) -> Survey:
    """Lists a source and reads up to 16 of its cases.

    Args:
        source: as `load_cohort` takes it.
        protocol: task, columns, files and splits; its input is not asked.
        key: secret of the pseudonyms.
        workers: threads that decode.
        max_decoded: as `load_cohort` takes it.
        volumes: whether series of single-frame files are taken for volumes; else each slice is a case.

    Raises:
        DataError: nothing is listed, or none of the sampled cases can be read.
    """
    rules, listing = _listed(source, protocol, key, max_decoded)
    multilabel = any(isinstance(e.label, tuple) for e in listing.entries)
    if len(listing.classes) < 2 and not multilabel:
        found_names = neutral(", ".join(listing.classes))[:60] or "none"
        raise DataError(
            f"the data name no two classes, but {found_names}; expected two or more. Blanks and words such as none or "
            "unknown are no label: where one of them is a class, a protocol has to name it (task.classes, given by "
            "--like); a folder of one class lacks the others"
        )
    given, found, tried = _read(listing, rules, workers, max_decoded)
    files = 0
    if volumes and given.dims == 2 and listing.source == "folder" and any("dicom" in case.format for case in found):
        stacked = _stacked(listing, rules, partial(_list, source, partial(pseudonym, key, "case"), max_decoded))
        best = None if stacked is None else _read_or_none(*stacked, workers, max_decoded)
        if stacked is not None and best is not None and 2 * len(best[1]) > best[2]:
            files, (listing, rules), (given, found, tried) = len(listing.entries), stacked, best
    said = [*(e.patient for e in listing.entries), *(case.patient for case in found)]
    named = name_patients([(text,) for text in said]).named > 0  # a word such as ANONYMOUS names none
    limits = rules.splits.model_copy(update={} if named else {"patient_from": _patients_of(listing, listing.classes)})
    shapes = Counter(case.native for case in found)
    held = [e.label if isinstance(e.label, tuple) else (e.label,) for e in listing.entries]
    counts = Counter(label for labels in held for label in labels)
    modality = Counter(v for case in found for k, v in case.attributes.items() if k.lower() == "modality")
    return Survey(
        source=listing.source,
        classes=listing.classes,
        multilabel=multilabel,
        cases=split_sizes(listing, protocol),
        given=all(e.split for e in listing.entries),
        shares={label: counts[label] / len(listing.entries) for label in listing.classes},
        patients=named or limits.patient_from is not None,
        dims=given.dims,
        shape=shapes.most_common(1)[0][0],
        alike=len(shapes) == 1,
        channels=max(case.shape[0] for case in found),
        formats=tuple(sorted({case.format for case in found})),
        modality=modality.most_common(1)[0][0] if modality else "",
        low=min(case.low for case in found),
        high=max(case.high for case in found),
        windows=all(case.windows for case in found),
        groups=_groups(listing),
        unreadable=tried - len(found),
        tried=tried,
        files=files,
        rules=rules.model_copy(update={"input": given, "splits": limits}),
    )


def _listed(source: Path, protocol: Protocol, key: bytes, max_decoded: int) -> tuple[Protocol, Listing]:
    """The rules under which there are cases, of the fewest dimensions, and the listing.

    A row that names a folder is a case only in 3D.
    """
    name, refused, empty = partial(pseudonym, key, "case"), None, None
    for dims in (2, 3):
        trial = protocol.model_copy(update={"input": Input(dims=dims)})
        try:
            trial, listing = _by_rules(source, trial, partial(_list, source, name, max_decoded))
        except DataError as error:
            refused = refused or error
            continue
        if listing.entries:
            return trial, listing
        empty = empty or listing
    if empty is None:
        assert refused is not None, "two were tried"  # noqa: S101
        raise refused
    reasons = Counter(problem.reason for problem in empty.problems).most_common(1)
    why = f": {reasons[0][0]} ({reasons[0][1]:,} of {len(empty.problems):,})" if reasons else ""
    raise DataError(f"none of the cases can be used{why}; `medharden inspect` names each")


def _list(source: Path, name: Callable[[str], str], max_decoded: int, trial: Protocol) -> Listing:
    return list_source(source, trial, name, _MEMORY_LIMIT, max_decoded)


def _by_rules(source: Path, trial: Protocol, listed: Callable[[Protocol], Listing]) -> tuple[Protocol, Listing]:
    """The listing under the rules that the data themselves suggest: what is no case, what is stacked, what is masked.

    Raises:
        DataError: no rule helps; as it was under the protocol's own.
    """
    try:
        listing = listed(trial)
    except CompanionsError as error:
        if not error.exclude and not error.channels:
            raise
        cases = trial.cases.model_copy(update={"exclude": (*trial.cases.exclude, *error.exclude)})
        channels = tuple(Channel(name=mark, files=pattern) for mark, pattern in error.channels.items())
        given = trial.input.model_copy(update={"channels_from": trial.input.channels_from or channels})
        trial = trial.model_copy(update={"cases": cases, "input": given})
        listing = listed(trial)
    except DataError as error:
        several = with_findings_of(source, trial)
        if several is None:
            raise
        trial, listing = several, _first(listed, several, error)
    reasons = [problem.reason for problem in listing.problems]
    unclear = [state for state in ("uncertain", "missing") if any(f"a label that is {state} for" in r for r in reasons)]
    if unclear:
        task = trial.task.model_copy(update=dict.fromkeys(unclear, "mask"))
        return _by_rules(source, trial.model_copy(update={"task": task}), listed)
    return trial, listing


def _first(listed: Callable[[Protocol], Listing], trial: Protocol, refused: DataError) -> Listing:
    """The listing of a trial; where it fails too, what was said first is said."""
    try:
        return listed(trial)
    except DataError:
        raise refused from None


def _patients_of(listing: Listing, classes: tuple[str, ...]) -> str | None:
    """The pattern of `splits.patient_from` that all paths fit, where they look as if they named patients."""
    if listing.digest is not None or any(entry.patient for entry in listing.entries):
        return None
    seen = seen_patients([(n, entry.text) for n, entry in enumerate(listing.entries)], classes)
    try:
        if seen is not None:
            named_by_path(listing.entries, seen.pattern)
            return seen.pattern
    except DataError:
        return None
    return None


def _read(listing: Listing, rules: Protocol, workers: int, max_decoded: int) -> tuple[Input, list[ReadCase], int]:
    """The input under which most of a sample can be read, what was read, and how many were tried.

    Of multi-frame files that do not say where their frames lie, as those of ultrasound, one frame is taken.
    """
    picked = sorted({round(n) for n in np.linspace(0, len(listing.entries) - 1, _MOST).tolist()})
    few = Listing(
        listing.source, listing.classes, tuple(listing.entries[n] for n in picked), listing.read, digest=listing.digest
    )
    best: tuple[Input, list[ReadCase], int] | None = None
    several: list[tuple[int, Frames]] = [] if rules.input.channels_from else [(2, "middle")]
    plain: list[tuple[int, Frames]] = [(dims, "one") for dims in range(rules.input.dims, 4)]
    for dims, frames in (*plain, *several):
        if frames != "one" and (best is None or not _of_pictures(best, len(picked))):
            continue
        given = rules.input.model_copy(update={"dims": dims, "frames": frames})
        spec = given.model_copy(update={"intensity": Intensity(mode="percentile", low=0, high=100)})
        reads = listing.read if listing.digest is not None else partial(_read_as, spec)
        with Store() as store:
            room = room_for(max_decoded, spec)
            results = read_cases(replace(few, read=reads), spec, store, room=room, workers=workers, progress=None)
        found = [r.case for r in results if isinstance(r, Kept)]
        if best is None or len(found) > len(best[1]) or (frames != "one" and len(found) == len(best[1])):
            best = given, found, len(picked)
        if not any(isinstance(r, str) for r in results) and not _of_pictures(best, len(picked)):
            break
    if best is None or not best[1]:
        raise DataError(f"none of the {len(picked)} cases that were tried can be read; `medharden inspect` says why")
    return best


def _stacked(
    single: Listing, rules: Protocol, listed: Callable[[Protocol], Listing]
) -> tuple[Listing, Protocol] | None:
    """Volumes that most of the files are slices of; of an examination's several series the largest, where one is."""

    def by(series: Literal["one", "largest", "each"]) -> tuple[Listing, Protocol]:
        trial = rules.model_copy(update={"input": Input(dims=3, volume=Volume(series=series))})
        return listed(trial), trial

    try:
        found = by("one")
        if any(_SEVERAL in problem.reason for problem in found[0].problems):
            found = by("each")
        held = sum(len(e.slices) for e in found[0].entries if len(e.slices) >= _FEWEST_SLICES)
        if 2 * held <= len(single.entries):
            return None
        largest = by("largest") if found[1].input.volume.series == "each" else found
        return found if len(largest[0].problems) > len(found[0].problems) else largest
    except DataError:
        return None


def _read_or_none(
    listing: Listing, rules: Protocol, workers: int, max_decoded: int
) -> tuple[Input, list[ReadCase], int] | None:
    try:
        return _read(listing, rules, workers, max_decoded)
    except DataError:
        return None


def _read_as(spec: Input, entry: Entry, hold: Hold) -> StoredImage:
    return read_parts(entry.parts, spec.at_frame(entry.frame), hold)


def _of_pictures(best: tuple[Input, list[ReadCase], int], tried: int) -> bool:
    """Whether what was read best lacks multi-frame files, or has them as volumes of frames that lie nowhere."""
    spec, found, _ = best
    stored = sum(FRAMES_AS_STORED in case.notes for case in found)
    return stored > len(found) / 2 if spec.dims == 3 else len(found) < tried


def _groups(listing: Listing) -> dict[str, int]:
    """Columns whose values are few enough to be groups; what may name a person has many."""
    columns: dict[str, set[str]] = {}
    for entry in listing.entries:
        for name, value in entry.attributes.items():
            columns.setdefault(name, set()).add(value)
    return {
        name: len(values)
        for name, values in columns.items()
        if _FEWEST_VALUES <= len(values) <= _MOST_VALUES and name.lower() not in _NO_GROUP
    }
