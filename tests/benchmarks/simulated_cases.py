"""Simulated paired answers and scores of patients with several cases, and ways to allow for these cases."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import stdtrit

from medharden.stats.paired import null_variance

Z = 1.959963984540054


def names(patients: int, each: int) -> list[str]:
    """The patient of each case, where all have equally many."""
    return [f"p{k}" for k in range(patients) for _ in range(each)]


def clustered_counts(
    rng: np.random.Generator, runs: int, sizes: np.ndarray, rate: float, related: float | str
) -> np.ndarray:
    """(runs, K) how many of each patient's cases are hit, at a mean rate; `sizes` is (K,) or (runs, K).

    `related` is the correlation within a patient of a beta-binomial, or `mixed`: every second patient all or nothing.
    """
    shape = (runs, sizes.shape[-1])
    if rate == 0.0:
        return np.zeros(shape)
    if related == "mixed":
        whole, single = sizes * (rng.random(shape) < rate), rng.binomial(sizes, rate, shape)
        return np.where(rng.random(shape) < 0.5, whole, single).astype(float)
    assert not isinstance(related, str)
    if related == 0.0:
        return rng.binomial(sizes, rate, shape).astype(float)
    spread = 1.0 / related - 1.0
    return rng.binomial(sizes, rng.beta(rate * spread, (1.0 - rate) * spread, shape)).astype(float)


def paired_counts(
    rng: np.random.Generator, runs: int, sizes: np.ndarray, discordance: float, truth: float, related: float | str
) -> tuple[np.ndarray, np.ndarray]:
    """Gained and lost, (runs, K) each: so much of all cases discordant, with a true difference of -truth.

    What is gained is drawn among the cases not lost, at a rate that makes up for these being fewer.
    """
    lost_rate, gained_rate = (discordance + truth) / 2, (discordance - truth) / 2
    lost = clustered_counts(rng, runs, sizes, lost_rate, related)
    rest = (sizes - lost).astype(np.int64)
    return clustered_counts(rng, runs, rest, gained_rate / (1.0 - lost_rate), related), lost


def clustered_values(gained: np.ndarray, lost: np.ndarray, each: int) -> np.ndarray:
    """(K * each,) 1, -1 and 0 of one run's counts."""
    place = np.arange(each)[None, :]
    values = np.where(place < gained[:, None], 1, 0) - np.where(each - 1 - place < lost[:, None], 1, 0)
    return values.ravel()


def clustered_run(
    rng: np.random.Generator,
    runs: int,
    patients: int,
    each: int,
    related: float | str,
    discordance: float,
    truth: float,
) -> Iterator[np.ndarray]:
    """The values of each run's cases, with a true difference of -truth."""
    gained, lost = paired_counts(rng, runs, np.full(patients, each), discordance, truth, related)
    for b, c in zip(gained, lost, strict=True):
        yield clustered_values(b, c, each)


def noise(rng: np.random.Generator, patients: int, each: int, related: float) -> np.ndarray:
    """(2, K, m) standard normal noise of two models that correlate by one half, and by `related` within a patient."""

    def part(*shape: int) -> np.ndarray:
        return math.sqrt(0.5) * (rng.normal(size=shape) + rng.normal(size=(2, *shape)))

    return math.sqrt(related) * part(patients, 1) + math.sqrt(1.0 - related) * part(patients, each)


def brier_draw(
    rng: np.random.Generator, patients: int, each: int, worse: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated old probabilities, new ones with an error added to the logit, and labels; all by patient."""
    own = rng.normal(size=(patients, 1)) + rng.normal(size=(patients, each))
    logit = own.ravel() * 1.5
    error = (rng.normal(size=(patients, 1)) + rng.normal(size=(patients, each))).ravel() * worse
    old, new = (1.0 / (1.0 + np.exp(-v)) for v in (logit, logit + error))
    return np.c_[1 - new, new], np.c_[1 - old, old], (rng.random(old.size) < old).astype(int)


def shown_on(effect: np.ndarray, gained: np.ndarray, lost: np.ndarray, cases: float, margin: float) -> np.ndarray:
    """Whether Tango's test on cases / effect shows the margin, for arrays of runs."""
    b, c, n = gained / effect, lost / effect, cases / effect
    return (b - c + n * margin) / np.sqrt(n * null_variance(b, c, n, -margin)) > Z


def remedies(gained: np.ndarray, lost: np.ndarray, sizes: np.ndarray, margin: float) -> dict[str, np.ndarray]:
    """Which runs pass under each way to allow for patients with several cases; counts are (runs, K)."""
    count, cases, each = sizes.size, sizes.sum(), float((sizes**2).sum() / sizes.sum())
    change = gained - lost
    mean = change.sum(1) / cases
    by_patient = count / (count - 1) * ((change - sizes * mean[:, None]) ** 2).sum(1)
    b, c, hit = gained.sum(1), lost.sum(1), ((gained + lost) > 0).sum(1)
    by_case = b + c - cases * mean**2
    plain = np.maximum(1.0, np.where(by_case > 0, by_patient / np.where(by_case > 0, by_case, 1.0), cases / count))
    lower_t = mean - float(stdtrit(count - 1, 0.975)) * np.sqrt(by_patient) / cases

    def more(patients: float) -> np.ndarray:
        return np.maximum(plain, (by_patient + patients * each**2) / (by_case + patients * each))

    effects = {
        "all cases as independent": np.ones_like(plain),
        "plain design effect": plain,
        "floor 1 + (m - 1) / (1 + discordant patients)": np.maximum(plain, 1 + (each - 1) / (1 + hit)),
        "shrunk towards m, weight 2 to discordant patients": (hit * plain + 2 * np.maximum(each, plain)) / (hit + 2),
        "one patient more": more(1.0),
        "two patients more (used)": more(2.0),
        "each patient once": np.full_like(plain, each),
    }
    found = {name: shown_on(effect, b, c, cases, margin) for name, effect in effects.items()}
    found["cluster t"] = lower_t > -margin
    found["plain and cluster t"] = found["plain design effect"] & found["cluster t"]
    return found
