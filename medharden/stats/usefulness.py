"""Predictive values and net benefit at a prevalence other than the test set's; calibration in the large and slope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.bounded import Share
from medharden.stats.difference import Floats, patient_codes
from medharden.stats.numerics import two_sided_quantile
from medharden.stats.proportions import mid_p_interval

__all__ = ["Estimate", "net_benefit_change", "predictive_values", "recalibration"]

_MOST_STEPS, _SETTLED = 100, 1e-12
_SEPARATED = 30.0  # a slope or intercept beyond it: the probabilities part the cases wholly, and no finite fit is best


@dataclass(frozen=True)
class Estimate:
    """A number with its limits.

    Attributes:
        value: the estimate.
        lower, upper: limits.
    """

    value: float
    lower: float
    upper: float


def predictive_values(
    sensitivity: Share, specificity: Share, prevalence: float, *, shared: bool = False
) -> tuple[Estimate | None, Estimate | None]:
    """Positive and negative predictive value at a prevalence, by Bayes' theorem.

    logit PPV = log sens - log(1 - spec) + logit prevalence (Mercaldo, Lau & Zhou, Stat Med 2007; 26: 2170-83), whose
    limits follow from those of sensitivity and specificity by variance recovery (MOVER; Zou & Donner, Stat Med 2008;
    27: 1693-1702): from mid-P ones where each case is a patient's only one, which err as often as they say, else from
    the shares' own by patient. Where patients have cases of both classes, or one of the two shares is 0 or 1, so that
    the logit has no estimate, the limits are those at the worst and best corner, which are wider.

    Args:
        sensitivity: with its limits by patient, of the positive cases.
        specificity: of the negative ones, at the same level.
        prevalence: in (0, 1), of the population in question.
        shared: whether a patient may have cases of both classes.

    Returns:
        Both; null where no case is answered so.

    Raises:
        RangeError: a prevalence outside (0, 1), or no case of a class.
    """
    _check_prevalence(prevalence)
    if not (sensitivity.cases and specificity.cases):
        raise RangeError("predictive values need a positive and a negative case at least")
    odds = math.log(prevalence / (1.0 - prevalence))
    return _value(sensitivity, specificity, odds, shared), _value(specificity, sensitivity, -odds, shared)


def net_benefit_change(
    sensitivity: Estimate, specificity: Estimate, prevalence: float, threshold: float, *, shared: bool = False
) -> Estimate:
    """Net benefit of the new answers minus that of the old, in true positives a case.

    NB = sens p - (1 - spec) (1 - p) t / (1 - t), with p the prevalence and t the probability from which one would act:
    its odds say how many false alarms one finding is worth (Vickers & Elkin, Med Decis Making 2006; 26: 565-574). The
    change's limits are joined from those of both changes by MOVER; where patients have cases of both classes they are
    added, as if both went wrong together.

    Args:
        sensitivity: its change, new minus old, with limits.
        specificity: its change, at the same level.
        prevalence: in (0, 1).
        threshold: in (0, 1).
        shared: whether a patient may have cases of both classes.

    Raises:
        RangeError: a prevalence or threshold outside (0, 1).
    """
    _check_prevalence(prevalence)
    if not 0.0 < threshold < 1.0:
        raise RangeError(f"a threshold is a probability between 0 and 1, got {threshold:g}")
    weights = prevalence, (1.0 - prevalence) * threshold / (1.0 - threshold)
    parts = list(zip(weights, (sensitivity, specificity), strict=True))
    below = [w * (e.value - e.lower) for w, e in parts]
    above = [w * (e.upper - e.value) for w, e in parts]
    value = sum(w * e.value for w, e in parts)
    low, high = (sum(below), sum(above)) if shared else (math.hypot(*below), math.hypot(*above))
    return Estimate(value, value - low, value + high)


def recalibration(
    probabilities: npt.ArrayLike,
    happened: npt.ArrayLike,
    *,
    patients: Sequence[str] | None = None,
    level: float = 0.95,
) -> tuple[Estimate, Estimate] | None:
    """Calibration in the large and calibration slope: 0 and 1 where probabilities are right.

    The first is the intercept a of logit P(it is so) = a + logit p, below 0 where probabilities are too high; the
    second the slope b of logit P = a + b logit p, below 1 where they are too extreme (Cox, Biometrika 1958; 45:
    562-565; Van Calster et al., BMC Med 2019; 17: 230). Fitted by likelihood; limits from the
    sandwich variance by patient, with K / (K - 1) for K patients.

    Args:
        probabilities: (N,) in [0, 1]; 0 and 1 are taken as 1e-6 from them.
        happened: (N,) bool.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        level: two-sided, in (0, 1).

    Returns:
        Both, or null where no finite fit is best: all or none happened, or the probabilities part the cases wholly.

    Raises:
        RangeError: shapes that differ, or a probability outside [0, 1].
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not (np.all(p >= 0.0) and np.all(p <= 1.0)):
        raise RangeError(f"expected (N,) probabilities in [0, 1] and (N,) flags, got {p.shape} and {y.shape}")
    codes, count = patient_codes(p.size, patients)
    if count < 2 or y.min(initial=1.0) == y.max(initial=0.0):
        return None
    p = np.clip(p, 1e-6, 1.0 - 1e-6)
    given, z = np.log(p / (1.0 - p)), two_sided_quantile(level)
    ones = np.ones((p.size, 1))
    in_the_large = _fitted(ones, given, y, codes, count)
    slope = _fitted(np.column_stack([ones, given]), np.zeros_like(given), y, codes, count)
    if in_the_large is None or slope is None:
        return None
    found = []
    for (beta, error), k in ((in_the_large, 0), (slope, 1)):
        found.append(Estimate(float(beta[k]), float(beta[k] - z * error[k]), float(beta[k] + z * error[k])))
    return found[0], found[1]


