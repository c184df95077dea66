"""The tables of `docs/validation-of-statistics.md` on scores, AUROC and Brier: which cells, and how they are folded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from many_runs import ALPHA
from validation_cells import Cells, Rows, figures, share, simulated, span
from validation_errors import AUROC_METHODS, MEAN_METHODS, auroc_rates, brier_rates, brier_truth, macro_errors

from medharden.stats import unseen_share

__all__ = ["auroc_table", "brier_table", "positives"]

SIZES = ((30, 30), (20, 180), (100, 100), (100, 900), (500, 500))


def positives(patients: int, each: int, part: float) -> np.ndarray:
    """(K, m) where the first patients have positives alone."""
    truth = np.zeros((patients, each), dtype=bool)
    truth[: round(part * patients)] = True
    return truth


def _folded(every: list[list[float]]) -> list[str]:
    """The largest error of each method, and of the last one the smallest too."""
    columns = list(zip(*every, strict=True))
    return [*figures(max(column) for column in columns[:-1]), span(columns[-1])]


def auroc_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error of AUROC limits at the margin, with the methods tried: smooth losses, dropped cases, patients."""
    runs = max(20, int(4000 * scale))
    yield _smooth(cells, runs)
    yield _dropped(cells, runs)
    yield _by_patient(cells, runs // 2)
    runs = max(5, int(600 * scale))
    rows = [["patients x cases", "lower limit too high", "upper limit too low"]]
    for patients, each in ((100, 1), (300, 1), (1000, 1), (100, 4)):
        found = cells(f"macro {patients} {each} {runs}", lambda rng, k=patients, m=each: macro_errors(rng, runs, k, m))
        cells.note("AUROC, mean of five", f"{patients} x {each}", found[0])
        rows.append([f"{patients} x {each}", *figures(found)])
    yield rows


def _smooth(cells: Cells, runs: int) -> Rows:
    rows = [["positive, negative", "AUROC old", *AUROC_METHODS, "least margin"]]
    for (few, many), old in itertools.product(SIZES, (0.8, 0.95, 0.99, 0.999)):
        truth, every = positives(few + many, 1, few / (few + many)), []
        for margin, alike in itertools.product((0.02, 0.05, 0.2), (0.5, 0.9)):
            key, options = f"auroc {few} {many} {old} {margin} {alike}", (truth, (old - margin, old))
            every.append(
                simulated(
                    cells, key, runs, lambda rng, n, o=options, a=alike: auroc_rates(rng, n, *o, alike=a), counts=-1
                )
            )
            where = f"{few} and {many}, {old:g} to {old - margin:g}, noise alike {alike:g}"
            cells.note("AUROC", where, every[-1][-1])
        least = unseen_share(min(few, many), 1 - 2 * ALPHA)
        rows.append([f"{few}, {many}", f"{old:g}", *_folded(every), share(least)])
    return rows


def _dropped(cells: Cells, runs: int) -> Rows:
    rows = [["positive, negative", "smooth loss, dropped", *AUROC_METHODS]]
    losses = ((0.0, 0.02), (0.0, 0.05), (0.01, 0.01), (0.02, 0.03))
    for (few, many), (smooth, dropped) in itertools.product(((100, 100), (200, 800), (500, 500)), losses):
        truth, every = positives(few + many, 1, few / (few + many)), []
        for old, alike in itertools.product((0.95, 0.999), (0.9, 0.9999)):
            key, options = f"dropped {few} {many} {old} {smooth} {dropped} {alike}", (truth, (old - smooth, old))
            noise = {"alike": alike, "dropped": dropped}
            every.append(
                simulated(
                    cells, key, runs, lambda rng, n, o=options, kind=noise: auroc_rates(rng, n, *o, **kind), counts=-1
                )
            )
            where = f"{few} and {many}, {old:g}, loss {smooth:g}, dropped {dropped:g}, noise alike {alike:g}"
            cells.note("AUROC, positives that drop below all", where, every[-1][-1])
        rows.append([f"{few}, {many}", f"{smooth:g}, {dropped:g}", *_folded(every)])
    return rows


def _by_patient(cells: Cells, runs: int) -> Rows:
    rows = [["patients x cases", "positive", *AUROC_METHODS, "least margin"]]
    for (patients, each), part in itertools.product(
        ((60, 4), (100, 2), (40, 5), (500, 2), (200, 5), (100, 10)), (0.5, 0.2)
    ):
        truth, every = positives(patients, each, part), []
        for old, margin in itertools.product((0.8, 0.95, 0.999), (0.05, 0.2)):
            key, options = f"auroc {patients} x {each} {part} {old} {margin}", (truth, (old - margin, old))
            every.append(
                simulated(cells, key, runs, lambda rng, n, o=options: auroc_rates(rng, n, *o, related=0.5), counts=-1)
            )
            where = f"{patients} x {each}, {part:.0%} positive, {old:g} to {old - margin:g}"
            cells.note("AUROC by patient", where, every[-1][-1])
        least = unseen_share(part * patients, 1 - 2 * ALPHA)
        rows.append([f"{patients} x {each}", f"{part:.0%}", *_folded(every), share(least)])
    return rows


def brier_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Errors of the Brier limits, the upper one first, by which a score passes."""
    runs = max(20, int(4000 * scale))
    lower = [f"{m}, lower limit" for m in (MEAN_METHODS[0], MEAN_METHODS[-1])]
    rows = [["patients x cases", *MEAN_METHODS, *lower, "least margin"]]
    for patients, each in ((60, 1), (200, 1), (1000, 1), (30, 2), (100, 2), (40, 5), (500, 2), (200, 5), (100, 10)):
        every = []
        for change, size in (("noise", 0.5), ("noise", 1.5), ("sharper", 0.5), ("sharper", 2.0), ("shifted", 1.5)):
            [truth] = cells(f"brier truth {change} {size}", lambda rng, c=change, s=size: brier_truth(rng, c, s))
            key, options = f"brier {change} {size} {patients} {each}", (patients, each, change, size, truth, truth)
            every.append(simulated(cells, key, runs, lambda rng, n, o=options: brier_rates(rng, n, *o), counts=2))
            where = f"{patients} x {each}, {change}, rise of {truth:.3f}"
            cells.note("Brier score" + " by patient" * (each > 1), where, every[-1][2])
        upper, below = [e[:3] for e in every], [[e[3], e[5]] for e in every]
        least = 2.0 * unseen_share(patients, 1 - 2 * ALPHA)
        rows.append([f"{patients} x {each}", *_folded(upper), *_folded(below), share(least)])
    yield rows
