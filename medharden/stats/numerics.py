"""Quantiles and tails of the normal and Student's t distributions, and bisection down to neighbouring floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from medharden.errors import RangeError

__all__ = ["bisect", "normal_quantile", "normal_tail", "student_quantile", "student_tail", "two_sided_quantile"]


def normal_quantile(probability: float) -> float:
    """The standard normal quantile of a probability in (0, 1) (Wichura 1988, AS 241)."""
    return NormalDist().inv_cdf(probability)


def normal_tail(statistic: float) -> float:
    """P(Z >= statistic) for a standard normal Z, accurate in the far tail."""
    return 0.5 * math.erfc(statistic / math.sqrt(2.0))


def two_sided_quantile(level: float) -> float:
    """The z of a two-sided interval: 1.96 for a level of 0.95.

    Raises:
        RangeError: a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise RangeError(f"a confidence level lies in (0, 1), got {level:g}")
    return normal_quantile(0.5 + level / 2.0)


def student_quantile(level: float, freedom: int) -> float:
    """The t of a two-sided interval with `freedom` degrees of freedom.

    Raises:
        RangeError: a level outside (0, 1).
    """
    from scipy.special import stdtrit  # here, because the gate's own tests need no scipy and must start quickly

    two_sided_quantile(level)
    return float(stdtrit(freedom, 0.5 + level / 2.0))


def student_tail(statistic: float, freedom: int) -> float:
    """P(T >= statistic) for Student's t with `freedom` degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -statistic))


def bisect(is_left: Callable[[float], bool], low: float, high: float, *, tolerance: float = 0.0) -> float:
    """The point in [low, high] where `is_left` turns from true to false, from below."""
    middle = 0.5 * (low + high)
    while low < middle < high and high - low > tolerance:
        if is_left(middle):
            low = middle
        else:
            high = middle
        middle = 0.5 * (low + high)
    return low
