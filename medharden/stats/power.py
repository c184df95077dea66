"""What a number of cases can show: smallest margin and cases needed, for Tango's score test.

Both hold the true difference at 0. `discordance` (psi) is the share of cases that the two models answer with different
success, half of them gained and half lost.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.numerics import bisect, normal_quantile, normal_tail
from medharden.stats.paired import null_variance

__all__ = ["cases_needed", "power_to_show", "smallest_margin"]

_LARGEST_ENUMERATED = 5000
_NEGLIGIBLE = 1e-9

Floats = npt.NDArray[np.float64]


def cases_needed(discordance: float, margin: float, *, alpha: float, power: float = 0.8) -> int:
    """The cases that show non-inferiority with the given power, by the normal approximation.

    n = ((z_alpha sqrt(v(-margin)) + z_power sqrt(psi)) / margin)^2, where v is the score test's variance under the
    hypothesis at b = c = psi / 2 of one case (Nam, Biometrics 1997; 53: 1422-30). The exact power rises and falls
    with n in small steps, and reaches the asked one at this n or a little earlier.

    Args:
        discordance: psi in [0, 1]; 0 gives the n from which equal answers alone suffice.
        margin: largest acceptable loss, in (0, 1).
        alpha: one-sided error, in (0, 0.5).
        power: in (0, 1).

    Raises:
        RangeError: an argument outside its range.
    """
    _check(discordance, alpha, power)
    if not 0.0 < margin < 1.0:
        raise RangeError(f"a margin lies in (0, 1), got {margin:g}")
    return math.ceil((_distance(discordance, margin, alpha, power) / margin) ** 2)


def smallest_margin(cases: float, discordance: float, *, alpha: float, power: float = 0.8) -> float:
    """The smallest margin that so many cases show with the given power.

    Exact: every table that may come up is weighed by its trinomial probability. Above 5000 cases the normal
    approximation of `cases_needed` is used, which then differs by less than 0.0002.

    Args:
        cases: n of 0 or more; effective cases where patients repeat, of which whole ones count.
        discordance: psi in [0, 1].
        alpha: one-sided error, in (0, 0.5).
        power: in (0, 1).

    Returns:
        A margin in (0, 1]; 1 where nothing can be shown.

    Raises:
        RangeError: an argument outside its range.
    """
    _check(discordance, alpha, power)
    if cases < 0:
        raise RangeError(f"expected 0 or more cases, got {cases:g}")
    n = int(cases)
    if n == 0:
        return 1.0
    if n > _LARGEST_ENUMERATED:
        root = math.sqrt(n)
        return bisect(lambda m: m * root < _distance(discordance, m, alpha, power), 0.0, 1.0)
    gained, lost, weight = _tables(n, discordance)
    z = normal_quantile(1.0 - alpha)

    def too_small(margin: float) -> bool:
        limit = z * np.sqrt(n * null_variance(gained, lost, n, -margin))
        return float(weight[gained - lost + n * margin > limit].sum()) < power

    return bisect(too_small, 0.0, 1.0, tolerance=1e-9)


def power_to_show(cases: int, discordance: float, margin: float, *, alpha: float) -> float:
    """The chance that so many cases show a margin if the true difference is 0.

    Exact up to 5000 cases, by the normal approximation of `cases_needed` above.

    Args:
        cases: n of 0 or more; none show nothing.
        discordance: psi in [0, 1].
        margin: largest acceptable loss, in (0, 1).
        alpha: one-sided error, in (0, 0.5).

    Raises:
        RangeError: an argument outside its range.
    """
    _check(discordance, alpha, 0.5)
    if cases < 0 or not 0.0 < margin < 1.0:
        raise RangeError(f"expected 0 or more cases and a margin in (0, 1), got {cases} and {margin:g}")
    if cases == 0:
        return 0.0
    z = normal_quantile(1.0 - alpha)
    if cases > _LARGEST_ENUMERATED:
        held = null_variance(discordance / 2.0, discordance / 2.0, 1.0, -margin)
        distance = margin * math.sqrt(cases) - z * math.sqrt(held)
        if discordance == 0.0:
            return float(distance > 0.0)
        return normal_tail(-distance / math.sqrt(discordance))
    gained, lost, weight = _tables(cases, discordance)
    limit = z * np.sqrt(cases * null_variance(gained, lost, cases, -margin))
    return min(1.0, float(weight[gained - lost + cases * margin > limit].sum()))


def _distance(discordance: float, margin: float, alpha: float, power: float) -> float:
    """The margin in units of 1 / sqrt(n) that the score test needs."""
    held = null_variance(discordance / 2.0, discordance / 2.0, 1.0, -margin)
    return normal_quantile(1.0 - alpha) * math.sqrt(held) + normal_quantile(power) * math.sqrt(discordance)


def _tables(cases: int, discordance: float) -> tuple[Floats, Floats, Floats]:
    """Counts gained and lost, and their probability, of every table that is not negligible."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, cases + 1)))])
    share = min(max(discordance, 1e-15), 1.0 - 1e-15)  # keeps the logarithms finite
    total = np.arange(cases + 1)
    log_total = (
        log_factorial[cases]
        - log_factorial[total]
        - log_factorial[cases - total]
        + total * math.log(share)
        + (cases - total) * math.log1p(-share)
    )
    total = total[log_total > math.log(_NEGLIGIBLE)]
    gained, pairs = np.meshgrid(np.arange(int(total.max()) + 1), total)
    possible = gained <= pairs
    gained, pairs = gained[possible], pairs[possible]
    lost = pairs - gained
    log_weight = (
        log_total[pairs] + log_factorial[pairs] - log_factorial[gained] - log_factorial[lost] - pairs * math.log(2.0)
    )
    weight = np.exp(log_weight)
    kept = weight > _NEGLIGIBLE / cases
    return gained[kept].astype(np.float64), lost[kept].astype(np.float64), weight[kept]


def _check(discordance: float, alpha: float, power: float) -> None:
    if not 0.0 <= discordance <= 1.0:
        raise RangeError(f"a discordance lies in [0, 1], got {discordance:g}")
    if not 0.0 < alpha < 0.5 or not 0.0 < power < 1.0:
        raise RangeError(f"expected alpha in (0, 0.5) and power in (0, 1), got {alpha:g} and {power:g}")
