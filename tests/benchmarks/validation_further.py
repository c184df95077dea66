"""One-sided errors at operating points fixed on validation, of the worst of several groups, and of ordered grades."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from many_runs import released, shown_on
from scipy.stats import norm
from simulated_cases import names
from validation_cells import Cells, Rows, share, simulated

from medharden.stats import (
    grade_error_difference,
    quadratic_kappa,
    quadratic_kappa_difference,
    threshold_at,
)

Draw = np.random.Generator

__all__ = [
    "graded_draw",
    "graded_error",
    "graded_truth",
    "grades_table",
    "groups_table",
    "operating_error",
    "operating_table",
    "worst_group_error",
]

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
        runs = max(20, round(20_000 * scale))
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
        runs = max(20, round(40_000 * scale))
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


def graded_draw(
    rng: Draw, patients: int, each: int, grades: int, related: float, noise_of_new: float = 0.75
) -> tuple[np.ndarray, np.ndarray]:
    """(2, patients * each) grades answered by the old and by a worse new model, and the true ones.

    A case's severity is normal, its true grade a band of it; answers are bands of the severity with noise of .45 and
    `noise_of_new`, of which half is common to both models, and `related` of a patient's own.
    """
    edges = norm.ppf(np.arange(1, grades) / grades)
    shape = (patients, each)
    severity = np.sqrt(0.5) * rng.normal(size=(patients, 1)) + np.sqrt(0.5) * rng.normal(size=shape)
    severity = severity if each > 1 else rng.normal(size=shape)
    common = np.sqrt(related) * rng.normal(size=(patients, 1)) + np.sqrt(1.0 - related) * rng.normal(size=shape)
    noise = (common + rng.normal(size=(2, *shape))) / np.sqrt(2.0)
    seen = severity + noise * np.array([0.45, noise_of_new])[:, None, None]
    return np.digitize(seen, edges).reshape(2, -1), np.digitize(severity, edges).ravel()


def graded_error(
    rng: Draw, runs: int, patients: int, each: int, grades: int, related: float, truth: list[float]
) -> list[float]:
    """How often each metric's limit passes a margin that is exactly what is lost: kappa, and mean absolute error.

    Args:
        rng: draws.
        runs: how many.
        patients: in the test split.
        each: cases of each.
        grades: how many.
        related: share of the noise that is a patient's own.
        truth: what is lost of kappa, and gained in error.
    """
    owners, passed = names(patients, each), np.zeros(2)
    for _ in range(runs):
        (old, new), labels = graded_draw(rng, patients, each, grades, related)
        kappa = quadratic_kappa_difference(new, old, labels, grades, patients=owners)
        error = grade_error_difference(new, old, labels, grades, patients=owners)
        passed += [kappa.interval[0] > -truth[0], error.interval[1] < truth[1]]
    return (passed / runs).tolist()


def graded_truth(rng: Draw, cases: int, grades: int, each: int, related: float) -> list[float]:
    """What is lost of kappa and gained in mean absolute error in so many cases."""
    (old, new), labels = graded_draw(rng, cases // each, each, grades, related)
    kappas = [quadratic_kappa(answers, labels, grades)[0] for answers in (old, new)]
    errors = [np.abs(answers - labels).mean() for answers in (old, new)]
    return [float(kappas[0] - kappas[1]), float(errors[1] - errors[0])]


def grades_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Ordered grades."""
    rows = [["patients x cases", "grades", "kappa lost", "error", "grades more off", "error"]]
    for patients, each, grades, related in (
        (200, 1, 5, 0.0),
        (400, 1, 5, 0.0),
        (1000, 1, 5, 0.0),
        (400, 1, 3, 0.0),
        (1000, 1, 8, 0.0),
        (200, 3, 5, 0.3),
        (400, 5, 5, 0.3),
    ):
        runs = max(20, round(8000 * scale))
        key = f"{grades} {each} {related}"
        many = 2_000_000 if scale >= 0.1 else 20_000
        truth = cells(
            f"graded truth {key} {many}",
            lambda rng, m=many, g=grades, e=each, r=related: graded_truth(rng, m, g, e, r),
        )
        kappa, error = cells(
            f"graded {patients} {key} {runs}",
            lambda rng, p=patients, e=each, g=grades, r=related, t=truth, n=runs: graded_error(rng, n, p, e, g, r, t),
        )
        where = f"{patients} x {each}, {grades} grades"
        cells.note("quadratic kappa", where, kappa)
        cells.note("mean absolute grade error", where, error)
        figures = (f"{truth[0]:.3f}", share(kappa), f"{truth[1]:.3f}", share(error))
        rows.append([f"{patients} x {each}", str(grades), *figures])
    yield rows
