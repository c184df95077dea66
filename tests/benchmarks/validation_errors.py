"""What one cell of a validation table comes to: error rates by enumeration or simulation, and power."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from many_runs import (
    ALPHA,
    Z,
    auroc_lower,
    balanced_lower,
    exact_p,
    exact_share_p,
    mean_limits,
    released,
    remedies,
    shown_on,
)
from scipy.special import gammaln
from scipy.stats import binom
from simulated_cases import (
    Correlation,
    brier_draw,
    clustered_counts,
    clustered_values,
    names,
    paired_counts,
    score_draw,
)

from medharden.stats import (
    clopper_pearson_interval,
    clustered_mcnemar,
    macro_auroc_difference,
    mcnemar,
    wilson_interval,
)

Draw = np.random.Generator

AUROC_METHODS = ("DeLong", "MOVER, Newcombe", "MOVER, logit", "corrected", "used")
MEAN_METHODS = ("Student's t", "corrected", "used")
REMEDIES = tuple(remedies(np.zeros((1, 2)), np.zeros((1, 2)), np.ones(2), 0.1))
USED = "z² / 2 patients more, gains capped (used)"
_AT_ONCE = 2_000_000


def parts(runs: int, size: int) -> Iterator[int]:
    """Runs in portions that fit into memory, where one holds so many numbers."""
    step = max(1, min(runs, _AT_ONCE // size))
    for begin in range(0, runs, step):
        yield min(step, runs - begin)


# --- paired answers ----------------------------------------------------------------------------------------------


def tables_of(cases: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts gained and lost of every table there is."""
    gained, lost = np.meshgrid(np.arange(cases + 1.0), np.arange(cases + 1.0), indexing="ij")
    kept = gained + lost <= cases
    return gained[kept], lost[kept]


def chance_of(gained: np.ndarray, lost: np.ndarray, cases: int, discordance: float, difference: float) -> np.ndarray:
    """Trinomial probabilities of tables."""
    rest = cases - gained - lost
    log = gammaln(cases + 1) - gammaln(gained + 1) - gammaln(lost + 1) - gammaln(rest + 1)
    for count, rate in (
        (gained, discordance + difference),
        (lost, discordance - difference),
        (rest, 2 - 2 * discordance),
    ):
        log = log + np.where(count > 0, count * np.log(max(rate / 2, 1e-300)), 0.0)
    return np.exp(log)


def paired_error(cases: int, discordances: list[float], margin: float) -> list[float]:
    """How often a loss of exactly the margin is shown to be less, by enumeration."""
    gained, lost = tables_of(cases)
    passes = shown_on(np.ones_like(gained), gained, lost, cases, margin)
    gained, lost = gained[passes], lost[passes]
    return [float(chance_of(gained, lost, cases, psi, -margin).sum()) for psi in discordances]


def gain_error(cases: int, discordance: float) -> list[float]:
    """How often a gain is shown where as much is lost: by the exact test, and by Tango's with a margin of 0."""
    total = np.arange(cases + 1)
    chance = binom.pmf(total, cases, discordance)
    shown = np.zeros(2)
    for n, weight in zip(total, chance, strict=True):
        if weight < 1e-12 or n == 0:
            continue
        gained = np.arange(n + 1)
        tail, of = binom.sf(gained - 1, n, 0.5), binom.pmf(gained, n, 0.5)
        score = 2.0 * gained - n > Z * math.sqrt(n)
        shown += weight * np.array([of[tail < ALPHA].sum(), of[score].sum()])
    return shown.tolist()


def gain_by_patient(
    rng: Draw, runs: int, patients: int, each: int, discordance: float, related: Correlation, *, gain: float = 0.0
) -> list[float]:
    """The same of patients with several cases, by simulation; with a true gain, the power."""
    sizes = np.full(patients, each)
    gained, lost = paired_counts(rng, runs, sizes, discordance, -gain, related)
    exact = exact_p((gained - lost).astype(int), each, 0.0, -1) < ALPHA
    return [float(exact.mean()), float(released(gained, lost, sizes, 0.0).mean())]


def remedy_rates(
    rng: Draw, runs: int, sizes: np.ndarray, discordance: float, truth: float, related: Correlation, margin: float
) -> list[float]:
    """How often each remedy shows the margin."""
    hits = np.zeros(len(REMEDIES))
    for some in parts(runs, 2 * sizes.size):
        gained, lost = paired_counts(rng, some, sizes, discordance, truth, related)
        hits += [float(passed.sum()) for passed in remedies(gained, lost, sizes, margin).values()]
    return (hits / runs).tolist()


def released_rate(
    rng: Draw, runs: int, sizes: np.ndarray, discordance: float, truth: float, related: Correlation, margin: float
) -> list[float]:
    """How often `noninferiority_test` shows the margin."""
    gained, lost = paired_counts(rng, runs, sizes, discordance, truth, related)
    return [float(released(gained, lost, sizes, margin).mean())]


def powers(
    rng: Draw, runs: int, patients: int, each: int, discordance: float, related: Correlation, margin: float
) -> list[float]:
    """How often no loss is shown to be less than the margin: released, exact, each patient once, plain effect."""
    sizes = np.full(patients, each)
    gained, lost = paired_counts(rng, runs, sizes, discordance, 0.0, related)
    found = remedies(gained, lost, sizes, margin)
    exact = exact_p((gained - lost).astype(int), each, -margin, -1) < ALPHA
    shown = (found[USED], exact, found["each patient once"], found["plain design effect"])
    return [float(v.mean()) for v in shown]