def _fitted(
    design: Floats, offset: Floats, y: Floats, codes: npt.NDArray[np.intp], count: int
) -> tuple[Floats, Floats] | None:
    """Coefficients of a logistic regression by Newton's method, and their standard errors by patient."""
    beta = np.zeros(design.shape[1])
    for _ in range(_MOST_STEPS):
        fit = 1.0 / (1.0 + np.exp(-np.clip(offset + design @ beta, -700.0, 700.0)))
        information = (design * (fit * (1.0 - fit))[:, None]).T @ design
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (y - fit))
        beta = beta + step
        if np.abs(beta).max() > _SEPARATED:
            return None
        if np.abs(step).max() < _SETTLED:
            break
    else:
        return None
    scores = design * (y - fit)[:, None]
    by_patient = np.stack([np.bincount(codes, weights=column, minlength=count) for column in scores.T], axis=1)
    bread = np.linalg.inv(information)
    variance = bread @ (by_patient.T @ by_patient) @ bread * count / (count - 1)
    return beta, np.sqrt(np.diag(variance))


def _value(right: Share, other: Share, odds: float, shared: bool) -> Estimate | None:
    """Of all called so, the share that is: `right` of those that are so, `other` of those that are not, rightly."""
    (low, high), (other_low, other_high) = _limits(right), _limits(other)
    lowest = _of_odds(_log(low) - _log(1.0 - other_low) + odds)
    highest = _of_odds(_log(high) - _log(1.0 - other_high) + odds)
    hit, false = right.estimate, 1.0 - other.estimate
    if hit == 0.0 and false == 0.0:  # nothing is ever called so
        return None
    middle = _log(hit) - _log(false) + odds
    if shared or hit in (0.0, 1.0) or false in (0.0, 1.0):
        return Estimate(_of_odds(middle), lowest, highest)
    below = math.hypot(_log(hit) - _log(low), _log(1.0 - other_low) - _log(false))
    above = math.hypot(_log(high) - _log(hit), _log(false) - _log(1.0 - other_high))
    return Estimate(_of_odds(middle), _of_odds(middle - below), _of_odds(middle + above))


def _limits(share: Share) -> tuple[float, float]:
    if share.patients < share.cases:
        return share.interval
    return mid_p_interval(share.count, share.cases, level=share.level)


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf


def _of_odds(logit: float) -> float:
    if math.isnan(logit):  # 0 of 0: nothing is known
        return 0.0
    return 1.0 / (1.0 + math.exp(-logit)) if logit > -700.0 else 0.0


def _check_prevalence(prevalence: float) -> None:
    if not 0.0 < prevalence < 1.0:
        raise RangeError(f"a prevalence is a share between 0 and 1, got {prevalence:g}")
