"""Scores against the truth over all thresholds, and probabilities against what happened: ROC and reliability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.proportions import wilson_interval

__all__ = ["ReliabilityBin", "calibration_error", "reliability", "roc_curve"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """The cases whose probability fell into one interval.

    Attributes:
        lower, upper: borders of the interval; the last holds its upper border.
        cases: how many.
        probability: their mean probability.
        happened: the share of them in which what was predicted is so.
        interval: 95 % Wilson interval of that share, cases taken as independent.
    """

    lower: float
    upper: float
    cases: int
    probability: float
    happened: float
    interval: tuple[float, float]


def roc_curve(scores: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Corners of the empirical ROC curve, from (0, 0) to (1, 1); cases of equal score make one slanted step.

    Args:
        scores: (N,) finite; higher speaks for positive.
        positive: (N,) bool, at least one of each kind.

    Returns:
        False positive rate and true positive rate, (M,) each, both rising.

    Raises:
        RangeError: shapes that differ, a score that is not finite, or a class without a case.
    """
    values, truth = _paired(scores, positive)
    if not truth.any() or truth.all():
        raise RangeError("a ROC curve needs a positive and a negative case at least")
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    true, false = np.cumsum(truth)[last], np.cumsum(~truth)[last]
    x = np.concatenate(([0.0], false / false[-1]))
    y = np.concatenate(([0.0], true / true[-1]))
    turns = (np.diff(x)[:-1] * np.diff(y)[1:] != np.diff(y)[:-1] * np.diff(x)[1:]).tolist()
    kept = np.array([True, *turns, True])
    return x[kept], y[kept]


def reliability(probabilities: npt.ArrayLike, happened: npt.ArrayLike, *, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Probabilities in bins of equal width against how often what was predicted is so; empty bins are left out.

    Args:
        probabilities: (N,) in [0, 1].
        happened: (N,) bool.
        bins: how many over [0, 1], one at least.

    Raises:
        RangeError: shapes that differ, or a probability outside [0, 1].
    """
    values, truth = _paired(probabilities, happened)
    if values.min() < 0 or values.max() > 1:
        raise RangeError(f"expected probabilities in [0, 1], got [{values.min():g}, {values.max():g}]")
    place = np.minimum((values * bins).astype(np.int64), bins - 1)
    found = []
    for k in np.unique(place).tolist():
        held = place == k
        cases, right = int(held.sum()), int(truth[held].sum())
        share, limits = right / cases, wilson_interval(right, cases)
        found.append(ReliabilityBin(k / bins, (k + 1) / bins, cases, float(values[held].mean()), share, limits))
    return tuple(found)


def calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Expected calibration error: the bins' absolute gaps, weighted by their cases (Naeini et al., AAAI 2015)."""
    cases = sum(b.cases for b in bins)
    return sum(b.cases * abs(b.happened - b.probability) for b in bins) / cases


def _paired(values: npt.ArrayLike, flags: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    numbers, truth = np.asarray(values, dtype=np.float64), np.asarray(flags, dtype=np.bool_)
    if numbers.ndim != 1 or numbers.shape != truth.shape or numbers.size == 0:
        raise RangeError(f"expected (N,) numbers and (N,) flags, N >= 1, got {numbers.shape} and {truth.shape}")
    if not np.isfinite(numbers).all():
        raise RangeError("expected finite numbers, got NaN or infinity")
    return numbers, truth
