"""What a number of cases can show: smallest margin, cases needed and power, for Tango's score test.

`discordance` (psi) is the share of cases that the two models answer with different success. `loss` is the true one that
is assumed: of a case the chance to be lost is (psi + loss) / 2, to be gained (psi - loss) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.numerics import bisect, normal_quantile, normal_tail
from medharden.stats.paired import null_variance

__all__ = ["cases_needed", "fewest_cases", "joint_power", "power_to_show", "smallest_margin"]

_LARGEST_ENUMERATED = 5000
_NEGLIGIBLE = 1e-9
_SEED = 20_220_413

Floats = npt.NDArray[np.float64]


def fewest_cases(margin: float, *, alpha: float) -> int:
    """The fewest cases on which a margin is shown where no case at all is gained or lost.

    Args:
        margin: in (0, 1).
        alpha: one-sided error, in (0, 0.5).

    Raises:
        RangeError: an argument outside its range.
    """
    _check(0.0, alpha, 0.5)
    if not 0.0 < margin < 1.0:
        raise RangeError(f"a margin lies in (0, 1), got {margin:g}")
    return math.floor(float(normal_quantile(1.0 - alpha)) ** 2 * (1.0 - margin) / margin) + 1


def cases_needed(discordance: float, margin: float, *, alpha: float, power: float = 0.8, loss: float = 0.0) -> int:
    """The cases that show non-inferiority with the given power, by the normal approximation.

    n = ((z_alpha sqrt(v(-margin)) + z_power sqrt(psi - loss^2)) / (margin - loss))^2, where v is the score test's
    variance under the hypothesis at the expected b and c of one case (Nam, Biometrics 1997; 53: 1422-30). The exact
    power rises and falls with n in small steps, and reaches the asked one at this n or a little earlier.

    Args:
        discordance: psi in [0, 1]; 0 gives the n from which equal answers alone suffice.
        margin: largest acceptable loss, in (0, 1).
        alpha: one-sided error, in (0, 0.5).
        power: in (0, 1).
        loss: the true one; below the margin, and no more than the discordance.

    Raises:
        RangeError: an argument outside its range.
    """
    _check(discordance, alpha, power, loss)
    if not loss < margin < 1.0:
        raise RangeError(f"a margin lies in (0, 1), above the expected loss; got {margin:g} and {loss:g}")
    return math.ceil((_distance(discordance, margin, alpha, power, loss) / (margin - loss)) ** 2)


def smallest_margin(cases: float, discordance: float, *, alpha: float, power: float = 0.8, loss: float = 0.0) -> float:
    """The smallest margin that so many cases show with the given power.

    Exact: every table that may come up is weighed by its trinomial probability. Above 5000 cases the normal
    approximation of `cases_needed` is used, which then differs by less than 0.0002.

    Args:
        cases: n of 0 or more; effective cases where patients repeat, of which whole ones count.
        discordance: psi in [0, 1].
        alpha: one-sided error, in (0, 0.5).
        power: in (0, 1).
        loss: the true one, no more than the discordance.

    Returns:
        A margin in (loss, 1]; 1 where nothing can be shown.

    Raises:
        RangeError: an argument outside its range.
    """
    _check(discordance, alpha, power, loss)
    if cases < 0:
        raise RangeError(f"expected 0 or more cases, got {cases:g}")
    n = int(cases)
    if n == 0:
        return 1.0
    if n > _LARGEST_ENUMERATED:
        root = math.sqrt(n)
        return bisect(lambda m: (m - loss) * root < _distance(discordance, m, alpha, power, loss), loss, 1.0)
    gained, lost, weight = _tables(n, discordance, loss)
    return bisect(lambda m: float(weight[_shown(gained, lost, n, m, alpha)].sum()) < power, loss, 1.0, tolerance=1e-9)


def power_to_show(cases: int, discordance: float, margin: float, *, alpha: float, loss: float = 0.0) -> float:
    """The chance that so many cases show a margin if so much is truly lost.

    Exact up to 5000 cases, by the normal approximation of `cases_needed` above.

    Args:
        cases: n of 0 or more; none show nothing.
        discordance: psi in [0, 1].
        margin: largest acceptable loss, in (0, 1).
        alpha: one-sided error, in (0, 0.5).
        loss: the true one, no more than the discordance.

    Raises:
        RangeError: an argument outside its range.
    """
    _check(discordance, alpha, 0.5, loss)
    if cases < 0 or not 0.0 < margin < 1.0:
        raise RangeError(f"expected 0 or more cases and a margin in (0, 1), got {cases} and {margin:g}")
    if cases == 0:
        return 0.0
    if cases > _LARGEST_ENUMERATED:
        held = null_variance((discordance - loss) / 2.0, (discordance + loss) / 2.0, 1.0, -margin)
        distance = (margin - loss) * math.sqrt(cases) - normal_quantile(1.0 - alpha) * math.sqrt(held)
        spread = discordance - loss * loss
        if spread <= 0.0:
            return float(distance > 0.0)
        return normal_tail(-distance / math.sqrt(spread))
    gained, lost, weight = _tables(cases, discordance, loss)
    return min(1.0, float(weight[_shown(gained, lost, cases, margin, alpha)].sum()))


def joint_power(
    parts: Sequence[tuple[int, float]],
    whole: float | None,
    discordance: float,
    *,
    alpha: float,
    loss: float = 0.0,
    draws: int = 20_000,
) -> float:
    """The chance that every part shows its margin, and all parts together theirs, in one and the same split.

    By simulation, the same in every call: of each part a table is drawn, and the tables are added up for the
    whole. With 20,000 draws its standard error is .0036 at most.

    Args:
        parts: cases and margin of each, such as of each class.
        whole: margin of all parts together, or null where none is asked.
        discordance: psi in [0, 1], in each part.
        alpha: one-sided error, in (0, 0.5).
        loss: the true one in each part, no more than the discordance.
        draws: how many splits are drawn.

    Raises:
        RangeError: an argument outside its range.
    """
    _check(discordance, alpha, 0.5, loss)
    random = np.random.default_rng(_SEED)
    chances = [(discordance - loss) / 2.0, (discordance + loss) / 2.0, 1.0 - discordance]
    good, sums = np.ones(draws, dtype=np.bool_), np.zeros((draws, 2))
    for cases, margin in parts:
        drawn = random.multinomial(cases, chances, draws)[:, :2].astype(np.float64)
        good &= _shown(drawn[:, 0], drawn[:, 1], cases, margin, alpha)
        sums += drawn
    if whole is not None:
        good &= _shown(sums[:, 0], sums[:, 1], sum(cases for cases, _ in parts), whole, alpha)
    return float(good.mean())


def _shown(gained: Floats, lost: Floats, cases: int, margin: float, alpha: float) -> npt.NDArray[np.bool_]:
    """Whether each table shows the margin; no case shows nothing."""
    if cases == 0:
        return np.zeros(len(gained), dtype=np.bool_)
    limit = normal_quantile(1.0 - alpha) * np.sqrt(cases * null_variance(gained, lost, cases, -margin))
    found: npt.NDArray[np.bool_] = gained - lost + cases * margin > limit
    return found


def _distance(discordance: float, margin: float, alpha: float, power: float, loss: float) -> float:
    """The margin beyond the loss, in units of 1 / sqrt(n), that the score test needs."""
    held = null_variance((discordance - loss) / 2.0, (discordance + loss) / 2.0, 1.0, -margin)
    spread = max(discordance - loss * loss, 0.0)
    return normal_quantile(1.0 - alpha) * math.sqrt(held) + normal_quantile(power) * math.sqrt(spread)


def _tables(cases: int, discordance: float, loss: float) -> tuple[Floats, Floats, Floats]:
    """Counts gained and lost, and their probability, of every table that is not negligible."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, cases + 1)))])
    share = min(max(discordance, 1e-15), 1.0 - 1e-15)  # keeps the logarithms finite
    chance = min(max((1.0 - loss / share) / 2.0, 1e-15), 0.5)  # of a discordant case to be gained
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
        log_total[pairs]
        + log_factorial[pairs]
        - log_factorial[gained]
        - log_factorial[lost]
        + gained * math.log(chance)
        + lost * math.log1p(-chance)
    )
    weight = np.exp(log_weight)
    kept = weight > _NEGLIGIBLE / cases
    return gained[kept].astype(np.float64), lost[kept].astype(np.float64), weight[kept]


def _check(discordance: float, alpha: float, power: float, loss: float = 0.0) -> None:
    if not 0.0 <= discordance <= 1.0:
        raise RangeError(f"a discordance lies in [0, 1], got {discordance:g}")
    if not 0.0 <= loss <= discordance:
        raise RangeError(f"an expected loss lies in [0, {discordance:g}], the share of discordant cases; got {loss:g}")
    if not 0.0 < alpha < 0.5 or not 0.0 < power < 1.0:
        raise RangeError(f"expected alpha in (0, 0.5) and power in (0, 1), got {alpha:g} and {power:g}")
