"""Error rates and coverage of every interval and test of `medharden.stats`, by simulation.

    python tests/benchmarks/validate_statistics.py

replaces the tables of `docs/validation-of-statistics.md`, which explains them, and prints how far it is. It takes some
minutes on one core. `--scale 0.1` takes a tenth of the runs; the page is then left alone and the tables are printed.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.stats import norm
from simulated_cases import brier_draw, clustered_counts, clustered_run, names, noise, paired_counts, remedies

from medharden.stats import (
    auroc_difference,
    balanced_accuracy_difference,
    brier_difference,
    clopper_pearson_interval,
    cluster_t_difference,
    clustered_mcnemar,
    effective_cases,
    macro_auroc_difference,
    mcnemar,
    newcombe_interval,
    noninferiority_test,
    tango_interval,
    wilson_interval,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "validation-of-statistics.md"
SEED = 20250101
ALPHA = 0.025
Rows = list[list[str]]
Interval = tuple[float, float]


def share(value: float) -> str:
    """Three decimals without the leading zero, as error rates are written."""
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1.00"


# --- independent cases -------------------------------------------------------------------------------------------


def paired_tables(
    rng: np.random.Generator, runs: int, cases: int, discordance: float, difference: float
) -> Iterator[tuple[tuple[int, int], int]]:
    """Gained and lost that came up, and how often."""
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    found, times = np.unique(rng.multinomial(cases, shares, runs)[:, :2], axis=0, return_counts=True)
    yield from zip(map(tuple, found.tolist()), times.tolist(), strict=True)


def paired_coverage(rng: np.random.Generator, runs: int, cases: int, discordance: float) -> tuple[float, float]:
    """How often Tango's and Newcombe's 95 % intervals hold a true difference of 0; half of the rest is right."""
    hits = np.zeros(2)
    for (gained, lost), often in paired_tables(rng, runs, cases, discordance, 0.0):
        right = (cases - gained - lost) // 2
        limits = (
            tango_interval(gained, lost, cases),
            newcombe_interval(right, gained, lost, cases - gained - lost - right),
        )
        hits += [often * (lower <= 0.0 <= upper) for lower, upper in limits]
    return tuple(hits / runs)


def paired_error(rng: np.random.Generator, runs: int, cases: int, discordance: float, margin: float) -> float:
    """How often a loss of exactly the margin is shown to be less."""
    tables = paired_tables(rng, runs, cases, discordance, -margin)
    return sum(often for table, often in tables if tango_interval(*table, cases)[0] > -margin) / runs


def independent_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """Coverage and one-sided error of the paired score interval."""
    runs = int(20000 * scale)
    errors = [(0.02, 0.02), (0.02, 0.05), (0.02, 0.2), (0.05, 0.05), (0.05, 0.1), (0.1, 0.1), (0.1, 0.2)]
    yield [["n", *[f"psi {p:g}" for p in (0.005, 0.02, 0.05, 0.1, 0.2)]]] + [
        [
            str(n),
            *[" / ".join(share(v) for v in paired_coverage(rng, runs, n, p)) for p in (0.005, 0.02, 0.05, 0.1, 0.2)],
        ]
        for n in (50, 100, 200, 500, 1000, 2000)
    ]
    yield [["n", *[f"margin {m:g}, psi {p:g}" for m, p in errors]]] + [
        [str(n), *[share(paired_error(rng, runs, n, p, m)) for m, p in errors]] for n in (50, 100, 200, 500, 1000, 2000)
    ]


# --- several cases a patient -------------------------------------------------------------------------------------


def remedy_settings() -> Iterator[tuple[int, int, float | str, bool, float]]:
    """Patients, mean cases, correlation, whether sizes vary, margin."""
    yield from itertools.product(
        (25, 50, 100, 200, 500), (2, 5, 10, 20), (0.0, 0.2, 0.4, 0.7, "mixed"), (False, True), (0.02, 0.05, 0.1)
    )


def remedy_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """One-sided error and power of each remedy over the whole grid."""
    runs = max(20, int(2000 * scale))
    errors: dict[str, list[float]] = {}
    powers: dict[str, list[float]] = {}
    for patients, each, related, vary, margin in remedy_settings():
        sizes = rng.geometric(1 / each, patients) if vary else np.full(patients, each)
        for discordance, truth in [(p, margin) for p in sorted({margin, 0.1, 0.2}) if p >= margin] + [
            (p, 0.0) for p in (0.005, 0.05, 0.2)
        ]:
            gained, lost = paired_counts(rng, runs, sizes, discordance, truth, related)
            for name, passed in remedies(gained, lost, sizes, margin).items():
                (errors if truth else powers).setdefault(name, []).append(float(passed.mean()))
    useful = [0.05 < p < 0.999 for p in powers["plain design effect"]]
    yield [
        ["remedy", "mean error", "largest error", "share of settings above .030", "above .040", "mean power"],
        *[
            [
                name,
                share(float(np.mean(found))),
                share(max(found)),
                share(float(np.mean(np.array(found) > 0.03))),
                share(float(np.mean(np.array(found) > 0.04))),
                share(float(np.mean(np.array(powers[name])[useful]))),
            ]
            for name, found in errors.items()
        ],
    ]


def clustered_error(
    rng: np.random.Generator, runs: int, patients: int, each: int, related: float | str, discordance: float
) -> np.ndarray:
    """One-sided error at a margin of .05, and coverage: by patient, by case, cluster t."""
    who, hits = names(patients, each), np.zeros(5)
    for values in clustered_run(rng, runs, patients, each, related, discordance, 0.05):
        b, c = values > 0, values < 0
        by_patient = noninferiority_test(b, c, margin=0.05, alpha=ALPHA, patients=who)
        by_case = noninferiority_test(b, c, margin=0.05, alpha=ALPHA, patients=None)
        t = cluster_t_difference(b, c, patients=who).interval
        hits += [by_patient.shown, by_case.shown, t[0] > -0.05, holds(by_patient.interval, -0.05), holds(t, -0.05)]
    return hits / runs


def clustered_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """The released test itself on clustered cases."""
    runs = int(2000 * scale)
    settings = itertools.product(((100, 2), (400, 2), (50, 5), (200, 5), (100, 10)), (0.05, 0.15), (0.0, 0.3, 0.6))
    yield [
        ["patients x cases", "psi", "correlation", "by patient", "by case", "cluster t", "coverage", "of cluster t"]
    ] + [
        [f"{k} x {m}", f"{p:g}", f"{r:g}", *map(share, clustered_error(rng, runs, k, m, r, p))]
        for (k, m), p, r in settings
    ]


# --- AUROC, Brier, balanced accuracy -----------------------------------------------------------------------------


def holds(interval: Interval, truth: float) -> bool:
    """Whether the truth is inside."""
    return interval[0] <= truth <= interval[1]


def rates(intervals: list[Interval], truth: float) -> list[str]:
    """Coverage, error of the lower limit, error of the upper limit."""
    limits = np.array(intervals)
    low, high = float((limits[:, 0] > truth).mean()), float((limits[:, 1] < truth).mean())
    return [share(1 - low - high), share(low), share(high)]


def auroc_rates(
    rng: np.random.Generator, runs: int, patients: int, each: int, positives: float, quality: tuple[float, float]
) -> list[str]:
    """Binormal scores with the given AUROCs; a patient's cases are all positive or all negative."""
    related, who = (0.5, names(patients, each)) if each > 1 else (0.0, None)
    separation = np.sqrt(2.0) * norm.ppf(quality)[:, None, None]
    found = []
    for _ in range(runs):
        truth = np.zeros((patients, each), dtype=bool)
        truth[: round(positives * patients)] = True
        new, old = (noise(rng, patients, each, related) + separation * truth).reshape(2, -1)
        found.append(auroc_difference(new, old, truth.ravel(), patients=who).interval)
    return rates(found, quality[0] - quality[1])


