"""One-sided errors at operating points fixed on validation, and of the worst of several groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from many_runs import released, shown_on
from scipy.stats import norm
from validation_cells import Cells, Rows, share, simulated

from medharden.stats import threshold_at

Draw = np.random.Generator

__all__ = ["groups_table", "operating_error", "operating_table", "worst_group_error"]

_LEAST = 0.02


def operating_error(
    rng: Draw, runs: int, patients: int, each: int, validation: int, at: float, related: float
) -> list[float]:
    """How often a loss of sensitivity of exactly the margin is shown to be less, thresholds drawn anew in each run.

    Scores are normal, the original's positives 2 above its negatives, the release's 1.6, both correlated by .8. What is
    truly lost at a run's thresholds is its margin; runs in which that is below .02 are left out.

    Args:
        rng: draws.
        runs: how many.
        patients: with the finding, in the test split.
        each: cases of each.
        validation: cases of each class there.
        at: specificity fixed on these.
        related: correlation of one patient's scores.
    """
    positive = np.repeat([False, True], validation)
    found = []
    for _ in range(runs):
        # thresholds of both models from the same validation cases
        shared = rng.normal(size=2 * validation)
        scores = np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.normal(size=(2, 2 * validation))
        scores += np.outer([2.0, 1.6], positive)
        before, after = (threshold_at(one, positive, fixed="specificity", at=at) for one in scores)
        margin = norm.cdf(2.0 - before) - norm.cdf(1.6 - after)
        if margin < _LEAST:
            continue
        of_patient = rng.normal(size=(1, patients, 1))
        common, own = rng.normal(size=(patients, each)), rng.normal(size=(2, patients, each))
        noise = np.sqrt(0.8) * common + np.sqrt(0.2) * own
        test = np.sqrt(1.0 - related) * noise + np.sqrt(related) * (
            np.sqrt(0.8) * of_patient + np.sqrt(0.2) * rng.normal(size=(2, patients, 1))
        )
        right = np.stack([test[0] + 2.0 >= before, test[1] + 1.6 >= after])
        gained, lost = (right[1] & ~right[0]).sum(1), (right[0] & ~right[1]).sum(1)
        found.append((gained, lost, margin))
    sizes = np.full(patients, each)
    counts = [np.stack([one[k] for one in found]).astype(float) for k in (0, 1)]
    margins = np.array([one[2] for one in found])
    if each == 1:
        passed = shown_on(1.0, counts[0].sum(1), counts[1].sum(1), float(patients), margins)
    else:
        passed = released(counts[0], counts[1], sizes, margins)
    return [float(np.mean(passed)), float(len(found))]


def worst_group_error(rng: Draw, runs: int, sizes: tuple[int, ...], margin: float, others: float) -> list[float]:
    """How often all groups are shown to lose less than the margin, although the first loses exactly that.

    Args:
        rng: draws.
        runs: how many.
        sizes: cases of each group, one a patient.
        margin: of all groups.
        others: true loss of the other groups.

    Returns:
        The error of the least limit; and that of the pooled cases, which is not an error of this endpoint.
    """
    shown, total_b, total_c = np.ones(runs, dtype=bool), np.zeros(runs), np.zeros(runs)
    for place, n in enumerate(sizes):
        truth = margin if place == 0 else others
        of_each = rng.multinomial(n, [0.1 - truth / 2, 0.1 + truth / 2, 0.8], runs).astype(float)
        gained, lost = of_each[:, 0], of_each[:, 1]
        shown &= shown_on(1.0, gained, lost, float(n), margin)
        total_b, total_c = total_b + gained, total_c + lost
    pooled = shown_on(1.0, total_b, total_c, float(sum(sizes)), margin)
    return [float(shown.mean()), float(pooled.mean())]


def operating_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Thresholds from validation."""
    rows = [["patients x cases with the finding", "validation, each class", "specificity", "correlation", "error"]]
    for patients, each, validation, at, related in (
        (200, 1, 100, 0.9, 0.0),
        (500, 1, 100, 0.9, 0.0),
        (500, 1, 400, 0.95, 0.0),
        (1000, 1, 400, 0.8, 0.0),
        (200, 5, 400, 0.9, 0.3),
    ):
        runs = max(200, round(20_000 * scale))
        error, _ = simulated(
            cells,
            f"operating {patients} {each} {validation} {at} {related}",
            runs,
            lambda rng, n, p=patients, e=each, v=validation, a=at, r=related: operating_error(rng, n, p, e, v, a, r),
            counts=0,
        )
        cells.note("operating points", f"{patients} x {each}, specificity {at:g}", error)
        rows.append([f"{patients} x {each}", str(validation), f"{at:g}", f"{related:g}", share(error)])
    yield rows


def groups_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """The worst of several groups."""
    rows = [["groups", "margin", "loss in the others", "error", "all cases pooled would pass"]]
    for sizes, margin, others in (
        ((300,), 0.1, 0.0),
        ((300, 300, 300), 0.1, 0.0),
        ((300, 600, 600, 600, 600), 0.1, 0.0),
        ((600, 300, 300, 300, 300), 0.1, 0.0),
        ((300, 300, 300), 0.1, 0.05),
        ((300, 300, 300), 0.1, 0.1),
        ((1000, 1000), 0.05, 0.0),
    ):
        runs = max(200, round(40_000 * scale))
        error, pooled = simulated(
            cells,
            f"worst group {sizes} {margin} {others}",
            runs,
            lambda rng, n, s=sizes, m=margin, o=others: worst_group_error(rng, n, s, m, o),
            counts=0,
        )
        if others == 0.0:
            cells.note("worst group", f"{len(sizes)} groups, the worst of {sizes[0]} cases", error)
        rows.append([", ".join(map(str, sizes)), f"{margin:g}", f"{others:g}", share(error), share(pooled)])
    yield rows
