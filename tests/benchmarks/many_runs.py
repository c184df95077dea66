"""The released tests on many simulated runs at once, and the methods that they were chosen over."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from medharden.stats import influence_limits, patient_weight, unseen_share
from medharden.stats.clusters import design_effects
from medharden.stats.numerics import gamma_sum_tail
from medharden.stats.paired import null_variance

ALPHA, Z = 0.025, 1.959963984540054


# --- paired answers ----------------------------------------------------------------------------------------------


def shown_on(effect: np.ndarray, gained: np.ndarray, lost: np.ndarray, cases: float, margin: float) -> np.ndarray:
    """Whether Tango's test on cases / effect shows the margin; arrays of runs."""
    b, c, n = gained / effect, lost / effect, cases / effect
    return b - c + n * margin > Z * np.sqrt(n * null_variance(b, c, n, -margin))


def released_effects(gained: np.ndarray, lost: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(runs,) design effect of the released test for the lower limit."""
    return design_effects(gained - lost, (gained + lost).sum(axis=1), sizes, Z)


def released(gained: np.ndarray, lost: np.ndarray, sizes: np.ndarray, margin: float) -> np.ndarray:
    """Which runs `noninferiority_test` shows; counts are (runs, K)."""
    effect = released_effects(gained, lost, sizes)
    return shown_on(effect, gained.sum(1), lost.sum(1), float(sizes.sum()), margin)


def remedies(gained: np.ndarray, lost: np.ndarray, sizes: np.ndarray, margin: float) -> dict[str, np.ndarray]:
    """Which runs pass under each way to allow for patients with several cases; counts are (runs, K)."""
    count, cases, each = sizes.size, float(sizes.sum()), float((sizes**2).sum() / sizes.sum())
    change = gained - lost
    mean = change.sum(1) / cases
    by_patient = count / (count - 1) * ((change - sizes * mean[:, None]) ** 2).sum(1)
    b, c, hit = gained.sum(1), lost.sum(1), ((gained + lost) > 0).sum(1)
    by_case = b + c - cases * mean**2
    plain = np.maximum(1.0, np.where(by_case > 0, by_patient / np.where(by_case > 0, by_case, 1.0), cases / count))
    lower_t = mean - float(stdtrit(count - 1, 0.975)) * np.sqrt(by_patient) / cases
    spread = 1.0 + mean**2

    def more(patients: float) -> np.ndarray:
        extra = patients * each * spread
        return np.maximum(plain, (by_patient + extra * each) / (by_case + extra))

    effects = {
        "all cases as independent": np.ones_like(plain),
        "plain design effect": plain,
        "floor 1 + (m - 1) / (1 + discordant patients)": np.maximum(plain, 1 + (each - 1) / (1 + hit)),
        "shrunk towards m, weight 2 to discordant patients": (hit * plain + 2 * np.maximum(each, plain)) / (hit + 2),
        "one patient more": more(1.0),
        "two patients more": more(2.0),
        "z² / 2 patients more, gains capped (used)": released_effects(gained, lost, sizes),
        "each patient once": np.full_like(plain, each),
    }
    found = {name: shown_on(effect, b, c, cases, margin) for name, effect in effects.items()}
    found["cluster t"] = lower_t > -margin
    return found


def tango_lower(gained: np.ndarray, lost: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """Tango's lower limits of many tables, by bisection."""
    low, high = np.full(gained.shape, -1.0), np.minimum((gained - lost) / cases, -1e-12)
    for _ in range(40):
        middle = 0.5 * (low + high)
        distance = gained - lost - cases * middle
        above = distance > Z * np.sqrt(cases * null_variance(gained, lost, cases, middle))  # type: ignore[arg-type]
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low


def balanced_lower(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Lower limits of `balanced_accuracy_difference` for classes of different patients: gained, lost, sizes of each."""
    below, estimate = 0.0, 0.0
    for gained, lost, sizes in parts:
        effect, cases = released_effects(gained, lost, sizes), float(sizes.sum())
        b, c = gained.sum(1), lost.sum(1)
        share = (b - c) / cases
        below = below + (share - tango_lower(b / effect, c / effect, cases / effect)) ** 2
        estimate = estimate + share
    return (estimate - np.sqrt(below)) / len(parts)


# --- exact limits ------------------------------------------------------------------------------------------------


def exact_p(sums: np.ndarray, each: int, bound: float, lowest: int) -> np.ndarray:
    """`exact_p_value` of many runs: (runs, K) sums over patients with `each` cases, from lowest * each to each."""
    values = np.arange(lowest * each, each + 1)
    counts = (sums[:, :, None] == values).sum(axis=1).astype(float)
    rows, back = np.unique(counts, axis=0, return_inverse=True)
    shapes = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return gamma_sum_tail(np.append(bound * each - values, each * (bound - lowest)), shapes)[back.ravel()]


def exact_share_p(wrong: np.ndarray, sizes: np.ndarray, floor: float) -> np.ndarray:
    """`exact_p_value` of a share in many runs: (runs, K) which patients are wrong in all their cases, others right."""
    kinds = np.unique(sizes)
    counts = [((sizes == n) & (wrong == flag)).sum(axis=1) for n in kinds for flag in (False, True)]
    rows, back = np.unique(np.stack([*counts, np.ones(len(wrong))], axis=1), axis=0, return_inverse=True)
    terms = [floor * n - right for n in kinds for right in (n, 0.0)]
    return gamma_sum_tail(np.array([*terms, patient_weight(sizes) * floor], dtype=float), rows)[back.ravel()]


# --- AUROC -------------------------------------------------------------------------------------------------------


def components(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structural components of positives and of negatives; scores are (runs, n), ties count one half."""
    up, down = scores[:, positive], scores[:, ~positive]
    ranks = rankdata(scores, axis=1)
    of_positives = (ranks[:, positive] - rankdata(up, axis=1)) / down.shape[1]
    return of_positives, 1.0 - (ranks[:, ~positive] - rankdata(down, axis=1)) / up.shape[1]


def auroc_lower(scores: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Lower limits by each method of (2, runs, K, m) scores, new and old; truth is (K, m).

    `corrected` is `auroc_difference` without the part for what no sample holds, `used` with it. The intervals of single
    AUROCs, joined by MOVER, are Newcombe's fifth (Stat Med 2006; 25: 559-573) and the logit of DeLong's.
    """
    patients, positive, runs = truth.shape[0], truth.ravel(), scores.shape[1]
    owner = np.repeat(np.arange(patients), truth.shape[1])
    new, old = (components(s.reshape(runs, -1), positive) for s in scores)
    areas = new[0].mean(1), old[0].mean(1)
    change = areas[0] - areas[1]

    def influences(parts: list[np.ndarray], mean: np.ndarray) -> list[np.ndarray]:
        found = []
        for values, kind in zip(parts, (positive, ~positive), strict=True):
            placed = np.zeros((runs, positive.size))
            placed[:, kind] = (values - mean[:, None]) / kind.sum()
            owners = np.unique(owner[kind]).size
            found.append(placed.reshape(runs, *truth.shape).sum(2) * math.sqrt(owners / (owners - 1)))
        return found

    groups = influences([a - b for a, b in zip(new, old, strict=True)], change)
    counts = [np.bincount(owner[kind], minlength=patients) for kind in (positive, ~positive)]
    owners = [int((n > 0).sum()) for n in counts]
    together = patients / (patients - 1) / math.sqrt(math.prod(n / (n - 1) for n in owners))

    def variance(parts: list[np.ndarray]) -> np.ndarray:
        return (parts[0] ** 2 + parts[1] ** 2 + 2 * together * parts[0] * parts[1]).sum(1)

    of_change = variance(groups)
    singles = [variance(influences(list(part), area)) for part, area in zip((new, old), areas, strict=True)]
    size = np.sqrt(singles[0] * singles[1])
    joint = (singles[0] + singles[1] - of_change) / 2
    related = np.clip(np.divide(joint, size, out=np.zeros_like(size), where=size > 0), -1.0, 1.0)
    worth = [n.sum() / patient_weight(n[n > 0]) for n in (*counts, counts[0] + counts[1])]
    options = {"quantile": Z, "bound": 1.0, "together": together}
    unseen = unseen_share(min(worth[0], worth[1], worth[2] / 2), 1 - 2 * ALPHA)
    reach = [_newcombe(areas[0], *worth[:2])[0], _newcombe(areas[1], *worth[:2])[1]]
    logit = [_logit(areas[0], singles[0])[0], _logit(areas[1], singles[1])[1]]
    return {
        "DeLong": change - Z * np.sqrt(np.maximum(of_change, 0.0)),
        "MOVER, Newcombe": _mover(areas, reach, related),
        "MOVER, logit": _mover(areas, logit, related),
        "corrected": influence_limits(change, groups, unseen=0.0, **options)[0],
        "used": influence_limits(change, groups, unseen=unseen, **options)[0],
    }


def _mover(areas: tuple[np.ndarray, np.ndarray], limits: list[np.ndarray], related: np.ndarray) -> np.ndarray:
    below, above = areas[0] - limits[0], limits[1] - areas[1]
    return areas[0] - areas[1] - np.sqrt(np.maximum(below**2 + above**2 - 2 * related * below * above, 0.0))


def _newcombe(area: np.ndarray, positives: float, negatives: float) -> tuple[np.ndarray, np.ndarray]:
    more = (positives + negatives) / 2 - 1

    def error(t: np.ndarray) -> np.ndarray:
        spread = t * (1 - t) * (1 + more * (1 - t) / (2 - t) + more * t / (1 + t))
        return Z * np.sqrt(spread / (positives * negatives))

    found = []
    for sign, far in ((1.0, 0.0), (-1.0, 1.0)):
        near, away = area.copy(), np.full_like(area, far)
        for _ in range(40):
            middle = 0.5 * (near + away)
            out = sign * (area - middle) > error(middle)
            near, away = np.where(out, near, middle), np.where(out, middle, away)
        found.append(away)
    return found[0], found[1]


def _logit(area: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = np.clip(area, 1e-9, 1 - 1e-9)
    centre, half = np.log(a / (1 - a)), Z * np.sqrt(variance) / (a * (1 - a))
    low, high = (1 / (1 + np.exp(-np.clip(v, -500, 500))) for v in (centre - half, centre + half))
    return low, high


# --- means -------------------------------------------------------------------------------------------------------


def mean_limits(values: np.ndarray, bound: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Limits of the mean of (runs, K, m) values: Student's, corrected for skewness, and those of `brier_difference`."""
    _, patients, each = values.shape
    mean = values.mean(axis=(1, 2))
    psi = (values.sum(2) - each * mean[:, None]) / (patients * each) * math.sqrt(patients / (patients - 1))
    t = float(stdtrit(patients - 1, 1 - ALPHA))
    half = t * np.sqrt((psi**2).sum(1))
    options = {"quantile": t, "bound": bound}
    unseen = unseen_share(patients, 1 - 2 * ALPHA)
    return {
        "Student's t": (mean - half, mean + half),
        "corrected": influence_limits(mean, [psi], unseen=0.0, **options),
        "used": influence_limits(mean, [psi], unseen=unseen, **options),
    }
