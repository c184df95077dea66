"""The difference of balanced accuracies: the classes' Tango limits, joined by variance recovery."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.clusters import scaled_counts
from medharden.stats.difference import Difference, Floats, flags, patient_codes
from medharden.stats.numerics import bisect, normal_tail, two_sided_quantile
from medharden.stats.paired import tango_limits

__all__ = ["balanced_accuracy_difference"]

_FARTHEST = 38.0  # a normal tail beyond is 0 in floating point


def balanced_accuracy_difference(
    gained: npt.ArrayLike,
    lost: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> Difference:
    """Mean over classes of the new model's recall minus the old one's, on the same cases.

    MOVER (Zou & Donner, Stat Med 2008; 27: 1693-1702): with d_k, l_k and u_k the difference of class k and its Tango
    limits, the lower limit of the mean of C classes is d - sqrt(sum_kl r_kl (d_k - l_k)(d_l - l_l)) / C, the upper
    one alike. Where a patient has several cases of a class, its limits are taken on effective cases
    (`noninferiority_test`). r_kl is the largest correlation that two classes can have through shared patients, reached
    where each patient's cases all go one way: the cosine between patients' numbers of cases of k and of l. It is 1 for
    k = l, 0 where no patient has both, and does not depend on answers, so a lost case can't lower it.

    The statistic is the z at which the interval touches 0, as in a score test, on the effective cases of `level`.

    Args:
        gained: (N,) bool, only the new model is right.
        lost: (N,) bool, only the old one is.
        labels: (N,) class of each case; the classes are those that occur, two at least.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: shapes that differ, a case both gained and lost, or fewer than two classes.
    """
    b, c = flags(gained, lost)
    truth = np.asarray(labels)
    classes = np.unique(truth)
    if truth.shape != b.shape or classes.size < 2:
        raise RangeError(f"expected a label a case and two classes at least, got {classes.size} in {truth.shape}")
    codes, count = patient_codes(b.size, patients)
    values = b.astype(np.float64) - c
    names = None if patients is None else np.asarray(patients, dtype=np.str_)
    parts = [(values[truth == k], None if names is None else names[truth == k].tolist()) for k in classes]
    below, above = ([scaled_counts(v, who, level=level, lower=side) for v, who in parts] for side in (True, False))
    related = _overlaps([np.bincount(codes[truth == k], minlength=count).astype(np.float64) for k in classes])
    shares = np.array([v.mean() for v, _ in parts])
    estimate = float(shares.mean())

    def limits(z: float) -> tuple[float, float]:
        low = shares - np.array([tango_limits(*table, z)[0] for table in below])
        high = np.array([tango_limits(*table, z)[1] for table in above]) - shares
        joined = [math.sqrt(float(d @ related @ d)) / classes.size for d in (low, high)]
        return max(-1.0, estimate - joined[0]), min(1.0, estimate + joined[1])

    size = abs(estimate)
    side = 0 if estimate > 0.0 else 1
    statistic = (
        bisect(lambda z: (limits(z)[side] > 0.0) == (side == 0), 0.0, _FARTHEST, tolerance=1e-9) if size else 0.0
    )
    method = "MOVER over the classes' Tango limits (Zou & Donner 2008, Tango 1998)"
    if count < b.size:
        method += " on effective cases (by patient)"
    return Difference(
        estimate=estimate,
        interval=limits(two_sided_quantile(level)),
        level=level,
        statistic=math.copysign(statistic, estimate),
        p_value=2.0 * normal_tail(statistic),
        cases=b.size,
        patients=count,
        method=method,
        degenerate=not bool(np.any(values)),
    )


def _overlaps(sizes: list[Floats]) -> Floats:
    """r_kl of all pairs of classes, from how many cases each patient has of each."""
    unit = np.stack([n / math.sqrt(float(n @ n)) for n in sizes])
    return np.asarray(unit @ unit.T)
