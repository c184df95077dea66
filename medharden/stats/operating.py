"""The threshold that brings a model to a sensitivity or a specificity on cases at hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError

__all__ = ["threshold_at"]

_ROUNDING = 1e-9  # .9 of 10 cases are 9, whatever the product rounds to


def threshold_at(scores: npt.ArrayLike, positive: npt.ArrayLike, *, fixed: str, at: float) -> float:
    """The score from which the positive class is to be called, so that so many cases of the fixed side come out right.

    For `specificity` the lowest such threshold, so that sensitivity is as high as it can be: k = ceil(at n) of n
    negatives score below it. For `sensitivity` the highest: k positives score at it or above. It lies halfway to the
    next score of any case, so that rounding does not move a case across it.

    Args:
        scores: (N,) finite; higher speaks for positive.
        positive: (N,) bool, at least one of each kind.
        fixed: `specificity` or `sensitivity`.
        at: in (0, 1).

    Raises:
        RangeError: shapes that differ, a score that is not finite, a side without a case, or `at` outside (0, 1).
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    if values.ndim != 1 or values.shape != truth.shape or not np.isfinite(values).all():
        raise RangeError(f"expected (N,) finite scores and (N,) flags, got {values.shape} and {truth.shape}")
    if not truth.any() or truth.all() or not 0.0 < at < 1.0:
        raise RangeError(f"expected a positive and a negative case, and a share in (0, 1); got {at:g}")
    side = np.sort(values[~truth] if fixed == "specificity" else -values[truth])
    edge = float(side[math.ceil(at * side.size - _ROUNDING) - 1])
    if fixed == "specificity":
        above = values[values > edge]
        return float((edge + above.min()) / 2.0) if above.size else float(np.nextafter(edge, np.inf))
    edge = -edge
    below = values[values < edge]
    return float((edge + below.max()) / 2.0) if below.size else edge
