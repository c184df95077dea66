"""The tables of `docs/validation-of-statistics.md` on scores: AUROC and Brier, cell by cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from many_runs import ALPHA, auroc_lower, mean_limits
from simulated_cases import brier_draw, names, score_draw
from validation_cells import Cells, Rows, figures, share

from medharden.stats import macro_auroc_difference, unseen_share

__all__ = ["auroc_error", "auroc_table", "brier_table", "positives"]

METHODS = ("DeLong", "MOVER, Newcombe", "MOVER, logit", "corrected", "used")


def auroc_error(
    rng: np.random.Generator,
    runs: int,
    truth: np.ndarray,
    quality: tuple[float, float],
    **options: float,
) -> list[float]:
    """One-sided error of each method's lower limit at the true difference, which is the margin."""
    dropped = options.get("dropped", 0.0)
    real = quality[0] * (1 - dropped) - quality[1]
    hits = np.zeros(len(METHODS))
    step = max(1, min(runs, 2_000_000 // truth.size))
    for begin in range(0, runs, step):
        scores = score_draw(rng, min(step, runs - begin), truth, quality, **options)
        found = auroc_lower(scores, truth)
        hits += [float((found[name] > real).sum()) for name in METHODS]
    return (hits / runs).tolist()


def positives(patients: int, each: int, share_positive: float) -> np.ndarray:
    """(K, m) where the first patients have positives alone."""
    truth = np.zeros((patients, each), dtype=bool)
    truth[: round(share_positive * patients)] = True
    return truth


def auroc_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error of AUROC limits at the margin, with the methods tried."""
    runs = max(20, int(4000 * scale))
    rows = [["positive, negative", "AUROC old, new", "noise alike", *METHODS, "least margin"]]
    for (few, many), old, margin, alike in itertools.product(
        ((30, 30), (20, 180), (100, 100), (100, 900), (500, 500)),
        (0.8, 0.95, 0.99, 0.999),
        (0.02, 0.05, 0.2),
        (0.5, 0.9),
    ):
        if alike == 0.9 and (old in (0.8, 0.99) or margin != 0.05):
            continue
        truth = positives(few + many, 1, few / (few + many))
        key = f"auroc {few} {many} {old} {margin} {alike} {runs}"
        quality = (old - margin, old)
        row = cells(key, lambda rng, t=truth, q=quality, a=alike: auroc_error(rng, runs, t, q, alike=a))
        least = unseen_share(min(few, many), 1 - 2 * ALPHA)
        rows.append([f"{few}, {many}", f"{old:g}, {old - margin:g}", f"{alike:g}", *figures(row), share(least)])
    yield rows
    rows = [["positive, negative", "AUROC old", "smooth loss, dropped", *METHODS]]
    for (few, many), old, (smooth, dropped), alike in itertools.product(
        ((100, 100), (200, 800), (500, 500)),
        (0.95, 0.999),
        ((0.0, 0.02), (0.0, 0.05), (0.01, 0.01), (0.02, 0.03)),
        (0.9, 0.9999),
    ):
        truth = positives(few + many, 1, few / (few + many))
        key = f"dropped {few} {many} {old} {smooth} {dropped} {alike} {runs}"
        quality = (old - smooth, old)
        row = cells(
            key,
            lambda rng, t=truth, q=quality, a=alike, d=dropped: auroc_error(rng, runs, t, q, alike=a, dropped=d),
        )
        rows.append([f"{few}, {many}", f"{old:g}, noise alike {alike:g}", f"{smooth:g}, {dropped:g}", *figures(row)])
    yield rows
    rows = [["patients x cases", "positive", "AUROC old, new", *METHODS, "least margin"]]
    for (patients, each), part, old, margin in itertools.product(
        ((60, 4), (100, 2), (40, 5), (500, 2), (200, 5), (100, 10)), (0.5, 0.2), (0.8, 0.95, 0.999), (0.05, 0.2)
    ):
        truth = positives(patients, each, part)
        key = f"auroc {patients} x {each} {part} {old} {margin} {runs}"
        quality = (old - margin, old)
        row = cells(key, lambda rng, t=truth, q=quality: auroc_error(rng, runs // 2, t, q, related=0.5))
        least = unseen_share(part * patients, 1 - 2 * ALPHA)
        kind = [f"{patients} x {each}", f"{part:.0%}", f"{old:g}, {old - margin:g}"]
        rows.append([*kind, *figures(row), share(least)])
    yield rows
    runs = max(5, int(600 * scale))
    rows = [["patients x cases", "lower limit too high", "upper limit too low"]]
    for patients, each in ((100, 1), (300, 1), (1000, 1), (100, 4)):

        def compute(rng: np.random.Generator, k=patients, m=each) -> list[float]:
            return macro_error(rng, runs, k, m)

        rows.append([f"{patients} x {each}", *figures(cells(f"macro {patients} {each} {runs}", compute))])
    yield rows


def macro_error(rng: np.random.Generator, runs: int, patients: int, each: int) -> list[float]:
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


def brier_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Errors of the Brier limits; the truth is the mean of a million cases."""
    runs = max(20, int(4000 * scale))
    methods = ("Student's t", "corrected", "used")
    rows = [
        ["change", "true difference", "patients x cases", *methods, *[f"{m}, lower limit" for m in methods], "least"]
    ]
    for change, size in (("noise", 0.5), ("noise", 1.5), ("sharper", 0.5), ("sharper", 2.0), ("shifted", 1.5)):
        [truth] = cells(
            f"brier truth {change} {size}",
            lambda rng, c=change, s=size: [
                float(np.mean([brier_draw(rng, 1, 5000, 4, c, s).mean() for _ in range(50)]))
            ],
        )
        for patients, each in ((60, 1), (200, 1), (1000, 1), (30, 2), (100, 2), (40, 5), (500, 2), (200, 5), (100, 10)):

            def compute(rng: np.random.Generator, k=patients, m=each, c=change, s=size, t=truth) -> list[float]:
                hits, step = np.zeros(6), max(1, min(runs, 2_000_000 // (k * m)))
                for begin in range(0, runs, step):
                    found = mean_limits(brier_draw(rng, min(step, runs - begin), k, m, c, s), 2.0)
                    hits += [float((found[name][1] < t).sum()) for name in methods] + [
                        float((found[name][0] > t).sum()) for name in methods
                    ]
                return (hits / runs).tolist()

            row = cells(f"brier {change} {size} {patients} {each} {runs}", compute)
            least = 2.0 * unseen_share(patients, 1 - 2 * ALPHA)
            rows.append([change, f"{truth:.4f}", f"{patients} x {each}", *figures(row), share(least)])
    yield rows