def macro_rates(rng: np.random.Generator, runs: int, patients: int, each: int) -> list[str]:
    """Five labels of 10 to 50 % of patients, AUROC .80 against .85, noise shared by half between labels."""
    prevalence, separation = np.linspace(0.1, 0.5, 5), np.sqrt(2.0) * norm.ppf([0.8, 0.85])[:, None, None, None]
    found = []
    for _ in range(runs):
        truth = np.repeat(rng.random((patients, 1, 5)) < prevalence, each, axis=1)
        shared = noise(rng, patients, each, 0.5)[..., None]
        own = np.stack([noise(rng, patients, each, 0.5) for _ in range(5)], axis=-1)
        new, old = (math.sqrt(0.5) * (shared + own) + separation * truth).reshape(2, -1, 5)
        who = names(patients, each) if each > 1 else None
        found.append(macro_auroc_difference(new, old, truth.reshape(-1, 5), patients=who).interval)
    return rates(found, -0.05)


def auroc_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """Coverage and both errors of the AUROC intervals."""
    runs = int(2000 * scale)
    heading = ["coverage", "lower limit too high", "upper limit too low"]
    settings = [(k, 1) for k in (50, 100, 200, 500, 1000, 2000)] + [(50, 4), (100, 4), (200, 4), (100, 10)]
    rows = [["AUROC new, old", "patients x cases", "positive", *heading]]
    for quality, (patients, each), positives in itertools.product(((0.80, 0.85), (0.94, 0.95)), settings, (0.2, 0.5)):
        found = auroc_rates(rng, runs, patients, each, positives, quality)
        rows.append([f"{quality[0]:.2f}, {quality[1]:.2f}", f"{patients} x {each}", f"{positives:.0%}", *found])
    yield rows
    yield [["patients x cases", *heading]] + [
        [f"{k} x {m}", *macro_rates(rng, int(1000 * scale), k, m)] for k, m in ((100, 1), (300, 1), (1000, 1), (100, 4))
    ]


