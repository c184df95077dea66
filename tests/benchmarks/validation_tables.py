"""The tables of `docs/validation-of-statistics.md`: what is simulated, cell by cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from many_runs import (
    ALPHA,
    Z,
    balanced_lower,
    exact_p,
    released,
    remedies,
    shown_on,
)
from scipy.special import gammaln
from scipy.stats import binom
from simulated_cases import (
    Correlation,
    clustered_counts,
    clustered_values,
    names,
    paired_counts,
)
from validation_cells import Cells, Rows, figures, share
from validation_scores import auroc_table, brier_table

from medharden.stats import (
    clopper_pearson_interval,
    clustered_mcnemar,
    mcnemar,
    wilson_interval,
)

CLUSTERED = ((30, 2), (12, 5), (100, 2), (40, 5), (20, 10), (500, 2), (200, 5), (100, 10))
RELATED: tuple[Correlation, ...] = (0.0, 0.3, 0.6, "mixed")
SHARES = (0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99)


REMEDIES = tuple(remedies(np.zeros((1, 2)), np.zeros((1, 2)), np.ones(2), 0.1))
NEAR = ("two patients more", "z² / 2 patients more, gains capped (used)")


def sizes_of(patients: int, each: int, *, vary: bool) -> np.ndarray:
    """(K,) cases of each patient: as many each, or of a geometric distribution with that mean."""
    if not vary:
        return np.full(patients, each)
    return np.random.default_rng([patients, each]).geometric(1 / each, patients)


# --- one case a patient: exact -----------------------------------------------------------------------------------


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


def independent_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error of the paired score test, exact."""
    columns = [(0.02, 0.02), (0.02, 0.05), (0.02, 0.2), (0.05, 0.05), (0.05, 0.1), (0.1, 0.1), (0.1, 0.3)]
    every = [0.02, 0.05, 0.1, 0.15, 0.2]
    rows = [["n", *[f"margin {m:g}, psi {p:g}" for m, p in columns], "largest, psi to .9", "psi to 1"]]
    for n in (60, 200, 1000):
        found: dict[tuple[float, float], float] = {}
        worst = {0.9: 0.0, 1.0: 0.0}
        for margin in every:
            wanted = [p for m, p in columns if m == margin]
            grid = np.linspace(margin, 1.0, 60).tolist()
            values = cells(f"paired {n} {margin}", lambda _, n=n, m=margin, g=[*wanted, *grid]: paired_error(n, g, m))
            found |= {(margin, p): v for p, v in zip(wanted, values, strict=False)}
            for top in worst:
                worst[top] = max(worst[top], *(v for p, v in zip(grid, values[len(wanted) :], strict=True) if p <= top))
        rows.append([str(n), *figures([found[c] for c in columns]), *figures(list(worst.values()))])
    yield rows


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


def gains_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error where nothing is gained: exact with one case a patient, then by patient."""
    columns = (0.005, 0.02, 0.05, 0.1, 0.3, 0.6)
    yield [["n", *[f"psi {p:g}" for p in columns]]] + [
        [str(n), *[" / ".join(figures(cells(f"gain {n} {p}", lambda _, n=n, p=p: gain_error(n, p)))) for p in columns]]
        for n in (60, 200, 1000)
    ]
    runs = max(20, int(10000 * scale))
    rows = [["patients x cases", "psi", *[f"correlation {r}" for r in RELATED]]]
    for (patients, each), psi in itertools.product(CLUSTERED, (0.02, 0.1, 0.4)):
        row = []
        for related in RELATED:

            def compute(rng: np.random.Generator, k=patients, m=each, p=psi, r=related) -> list[float]:
                sizes = np.full(k, m)
                gained, lost = paired_counts(rng, runs, sizes, p, 0.0, r)
                exact = exact_p((gained - lost).astype(int), m, 0.0, -1) < ALPHA
                return [float(exact.mean()), float(released(gained, lost, sizes, 0.0).mean())]

            row.append(" / ".join(figures(cells(f"gain {patients} {each} {psi} {related} {runs}", compute))))
        rows.append([f"{patients} x {each}", f"{psi:g}", *row])
    yield rows


def proportion_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Error of lower limits of one proportion: exact with one case a patient, then by patient."""

    def single(n: int, rate: float) -> list[float]:
        found = []
        for method in (wilson_interval, clopper_pearson_interval):
            reached = [x for x in range(n + 1) if method(x, n)[0] >= rate]
            found.append(float(binom.sf(min(reached, default=n + 1) - 1, n, rate)))
        return found

    yield [["n", *[f"share {p:g}" for p in SHARES]]] + [
        [str(n), *[" / ".join(figures(cells(f"share {n} {p}", lambda _, n=n, p=p: single(n, p)))) for p in SHARES]]
        for n in (60, 100, 200, 1000)
    ]
    runs = max(20, int(10000 * scale))
    rows = [["patients x cases", "correlation", *[f"share {p:g}" for p in (0.02, 0.1, 0.5, 0.9, 0.98)]]]
    for (patients, each), related in itertools.product(CLUSTERED, (0.0, 0.3, 0.6, "mixed")):
        row = []
        for rate in (0.02, 0.1, 0.5, 0.9, 0.98):

            def compute(rng: np.random.Generator, k=patients, m=each, p=rate, r=related) -> list[float]:
                hits = clustered_counts(rng, runs, np.full(k, m), p, r).astype(int)
                return [float((exact_p(hits, m, p, 0) <= ALPHA).mean())]

            row += figures(cells(f"share {patients} {each} {related} {rate} {runs}", compute))
        rows.append([f"{patients} x {each}", str(related), *row])
    yield rows


