"""The cohort: every case as model input, with its label, split and pseudonyms."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rfc8785
import torch

from medharden.data.checks.dividing import chain_findings, divide, farthest
from medharden.data.checks.identifiers import Identifiers, gather_identifiers, may_name_people
from medharden.data.checks.identity import name_patients
from medharden.data.checks.kind import require_kind
from medharden.data.checks.near import NearPair, near_duplicate_findings
from medharden.data.checks.patients import patient_findings, patients_seen_in_paths
from medharden.data.checks.problems import (
    check_classes,
    findings_of,
    masked_findings,
    pixel_problems,
    refuse,
    shape_problems,
)
from medharden.data.checks.splits import NAMELESS, Member, one_patient_an_image
from medharden.data.formats.limits import room_for
from medharden.data.pseudonyms import key_id, keyed_digest, load_pseudonym_key, pseudonym, seal_key
from medharden.data.sources.dataset import Items, SizedDataset
from medharden.data.sources.findings import unclear_words
from medharden.data.sources.folder import Entry, Listing
from medharden.data.sources.listing import list_source
from medharden.data.store.cache import view_folder
from medharden.data.store.inputs import InputRows, Inputs, input_hashes
from medharden.data.store.keeping import Kept, Store
from medharden.data.store.reading import read_cases
from medharden.data.store.taking import take_items
from medharden.data.view.case import ReadCase
from medharden.errors import DataError, OutputError, Problem
from medharden.protocol import Protocol
from medharden.record import (
    MASKED,
    AlikePair,
    CaseRecord,
    CohortRecord,
    ExcludedCase,
    Label,
    Progress,
    finding_states,
)
from medharden.sizes import MAX_DECODED

__all__ = ["Case", "Cohort", "SourceSummary", "load_cohort"]


@dataclass(frozen=True, slots=True)
class Case:
    """One case; `case` and `patient` are pseudonyms, `pixels` is a keyed digest of the stored pixels.

    `attributes` holds what the manifest or the header says beside the label (sex, site, scanner ...). It may be
    identifying: it is for grouping, and enters no record.
    """

    case: str
    patient: str
    split: str
    label: Label
    pixels: str
    attributes: dict[str, str]
    masked: tuple[int, ...] = ()


@dataclass(frozen=True)
class SourceSummary:
    """What the source held, for a person to look at.

    Attributes:
        formats: file kind to number of cases.
        native_shapes: stored spatial shape, such as `512x512`, to number of cases.
        stored_range: smallest and largest rescaled value of all cases.
        attributes: column to value to number of cases; a column that may name people shows how many values alone.
    """

    formats: dict[str, int]
    native_shapes: dict[str, int]
    stored_range: tuple[float, float]
    attributes: dict[str, dict[str, int]]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Cases as model input.

    Attributes:
        inputs: (N, C, *spatial) float32 in [0, 1], read-only, in a file; rows as `cases`.
        record: what goes into the run's records.
        identifiers: by kind, what the data say of who the patients are. They are for holding outputs against, and
            enter no record.
        seal: key of the files that an unfinished stage goes on from, made of the pseudonym key; without it none is
            written, and a stage that was interrupted begins anew.
    """

    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    inputs: Inputs
    record: CohortRecord
    source: SourceSummary
    identifiers: Identifiers = field(default_factory=dict, repr=False)
    seal: bytes = field(default=b"", repr=False)

    @classmethod
    def from_dataset(
        cls,
        dataset: SizedDataset,
        protocol: Protocol,
        *,
        classes: Sequence[str] | None = None,
        patients: Sequence[object] | None = None,
        splits: Sequence[str | None] | None = None,
        attributes: Mapping[str, Sequence[object]] | None = None,
        key: bytes | None = None,
        scratch: Path | None = None,
        progress: Progress | None = None,
    ) -> Cohort:
        """The items of a torch `Dataset` as a cohort: each is taken once, checked, digested and stored as files are.

        The same items in the same order are the same cohort: an interrupted run goes on with it, and another label,
        input, patient or split is noticed.

        Args:
            dataset: gives by number (input, label): the input (C, *spatial) or (*spatial) floating point in [0, 1],
                a tensor or an array, before any normalisation and augmentation; the label a whole number from 0, or
                (L,) numbers in {0, 1} of a multi-label task. Several are one as `ConcatDataset([train, val, test])`.
            protocol: its `input.intensity.mode` is `ready`.
            classes: names of the labels 0, 1, ...; null takes the protocol's `task.classes`.
            patients: (N,) whose each item is, as text or number; null in it, or for all, names none.
            splits: (N,) `train`, `val` or `test` of each item; null has the protocol's splits made, by patient.
            attributes: column to (N,) values, for the subgroups that the protocol declares.
            key: secret of the pseudonyms; null takes the user's own, as `load_pseudonym_key`.
            scratch: as `load_cohort` takes it.
            progress: called with `("read", done, total)`.

        Raises:
            DataError: items that can't be used, with every problem found; an item that changes when it is asked for
                again; arguments of another length.
            ProtocolError: the protocol says how files become input.
            OutputError: the disk is full.
        """
        items = Items(dataset, protocol, classes=classes, patients=patients, splits=splits, attributes=attributes)
        return _of_items(items, protocol, load_pseudonym_key() if key is None else key, scratch, progress)

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of one split, in recorded order."""
        return np.array([n for n, c in enumerate(self.cases) if c.split == split], dtype=np.int64)

    def batch(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of some cases: inputs (n, C, *spatial) float32 in [0, 1], and their labels.

        Labels are as of `labels`.
        """
        return torch.from_numpy(self.inputs.read(np.asarray(rows, dtype=np.int64))), self.labels(rows)

    def stream(self, rows: Sequence[int] | npt.NDArray[np.int64], device: str = "cpu") -> InputRows:
        """(n, C, *spatial) inputs of some cases, read when they are asked for and put on the device."""
        return InputRows(self.inputs, np.asarray(rows, dtype=np.int64).tolist(), device)

    def labels(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> torch.Tensor:
        """(n,) int64 classes of some cases, or (n, L) float32 of a multi-label task.

        A finding is 1 where it is there, 0 where it is absent, and NaN where it is left out of its case.
        """
        said = [self.cases[n] for n in np.asarray(rows, dtype=np.int64).tolist()]
        if self.record.multilabel:
            states = [finding_states(c.label, c.masked, len(self.classes)) for c in said]
            labels = torch.tensor(states, dtype=torch.float32).reshape(len(said), len(self.classes))
            return labels.masked_fill(labels == MASKED, torch.nan)
        return torch.tensor([c.label for c in said], dtype=torch.int64)


def load_cohort(
    source: Path,
    protocol: Protocol,
    *,
    key: bytes,
    progress: Progress | None = None,
    workers: int = 2,
    memory_limit: int = 4 * 2**30,
    scratch: Path | None = None,
    max_decoded: int = MAX_DECODED,
    cache: Path | None = None,
) -> Cohort:
    """Lists, reads, checks and splits the cases of a folder, a manifest or a MedMNIST archive.

    Args:
        source: a folder with a class a sub-folder (below train, val, test where split) or with a manifest; a CSV
            file; or an `.npz` archive.
        protocol: what the model is fed, how cases are split, whether unusable cases are refused or excluded.
        key: secret of the pseudonyms.
        progress: called with `("read", done, total)`.
        workers: threads that decode, or processes where there is much to decode.
        memory_limit: bytes of an archive's arrays held in memory; beyond it they lie in a file.
        scratch: where decoded cases lie, in a file without a name; None takes the system's temporary folder.
        max_decoded: bytes of memory that reading one file may take, and all readers together.
        cache: where decoded cases are kept for later commands, instead; None keeps none. It holds patient images.

    Raises:
        DataError: with every problem found, cases named by pseudonym alone.
        OutputError: the disk is full, or the cache can't be used.
        ProtocolError: `max_decoded` is less than the protocol's own input size needs.
    """
    name = partial(pseudonym, key, "case")
    room = room_for(max_decoded, protocol.input)
    listing = list_source(source, protocol, name, memory_limit, max_decoded)
    classes = check_classes(listing, protocol)
    require_kind(listing, protocol)
    if cache is not None and source.is_dir() and cache.resolve().is_relative_to(source.resolve()):
        raise OutputError("--cache lies inside the data, where it would be taken for cases; choose another place")
    folder = None if cache is None else view_folder(cache, protocol.input, key)
    with Store(folder, seal_key(key), scratch) as store:
        found = read_cases(listing, protocol.input, store, room=room, workers=workers, progress=progress)
    return _assembled(source, listing, found, classes, protocol, key)


def _of_items(items: Items, protocol: Protocol, key: bytes, scratch: Path | None, progress: Progress | None) -> Cohort:
    name = partial(pseudonym, key, "case")
    with Store(None, b"", scratch) as store:
        listing, found = take_items(items, protocol.input, store, name, progress)
    classes = check_classes(listing, protocol)
    require_kind(listing, protocol)
    try:
        return _assembled(None, listing, found, classes, protocol, key)
    except DataError as error:
        raise items.with_numbers(error, name) from None


def _assembled(
    source: Path | None,
    listing: Listing,
    found: Sequence[Kept | str],
    classes: tuple[str, ...],
    protocol: Protocol,
    key: bytes,
) -> Cohort:
    """Checks and splits the cases that were read.

    Args:
        source: where they lie; null where they are no files.
        listing: what there is.
        found: of each entry what is kept, or why it can't be used.
        classes: of the task.
        protocol: as `load_cohort` takes it.
        key: as `load_cohort` takes it.
    """
    name = partial(pseudonym, key, "case")
    results = [r if isinstance(r, str) else r.case for r in found]
    problems = list(listing.problems)
    problems += [_problem(e, r, name) for e, r in zip(listing.entries, results, strict=True) if isinstance(r, str)]
    kept = {n: r for n, r in enumerate(results) if isinstance(r, ReadCase)}
    shape, bad = shape_problems(kept)
    problems += [_problem(listing.entries[n], reason, name) for n, reason in bad.items()]
    kept = {n: r for n, r in kept.items() if n not in bad}
    labels = [_index(e.label, classes) for e in listing.entries]
    masked = [_indices(e.masked, classes) for e in listing.entries]
    bad = pixel_problems(kept, labels, masked, listing.entries, name)
    problems += [_problem(listing.entries[n], reason, name) for n, reason in bad.items()]
    kept = {n: r for n, r in kept.items() if n not in bad}
    total = len(listing.entries) + len(listing.problems) + len(listing.left_out)
    exclude = protocol.input.unusable == "exclude" and bool(kept)
    refuse(problems, total, exclude=exclude, counted=unclear_words(listing.findings))
    problems += listing.left_out
    numbers = list(kept)
    patients = name_patients([(listing.entries[n].patient, kept[n].patient) for n in numbers])
    members = [
        _member(listing.entries[n], kept[n], labels[n], masked[n], group)
        for n, group in zip(numbers, patients.groups, strict=True)
    ]
    names = [name(listing.entries[n].text) for n in numbers]
    stored = [case for n in numbers if isinstance(case := found[n], Kept)]
    inputs = Inputs([case.place for case in stored], shape)
    hashes = [] if farthest(protocol.splits) is None else input_hashes(stored, inputs)
    texts = [listing.entries[n].text for n in numbers] if source is not None and listing.source != "npz" else []
    given = [member.split for member in members]
    in_paths = patients_seen_in_paths(patients, texts, given, classes, protocol.splits)
    division = divide(members, patients, names, classes, hashes, inputs, protocol, in_paths.together)
    splits = division.splits
    members = one_patient_an_image(members)
    cases = tuple(
        _case(case, listing.entries[n], kept[n], member, identity, split, key)
        for case, n, member, identity, split in zip(names, numbers, members, patients.identities, splits, strict=True)
    )
    findings = (
        *listing.findings,
        *patient_findings(patients, names, splits, protocol.splits),
        *([in_paths.finding] if in_paths.finding is not None else []),
        *findings_of(kept, members, protocol, sum(not p.repeated for p in problems)),
        *masked_findings(members, classes),
        *chain_findings(division),
        *near_duplicate_findings(division.alike, names, splits, protocol.splits, total=division.pairs),
    )
    source_summary = _summary(cases, list(kept.values()))
    record = CohortRecord(
        classes=classes,
        source=listing.source,
        formats=source_summary.formats,
        splits_from=division.origin,
        grouped_by="patient" if patients.named else "case",
        unnamed=len(names) - patients.named,
        key_id=key_id(key),
        shape=shape,
        cases=tuple(CaseRecord(c.case, c.patient, c.split, c.label, c.pixels, c.masked) for c in cases),
        excluded=tuple(_excluded(p, classes) for p in problems),
        preprocessing=_fingerprint(protocol, shape, inputs[splits.index("test")], key),
        findings=findings,
        alike=_named(division.alike, names),
        copies=_named(division.copies, names),
    )
    identifiers = gather_identifiers(source, listing, results, protocol)
    return Cohort(classes, cases, inputs, record, source_summary, identifiers, seal_key(key))


def _named(pairs: Sequence[NearPair], names: Sequence[str]) -> tuple[AlikePair, ...]:
    return tuple(AlikePair(names[p.first], names[p.second], p.bits) for p in pairs)


def _index(label: str | tuple[str, ...], classes: tuple[str, ...]) -> Label:
    return classes.index(label) if isinstance(label, str) else _indices(label, classes)


def _indices(names: tuple[str, ...], classes: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(classes.index(name) for name in names)


def _problem(entry: Entry, reason: str, name: Callable[[str], str]) -> Problem:
    return Problem(name(entry.text), reason, entry.label, entry.split, masked=entry.masked)


def _excluded(problem: Problem, classes: tuple[str, ...]) -> ExcludedCase:
    """What goes on record of a case that is left out; a label that is no class's is none."""
    names = (problem.label,) if isinstance(problem.label, str) else problem.label
    known = names is not None and set(names) <= set(classes)
    label = _index(problem.label, classes) if known and problem.label is not None else None
    masked = _indices(problem.masked, classes) if label is not None else ()
    return ExcludedCase(problem.case, label, problem.split, problem.reason, problem.repeated, masked)


def _member(entry: Entry, case: ReadCase, label: Label, masked: tuple[int, ...], group: str) -> Member:
    """A case without a patient stands for itself, under a name that no patient has."""
    patient = f"patient\0{group}" if group else f"{NAMELESS}{entry.whole}"
    return Member(patient, label, case.pixels, entry.split, masked)


def _case(name: str, entry: Entry, read: ReadCase, member: Member, identity: str, split: str, key: bytes) -> Case:
    own = {name.lower() for name in entry.attributes}
    header = {name: value for name, value in read.attributes.items() if name not in own}
    return Case(
        case=name,
        patient=pseudonym(key, "patient", identity or member.patient),
        split=split,
        label=member.label,
        pixels=keyed_digest(key, "pixels", read.pixels),
        attributes={**entry.attributes, **header},
        masked=member.masked,
    )


def _summary(cases: tuple[Case, ...], read: list[ReadCase]) -> SourceSummary:
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        for column, value in case.attributes.items():
            values[column][value] += 1
    shown = {
        column: {f"({len(counts)} different values)": sum(counts.values())}
        if may_name_people(column, len(counts))
        else dict(sorted(counts.items()))
        for column, counts in values.items()
    }
    return SourceSummary(
        formats=dict(sorted(Counter(r.format for r in read).items())),
        native_shapes=dict(Counter("x".join(map(str, r.native)) for r in read).most_common()),
        stored_range=(min(r.low for r in read), max(r.high for r in read)),
        attributes=shown,
    )


def _fingerprint(protocol: Protocol, shape: tuple[int, ...], first: npt.NDArray[np.float32], key: bytes) -> str:
    """Names the preprocessing: the recipe, what it resolved to, and, keyed, what it made of the first test case."""
    made = hashlib.sha256(np.ascontiguousarray(first, dtype="<f4").tobytes()).hexdigest()
    said: dict[str, Any] = {
        "input": protocol.input.model_dump(mode="json"),
        "channels": shape[0],
        "shape": list(shape),
        "first_test_input": keyed_digest(key, "input", made),
    }
    return hashlib.sha256(rfc8785.dumps(said)).hexdigest()
