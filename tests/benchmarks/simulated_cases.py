"""Simulated answers, scores and probabilities of patients with several cases, many runs at once."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm

Correlation = float | str


def names(patients: int, each: int) -> list[str]:
    """The patient of each case, where all have equally many."""
    return [f"p{k}" for k in range(patients) for _ in range(each)]


def clustered_counts(
    rng: np.random.Generator, runs: int, sizes: np.ndarray, rate: float, related: Correlation
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
    rng: np.random.Generator, runs: int, sizes: np.ndarray, discordance: float, truth: float, related: Correlation
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


def score_draw(
    rng: np.random.Generator,
    runs: int,
    truth: np.ndarray,
    quality: tuple[float, float],
    *,
    related: float = 0.0,
    alike: float = 0.5,
    dropped: float = 0.0,
) -> np.ndarray:
    """(2, runs, K, m) binormal scores of the new and the old model with the given AUROCs.

    Args:
        truth: (K, m) bool, what is positive.
        quality: AUROC of the new and the old model, before anything drops.
        related: correlation of a model's noise within a patient.
        alike: correlation of the two models' noise.
        dropped: share of patients whose positives the new model puts below everything.
    """

    def part(*shape: int) -> np.ndarray:
        own = rng.normal(size=(2, *shape))
        return math.sqrt(alike) * rng.normal(size=shape) + math.sqrt(1.0 - alike) * own

    patients, each = truth.shape
    noise = math.sqrt(1.0 - related) * part(runs, patients, each)
    if related:
        noise += math.sqrt(related) * part(runs, patients, 1)
    scores = noise + math.sqrt(2.0) * norm.ppf(quality)[:, None, None, None] * truth
    if dropped:
        scores[0] -= 99.0 * (truth & (rng.random((runs, patients, 1)) < dropped))
    return scores


def brier_draw(rng: np.random.Generator, runs: int, patients: int, each: int, change: str, size: float) -> np.ndarray:
    """(runs, K, m) changes of the Brier score: old probabilities are calibrated, new ones noisy, too sharp or shifted.

    Noise and logits are half the patient's, half the case's.
    """

    def both() -> np.ndarray:
        return rng.normal(size=(runs, patients, 1)) + rng.normal(size=(runs, patients, each))

    logit = 1.5 * both()
    moved = {"noise": logit + size * both(), "sharper": logit * (1.0 + size), "shifted": logit - size}[change]
    old, new = (1.0 / (1.0 + np.exp(-v)) for v in (logit, moved))
    happened = rng.random(old.shape) < old
    return 2.0 * ((new - happened) ** 2 - (old - happened) ** 2)
