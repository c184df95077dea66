"""Rows of the cases that were left out: of which class and split, why, and of how many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from medharden.record import CohortRecord, Label, present
from medharden.reporting.numbers import count, percent

__all__ = ["ExcludedRow", "excluded_rows"]


@dataclass(frozen=True)
class ExcludedRow:
    """Cases that were left out of one class and split for one reason.

    Attributes:
        name: the class, or the findings; `unknown` where the data don't tell.
        split: as the data give it, or `not split yet`.
        reason: why they can't be used.
        cases: how many.
        of: how many cases of that class, or of all where it is unknown, the split had before any was left out; where
            there was no split yet, how many there were in all.
    """

    name: str
    split: str
    reason: str
    cases: int
    of: int

    @property
    def share(self) -> str:
        """Such as `12 of 400 (3.0 %)`."""
        return f"{count(self.cases)} of {count(self.of)} ({percent(self.cases / self.of)})"


def excluded_rows(cohort: CohortRecord) -> tuple[ExcludedRow, ...]:
    """Cases left out by class, split and reason, the most frequent first."""
    here: Counter[tuple[Label | None, str]] = Counter()
    for label, split in (*((c.label, c.split) for c in cohort.cases), *((c.label, c.split) for c in cohort.lost)):
        # of this class or of any, in this split or in any: but once where that is the same
        here.update({(one, where) for one in (label, None) for where in (split, "")})
    counted = Counter((c.label, c.split, c.reason) for c in cohort.excluded)
    rows = [
        ExcludedRow(_name(cohort, label), split or "not split yet", reason, cases, max(here[label, split], cases))
        for (label, split, reason), cases in counted.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.cases, row.name, row.split, row.reason)))


def _name(cohort: CohortRecord, label: Label | None) -> str:
    if label is None:
        return "unknown"
    return ", ".join(cohort.classes[k] for k in present(label)) or "No finding"
