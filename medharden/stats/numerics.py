"""Quantiles and tails of normal, Student's t and sums of gamma variables, and roots."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError

__all__ = [
    "bisect",
    "gamma_sum_tail",
    "normal_quantile",
    "normal_tail",
    "rising_root",
    "student_quantile",
    "student_tail",
    "two_sided_quantile",
]

Floats = npt.NDArray[np.float64]

_STEP, _REACH = 0.06, 18.0  # of the integral in `gamma_sum_tail`
_NEWTON, _ROWS = 80, 2000


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


def rising_root(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Where a rising function that is not flat reaches 0 in [low, high] (Ridders, IEEE Trans Circuits Syst 1979; 26:
    979-980).

    `scipy.optimize` has the same, and takes longer to import than all roots of a gate's decision to be found.

    Returns:
        `low` where it lies above 0 everywhere, `high` where it lies below.
    """
    below, above = function(low), function(high)
    if below >= 0.0 or above <= 0.0:
        return low if below >= 0.0 else high
    point = math.inf
    while True:
        middle = 0.5 * (low + high)
        value = function(middle)
        last, point = point, middle + (middle - low) * value / -math.sqrt(value * value - below * above)
        found = function(point)
        if found == 0.0 or abs(point - last) <= tolerance or high - low <= tolerance:
            return point
        for place, height in ((middle, value), (point, found)):
            if height < 0.0 and place > low:
                low, below = place, height
            elif height >= 0.0 and place < high:
                high, above = place, height


def gamma_sum_tail(terms: Floats, shapes: Floats) -> Floats:
    """P(sum_k G_k t_k >= 0) for independent G_k of the gamma distribution with shape a_k and scale 1.

    With K(s) = -sum_k a_k log(1 - s t_k), the cumulant generating function, the tail is the integral of exp(K(s)) / s
    along a path that crosses the real axis where K(s) - log s is smallest, divided by 2 pi i (Rice, SIAM J Sci Stat
    Comput 1980; 1: 438-448). The path is a hyperbola round the fewer singularities, those 1 / t_k on the right or those
    on the left with 0, so that the integrand falls without waves; by the trapezoidal rule it is exact to 1e-9.

    Args:
        terms: (G,) of any sign.
        shapes: (..., G) of 0 or more, not all 0.

    Returns:
        (...) in [0, 1].
    """
    kept = np.asarray(shapes, dtype=np.float64).reshape(-1, terms.size)
    size = float(np.abs(terms).max())
    if size == 0.0:
        return np.ones(shapes.shape[:-1])
    t = terms / size
    has = [((kept > 0.0) & side).any(axis=1) for side in (t > 0.0, t < 0.0)]
    tail = np.where(has[0], 1.0, 0.0)
    mixed = np.flatnonzero(has[0] & has[1])
    turned = kept @ t >= 0.0
    for sign in (1.0, -1.0):
        rows = mixed[turned[mixed] == (sign < 0.0)]
        if rows.size:
            found = _upper_tail(sign * t, kept[rows])
            tail[rows] = found if sign > 0.0 else 1.0 - found
    return np.clip(tail, 0.0, 1.0).reshape(shapes.shape[:-1])


def _upper_tail(t: Floats, shapes: Floats) -> Floats:
    """(R,) the tail of sums whose mean is below 0; every row of (R, G) shapes has terms of both signs."""
    low = np.zeros(len(shapes))
    high = 1.0 / np.where(shapes > 0.0, t, 0.0).max(axis=1)
    r = 0.5 * high
    for _ in range(_NEWTON):  # pragma: no branch - it converges, for K(s) - log s is convex in (0, 1 / t)
        pull = t / np.where(shapes > 0.0, 1.0 - r[:, None] * t, 1.0)
        slope = np.sum(shapes * pull, axis=1) - 1.0 / r
        bend = np.sum(shapes * pull**2, axis=1) + 1.0 / r**2
        low, high = np.where(slope < 0.0, r, low), np.where(slope < 0.0, high, r)
        step = r - slope / bend
        step = np.where((step > low) & (step < high), step, 0.5 * (low + high))
        if np.all(np.abs(step - r) <= 1e-10 * r):
            break
        r = step
    wide = 1.0 / np.sqrt(bend)
    tails = [
        _integral(t, shapes[k : k + _ROWS], r[k : k + _ROWS], wide[k : k + _ROWS]) for k in range(0, len(r), _ROWS)
    ]
    return np.concatenate(tails)


def _integral(t: Floats, shapes: Floats, r: Floats, wide: Floats) -> Floats:
    u = np.arange(0.0, _REACH, _STEP)
    right, left = shapes[:, t > 0.0].sum(axis=1), shapes[:, t < 0.0].sum(axis=1) + 1.0
    lean = np.where(right <= left, 1.0, -1.0) / np.sqrt(np.maximum(np.minimum(right, left), 1.0))
    lean = lean[:, None]
    s = r[:, None] + wide[:, None] * (lean * (np.cosh(u) - 1.0) + 1j * np.sinh(u))
    log = -np.log(s)
    for term, shape in zip(t, shapes.T, strict=True):
        log -= shape[:, None] * np.log(np.where(shape[:, None] > 0.0, 1.0 - s * term, 1.0))
    height = ((lean * np.sinh(u) + 1j * np.cosh(u)) * np.exp(log)).imag
    total = height.sum(axis=1) - 0.5 * height[:, 0]
    return np.asarray(total * wide * _STEP / math.pi)
