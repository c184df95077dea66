"""Other limits of the change of quadratic kappa than the released one, and how often each errs.

All by patient: Student's t with influences or the jackknife; the same with one bad patient more and skewness corrected,
as released, but what no sample holds left out, reckoned only where few patients differ, or only as far as the spread
does not cover it; two bootstraps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t
from simulated_cases import names
from validation_cells import Cells, Rows, figures, share
from validation_further import graded_draw

from medharden.stats import quadratic_kappa, quadratic_kappa_difference
from medharden.stats.influence import unseen_share

__all__ = ["FORMS", "kappa_remedies_table", "remedy_errors", "remedy_truth"]

Draw = np.random.Generator

GRADES, LEVEL, ALPHA = 5, 0.95, 0.025
FORMS = (
    "released",
    "influences, t",
    "jackknife, t",
    "influences, t, skewness, one patient more",
    "the same; unseen patients where fewer than 20 differ",
    "unseen patients and spread together",
    "BCa bootstrap",
    "studentised bootstrap",
)
_RESAMPLED = 199
_FEW = 20


def rare_draw(
    rng: Draw, patients: int, each: int, related: float, noise: float, rare: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(patients, each) grades of old, new and truth; a share of patients is answered as far off as can be by the new.

    Args:
        rng: draws.
        patients: how many.
        each: cases of each.
        related: share of the noise that is a patient's own.
        noise: of the new model, .45 of the old one.
        rare: share of patients.
    """
    (old, new), labels = graded_draw(rng, patients, each, GRADES, related, noise)
    shape = (patients, each)
    old, new, labels = (grades.reshape(shape) for grades in (old, new, labels))
    furthest = np.where(2 * labels >= GRADES - 1, 0, GRADES - 1)
    lost = rng.random((patients, 1)) < rare
    return old, np.where(lost, furthest, new), labels