# --- several cases a patient -------------------------------------------------------------------------------------


def remedy_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error and power of each remedy over a wide grid; what looks high is simulated again with more runs."""
    runs, more = max(10, int(600 * scale)), max(20, int(20000 * scale))
    errors: dict[str, list[float]] = {}
    powers: dict[str, list[float]] = {}
    settings = itertools.product((25, 100, 500), (2, 5, 20), (0.0, 0.3, 0.7, "mixed"), (False, True), (0.02, 0.05, 0.1))
    for patients, each, related, vary, margin in settings:
        sizes = sizes_of(patients, each, vary=vary)
        for discordance, truth in [(p, margin) for p in (margin, 0.1, 0.3) if p >= margin] + [
            (p, 0.0) for p in (0.005, 0.05, 0.2)
        ]:

            def compute(
                rng: np.random.Generator, n=runs, s=sizes, p=discordance, t=truth, r=related, m=margin
            ) -> list[float]:
                hits, step = np.zeros(len(REMEDIES)), 2000
                for begin in range(0, n, step):
                    gained, lost = paired_counts(rng, min(step, n - begin), s, p, t, r)
                    hits += [float(passed.sum()) for passed in remedies(gained, lost, s, m).values()]
                return (hits / n).tolist()

            key = f"remedy {patients} {each} {related} {vary} {margin} {discordance} {truth}"
            values = cells(f"{key} {runs}", compute)
            if truth and max(values[REMEDIES.index(name)] for name in NEAR) > 0.03:
                values = cells(f"{key} {more}", lambda rng, compute=compute: compute(rng, more))
            for name, value in zip(REMEDIES, values, strict=True):
                (errors if truth else powers).setdefault(name, []).append(value)
    useful = [0.05 < p < 0.999 for p in powers["plain design effect"]]
    yield [
        ["remedy", "mean error", "largest error", "share of settings above .040", "mean power"],
        *[
            [
                name,
                *figures([float(np.mean(e)), max(e), float(np.mean(np.array(e) > 0.04))]),
                share(float(np.mean(np.array(powers[name])[useful]))),
            ]
            for name, e in errors.items()
        ],
    ]


def clustered_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """The released test on clustered cases: error at the margin, and power beside other tests at no loss."""
    runs = max(20, int(10000 * scale))
    rows = [["patients x cases", "sizes", "margin, psi", *[f"correlation {r}" for r in RELATED]]]
    for (patients, each), vary, (margin, psi) in itertools.product(
        CLUSTERED, (False, True), ((0.05, 0.05), (0.05, 0.2), (0.1, 0.1), (0.1, 0.4))
    ):
        sizes, row = sizes_of(patients, each, vary=vary), []
        for related in RELATED:

            def compute(rng: np.random.Generator, s=sizes, m=margin, p=psi, r=related) -> list[float]:
                gained, lost = paired_counts(rng, runs, s, p, m, r)
                return [float(released(gained, lost, s, m).mean())]

            row += figures(cells(f"released {patients} {each} {vary} {margin} {psi} {related} {runs}", compute))
        rows.append([f"{patients} x {each}", "vary" if vary else "equal", f"{margin:g}, {psi:g}", *row])
    yield rows
    columns = ((0.02, 0.02), (0.03, 0.05), (0.05, 0.05), (0.05, 0.1))
    rows = [["patients x cases", "correlation", *[f"margin {m:g}, psi {p:g}" for m, p in columns]]]
    for (patients, each), related in itertools.product(((305, 2), (305, 4), (100, 5)), RELATED):
        row = []
        for margin, psi in columns:

            def compute(rng: np.random.Generator, k=patients, e=each, m=margin, p=psi, r=related) -> list[float]:
                sizes = np.full(k, e)
                gained, lost = paired_counts(rng, max(20, int(4000 * scale)), sizes, p, 0.0, r)
                found = remedies(gained, lost, sizes, m)
                wanted = ("each patient once", "z² / 2 patients more, gains capped (used)", "plain design effect")
                exact = exact_p((gained - lost).astype(int), e, -m, -1) < ALPHA
                return [float(v.mean()) for v in (exact, *(found[name] for name in wanted))]

            row.append(" / ".join(figures(cells(f"power {patients} {each} {margin} {psi} {related} {scale}", compute))))
        rows.append([f"{patients} x {each}", str(related), *row])
    yield rows


def balanced_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Error of the lower limit of balanced accuracy at a loss of the margin in each of two classes."""
    runs = max(20, int(4000 * scale))
    rows = [["cases of each class", "cases a patient", "margin, psi", *[f"correlation {r}" for r in RELATED]]]
    for (few, many), each, (margin, psi) in itertools.product(
        ((30, 30), (20, 180), (100, 100), (100, 900), (500, 500)), (1, 5), ((0.05, 0.1), (0.1, 0.2), (0.1, 0.5))
    ):
        row = []
        for related in RELATED:
            if each == 1 and related:
                row.append("")
                continue

            def compute(rng: np.random.Generator, pair=(few, many), e=each, m=margin, p=psi, r=related) -> list[float]:
                parts = []
                for n in pair:
                    sizes = np.full(n // e, e)
                    parts.append((*paired_counts(rng, runs, sizes, p, m, r), sizes))
                return [float((balanced_lower(parts) > -m).mean())]

            row += figures(cells(f"balanced {few} {many} {each} {margin} {psi} {related} {runs}", compute))
        rows.append([f"{few}, {many}", str(each), f"{margin:g}, {psi:g}", *row])
    yield rows


# --- no difference ---------------------------------------------------------------------------------------------


def mcnemar_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Two-sided error of McNemar's tests at .05 where nothing differs."""
    rows = [["patients x cases", "psi", "exact", "chi square", "Obuchowski", "Yang"]]
    runs = max(5, int(2000 * scale))
    settings = (((200, 1), 0.0), ((2000, 1), 0.0), ((50, 5), 0.3), ((200, 5), 0.3), ((100, 10), 0.6))
    for ((patients, each), related), discordance in itertools.product(settings, (0.05, 0.2)):

        def compute(rng: np.random.Generator, k=patients, m=each, r=related, p=discordance) -> list[float]:
            who, hits = names(k, m), np.zeros(4)
            for counts in zip(*paired_counts(rng, runs, np.full(k, m), p, 0.0, r), strict=True):
                values = clustered_values(*counts, m)
                b, c = values > 0, values < 0
                by_patient = [clustered_mcnemar(b, c, who, variance=v)[1] for v in ("null", "mean")]
                sums = int(b.sum()), int(c.sum())
                hits += np.array([mcnemar(*sums), mcnemar(*sums, exact=False), *by_patient]) < 0.05
            return (hits / runs).tolist()

        row = cells(f"mcnemar {patients} {each} {related} {discordance} {runs}", compute)
        rows.append([f"{patients} x {each}", f"{discordance:g}", *figures(row)])
    yield rows


TABLES: dict[str, Callable[[Cells, float], Iterator[Rows]]] = {
    "independent": independent_table,
    "gains": gains_table,
    "proportions": proportion_table,
    "remedies": remedy_table,
    "clustered": clustered_table,
    "balanced": balanced_table,
    "auroc": auroc_table,
    "brier": brier_table,
    "mcnemar": mcnemar_table,
}
