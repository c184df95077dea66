"""Tests of no difference on paired answers, plain and by patient, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.difference import Floats, flags, patient_codes
from medharden.stats.numerics import normal_tail

__all__ = ["clustered_mcnemar", "holm", "mcnemar"]


def mcnemar(gained: int, lost: int, *, exact: bool = True) -> float:
    """Two-sided p of McNemar's test that as many are gained as lost (Psychometrika 1947; 12: 153-157).

    Args:
        gained: b >= 0.
        lost: c >= 0.
        exact: the binomial tail doubled; otherwise chi square (b - c)^2 / (b + c) without continuity correction.

    Raises:
        RangeError: negative or broken counts.
    """
    if min(gained, lost) < 0 or gained != int(gained) or lost != int(lost):
        raise RangeError(f"expected whole counts of 0 or more, got {gained:g} and {lost:g}")
    total, fewer = int(gained + lost), int(min(gained, lost))
    if total == 0:
        return 1.0
    if not exact:
        return 2.0 * normal_tail(abs(gained - lost) / math.sqrt(total))
    tail, term = 0, 1
    for k in range(fewer + 1):
        tail += term
        term = term * (total - k) // (k + 1)
    # whole numbers until here: the ratio is exact for any count
    return min(1.0, 2 * tail / (1 << total))


def clustered_mcnemar(
    gained: npt.ArrayLike,
    lost: npt.ArrayLike,
    patients: Sequence[str] | None,
    *,
    variance: Literal["null", "mean"] = "null",
) -> tuple[float, float]:
    """McNemar's test by patient.

    (K - 1) / K * (sum_k d_k)^2 / V over K patients, with d_k = gained minus lost of patient k. V is sum d_k^2
    (Obuchowski, Stat Med 1998; 17: 1495-1507), or the mean of that and sum (d_k - n_k D)^2 (Yang et al., Biom J 2010;
    52: 638-652). It tests for any difference, not for non-inferiority.

    Args:
        gained: (N,) bool, only the new model is right.
        lost: (N,) bool, only the old one is.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        variance: `null` for Obuchowski's, `mean` for Yang's.

    Returns:
        Chi square on one degree of freedom, and its p; 0 and 1 where nothing varies.

    Raises:
        RangeError: shapes that differ, or a case both gained and lost.
    """
    b, c = flags(gained, lost)
    codes, count = patient_codes(b.size, patients)
    values = b.astype(np.float64) - c
    sums = np.bincount(codes, weights=values, minlength=count)
    spread = float(np.sum(sums**2))
    if spread == 0.0:
        return 0.0, 1.0
    if variance == "mean":
        centred = sums - np.bincount(codes, minlength=count) * values.mean()
        spread = 0.5 * (spread + float(np.sum(centred**2)))
    statistic = (count - 1) / count * float(sums.sum()) ** 2 / spread
    return statistic, 2.0 * normal_tail(math.sqrt(statistic))


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjusted p of claims of which any may pass (Holm, Scand J Stat 1979; 6: 65-70).

    Claims that must all pass (intersection-union) split no alpha and need no adjustment.

    Args:
        p_values: (M,) in [0, 1].

    Returns:
        (M,) adjusted, in the order given: a claim holds at alpha where its adjusted p is alpha at most.

    Raises:
        RangeError: what is no probability.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0.0) & (p <= 1.0)):  # written so that NaN fails
        raise RangeError(f"expected probabilities in [0, 1] in one row, got shape {p.shape}")
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    adjusted = np.empty_like(p)
    adjusted[order] = stepped
    return adjusted
