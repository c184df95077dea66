"""The outcome of comparing two models on the same cases, and what may be said where nothing varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.numerics import normal_tail, two_sided_quantile

__all__ = ["Difference", "Floats", "flags", "patient_codes", "unchanged_limit", "wald"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """New minus old, on the same cases.

    Attributes:
        estimate: the observed difference.
        interval: its lower and upper limit at `level`.
        level: two-sided.
        statistic: of the hypothesis of no difference; 0 where `degenerate`, unless the method has a score test.
        p_value: two-sided; 1 where the statistic is 0.
        cases, patients: how many.
        method: the interval's name and source.
        degenerate: no variation was observed, so there is no standard error. The interval then rests on the number of
            patients alone: it never shrinks to a point, and identical answers on few patients show little.
    """

    estimate: float
    interval: tuple[float, float]
    level: float
    statistic: float
    p_value: float
    cases: int
    patients: int
    method: str
    degenerate: bool = False


def wald(estimate: float, error: float, bound: float, level: float) -> tuple[tuple[float, float], float, float]:
    """Normal limits within -+`bound`, the statistic and its two-sided p.

    Args:
        estimate: the difference.
        error: its standard error, above 0.
        bound: the largest difference there can be.
        level: two-sided, in (0, 1).
    """
    half = two_sided_quantile(level) * error
    statistic = estimate / error
    limits = max(-bound, estimate - half), min(bound, estimate + half)
    return limits, statistic, 2.0 * normal_tail(abs(statistic))


def unchanged_limit(units: int, level: float) -> float:
    """The share of independent units that may still differ although none of so many did.

    1 - alpha^(1/n) with alpha = (1 - level) / 2: the exact upper limit of Clopper and Pearson for 0 of n.

    Args:
        units: n of 1 or more.
        level: two-sided, in (0, 1).
    """
    two_sided_quantile(level)
    return float(1.0 - ((1.0 - level) / 2.0) ** (1.0 / units))


def patient_codes(cases: int, patients: Sequence[str] | None) -> tuple[npt.NDArray[np.intp], int]:
    """Each case's patient as a number, and how many patients there are.

    Args:
        cases: N.
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: as many patients as cases were not given.
    """
    if patients is None:
        return np.arange(cases), cases
    if cases != len(patients):
        raise RangeError(f"expected one patient a case, got {len(patients)} patients for {cases} cases")
    names, codes = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    return codes, names.size


def flags(gained: npt.ArrayLike, lost: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Both as (N,) bool.

    Raises:
        RangeError: shapes that differ, or a case both gained and lost.
    """
    b, c = np.asarray(gained, dtype=np.bool_), np.asarray(lost, dtype=np.bool_)
    if b.ndim != 1 or b.shape != c.shape or bool(np.any(b & c)):
        raise RangeError(f"expected two flags a case that are never both true, got shapes {b.shape} and {c.shape}")
    return b, c
