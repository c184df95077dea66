"""Intervals for the difference of two paired proportions: Tango's score method and Newcombe's method 10.

Throughout, `gained` are the cases that only the hardened model gets right (b), `lost` those that only the original
gets right (c), `cases` all of them (n), and the difference is D = (b - c) / n, in [-1, 1].
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.numerics import bisect, two_sided_quantile
from medharden.stats.proportions import wilson_interval

__all__ = ["newcombe_interval", "null_variance", "tango_interval", "tango_limits", "tango_statistic"]

Counts = TypeVar("Counts", float, npt.NDArray[np.float64])

_NO_DIFFERENCE = 1e-100  # below this a square underflows and the variance would come out as 0


def tango_statistic(gained: float, lost: float, cases: float, difference: float) -> float:
    """Tango's score statistic T(D) of the hypothesis that the true difference is D.

    T(D) = (b - c - nD) / sqrt(n (2q + D(1 - D))), where q is the constrained maximum-likelihood estimate of the
    lost share (Tango, Stat Med 1998; 17: 891-908). Large T speaks for a difference above D.

    Args:
        gained: b >= 0; need not be whole (counts scaled to effective cases).
        lost: c >= 0; need not be whole.
        cases: n >= b + c.
        difference: D in [-1, 1].

    Returns:
        T, infinite where the hypothesis is impossible; 0 where there is nothing to tell (no cases).

    Raises:
        RangeError: counts that can't be, or a difference outside [-1, 1].
    """
    _check_counts(gained, lost, cases)
    if not -1.0 <= difference <= 1.0:
        raise RangeError(f"a difference of proportions lies in [-1, 1], got {difference:g}")
    return _statistic(gained, lost, cases, difference)


def tango_interval(gained: float, lost: float, cases: float, *, level: float = 0.95) -> tuple[float, float]:
    """Tango's score interval: every D whose T(D) lies within the two-sided normal limits.

    With b = c = 0 the limits are -+ z^2 / (n + z^2), never 0: equal answers on few cases show little.

    Args:
        gained: b >= 0; need not be whole.
        lost: c >= 0; need not be whole.
        cases: n >= b + c; none gives (-1, 1).
        level: two-sided confidence level in (0, 1).

    Returns:
        The lower and upper limit of D, in [-1, 1].

    Raises:
        RangeError: counts or a level that can't be.
    """
    return tango_limits(gained, lost, cases, two_sided_quantile(level))


def tango_limits(gained: float, lost: float, cases: float, z: float) -> tuple[float, float]:
    """`tango_interval` by its z, 0 or more, in place of the level."""
    _check_counts(gained, lost, cases)
    return _lower_limit(gained, lost, cases, z), -_lower_limit(lost, gained, cases, z)


def newcombe_interval(
    both: float, gained: float, lost: float, neither: float, *, level: float = 0.95
) -> tuple[float, float]:
    """Newcombe's method 10 (Stat Med 1998; 17: 2635-50), the cross-check of Tango's interval.

    Wilson limits of the two marginal shares, joined by their correlation phi; a positive phi is corrected for
    continuity.

    Args:
        both: cases right under both models.
        gained: right under the hardened model alone.
        lost: right under the original alone.
        neither: right under none.
        level: two-sided confidence level in (0, 1).

    Returns:
        The lower and upper limit of D.

    Raises:
        RangeError: negative counts, no cases, or a level outside (0, 1).
    """
    n = both + gained + lost + neither
    if min(both, gained, lost, neither) < 0 or n == 0:
        raise RangeError(
            f"expected counts of 0 or more, and one case at least, got {both:g}, {gained:g}, {lost:g}, {neither:g}"
        )
    hardened, original = (both + gained) / n, (both + lost) / n
    low_h, high_h = wilson_interval(both + gained, n, level=level)
    low_o, high_o = wilson_interval(both + lost, n, level=level)
    phi = _phi(both, gained, lost, neither)
    below = _joined(hardened - low_h, high_o - original, phi)
    above = _joined(high_h - hardened, original - low_o, phi)
    difference = (gained - lost) / n
    return difference - below, difference + above


def null_variance(gained: Counts, lost: Counts, cases: float, difference: float) -> Counts:
    """Variance of one case's outcome where the true difference is held at D: 2q + D(1 - D), never negative.

    q is the larger root of 2n q^2 + B q + C = 0 with B = -b - c + (2n - b + c) D and C = -c D (1 - D) (Tango 1998).
    `difference` must not be above 0: there neither root nor discriminant cancels (mirror the table otherwise).
    Counts are numbers, or arrays of one shape.
    """
    linear = -gained - lost + (2.0 * cases - gained + lost) * difference
    constant = -lost * difference * (1.0 - difference)
    # Both absolute values are of what is 0 or more but for rounding.
    root: Counts = abs(linear * linear - 8.0 * cases * constant) ** 0.5
    return abs((root - linear) / (2.0 * cases) + difference * (1.0 - difference))


def _statistic(gained: float, lost: float, cases: float, difference: float) -> float:
    if difference > 0.0:
        return -_statistic(lost, gained, cases, -difference)
    if difference > -_NO_DIFFERENCE:
        difference = 0.0
    distance = gained - lost - cases * difference
    if distance == 0.0:
        return 0.0
    variance = cases * null_variance(gained, lost, cases, difference)
    return distance / math.sqrt(variance) if variance > 0.0 else math.copysign(math.inf, distance)


def _lower_limit(gained: float, lost: float, cases: float, z: float) -> float:
    if cases == 0:
        return -1.0
    return bisect(lambda d: _statistic(gained, lost, cases, d) > z, -1.0, (gained - lost) / cases)


def _check_counts(gained: float, lost: float, cases: float) -> None:
    # Counts scaled to effective cases may exceed n by a rounding error.
    if min(gained, lost) < 0 or gained + lost > cases * (1.0 + 1e-9):
        raise RangeError(
            f"expected gained and lost of 0 or more that together don't exceed the cases, "
            f"got {gained:g} gained and {lost:g} lost of {cases:g}"
        )


def _phi(both: float, gained: float, lost: float, neither: float) -> float:
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if product == 0:
        return 0.0
    excess = both * neither - gained * lost
    if excess > 0:
        excess = max(excess - (both + gained + lost + neither) / 2.0, 0.0)
    return excess / math.sqrt(product)


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one * one - 2.0 * phi * one * other + other * other, 0.0))