def remedy_truth(rng: Draw, cases: int, each: int, *how: float) -> list[float]:
    """The true change of kappa, from so many cases."""
    old, new, labels = (grades.ravel() for grades in rare_draw(rng, cases // each, each, *how))
    return [quadratic_kappa(new, labels, GRADES)[0] - quadratic_kappa(old, labels, GRADES)[0]]


def remedy_errors(rng: Draw, runs: int, truth: float, patients: int, each: int, *how: float) -> list[float]:
    """How often each form's lower limit lies above the truth, in the order of `FORMS`."""
    above = np.zeros(len(FORMS))
    for _ in range(runs):
        above += np.array(_limits(rng, *rare_draw(rng, patients, each, *how))) > truth
    return (above / runs).tolist()


def _limits(rng: Draw, old: np.ndarray, new: np.ndarray, labels: np.ndarray) -> list[float]:
    people, each = labels.shape
    owners = names(people, each)
    found = quadratic_kappa_difference(new.ravel(), old.ravel(), labels.ravel(), GRADES, patients=owners)
    value, q = found.estimate, float(t.isf(ALPHA, people - 1))
    unseen = unseen_share(people, LEVEL)
    bound = found.least / unseen
    influences = [quadratic_kappa(x.ravel(), labels.ravel(), GRADES)[1] for x in (new, old)]
    psi = (influences[0] - influences[1]).reshape(people, each).sum(1) / labels.size * np.sqrt(people / (people - 1))
    spread = float(np.sqrt((psi**2).sum()))
    reach = _corrected(psi, q)
    few = int((old != new).any(1).sum()) < _FEW
    sums = [_sums(x, labels) for x in (new, old)]
    without = _kappa(sums[0].sum(0) - sums[0]) - _kappa(sums[1].sum(0) - sums[1])
    jackknife = float(np.sqrt((people - 1) / people * ((without - without.mean()) ** 2).sum()))
    return [
        found.interval[0],
        value - q * spread,
        value - q * jackknife,
        value - reach,
        value - (max(reach, (value + bound) * unseen) if few else reach),
        value - max(reach, _together(reach / q, q, people, value + bound)),
        *_resampled(rng, value, spread, sums, without),
    ]


def _corrected(psi: np.ndarray, q: float) -> float:
    """How far the limit lies off with skewness corrected and one patient more, as bad as the worst."""
    worst = min(float(psi.min()), 0.0)
    error = float(np.sqrt((psi**2).sum() + worst**2))
    skewness = float((psi**3).sum() + worst**3) / error**3 if error > 0 else 0.0
    return error * (q - skewness * (2 * q * q + 1) / 6)


def _together(error: float, q: float, people: int, bound: float) -> float:
    """The least distance that errs by alpha at most, whatever share r of patients is wholly lost and was not seen.

    max over r of (1 - r)^K P(Z > (D - r bound) / error) = alpha: a rare kind that the sample may have missed, and the
    spread of the others.
    """
    shares = np.linspace(0.0, unseen_share(people, LEVEL), 30)
    missed = (1.0 - shares) ** people
    scale = float(norm.isf(ALPHA)) / q / max(error, 1e-9)

    def excess(distance: float) -> float:
        return float((missed * norm.sf((distance - shares * bound) * scale)).max()) - ALPHA

    return float(brentq(excess, 0.0, bound + 10 * q * error, xtol=1e-6))


def _resampled(
    rng: Draw, value: float, spread: float, sums: list[np.ndarray], without: np.ndarray
) -> tuple[float, float]:
    """Lower limits of the accelerated and of the studentised bootstrap of patients (Efron 1987; Davison & Hinkley)."""
    people = len(without)
    weights = rng.multinomial(people, np.full(people, 1 / people), _RESAMPLED).astype(float)
    drawn = _kappa(weights @ sums[0]) - _kappa(weights @ sums[1])
    z = float(norm.isf(ALPHA))
    below = np.clip((drawn < value).mean() + 0.5 * (drawn == value).mean(), 1 / _RESAMPLED, 1 - 1 / _RESAMPLED)
    centre, off = float(norm.ppf(below)), without.mean() - without
    size = float((off**2).sum())
    skewed = float((off**3).sum()) / (6 * size**1.5) if size > 0 else 0.0
    place = float(norm.cdf(centre + (centre - z) / (1 - skewed * (centre - z))))
    psi = _influences(sums[0], weights) - _influences(sums[1], weights)
    errors = np.sqrt((weights * psi**2).sum(1) * people / (people - 1))
    pivots = np.divide(drawn - value, errors, out=np.zeros_like(errors), where=errors > 0)
    return float(np.quantile(drawn, place)), value - float(np.quantile(pivots, 1 - ALPHA)) * spread


def _sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(K, 6) of each patient: (x - y)^2, x, x^2, y, y^2 and how many."""
    x, y = x.astype(float), y.astype(float)
    counts = np.full(len(x), float(x.shape[1]))
    return np.stack([((x - y) ** 2).sum(1), x.sum(1), (x**2).sum(1), y.sum(1), (y**2).sum(1), counts], axis=1)


def _moments(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """A, B, and mean and variance of x and y, of sums (..., 6)."""
    off, x, xx, y, yy, n = np.moveaxis(sums, -1, 0)
    mean_x, mean_y = x / n, y / n
    var_x, var_y = xx / n - mean_x**2, yy / n - mean_y**2
    return off / n, var_x + var_y + (mean_x - mean_y) ** 2, mean_x, mean_y, var_x, var_y


def _kappa(sums: np.ndarray) -> np.ndarray:
    a, b = _moments(sums)[:2]
    return 1.0 - a / b


def _influences(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, K) of each patient on kappa in each resample."""
    total = weights @ sums
    a, b, mean_x, mean_y, var_x, var_y = (m[:, None] for m in _moments(total))
    off, x, xx, y, yy, n = sums.T
    apart = xx - 2 * mean_y * x + n * (mean_y**2 + var_y) + yy - 2 * mean_x * y + n * (mean_x**2 + var_x)
    return (-(off - a * n) / b + a * (apart - 2 * b * n) / b**2) / total[:, 5:]


def kappa_remedies_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Error of each form, at a true change of exactly the margin."""
    patients, each, related, columns = 200, 3, 0.3, []
    for noise, lost in ((0.75, 0.0), (0.55, 0.0), (0.55, 1.0), (0.47, 2.5)):
        runs, how = max(5, round(2000 * scale)), (related, noise, lost / patients)
        key = f"kappa remedies {patients} {each} {related} {noise} {lost}"
        many = 1_000_000 if scale >= 0.1 else 20_000
        (truth,) = cells(f"{key} truth {many}", lambda rng, m=many, h=how: remedy_truth(rng, m, each, *h))
        errors = cells(
            f"{key} {runs}",
            lambda rng, n=runs, v=truth, h=how: remedy_errors(rng, n, v, patients, each, *h),
        )
        columns.append((f"{patients} x {each}, noise {noise:g}, lost {lost:g}", f"{-truth:.3f}", errors))
    rows = [["patients x cases", "kappa lost", *FORMS]]
    rows += [[where, margin, *figures(errors)] for where, margin, errors in columns]
    yield [*rows, ["largest", "", *(share(max(e[k] for *_, e in columns)) for k in range(len(FORMS)))]]
