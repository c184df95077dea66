"""Limits of a mean or an AUROC from each patient's influence: its spread, its skewness, and what no sample holds.

A normal limit errs too often where influences are skewed, as they are for an AUROC near 1, and has no width where
nothing changed. Three things mend that. The limit is corrected for skewness (Johnson, JASA 1978; 73: 536-544). One
patient more is counted, as bad as the worst one observed. And the limit keeps away from the estimate by what so many
patients can't rule out: none of n unseen ones, a share of 1 - alpha^(1/n) (Clopper and Pearson's limit for 0 of n), who
would move the estimate as far as anything can. So the limits of equal scores are the start of those of nearly equal
ones, and a patient who gets worse does not raise the lower limit. Error rates are in
`docs/validation-of-statistics.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medharden.stats.difference import Floats

__all__ = ["influence_limits", "unseen_share", "variance_of"]

Groups = Sequence[Floats]

_NO_ERROR = 1e-90  # its cube is a number still


def influence_limits(
    estimate: npt.ArrayLike,
    groups: Groups,
    *,
    quantile: float,
    unseen: float,
    bound: float,
    together: float = 1.0,
) -> tuple[Floats, Floats]:
    """Lower and upper limit of an estimate.

    With psi_k the sum of patient k's influences, se^2 = sum psi_k^2 + sum_g m_g^2 and g = (sum psi_k^3 + sum_g m_g^3) /
    se^3, m_g the lowest influence of group g, the lower limit is

        estimate - max(se (q - g (2 q^2 + 1) / 6), (estimate + bound) unseen),

    and the upper one its mirror image.

    Args:
        estimate: (...) in [-bound, bound].
        groups: (..., K) each: every patient's influence through one kind of cases, such as positives.
        quantile: q, of the normal or Student's distribution.
        unseen: share of patients that may be unlike all observed (`unseen_share`).
        bound: largest absolute value that the estimate can have.
        together: factor of the products of two groups' influences in the variance.

    Returns:
        Two of (...), in [-bound, bound].
    """
    value = np.asarray(estimate, dtype=np.float64)
    lower = _below(value, groups, quantile, unseen, bound, together)
    upper = -_below(-value, [-psi for psi in groups], quantile, unseen, bound, together)
    return lower, upper


def unseen_share(units: float, level: float) -> float:
    """The share of independent units that may be unlike all of so many observed ones.

    1 - alpha^(1/n) with alpha = (1 - level) / 2: the exact upper limit of Clopper and Pearson for 0 of n.

    Args:
        units: n, above 0.
        level: two-sided, in (0, 1).
    """
    return float(1.0 - ((1.0 - level) / 2.0) ** (1.0 / units))


def variance_of(groups: Groups, together: float = 1.0) -> Floats:
    """The sum of squared influences, (...)."""
    products = sum((one * other).sum(axis=-1) for i, one in enumerate(groups) for other in groups[:i])
    return np.asarray(sum((psi**2).sum(axis=-1) for psi in groups) + 2.0 * together * products)


def _below(value: Floats, groups: Groups, q: float, unseen: float, bound: float, together: float) -> Floats:
    worst = [np.minimum(psi.min(axis=-1), 0.0) for psi in groups]
    variance = np.maximum(variance_of(groups, together), 0.0) + sum(m**2 for m in worst)
    third = (sum(groups[1:], start=groups[0]) ** 3).sum(axis=-1) + sum(m**3 for m in worst)
    error = np.sqrt(variance)
    skewness = np.divide(third, error**3, out=np.zeros_like(error), where=error > _NO_ERROR)
    reach = error * (q - skewness * (2.0 * q * q + 1.0) / 6.0)
    limit: Floats = np.maximum(value - np.maximum(reach, (value + bound) * unseen), -bound)
    return limit
