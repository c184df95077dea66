"""The difference of balanced accuracies: the classes' Tango limits, joined by variance recovery."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.clusters import effective_cases
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
    (`noninferiority_test`). r_kl is 1 for k = l, and 0 for other classes unless patients have cases of both: then it is
    the correlation of the patients' sums of deviations, not below 0, and 1 where these don't vary.

    The statistic is the z at which the interval touches 0, as in a score test.

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
    tables = [_scaled(values[truth == k], None if names is None else names[truth == k].tolist()) for k in classes]
    related = _correlations([_sums(values[truth == k], codes[truth == k], count) for k in classes])
    shares = np.array([(gained - lost) / cases for gained, lost, cases in tables])
    estimate = float(shares.mean())

    def limits(z: float) -> tuple[float, float]:
        both = np.array([tango_limits(*table, z) for table in tables])
        below, above = shares - both[:, 0], both[:, 1] - shares
        joined = [math.sqrt(float(d @ related @ d)) / classes.size for d in (below, above)]
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


def _scaled(values: Floats, patients: list[str] | None) -> tuple[float, float, float]:
    """A class's counts gained and lost and its cases, on effective cases."""
    effective = effective_cases(values, patients)
    scale = effective / values.size
    return float((values > 0).sum()) * scale, float((values < 0).sum()) * scale, effective


def _sums(values: Floats, codes: npt.NDArray[np.intp], count: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Each patient's sum of deviations from the class's mean, and who has cases of the class."""
    deviations = np.bincount(codes, weights=values - values.mean(), minlength=count)
    return deviations.astype(np.float64), np.bincount(codes, minlength=count) > 0


def _correlations(parts: list[tuple[Floats, npt.NDArray[np.bool_]]]) -> Floats:
    """r_kl of all pairs of classes."""
    related = np.eye(len(parts))
    for i, (one, has_one) in enumerate(parts):
        for j, (other, has_other) in enumerate(parts[:i]):
            size = math.sqrt(float(one @ one) * float(other @ other))
            shared = bool(np.any(has_one & has_other))
            related[i, j] = related[j, i] = max(0.0, float(one @ other) / size) if size > 0.0 else float(shared)
    return related
