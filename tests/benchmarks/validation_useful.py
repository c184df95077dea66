"""One-sided errors of what an answer means: predictive values, net benefit, and calibration in the large and slope."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from scipy.stats import binom, norm
from simulated_cases import clustered_counts, names
from validation_cells import Cells, Rows, figures, simulated

from medharden.stats import (
    Estimate,
    net_benefit_change,
    predictive_values,
    recalibration,
    share_interval,
    tango_interval,
)
from medharden.stats.bounded import Share

Draw = np.random.Generator

__all__ = [
    "net_benefit_errors",
    "predictive_errors",
    "predictive_errors_by_patient",
    "recalibration_errors",
    "useful_table",
]

_RARE, _COARSE = 1e-7, 1e-2  # chances of a count that are left out: of a whole table, and of one tried on few runs


def predictive_errors(
    cases: tuple[int, int], rates: tuple[float, float], prevalence: float, rare: float = _RARE
) -> list[float]:
    """How often the limits of both predictive values lie above and below the truth, by enumeration.

    Args:
        cases: with and without the finding, one a patient.
        rates: sensitivity and specificity.
        prevalence: of the population.
        rare: chance of a count that is left out.

    Returns:
        Positive: lower limit above, upper below; negative: the same.
    """
    shares = []
    for n, rate in zip(cases, rates, strict=True):
        counts = np.arange(n + 1)
        chances = binom.pmf(counts, n, rate)
        shares.append([(_single(k, n), p) for k, p in zip(counts.tolist(), chances.tolist(), strict=True) if p > rare])
    truths, found = _true_values(*rates, prevalence), np.zeros(4)
    for (hits, one), (right, other) in itertools.product(*shares):
        found += one * other * np.array(_misses(predictive_values(hits, right, prevalence), truths))
    return found.tolist()


def predictive_errors_by_patient(
    rng: Draw, runs: int, patients: int, each: int, rates: tuple[float, float], related: float, prevalence: float
) -> list[float]:
    """The same where patients have `each` cases of one class, by simulation; so many patients of each class."""
    truths, found = _true_values(*rates, prevalence), np.zeros(4)
    sizes, owners = np.full(patients, each), names(patients, each)
    of_both = [clustered_counts(rng, runs, sizes, rate, related).astype(int) for rate in rates]
    for counts in zip(*of_both, strict=True):
        shares = [share_interval((np.arange(each) < hit[:, None]).ravel(), owners) for hit in counts]
        found += _misses(predictive_values(*shares, prevalence), truths)
    return (found / runs).tolist()


def net_benefit_errors(rng: Draw, runs: int, cases: tuple[int, int], lost: float, prevalence: float) -> list[float]:
    """How often the change's lower limit lies above what is true, and the upper below.

    A tenth of the answers of each class change, `lost` more of them for the worse, and a false alarm counts as at a
    threshold of the prevalence.
    """
    found = np.zeros(2)
    change = cache(_change)
    drawn = [rng.multinomial(n, [0.05 - lost / 2, 0.05 + lost / 2, 0.9], runs)[:, :2].tolist() for n in cases]
    truth = -lost * (prevalence + (1.0 - prevalence) * prevalence / (1.0 - prevalence))
    for both in zip(*drawn, strict=True):
        changes = [change(*counts, n) for counts, n in zip(both, cases, strict=True)]
        benefit = net_benefit_change(*changes, prevalence, prevalence)
        found += [benefit.lower > truth, benefit.upper < truth]
    return (found / runs).tolist()


def recalibration_errors(rng: Draw, runs: int, patients: int, each: int, related: float) -> list[float]:
    """How often the limits leave out 0 and 1 where probabilities are right.

    What happens to one patient's cases hangs together beyond what the probabilities know, by a normal copula.

    Returns:
        In the large: lower limit above, upper below; slope: the same. Runs without a finite fit count in none.
    """
    owners, found = names(patients, each), np.zeros(4)
    for _ in range(runs):
        shape = (patients, each)
        logits = rng.normal(size=(patients, 1)) + rng.normal(-1.0, 1.0, size=shape)
        common = math.sqrt(related) * rng.normal(size=(patients, 1)) + math.sqrt(1 - related) * rng.normal(size=shape)
        chances = 1.0 / (1.0 + np.exp(-logits))
        fitted = recalibration(chances.ravel(), (norm.cdf(common) < chances).ravel(), patients=owners)
        if fitted is not None:
            found += _misses(fitted, (0.0, 1.0))
    return (found / runs).tolist()


def useful_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Predictive values, net benefit and recalibration, a table each."""
    rows = [["with, without", "sensitivity, specificity", "PPV: lower", "upper", "NPV: lower", "upper"]]
    for cases, rates in itertools.product(
        ((100, 200), (300, 700), (1000, 1000)), ((0.8, 0.9), (0.9, 0.9), (0.97, 0.95))
    ):
        rare = _RARE if scale >= 0.1 else _COARSE
        errors = cells(
            f"predictive {cases} {rates} {rare}",
            lambda _, c=cases, r=rates, few=rare: predictive_errors(c, r, 0.1, few),
        )
        if min(n * (1 - rate) for n, rate in zip(cases, rates, strict=True)) >= 10 - 1e-9:
            cells.note("predictive values", f"{cases[0]} and {cases[1]}, {rates[0]:g} and {rates[1]:g}", max(errors))
        rows.append([f"{cases[0]}, {cases[1]}", f"{rates[0]:g}, {rates[1]:g}", *figures(errors)])
    for patients, each, related in ((100, 3, 0.3), (200, 5, 0.3)):
        runs = max(20, round(4000 * scale))
        errors = cells(
            f"predictive {patients} x {each} {related} {runs}",
            lambda rng, p=patients, e=each, r=related, n=runs: predictive_errors_by_patient(
                rng, n, p, e, (0.8, 0.9), r, 0.1
            ),
        )
        cells.note("predictive values by patient", f"{patients} x {each} of each class", max(errors))
        rows.append([f"{patients} x {each} of each", "0.8, 0.9", *figures(errors)])
    yield rows
    rows = [["with, without", "prevalence and threshold", "lost of each", "lower", "upper"]]
    for cases, prevalence, lost in (((200, 200), 0.3, 0.02), ((300, 700), 0.1, 0.02), ((1000, 1000), 0.05, 0.0)):
        errors = simulated(
            cells,
            f"net benefit {cases} {prevalence} {lost}",
            max(20, round(20_000 * scale)),
            lambda rng, n, c=cases, p=prevalence, gone=lost: net_benefit_errors(rng, n, c, gone, p),
            counts=0,
        )
        cells.note("net benefit", f"{cases[0]} and {cases[1]}, prevalence {prevalence:g}", max(errors))
        rows.append([f"{cases[0]}, {cases[1]}", f"{prevalence:g}", f"{lost:g}", *figures(errors)])
    yield rows
    rows = [["patients x cases", "correlation", "in the large: lower", "upper", "slope: lower", "upper"]]
    for patients, each, related in ((200, 1, 0.0), (500, 1, 0.0), (200, 4, 0.3), (500, 2, 0.3)):
        errors = simulated(
            cells,
            f"recalibration {patients} {each} {related}",
            max(20, round(8000 * scale)),
            lambda rng, n, p=patients, e=each, r=related: recalibration_errors(rng, n, p, e, r),
            counts=3,
        )
        cells.note("recalibration", f"{patients} x {each}", max(errors))
        rows.append([f"{patients} x {each}", f"{related:g}", *figures(errors)])
    yield rows


@cache
def _single(hits: int, cases: int) -> Share:
    return share_interval(np.arange(cases) < hits)


def _change(gained: int, lost: int, cases: int) -> Estimate:
    return Estimate((gained - lost) / cases, *tango_interval(gained, lost, cases))


def _true_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    found, missed = prevalence * sensitivity, prevalence * (1.0 - sensitivity)
    alarms, cleared = (1.0 - prevalence) * (1.0 - specificity), (1.0 - prevalence) * specificity
    return found / (found + alarms), cleared / (cleared + missed)


def _misses(estimates: tuple[Estimate | None, ...], truths: tuple[float, ...]) -> list[float]:
    found = []
    for estimate, truth in zip(estimates, truths, strict=True):
        found += [0.0, 0.0] if estimate is None else [float(estimate.lower > truth), float(estimate.upper < truth)]
    return found
