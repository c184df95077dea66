"""`survey()`: what a source holds, from its listing and a few of its files, before a protocol is written for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from medharden.data.formats.limits import room_for
from medharden.data.pseudonyms import pseudonym
from medharden.data.sampled import split_sizes
from medharden.data.sources.folder import Listing
from medharden.data.sources.listing import list_source
from medharden.data.store.keeping import Kept, Store
from medharden.data.store.reading import read_cases
from medharden.data.view.case import ReadCase
from medharden.errors import DataError
from medharden.protocol import Input, Intensity, Protocol
from medharden.sizes import MAX_DECODED

__all__ = ["Survey", "survey"]

_MEMORY_LIMIT = 2**30
_MOST = 16
_FEWEST_VALUES, _MOST_VALUES = 2, 12
_NO_GROUP = ("modality",)
_Dims = Literal[2, 3]
_DIMS: tuple[_Dims, ...] = (2, 3)


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


def survey(source: Path, protocol: Protocol, *, key: bytes, workers: int = 2, max_decoded: int = MAX_DECODED) -> Survey:
    """Lists a source and reads up to 16 of its cases.

    Args:
        source: as `load_cohort` takes it.
        protocol: columns and shares of splits; its task and input are not asked.
        key: secret of the pseudonyms.
        workers: threads that decode.
        max_decoded: as `load_cohort` takes it.

    Raises:
        DataError: nothing is listed, or none of the sampled cases can be read.
    """
    listed = partial(_listing, source, protocol, partial(pseudonym, key, "case"), max_decoded)
    dims, listing, found, tried = _read(listed, workers, max_decoded)
    shapes = Counter(case.native for case in found)
    held = [e.label if isinstance(e.label, tuple) else (e.label,) for e in listing.entries]
    counts = Counter(label for labels in held for label in labels)
    modality = Counter(v for case in found for k, v in case.attributes.items() if k.lower() == "modality")
    return Survey(
        source=listing.source,
        classes=listing.classes,
        multilabel=any(isinstance(e.label, tuple) for e in listing.entries),
        cases=split_sizes(listing, protocol),
        given=all(e.split for e in listing.entries),
        shares={label: counts[label] / len(listing.entries) for label in listing.classes},
        patients=any(e.patient for e in listing.entries) or any(case.patient for case in found),
        dims=dims,
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
    )


def _listing(source: Path, protocol: Protocol, name: Callable[[str], str], max_decoded: int, dims: _Dims) -> Listing:
    trial = protocol.model_copy(update={"input": Input(dims=dims)})
    return list_source(source, trial, name, _MEMORY_LIMIT, max_decoded)


def _read(
    listed: Callable[[_Dims], Listing], workers: int, max_decoded: int
) -> tuple[int, Listing, list[ReadCase], int]:
    """The dimensions under which most of a sample can be read, the listing, what was read, and how many were tried.

    A row that names a folder is a case only in 3D, and a listing reads in its own dimensions.
    """
    best: tuple[int, Listing, list[ReadCase], int] | None = None
    refused: DataError | None = None
    problems: Counter[str] = Counter()
    for dims in _DIMS:
        try:
            listing = listed(dims)
        except DataError as error:
            refused = refused or error
            continue
        problems = problems or Counter(problem.reason for problem in listing.problems)
        if not listing.entries:
            continue
        found, tried = _sample(listing, dims, workers, max_decoded)
        if best is None or len(found) > len(best[2]):
            best = dims, listing, found, tried
        if len(found) == tried:
            break
    if best is None:
        raise _nothing(refused, problems)
    if not best[2]:
        raise DataError(f"none of the {best[3]} cases that were tried can be read; `medharden inspect` says why")
    return best


def _sample(listing: Listing, dims: _Dims, workers: int, max_decoded: int) -> tuple[list[ReadCase], int]:
    """What could be read of a sample, and how many were tried."""
    picked = sorted({round(n) for n in np.linspace(0, len(listing.entries) - 1, _MOST).tolist()})
    few = replace(listing, entries=tuple(listing.entries[n] for n in picked))
    spec = Input(dims=dims, intensity=Intensity(mode="percentile", low=0, high=100))
    with Store() as store:
        room = room_for(max_decoded, spec)
        results = read_cases(few, spec, store, room=room, workers=workers, progress=None)
    return [r.case for r in results if isinstance(r, Kept)], len(picked)


def _nothing(refused: DataError | None, problems: Counter[str]) -> DataError:
    if refused is not None and not problems:
        return refused
    reasons = problems.most_common(1)
    why = f": {reasons[0][0]} ({reasons[0][1]:,} of {problems.total():,})" if reasons else ""
    return DataError(f"none of the cases can be used{why}; `medharden inspect` names each")


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
