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
    sets = sorted(same.values(), key=lambda rows: rows[0])
    kept = [rows[0] for rows in sets]
    subjects = {name: _once(subject, cases.attacked, sets) for name, subject in cases.subjects.items()}
    return CaseTable(
        case=tuple(cases.case[n] for n in kept),
        patient=tuple(clusters.unit[cases.case[n]] for n in kept),
        label=cases.label[kept],
        attacked=np.array([cases.attacked[rows].any() for rows in sets]),
        subjects=subjects,
        groups={name: tuple(values[n] for n in kept) for name, values in cases.groups.items()},
        shift=tuple(_shift_once(answers, kept) for answers in cases.shift),
    )


def _shift_once(answers: ShiftedAnswers, kept: list[int]) -> ShiftedAnswers:
    return replace(
        answers,
        original=answers.original[kept],
        composite=answers.composite[kept],
        referred=answers.referred[kept],
    )


def _once(subject: SubjectTable, attacked: Flags, sets: list[list[int]]) -> SubjectTable:
    """A subject's rows, one for each set of identical images."""
    kept = [rows[0] for rows in sets]
    fallen = attacked & ~subject.robust
    worst = [next((n for n in rows if fallen[n]), rows[0]) for rows in sets]
    under_attack = subject.referred_attacked
    return SubjectTable(
        predicted=subject.predicted[kept],
        probabilities=subject.probabilities[kept],
        robust=_standing(subject.robust, attacked, sets),
        won_by=tuple(subject.won_by[n] for n in worst),
        referred=np.array([subject.referred[rows].any() for rows in sets]),
        findings=None if subject.findings is None else _findings_once(subject.findings, attacked, sets),
        referred_attacked=None if under_attack is None else np.array([under_attack[rows].any() for rows in sets]),
        withstands=None if subject.withstands is None else _least(subject.withstands, attacked, sets),
    )


def _least(withstands: npt.NDArray[np.float64], attacked: Flags, sets: list[list[int]]) -> npt.NDArray[np.float64]:
    """Of each set, what that attacked one withstands which falls first; -1 where none was attacked."""
    return np.array([min((withstands[n] for n in rows if attacked[n]), default=-1.0) for rows in sets])


def _findings_once(found: FindingTable, attacked: Flags, sets: list[list[int]]) -> FindingTable:
    robust = np.stack([_standing(found.robust[:, k], attacked, sets) for k in range(found.robust.shape[1])], axis=1)
    return FindingTable(robust, found.attacked_probabilities[[rows[0] for rows in sets]])


def _standing(robust: Flags, attacked: Flags, sets: list[list[int]]) -> Flags:
    """Of each set, whether one was attacked and all that were stand."""
    fallen = attacked & ~robust
    return np.array([bool(attacked[rows].any() and not fallen[rows].any()) for rows in sets])


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
