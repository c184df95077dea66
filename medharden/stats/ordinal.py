"""Ordered grades, old answers against new, by patient: mean absolute error, and kappa with quadratic weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.difference import Difference, Floats
from medharden.stats.means import difference_by_patient, influence_difference

__all__ = ["grade_error_difference", "quadratic_kappa", "quadratic_kappa_difference"]


def grade_error_difference(
    answers_new: npt.ArrayLike,
    answers_old: npt.ArrayLike,
    labels: npt.ArrayLike,
    grades: int,
    *,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> Difference:
    """Mean absolute error of the new answers minus that of the old, in grades; below 0 is better.

    Limits as `brier_difference`, of a mean of values within -+(grades - 1).

    Args:
        answers_new: (N,) whole, in [0, grades).
        answers_old: (N,) the same.
        labels: (N,) the same.
        grades: how many, two at least.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: shapes that differ, what is no grade, or fewer than two patients.
    """
    new, old, truth = _graded(grades, answers_new, answers_old, labels)
    return difference_by_patient(np.abs(new - truth) - np.abs(old - truth), grades - 1.0, level, patients)


def quadratic_kappa(answers: npt.ArrayLike, labels: npt.ArrayLike, grades: int) -> tuple[float, Floats]:
    """Cohen's kappa with quadratic weights, and each case's influence on it.

    kappa = 1 - A / B with A the mean of (x - y)^2 over cases and B its mean over all pairs of an answer and a label
    (Cohen, Psychol Bull 1968; 70: 213-220): what chance would give with the same margins. The influence of a case is

        -(a - A) / B + A (b - 2 B) / B^2,    a = (x - y)^2,    b = mean_j (x - y_j)^2 + mean_j (x_j - y)^2,

    and the root of the mean square over N is the standard error of Fleiss, Cohen & Everitt (Psychol Bull 1969; 72:
    323-327).

    Args:
        answers: (N,) whole, in [0, grades).
        labels: (N,) the same.
        grades: how many, two at least.

    Returns:
        kappa, 1 at most, and (N,) influences that add up to 0.

    Raises:
        RangeError: shapes that differ, what is no grade, or answers and labels that are all one grade.
    """
    return _kappa(*_graded(grades, answers, labels))


def _kappa(x: Floats, y: Floats) -> tuple[float, Floats]:
    a = (x - y) ** 2
    b = (x - y.mean()) ** 2 + y.var() + (y - x.mean()) ** 2 + x.var()
    chance = _chance(x, y)
    if chance <= 0.0:
        raise RangeError("kappa is not defined where all answers and labels are one grade")
    off = float(a.mean())
    influence: Floats = -(a - off) / chance + off * (b - 2.0 * chance) / chance**2
    return 1.0 - off / chance, influence


def quadratic_kappa_difference(
    answers_new: npt.ArrayLike,
    answers_old: npt.ArrayLike,
    labels: npt.ArrayLike,
    grades: int,
    *,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> Difference:
    """Quadratic kappa of the new answers minus that of the old, on the same cases; above 0 is better.

    The influences of both are subtracted case by case and added by patient, so the pairing and the patient are in the
    standard error. The limits are those of `influence_limits`: none of K unlike patients was seen, so a share of
    1 - alpha^(1/K) at most is, whose answers could be as far off as their grades allow: by mean_j max(y_j, grades - 1 -
    y_j)^2 / B of kappa, were they all.

    Args:
        answers_new: (N,) whole, in [0, grades).
        answers_old: (N,) the same.
        labels: (N,) the same.
        grades: how many, two at least.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: as `quadratic_kappa`, or fewer than two patients.
    """
    new, old, truth = _graded(grades, answers_new, answers_old, labels)
    (after, moved), (before, still) = (_kappa(x, truth) for x in (new, old))
    furthest = float((np.maximum(truth, grades - 1.0 - truth) ** 2).mean())
    bound = max(2.0, furthest / min(_chance(new, truth), _chance(old, truth)))
    found = influence_difference(after - before, moved - still, bound, level, patients)
    method = "quadratic kappa (Cohen 1968), paired" + ("" if found.patients == found.cases else ", by patient")
    return replace(found, method=f"{method}; {found.method}")


def _chance(x: Floats, y: Floats) -> float:
    """The mean of (x - y)^2 over all pairs."""
    return float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def _graded(grades: int, *given: npt.ArrayLike) -> tuple[Floats, ...]:
    """(N,) each, as numbers."""
    values = [np.asarray(one) for one in given]
    shapes = {value.shape for value in values}
    if len(shapes) != 1 or values[0].ndim != 1 or values[0].size == 0 or grades < 2:
        raise RangeError(f"expected (N,) grades each, and two grades or more; got {[v.shape for v in values]}")
    for value in values:
        if not np.issubdtype(value.dtype, np.integer) or value.min() < 0 or value.max() >= grades:
            raise RangeError(f"expected whole grades in [0, {grades})")
    return tuple(value.astype(np.float64) for value in values)
