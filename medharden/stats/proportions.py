"""Intervals for one proportion: Wilson's score interval, Clopper and Pearson's exact one, and the mid-P one."""

from __future__ import annotations

import math

from medharden.errors import RangeError
from medharden.stats.numerics import rising_root, two_sided_quantile

__all__ = ["clopper_pearson_interval", "mid_p_interval", "wilson_interval"]

_FINE = 1e-10


def wilson_interval(successes: float, cases: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (JASA 1927; 22: 209-212).

    Args:
        successes: x in [0, n]; need not be whole (counts scaled to effective cases).
        cases: n; none gives (0, 1).
        level: two-sided confidence level in (0, 1).

    Returns:
        The lower and upper limit, in [0, 1].

    Raises:
        RangeError: counts or a level that can't be.
    """
    _check(successes, cases)
    z = two_sided_quantile(level)
    if cases == 0:
        return 0.0, 1.0
    share = min(successes / cases, 1.0)
    scale = 1.0 + z * z / cases
    centre = (share + z * z / (2.0 * cases)) / scale
    half = z / scale * math.sqrt(share * (1.0 - share) / cases + (z / (2.0 * cases)) ** 2)
    # Rounding must not push a limit past the estimate or the range.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def clopper_pearson_interval(successes: int, cases: int, *, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval (Biometrika 1934; 26: 404-413), the cross-check of Wilson's.

    Args:
        successes: x in [0, n].
        cases: n; none gives (0, 1).
        level: two-sided confidence level in (0, 1).

    Returns:
        The lower and upper limit, in [0, 1].

    Raises:
        RangeError: counts or a level that can't be.
    """
    from scipy.special import betaincinv  # here, because the gate needs no scipy and must start quickly

    tail = _tail(successes, cases, level)
    failures = cases - successes
    lower = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    upper = float(betaincinv(successes + 1, failures, 1.0 - tail)) if failures else 1.0
    return lower, upper


def mid_p_interval(successes: int, cases: int, *, level: float = 0.95) -> tuple[float, float]:
    """The mid-P interval (Lancaster, JASA 1961; 56: 223-234; Berry & Armitage, The Statistician 1995; 44: 417-423).

    Clopper and Pearson's with half of the chance of what was seen: it errs as often as it says on average, and in more
    in some places, where theirs errs in less in all.

    Args:
        successes: x in [0, n].
        cases: n; none gives (0, 1).
        level: two-sided confidence level in (0, 1).

    Returns:
        The lower and upper limit, in [0, 1].

    Raises:
        RangeError: counts or a level that can't be.
    """
    tail = _tail(successes, cases, level)
    return _mid_p_limit(successes, cases, tail), 1.0 - _mid_p_limit(cases - successes, cases, tail)


def _mid_p_limit(successes: int, cases: int, tail: float) -> float:
    """The share at which P(more) + P(as many) / 2 is `tail`."""
    from scipy.special import betainc

    def excess(share: float) -> float:
        more = betainc(successes + 1, cases - successes, share) if successes < cases else 0.0
        return float(0.5 * (betainc(successes, cases - successes + 1, share) + more)) - tail

    return rising_root(excess, 0.0, 1.0, _FINE) if successes else 0.0


def _tail(successes: int, cases: int, level: float) -> float:
    """The chance beyond either limit, once counts and level are found to be possible."""
    _check(successes, cases)
    two_sided_quantile(level)
    return (1.0 - level) / 2.0


def _check(successes: float, cases: float) -> None:
    if not 0 <= successes <= cases * (1.0 + 1e-9):
        raise RangeError(f"expected between 0 and all cases as successes, got {successes:g} of {cases:g}")
