"""Rows of a multi-label task: each finding's AUROC, sensitivity and specificity, clean and under attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medharden.reporting.numbers import count, percent, percent_interval
from medharden.reporting.robust import subject_label
from medharden.reporting.source import COMPARED, RunRecords
from medharden.stats import auroc, wilson_interval

__all__ = ["FindingFigures", "FindingRow", "finding_figures", "finding_rows"]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FindingFigures:
    """One finding under one subject, on the attacked cases; a pair is clean and under attack.

    Attributes:
        finding, subject: names.
        positives, negatives: attacked cases with and without the finding; of others nobody knows.
        auroc: None where all cases or none have the finding.
        sensitive, specific: how many positives, and negatives, are answered rightly.
    """

    finding: str
    subject: str
    positives: int
    negatives: int
    auroc: tuple[float, float] | None
    sensitive: tuple[int, int]
    specific: tuple[int, int]

    def as_json(self) -> dict[str, Any]:
        """Plain values, with Wilson intervals at 95 %."""
        shares = (("sensitivity", self.sensitive, self.positives), ("specificity", self.specific, self.negatives))
        return {
            "finding": self.finding,
            "subject": self.subject,
            "positives": self.positives,
            "negatives": self.negatives,
            "auroc": None if self.auroc is None else {"clean": self.auroc[0], "attacked": self.auroc[1]},
            **{name: _share(rights, cases) for name, rights, cases in shares},
        }


@dataclass(frozen=True)
class FindingRow:
    """One finding, formatted: each model with its AUROC, sensitivity and specificity as (clean, attacked, interval)."""

    name: str
    cases: str
    models: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]


def finding_figures(records: RunRecords) -> tuple[FindingFigures, ...]:
    """Every finding under original and release, in the order of the model's outputs; none for classes."""
    cases = records.cases
    if cases is None or not cases.multilabel:
        return ()
    found = []
    for k, name in enumerate(records.evaluation.classes):
        rows = cases.attacked & cases.known[:, k]
        truth = cases.label[rows, k] == 1
        for subject in COMPARED:
            table = cases.subjects[subject]
            if table.findings is None:
                continue
            right, kept = table.predicted[rows, k] == cases.label[rows, k], table.findings.robust[rows, k]
            areas = None
            if truth.any() and not truth.all():
                attacked = table.findings.attacked_probabilities[rows, k]
                areas = (auroc(table.probabilities[rows, k], truth), auroc(attacked, truth))
            found.append(
                FindingFigures(
                    finding=name,
                    subject=subject,
                    positives=int(truth.sum()),
                    negatives=int((~truth).sum()),
                    auroc=areas,
                    sensitive=(_both(right, truth), _both(kept, truth)),
                    specific=(_both(right, ~truth), _both(kept, ~truth)),
                )
            )
    return tuple(found)


def finding_rows(figures: tuple[FindingFigures, ...]) -> tuple[FindingRow, ...]:
    """One row a finding, original before release."""
    rows = []
    for name in dict.fromkeys(f.finding for f in figures):
        own = [f for f in figures if f.finding == name]
        said = f"{count(own[0].positives)} with, {count(own[0].negatives)} without"
        rows.append(FindingRow(name, said, tuple((subject_label(f.subject), _cells(f)) for f in own)))
    return tuple(rows)


def _cells(f: FindingFigures) -> tuple[tuple[str, str, str], ...]:
    areas = ("–", "–", "") if f.auroc is None else (f"{f.auroc[0]:.3f}", f"{f.auroc[1]:.3f}", "")
    shares = [_cell(rights, cases) for rights, cases in ((f.sensitive, f.positives), (f.specific, f.negatives))]
    return areas, shares[0], shares[1]


def _cell(rights: tuple[int, int], cases: int) -> tuple[str, str, str]:
    if cases == 0:
        return "–", "–", ""
    return percent(rights[0] / cases), percent(rights[1] / cases), percent_interval(wilson_interval(rights[1], cases))


def _share(rights: tuple[int, int], cases: int) -> dict[str, Any] | None:
    if cases == 0:
        return None
    clean, attacked = (list(wilson_interval(right, cases)) for right in rights)
    return {
        "clean": rights[0] / cases,
        "clean_interval": clean,
        "attacked": rights[1] / cases,
        "attacked_interval": attacked,
    }


def _both(one: Flags, other: Flags) -> int:
    return int((one & other).sum())