def large_errors(rng: Draw, runs: int, sizes: np.ndarray, many: int, margin: float, other: float) -> list[float]:
    """How often a loss of the margin is shown to be less, and a floor at the truth reached, where large patients lose.

    Args:
        rng: draws.
        runs: how many.
        sizes: (K,) cases of each patient.
        many: from how many cases on a patient loses all or none; others lose nothing.
        margin: the loss; and 1 less it is the share right, and the floor.
        other: share of cases lost, and of cases gained, one by one beside; not in the floor's error.
    """
    large = sizes >= many
    hit = large & (rng.random((runs, sizes.size)) < margin * sizes.sum() / sizes[large].sum())
    lost = hit * sizes
    single = rng.binomial(sizes - lost, other / (1.0 - margin))
    gained = rng.binomial(sizes - lost - single, other / (1.0 - margin - other))
    shown = released(gained.astype(float), (lost + single).astype(float), sizes, margin)
    return [float(shown.mean()), float((exact_share_p(hit, sizes, 1.0 - margin) <= ALPHA).mean())]


def balanced_error(
    rng: Draw,
    runs: int,
    classes: tuple[int, int],
    each: int,
    discordance: float,
    truth: float,
    related: Correlation,
    margin: float,
) -> list[float]:
    """How often balanced accuracy's lower limit lies above -margin at a loss of `truth` in both classes."""
    found = []
    for n in classes:
        sizes = np.full(n // each, each)
        found.append((*paired_counts(rng, runs, sizes, discordance, truth, related), sizes))
    return [float((balanced_lower(found) > -margin).mean())]


def mcnemar_errors(
    rng: Draw, runs: int, patients: int, each: int, discordance: float, related: Correlation
) -> list[float]:
    """Two-sided errors at .05 of McNemar's tests, exact and chi square, and by patient of Obuchowski's and Yang's."""
    who, hits = names(patients, each), np.zeros(4)
    for counts in zip(*paired_counts(rng, runs, np.full(patients, each), discordance, 0.0, related), strict=True):
        values = clustered_values(*counts, each)
        b, c = values > 0, values < 0
        by_patient = [clustered_mcnemar(b, c, who, variance=v)[1] for v in ("null", "mean")]
        sums = int(b.sum()), int(c.sum())
        hits += np.array([mcnemar(*sums), mcnemar(*sums, exact=False), *by_patient]) < 0.05
    return (hits / runs).tolist()


# --- shares ------------------------------------------------------------------------------------------------------


def share_rates(cases: int, rate: float, floor: float) -> list[float]:
    """How often Wilson's and Clopper and Pearson's lower limit reach the floor, by enumeration."""
    found = []
    for method in (wilson_interval, clopper_pearson_interval):
        reached = [x for x in range(cases + 1) if method(x, cases)[0] >= floor]
        found.append(float(binom.sf(min(reached, default=cases + 1) - 1, cases, rate)))
    return found


def share_by_patient(
    rng: Draw, runs: int, patients: int, each: int, rate: float, related: Correlation, floor: float
) -> list[float]:
    """How often the lower limit of `share_interval` reaches the floor, by simulation."""
    hits = clustered_counts(rng, runs, np.full(patients, each), rate, related).astype(int)
    return [float((exact_p(hits, each, floor, 0) <= ALPHA).mean())]


# --- scores ------------------------------------------------------------------------------------------------------


def auroc_rates(
    rng: Draw,
    runs: int,
    truth: np.ndarray,
    quality: tuple[float, float],
    *,
    margin: float | None = None,
    **options: float,
) -> list[float]:
    """How often each method's lower limit lies above -margin; by default the true difference, which is its error."""
    real = quality[0] * (1 - options.get("dropped", 0.0)) - quality[1] if margin is None else -margin
    hits = np.zeros(len(AUROC_METHODS))
    for some in parts(runs, truth.size):
        found = auroc_lower(score_draw(rng, some, truth, quality, **options), truth)
        hits += [float((found[name] > real).sum()) for name in AUROC_METHODS]
    return (hits / runs).tolist()


def macro_errors(rng: Draw, runs: int, patients: int, each: int) -> list[float]:
    """Five labels of 20 to 50 % of patients, AUROC .85 against .95; both errors of the released limits."""
    prevalence, found = np.linspace(0.2, 0.5, 5), np.zeros(2)
    who = names(patients, each) if each > 1 else None
    for _ in range(runs):
        truth = np.repeat(rng.random((patients, 1, 5)) < prevalence, each, axis=1)
        new, old = (
            np.stack(
                [score_draw(rng, 1, truth[..., k], (0.85, 0.95), related=0.5 * (each > 1))[:, 0] for k in range(5)], -1
            )
        ).reshape(2, -1, 5)
        limits = macro_auroc_difference(new, old, truth.reshape(-1, 5), patients=who).interval
        found += [limits[0] > -0.1, limits[1] < -0.1]
    return (found / runs).tolist()


def brier_truth(rng: Draw, change: str, size: float) -> list[float]:
    """The true difference, as the mean of a million cases."""
    return [float(np.mean([brier_draw(rng, 1, 5000, 4, change, size).mean() for _ in range(50)]))]


def brier_rates(
    rng: Draw, runs: int, patients: int, each: int, change: str, size: float, upper: float, lower: float
) -> list[float]:
    """How often each method's upper limit lies below the one number, and its lower limit above the other."""
    hits = np.zeros(2 * len(MEAN_METHODS))
    for some in parts(runs, patients * each):
        found = mean_limits(brier_draw(rng, some, patients, each, change, size), 2.0)
        hits += [float((found[name][1] < upper).sum()) for name in MEAN_METHODS] + [
            float((found[name][0] > lower).sum()) for name in MEAN_METHODS
        ]
    return (hits / runs).tolist()
