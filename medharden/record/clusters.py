"""The unit of analysis: patients, of whom those whose images are copies of each other's count as one.

All endpoints take their cases and patients from here. Of identical images one case is left, so that a copy adds
nothing at all; images that only look alike stay, as cases of one unit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medharden.record.cohort import CohortRecord
from medharden.record.evaluation import CaseTable, FindingTable, ShiftedAnswers, SubjectTable

__all__ = ["Clusters", "by_unit", "clusters_of", "joined"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Clusters:
    """The test cases as independent units.

    Attributes:
        unit: case to its cluster's name: its patient's pseudonym, or of several patients whom copies join the least.
        copies: sets of cases that are identical or look like copies of one image, the largest first; pseudonyms.
        identical: how many cases have the pixels of another.
        patients: how many patients there are.
        largest: how many cases the largest cluster has that copies make of several patients; 0 where there is none.
    """

    unit: dict[str, str]
    copies: tuple[tuple[str, ...], ...]
    identical: int
    patients: int
    largest: int

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(set(self.unit.values()))


def clusters_of(cohort: CohortRecord, is_copy: Callable[[str, str, int], bool]) -> Clusters:
    """The clusters of the test split; identical pixels are told from their digests, whatever the record says of copies.

    Args:
        cohort: the cases, and what looks alike among those of the test split.
        is_copy: whether two cases, by pseudonym, count as copies at so many bits of difference (`Splits.is_copy`).
    """
    cases = cohort.split("test")
    row = {case.case: n for n, case in enumerate(cases)}
    by_pixels = _repeats(case.pixels for case in cases)
    by_look = [
        (row[p.case], row[p.other])
        for p in cohort.copies
        if p.case in row and p.other in row and is_copy(p.case, p.other, p.bits)
    ]
    copies = joined(len(cases), [*by_pixels, *by_look])
    sets = joined(len(cases), [*by_pixels, *by_look, *_repeats(case.patient for case in cases)])
    patients: dict[int, set[str]] = defaultdict(set)
    for case, of in zip(cases, sets, strict=True):
        patients[of].add(case.patient)
    sizes, names = Counter(sets), {of: min(members) for of, members in patients.items()}
    alike: dict[int, list[str]] = defaultdict(list)
    for case, of in zip(cases, copies, strict=True):
        alike[of].append(case.case)
    pixels = Counter(case.pixels for case in cases)
    return Clusters(
        unit={case.case: names[of] for case, of in zip(cases, sets, strict=True)},
        copies=tuple(sorted((tuple(a) for a in alike.values() if len(a) > 1), key=lambda a: (-len(a), a))),
        identical=sum(n for n in pixels.values() if n > 1),
        patients=len({case.patient for case in cases}),
        largest=max((sizes[of] for of, members in patients.items() if len(members) > 1), default=0),
    )


def by_unit(cases: CaseTable, cohort: CohortRecord, clusters: Clusters) -> CaseTable:
    """The table with each image once, and each case's cluster in the place of its patient.

    Of cases with the same pixels, label and masked findings the first of the cohort's stays. It was attacked if any of
    them was, stands only where all that were attacked stand, with each finding too, and was referred if any was.
    (Under a corruption what is drawn is drawn from the pixels, so that equal images stay equal.)
    """
    row = {case: n for n, case in enumerate(cases.case)}
    same: dict[tuple[str, object, object], list[int]] = defaultdict(list)
    for case in cohort.split("test"):
        same[case.pixels, case.label, case.masked].append(row[case.case])
    sets = _Sets.of(sorted(same.values(), key=lambda rows: rows[0]))
    kept = sets.first.tolist()
    return CaseTable(
        case=tuple(cases.case[n] for n in kept),
        patient=tuple(clusters.unit[cases.case[n]] for n in kept),
        label=cases.label[kept],
        attacked=sets.any(cases.attacked),
        subjects={name: _once(subject, cases.attacked, sets) for name, subject in cases.subjects.items()},
        groups={name: tuple(values[n] for n in kept) for name, values in cases.groups.items()},
        shift=tuple(_shift_once(answers, sets) for answers in cases.shift),
    )


@dataclass(frozen=True)
class _Sets:
    """Rows in sets, one set after the other, and where in them each set starts."""

    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @staticmethod
    def of(sets: list[list[int]]) -> _Sets:
        ends = np.cumsum([len(rows) for rows in sets], dtype=np.int64)
        rows = np.fromiter((n for rows in sets for n in rows), dtype=np.int64)
        return _Sets(rows, np.concatenate([np.zeros(1, dtype=np.int64), ends])[: len(sets)])

    @property
    def first(self) -> npt.NDArray[np.int64]:
        """Each set's first row."""
        return self.rows[self.starts]

    def first_of(self, flags: Flags) -> npt.NDArray[np.int64]:
        """Each set's first row that is flagged, else its first."""
        flagged = np.where(flags[self.rows], np.arange(len(self.rows)), len(self.rows))
        at = np.minimum.reduceat(flagged, self.starts)
        return self.rows[np.where(at < len(self.rows), at, self.starts)]

    def any(self, flags: Flags) -> Flags:
        """Whether any of a set is flagged."""
        return np.logical_or.reduceat(flags[self.rows], self.starts)

    def standing(self, robust: Flags, attacked: Flags) -> Flags:
        """Whether one of a set was attacked and all that were stand."""
        return self.any(attacked) & ~self.any(attacked & ~robust)

    def least(self, withstands: npt.NDArray[np.float64], attacked: Flags) -> npt.NDArray[np.float64]:
        """What that attacked one of a set withstands which falls first; -1 where none was attacked."""
        least = np.minimum.reduceat(np.where(attacked, withstands, np.inf)[self.rows], self.starts)
        return np.where(self.any(attacked), least, -1.0)


def _shift_once(answers: ShiftedAnswers, sets: _Sets) -> ShiftedAnswers:
    return replace(
        answers,
        original=answers.original[sets.first],
        composite=answers.composite[sets.first],
        referred=answers.referred[sets.first],
    )


def _once(subject: SubjectTable, attacked: Flags, sets: _Sets) -> SubjectTable:
    """A subject's rows, one for each set of identical images."""
    under_attack = subject.referred_attacked
    return SubjectTable(
        predicted=subject.predicted[sets.first],
        probabilities=subject.probabilities[sets.first],
        robust=sets.standing(subject.robust, attacked),
        won_by=tuple(subject.won_by[n] for n in sets.first_of(attacked & ~subject.robust)),
        referred=sets.any(subject.referred),
        findings=None if subject.findings is None else _findings_once(subject.findings, attacked, sets),
        referred_attacked=None if under_attack is None else sets.any(under_attack),
        withstands=None if subject.withstands is None else sets.least(subject.withstands, attacked),
    )


def _findings_once(found: FindingTable, attacked: Flags, sets: _Sets) -> FindingTable:
    robust = np.stack([sets.standing(found.robust[:, k], attacked) for k in range(found.robust.shape[1])], axis=1)
    return FindingTable(robust, found.attacked_probabilities[sets.first])


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The set that each of `count` things is in, where pairs are in one set; a set is named by its least member."""
    parent = list(range(count))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(n) for n in range(count)]


def _repeats(values: Iterable[str]) -> list[tuple[int, int]]:
    """Each place at which a value comes again, with its first place."""
    first: dict[str, int] = {}
    return [(first[v], n) for n, v in enumerate(values) if first.setdefault(v, n) != n]