def brier_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """Coverage and both errors of the Brier interval; the truth is the mean of a million cases."""
    rows = [["patients x cases", "true difference", "coverage", "lower limit too high", "upper limit too low"]]
    for worse in (0.2, 0.8):
        new, old, labels = brier_draw(rng, 250_000, 4, worse)
        truth = brier_difference(new, old, labels).estimate
        for patients, each in ((50, 1), (200, 1), (2000, 1), (50, 4), (200, 4), (100, 10)):
            who = names(patients, each) if each > 1 else None
            found = [
                brier_difference(*brier_draw(rng, patients, each, worse), patients=who).interval
                for _ in range(int(2000 * scale))
            ]
            rows.append([f"{patients} x {each}", f"{truth:.4f}", *rates(found, truth)])
    yield rows


def balanced_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """Coverage and both errors of the balanced interval at a loss of .05 in each class."""
    rows = [
        ["cases of each class", "cases a patient", "psi", "coverage", "lower limit too high", "upper limit too low"]
    ]
    for (few, many), each, discordance in itertools.product(((20, 80), (100, 100), (200, 1000)), (1, 4), (0.05, 0.15)):
        labels = np.r_[np.zeros(few, int), np.ones(many, int)]
        related = 0.3 if each > 1 else 0.0
        found = []
        groups = [
            clustered_run(rng, int(1000 * scale), n // each, each, related, discordance, 0.05) for n in (few, many)
        ]
        for parts in zip(*groups, strict=True):
            values = np.concatenate(parts)
            who = names(values.size // each, each) if each > 1 else None
            found.append(balanced_accuracy_difference(values > 0, values < 0, labels, patients=who).interval)
        rows.append([f"{few}, {many}", str(each), f"{discordance:g}", *rates(found, -0.05)])
    yield rows


# --- one proportion, tests of no difference ----------------------------------------------------------------------


def proportion_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """Coverage and lower error of Wilson's and Clopper and Pearson's limits; Wilson's by patient."""
    runs = int(20000 * scale)
    rows = [["n", "share", "Wilson coverage", "lower too high", "Clopper-Pearson coverage", "lower too high"]]
    for cases, rate in itertools.product((50, 200, 1000), (0.5, 0.8, 0.95)):
        found = rng.binomial(cases, rate, runs).tolist()
        cells = []
        for method in (wilson_interval, clopper_pearson_interval):
            known = {x: method(x, cases) for x in set(found)}
            cells += rates([known[x] for x in found], rate)[:2]
        rows.append([str(cases), f"{rate:g}", *cells])
    yield rows
    rows = [["patients x cases", "share", "correlation", "coverage", "lower limit too high"]]
    for (patients, each), rate, related in itertools.product(
        ((50, 5), (200, 5), (100, 10)), (0.6, 0.9), (0.0, 0.3, 0.6)
    ):
        sizes, who, found = np.full(patients, each), names(patients, each), []
        for hit in clustered_counts(rng, int(2000 * scale), sizes, rate, related):
            values = (np.arange(each) < hit[:, None]).ravel()
            n = effective_cases(values, who, lowest=0.0)
            found.append(wilson_interval(values.mean() * n, n))
        rows.append([f"{patients} x {each}", f"{rate:g}", f"{related:g}", *rates(found, rate)[:2]])
    yield rows


def mcnemar_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """Two-sided error of McNemar's tests at .05 where nothing differs."""
    rows = [["patients x cases", "psi", "exact", "chi square", "Obuchowski", "Yang"]]
    settings = (((200, 1), 0.0), ((2000, 1), 0.0), ((50, 5), 0.3), ((200, 5), 0.3), ((100, 10), 0.6))
    for ((patients, each), related), discordance in itertools.product(settings, (0.05, 0.2)):
        who, hits, runs = names(patients, each), np.zeros(4), int(2000 * scale)
        for values in clustered_run(rng, runs, patients, each, related, discordance, 0.0):
            b, c = values > 0, values < 0
            by_patient = [clustered_mcnemar(b, c, who, variance=v)[1] for v in ("null", "mean")]
            counts = int(b.sum()), int(c.sum())
            hits += np.array([mcnemar(*counts), mcnemar(*counts, exact=False), *by_patient]) < 0.05
        rows.append([f"{patients} x {each}", f"{discordance:g}", *map(share, hits / runs)])
    yield rows


# --- few patients ------------------------------------------------------------------------------------------------


def rarely_worse(rng: np.random.Generator, patients: int, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of .9 for the truth that fall to .6 in all cases of one patient in five, with a little noise."""
    labels = np.tile([0, 1], patients * each)[: patients * each]
    fallen = np.repeat(rng.random(patients) < 0.2, each)
    old, new = (p + rng.normal(0.0, 0.01, labels.size) for p in (np.full(labels.size, 0.9), np.where(fallen, 0.6, 0.9)))
    both = [np.where(labels[:, None] == np.arange(2), p[:, None], 1.0 - p[:, None]) for p in (new, old)]
    return both[0], both[1], labels


def few_table(rng: np.random.Generator, scale: float) -> Iterator[Rows]:
    """The error by which a loss passes, where limits rest on an estimated variance over few patients of ten cases."""
    runs, each = int(2000 * scale), 10
    draws = (lambda k: brier_draw(rng, k, each, 0.8), lambda k: rarely_worse(rng, k, each))
    truths = [brier_difference(*draw(25_000)).estimate for draw in draws]
    rows = [["patients x cases", "AUROC .80, .85", "Brier, noise", "Brier, one patient in five much worse"]]
    for patients in (4, 6, 10, 15, 20, 30, 40, 80):
        found = [auroc_rates(rng, runs, patients, each, 0.5, (0.80, 0.85))[1]]
        for draw, truth in zip(draws, truths, strict=True):
            who = names(patients, each)
            passed = [brier_difference(*draw(patients), patients=who).interval[1] < truth for _ in range(runs)]
            found.append(share(float(np.mean(passed))))
        rows.append([f"{patients} x {each}", *found])
    yield rows


# --- the page ----------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[np.random.Generator, float], Iterator[Rows]]] = {
    "independent": independent_table,
    "remedies": remedy_table,
    "clustered": clustered_table,
    "auroc": auroc_table,
    "brier": brier_table,
    "balanced": balanced_table,
    "proportions": proportion_table,
    "mcnemar": mcnemar_table,
    "few": few_table,
}


def markdown(rows: Rows) -> str:
    """A table whose first row is its heading."""
    lines = [" | ".join(row) for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
    return "\n".join(f"| {line} |" for line in lines)


def replaced(page: str, name: str, tables: str) -> str:
    """The page with what stands between the marks of that name replaced."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = page.split(start)
    return f"{before}{start}\n{tables}\n\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Computes all tables, each from its own seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the runs")
    parser.add_argument("--only", choices=sorted(TABLES), help="one table alone")
    arguments = parser.parse_args()
    for number, (name, make) in enumerate(TABLES.items()):
        if arguments.only not in (None, name):
            continue
        begun = time.monotonic()
        tables = "\n\n".join(map(markdown, make(np.random.default_rng([SEED, number]), arguments.scale)))
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        if arguments.scale == 1.0:
            PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), name, tables), encoding="utf-8")
        else:
            print(tables)


if __name__ == "__main__":
    main()
