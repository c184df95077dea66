"""A few cases of a source, read to see what reading and training cost; nothing is decided on them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medharden.data.checks.kind import require_kind
from medharden.data.checks.problems import check_classes, shape_problems
from medharden.data.cohort import Case, Cohort, SourceSummary
from medharden.data.formats.limits import room_for
from medharden.data.pseudonyms import key_id, pseudonym
from medharden.data.sources.folder import Listing
from medharden.data.sources.listing import list_source
from medharden.data.store.inputs import Inputs
from medharden.data.store.keeping import Kept, Store
from medharden.data.store.reading import read_cases
from medharden.errors import DataError
from medharden.protocol import Protocol
from medharden.record import CaseRecord, CohortRecord
from medharden.sizes import MAX_DECODED

__all__ = ["SampledCohort", "sample_cohort", "split_sizes"]

_BATCHES = 3  # of training, for steps to be timed on
_MEMORY_LIMIT = 4 * 2**30


@dataclass(frozen=True, eq=False)
class SampledCohort:
    """A sample, and what it says of the whole.

    Attributes:
        cohort: the sample's cases, each as often as it takes for some batches of training and one of validation and
            test.
        cases: how many cases each split has in all, about where splits are made.
        unusable: how many of those that were tried can't be used.
        tried: how many were.
        decoded: cases a second from files.
        stored: cases a second from the store.
        case_bytes: what the store takes for one.
    """

    cohort: Cohort
    cases: dict[str, int]
    unusable: int
    tried: int
    decoded: float
    stored: float
    case_bytes: int


def sample_cohort(
    source: Path, protocol: Protocol, *, key: bytes, most: int = 64, workers: int = 2, max_decoded: int = MAX_DECODED
) -> SampledCohort:
    """Reads some cases, from all over a source, into a store that goes with this process.

    Args:
        source: as `load_cohort` takes it.
        protocol: as `load_cohort` takes it.
        key: secret of the pseudonyms.
        most: cases that are read at most.
        workers: threads that decode.
        max_decoded: as `load_cohort` takes it.

    Raises:
        DataError: nothing is listed, or none of the cases that were tried can be used.
    """
    name = partial(pseudonym, key, "case")
    listing = list_source(source, protocol, name, _MEMORY_LIMIT, max_decoded)
    classes = check_classes(listing, protocol)
    require_kind(listing, protocol)
    if not listing.entries:
        raise DataError("none of the cases can be used; `medharden inspect` says why")
    picked = sorted({round(n) for n in np.linspace(0, len(listing.entries) - 1, most).tolist()})
    few = Listing(
        listing.source, listing.classes, tuple(listing.entries[n] for n in picked), listing.read, digest=listing.digest
    )
    started = time.perf_counter()
    with Store() as store:
        room = room_for(max_decoded, protocol.input)
        found = read_cases(few, protocol.input, store, room=room, workers=workers, progress=None)
    decoded = len(picked) / (time.perf_counter() - started)
    kept = {n: result for n, result in enumerate(found) if isinstance(result, Kept)}
    shape, odd = shape_problems({n: result.case for n, result in kept.items()})
    kept = {n: result for n, result in kept.items() if n not in odd}
    if not kept:
        raise DataError(f"none of the {len(picked)} cases that were tried can be used; `medharden inspect` says why")
    labels = {
        n: classes.index(e.label) if isinstance(e.label, str) else tuple(classes.index(label) for label in e.label)
        for n, e in enumerate(few.entries)
    }
    masked = [tuple(classes.index(k) for k in e.masked) for e in few.entries]
    size = protocol.hardening.batch_size
    splits = ["train"] * (_BATCHES * size) + ["val"] * size + ["test"] * size
    numbers = [list(kept)[n % len(kept)] for n in range(len(splits))]
    cases = tuple(
        Case(name(few.entries[n].text), f"{place:016x}", split, labels[n], f"{place:064x}", {}, masked[n])
        for place, (n, split) in enumerate(zip(numbers, splits, strict=True))
    )
    inputs = Inputs([kept[n].place for n in numbers], shape)
    record = CohortRecord(
        classes=classes,
        source=listing.source,
        formats={},
        splits_from="made",
        grouped_by="case",
        unnamed=len(cases),
        key_id=key_id(key),
        shape=shape,
        cases=tuple(CaseRecord(c.case, c.patient, c.split, c.label, c.pixels, c.masked) for c in cases),
        excluded=(),
        preprocessing="",
    )
    cohort = Cohort(classes, cases, inputs, record, SourceSummary({}, {}, (0.0, 0.0), {}))
    started = time.perf_counter()
    inputs.read(range(len(splits)))
    stored = len(splits) / (time.perf_counter() - started)
    usable = len(kept) / len(picked)
    bytes_ = max(4 * int(np.prod(k.place.shape)) for k in kept.values())
    counts = {split: round(usable * n) for split, n in split_sizes(listing, protocol).items()}
    return SampledCohort(cohort, counts, len(picked) - len(kept), len(picked), decoded, stored, bytes_)


def split_sizes(listing: Listing, protocol: Protocol) -> dict[str, int]:
    """Cases of each split, as given, or by the protocol's shares of those that are in none."""
    given = Counter(entry.split for entry in listing.entries)
    free, limits = given[""], protocol.splits
    shares = {"train": limits.train, "val": limits.val, "test": limits.test}
    if not free and not given["val"]:
        free, shares = given["train"], {"train": limits.train, "val": limits.val, "test": 0.0}
        given["train"] = 0
    whole, reached, so_far = sum(shares.values()), 0.0, 0
    for split, share in shares.items():  # of the sums, so that the parts add up to all
        reached += share / whole
        given[split] += round(free * reached) - so_far
        so_far = round(free * reached)
    return {split: given[split] for split in shares}
