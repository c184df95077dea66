"""Clean answers under ordinary corruptions: their counts, and one corruption's table in the clean one's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medharden.record.evaluation import CaseTable, ShiftedAnswers, ShiftPoint, SubjectTable

__all__ = ["point_of", "under"]

_SHOWN = ("original", "composite")


def point_of(answers: ShiftedAnswers, cases: CaseTable) -> ShiftPoint:
    """The counts of one corruption at one severity."""
    table = _table(cases, answers)
    before, after = (table.right(name) for name in _SHOWN)
    return ShiftPoint(
        corruption=answers.corruption,
        severity=answers.severity,
        cases=len(table.case),
        original_correct=int(before.sum()),
        gained=int((after & ~before).sum()),
        lost=int((before & ~after).sum()),
        referred=int(answers.referred.sum()),
    )


def under(cases: CaseTable, corruption: str) -> CaseTable | None:
    """The table with the answers under one corruption in the place of the clean ones, its severities one after another.

    Original and composite alone are in it, and nothing of attacks or probabilities. Null where it was not measured.
    """
    tables = [_table(cases, answers) for answers in cases.shift if answers.corruption == corruption]
    if not tables:
        return None
    first, times = tables[0], len(tables)
    return CaseTable(
        case=first.case * times,
        patient=first.patient * times,
        label=_joined([t.label for t in tables]),
        attacked=_joined([t.attacked for t in tables]),
        subjects={name: _subjects_joined([t.subjects[name] for t in tables]) for name in _SHOWN},
    )


def _table(cases: CaseTable, answers: ShiftedAnswers) -> CaseTable:
    nobody, nothing = np.zeros(len(cases.case), dtype=np.bool_), np.zeros((len(cases.case), 0))

    def subject(predicted: npt.NDArray[np.int64], referred: npt.NDArray[np.bool_]) -> SubjectTable:
        return SubjectTable(predicted, nothing, nobody, ("",) * len(nobody), referred)

    subjects = {
        "original": subject(answers.original, nobody),
        "composite": subject(answers.composite, answers.referred),
    }
    return replace(cases, attacked=nobody, subjects=subjects, groups={}, shift=())


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(parts)


def _subjects_joined(parts: list[SubjectTable]) -> SubjectTable:
    return SubjectTable(
        predicted=_joined([p.predicted for p in parts]),
        probabilities=_joined([p.probabilities for p in parts]),
        robust=_joined([p.robust for p in parts]),
        won_by=tuple(won for p in parts for won in p.won_by),
        referred=_joined([p.referred for p in parts]),
    )
