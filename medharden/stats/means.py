"""Differences of means by patient, with Student's t: Brier scores, and proportions as the cross-check of Tango."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.clusters import patient_weight
from medharden.stats.difference import Difference, Floats, flags, known_labels, patient_codes
from medharden.stats.influence import influence_limits, unseen_share, variance_of
from medharden.stats.numerics import student_quantile, student_tail

__all__ = [
    "brier_difference",
    "cluster_t_difference",
    "difference_by_patient",
    "finding_brier_difference",
    "influence_difference",
]

_SAME = 1e-6  # what float32 probabilities differ by without meaning it
_NO_ERROR = 1e-12  # a standard error that rounding alone makes


def cluster_t_difference(
    gained: npt.ArrayLike, lost: npt.ArrayLike, *, level: float = 0.95, patients: Sequence[str] | None = None
) -> Difference:
    """Difference of two paired proportions with cluster-robust t limits, t of K - 1 degrees of freedom.

    The cross-check of `noninferiority_test` where many cases are discordant; the limits are those of
    `influence_limits`. It must not decide alone: that few discordant patients are all there are, it takes from these.

    Args:
        gained: (N,) bool, only the new model is right.
        lost: (N,) bool, only the old one is.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: shapes that differ, a case both gained and lost, or fewer than two patients.
    """
    b, c = flags(gained, lost)
    return difference_by_patient(b.astype(np.float64) - c, 1.0, level, patients)


def brier_difference(
    probabilities_new: npt.ArrayLike,
    probabilities_old: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> Difference:
    """Brier score of the new probabilities minus that of the old; below 0 is better.

    The score of a case is its squared error summed over classes, in [0, 2] (Brier, Mon Weather Rev 1950; 78: 1-3): for
    two classes twice what is often given. The difference of a case is averaged over cases, and its standard error is
    taken by patient; with one case a patient this is the paired t-test.

    The limits are those of `influence_limits`: corrected for skewness, since few cases that get much worse hide from a
    small sample. Whatever varies, none of K unlike patients was seen, so at most 1 - alpha^(1/K) of patients are, each
    by as much as a score can move. Equal probabilities have these limits.

    Args:
        probabilities_new: (N, C) in [0, 1], each row adds up to 1.
        probabilities_old: (N, C), the same.
        labels: (N,) class of each case, in [0, C).
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: shapes that differ, what is no probability, a label outside the classes, or fewer than two patients.
    """
    new, old = np.asarray(probabilities_new, dtype=np.float64), np.asarray(probabilities_old, dtype=np.float64)
    truth = np.asarray(labels)
    if new.ndim != 2 or new.shape != old.shape or truth.shape != new.shape[:1]:
        raise RangeError(
            f"expected (N, C) probabilities twice and (N,) labels, got {new.shape}, {old.shape} and {truth.shape}"
        )
    for given in (new, old):
        # written so that NaN fails
        if not (np.all(given >= 0.0) and np.all(np.abs(given.sum(axis=1) - 1.0) <= 1e-3)):
            raise RangeError("expected probabilities of 0 or more that add up to 1 within 0.001")
    if not np.issubdtype(truth.dtype, np.integer) or np.any((truth < 0) | (truth >= new.shape[1])):
        raise RangeError(f"expected whole labels in [0, {new.shape[1]})")
    right = np.arange(new.shape[1]) == truth[:, None]
    return difference_by_patient(((new - right) ** 2 - (old - right) ** 2).sum(axis=1), 2.0, level, patients)


def finding_brier_difference(
    probabilities_new: npt.ArrayLike,
    probabilities_old: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    known: npt.ArrayLike | None = None,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> Difference:
    """Brier score of several findings, new minus old: (p - y)^2 averaged over findings, in [0, 1]; below 0 is better.

    As `brier_difference`, with the mean over its known findings as a case's score: a patient's findings move together,
    and the standard error is taken by patient.

    Args:
        probabilities_new: (N, L) in [0, 1].
        probabilities_old: (N, L), the same.
        labels: (N, L) bool.
        known: (N, L) bool, which labels count; in each row one at least. Null takes all.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: shapes that differ, what is no probability, or fewer than two patients.
    """
    new, old = np.asarray(probabilities_new, dtype=np.float64), np.asarray(probabilities_old, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.bool_)
    if truth.ndim != 2 or new.shape != truth.shape or old.shape != truth.shape:
        raise RangeError(f"expected (N, L) probabilities and labels, got {new.shape}, {old.shape} and {truth.shape}")
    for given in (new, old):
        # written so that NaN fails
        if not np.all((given >= 0.0) & (given <= 1.0)):
            raise RangeError("expected probabilities in [0, 1]")
    change, mask = (new - truth) ** 2 - (old - truth) ** 2, known_labels(known, truth)
    if not mask.any(axis=1).all():
        raise RangeError("each case needs a label that counts")
    return difference_by_patient(change.mean(axis=1, where=mask), 1.0, level, patients)


def difference_by_patient(values: Floats, bound: float, level: float, patients: Sequence[str] | None) -> Difference:
    """The mean of paired differences within -+bound, with limits by patient.

    Args:
        values: (N,) new minus old.
        bound: the largest absolute value there can be.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: fewer than two patients.
    """
    mean = float(values.mean()) if values.size else 0.0
    found = influence_difference(mean, values - mean, bound, level, patients)
    method = "paired t" if found.patients == found.cases else "cluster-robust t by patient (Obuchowski 1998)"
    found = replace(found, method=f"{method}; limits corrected for skewness")
    if float(np.ptp(values)) > _SAME:
        return found
    return replace(found, statistic=0.0, p_value=1.0, degenerate=True, error=0.0)


def influence_difference(
    value: float, influences: Floats, bound: float, level: float, patients: Sequence[str] | None
) -> Difference:
    """A paired difference with the limits of `influence_limits`, influences added by patient, and Student's t.

    Args:
        value: new minus old, in [-bound, bound].
        influences: (N,) of each case on it; they add up to 0.
        bound: the largest absolute value there can be.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: fewer than two patients.
    """
    n = influences.size
    codes, count = patient_codes(n, patients)
    if count < 2:
        raise RangeError(f"a difference by patient needs two patients at least, got {count}")
    groups = [np.bincount(codes, weights=influences, minlength=count) / n * np.sqrt(count / (count - 1))]
    unseen = unseen_share(n / patient_weight(np.bincount(codes), level=level), level)
    t = student_quantile(level, count - 1)
    lower, upper = influence_limits(value, groups, quantile=t, unseen=unseen, bound=bound)
    error = float(np.sqrt(variance_of(groups)))
    degenerate = error < _NO_ERROR
    statistic = 0.0 if degenerate else value / error
    return Difference(
        estimate=value,
        interval=(float(lower), float(upper)),
        level=level,
        statistic=statistic,
        p_value=2.0 * student_tail(abs(statistic), count - 1),
        cases=n,
        patients=count,
        method="limits corrected for skewness",
        degenerate=degenerate,
        error=0.0 if degenerate else error,
        least=bound * unseen,
    )
