"""Rows on ordered grades: how far off the answers are, adjacent errors apart from distant ones, and kappa."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.reporting.numbers import count, percent
from medharden.reporting.source import COMPARED, RunRecords
from medharden.stats import quadratic_kappa

__all__ = ["grade_rows"]


def grade_rows(records: RunRecords) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What is counted, and each model's figure, the original's first; nothing where the classes are no grades."""
    table, grades = records.cases, len(records.evaluation.classes)
    if table is None or not records.protocol.task.ordinal:
        return ()
    answered = [table.subjects[name].predicted for name in COMPARED]
    off = [np.abs(one - table.label) for one in answered]
    n = len(table.label)
    rows = []
    for far in range(grades):
        said = "right" if far == 0 else f"{far} grade{'s' if far > 1 else ''} off"
        counts = [int((one == far).sum()) for one in off]
        rows.append((said, tuple(f"{count(found)} of {count(n)} ({percent(found / n)})" for found in counts)))
    rows.append(("mean grades off", tuple(f"{one.mean():.3f}" for one in off)))
    rows.append(("quadratic kappa", tuple(_kappa(one, table.label, grades) for one in answered)))
    return tuple(rows)


def _kappa(answers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], grades: int) -> str:
    try:
        return f"{quadratic_kappa(answers, labels, grades)[0]:.3f}"
    except RangeError:
        return "not defined"
