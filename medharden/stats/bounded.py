"""Limits of a mean of bounded outcomes by patient, which hold for few and rare ones too: Gaffke's bound.

The lower limit is the alpha quantile of the mean under random weights, one Exp(1) a patient, with one patient more at
the lowest outcome there can be (Gaffke, Math Methods Stat 2005; 14: 451-467; Learned-Miller & Thomas, arXiv
1905.06208). With one yes or no a patient it is Clopper and Pearson's limit; for a paired difference it lies above 0
where the exact one-sided McNemar test is below alpha. There its error is proven to be alpha at most. For other outcomes
of one case a patient that is a conjecture without a known counterexample, and for patients with several cases what
simulation shows; see `docs/validation-of-statistics.md`. An outcome that gets worse never raises it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.clusters import patient_weight
from medharden.stats.difference import Floats, flags, patient_codes
from medharden.stats.noninferiority import NonInferiority
from medharden.stats.numerics import gamma_sum_tail, rising_root, two_sided_quantile
from medharden.stats.paired import tango_statistic
from medharden.stats.proportions import clopper_pearson_interval

__all__ = ["Share", "exact_p_value", "gain_test", "mean_limits", "share_interval"]

_FINE = 1e-10


@dataclass(frozen=True)
class Share:
    """A share of cases and its limits.

    Attributes:
        count, cases, patients: how many.
        lower, upper: limits at `level`, in [0, 1].
        level: two-sided.
        method: the interval's name and source.
    """

    count: int
    cases: int
    patients: int
    lower: float
    upper: float
    level: float
    method: str

    @property
    def estimate(self) -> float:
        """The observed share; 0 of none."""
        return self.count / self.cases if self.cases else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Both limits."""
        return self.lower, self.upper


def share_interval(hits: npt.ArrayLike, patients: Sequence[str] | None = None, *, level: float = 0.95) -> Share:
    """The share of cases that are hit, with exact limits: Clopper and Pearson's, or Gaffke's where patients repeat.

    Args:
        hits: (N,) bool; of no case the limits are 0 and 1.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        level: two-sided, in (0, 1).

    Raises:
        RangeError: as many flags as patients were not given, or a level outside (0, 1).
    """
    x = np.asarray(hits, dtype=np.bool_)
    count, (_, people) = int(x.sum()), patient_codes(x.size, patients)
    if people == x.size:
        lower, upper = clopper_pearson_interval(count, x.size, level=level)
        return Share(count, x.size, people, lower, upper, level, "Clopper and Pearson 1934")
    lower, upper, people = mean_limits(x.astype(np.float64), patients, 0.0, level)
    method = "Gaffke 2005 (Clopper and Pearson's limits, by patient)"
    return Share(count, x.size, people, lower, upper, level, method)


def gain_test(
    gained: npt.ArrayLike,
    lost: npt.ArrayLike,
    *,
    alpha: float,
    patients: Sequence[str] | None,
    least: float = 0.0,
) -> NonInferiority:
    """Tests whether the hardened model is better by more than `least`, on the same cases; exact on few of them.

    Against 0 and with one case a patient it is the exact one-sided McNemar test: 4 gained and none lost have p = .0625.

    Args:
        gained: (N,) bool, only the hardened model is right.
        lost: (N,) bool, only the original is right.
        alpha: one-sided error, in (0, 0.5).
        patients: (N,) whose case each is; null where each case is a patient of its own.
        least: the gain to be exceeded, in [0, 1).

    Raises:
        RangeError: shapes that differ, a case both gained and lost, or an alpha or gain outside its range.
    """
    b, c = flags(gained, lost)
    if not 0.0 <= least < 1.0 or not 0.0 < alpha < 0.5:
        raise RangeError(f"expected a gain in [0, 1) and alpha in (0, 0.5), got {least:g} and {alpha:g}")
    level = 1.0 - 2.0 * alpha
    values = b.astype(np.float64) - c
    lower, upper, people = mean_limits(values, patients, -1.0, level)
    method = "exact paired limits (McNemar 1947, Gaffke 2005)"
    if people < b.size:
        method += ", by patient"
    return NonInferiority(
        estimate=float(values.mean()) if b.size else 0.0,
        interval=(lower, upper),
        margin=-least,
        level=level,
        statistic=tango_statistic(float(b.sum()), float(c.sum()), b.size, least),
        p_value=exact_p_value(values, patients, least, level=level),
        cases=b.size,
        patients=people,
        effective_cases=float(b.size),
        method=method,
        exact=True,
    )


def exact_p_value(
    values: npt.ArrayLike, patients: Sequence[str] | None, bound: float, *, lowest: float = -1.0, level: float = 0.95
) -> float:
    """One-sided p of the hypothesis that the mean is `bound` at most.

    Args:
        values: (N,) in [lowest, 1].
        patients: (N,) whose case it is; null where each case is a patient of its own.
        bound: in [lowest, 1).
        lowest: smallest outcome there can be.
        level: of the two-sided limits that it belongs to; it weighs patients with unequally many cases.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        return 1.0
    return _p_value(_patients(x, patients, level), bound, lowest)


def mean_limits(
    values: Floats, patients: Sequence[str] | None, lowest: float, level: float
) -> tuple[float, float, int]:
    """Lower and upper limit of the mean of (N,) values in [lowest, 1], and the number of patients."""
    two_sided_quantile(level)
    if values.size == 0:
        return lowest, 1.0, 0
    people = _patients(values, patients, level)
    alpha, mean = (1.0 - level) / 2.0, float(values.mean())

    mirrored = replace(people, sums=-people.sums)
    lower = rising_root(lambda bound: _p_value(people, bound, lowest) - alpha, lowest, 1.0, _FINE)
    upper = -rising_root(lambda bound: _p_value(mirrored, bound, -1.0) - alpha, -1.0, -lowest, _FINE)
    return min(lower, mean), max(upper, mean), int(people.counts.sum())


@dataclass(frozen=True)
class _Patients:
    """Patients by kind: (G,) the sum and number of a patient's cases, and how many patients have these."""

    sums: Floats
    sizes: Floats
    counts: Floats
    weight: float


def _patients(values: Floats, patients: Sequence[str] | None, level: float) -> _Patients:
    codes, _ = patient_codes(values.size, patients)
    pairs = np.stack([np.bincount(codes, weights=values), np.bincount(codes).astype(np.float64)])
    kinds, counts = np.unique(pairs, axis=1, return_counts=True)
    return _Patients(kinds[0], kinds[1], counts.astype(np.float64), patient_weight(pairs[1], level=level))


def _p_value(people: _Patients, bound: float, lowest: float) -> float:
    """The chance that the weighted mean, with the patient more, is `bound` at most."""
    terms = np.append(bound * people.sizes - people.sums, people.weight * (bound - lowest))
    return float(gamma_sum_tail(terms, np.append(people.counts, 1.0)))
