"""The tables of `docs/validation-of-statistics.md` on answers: which cells there are, and how they are folded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from graded_remedies import kappa_remedies_table
from simulated_cases import Correlation
from validation_cells import HIGH, Cells, Rows, figures, share, simulated, span
from validation_errors import (
    REMEDIES,
    USED,
    balanced_error,
    gain_by_patient,
    gain_error,
    large_errors,
    mcnemar_errors,
    paired_error,
    powers,
    released_rate,
    remedy_rates,
    share_by_patient,
    share_rates,
)
from validation_further import grades_table, groups_table, operating_table
from validation_power import power_table
from validation_scores import auroc_table, brier_table
from validation_useful import useful_table

__all__ = ["TABLES"]

CLUSTERED = ((30, 2), (12, 5), (100, 2), (40, 5), (20, 10), (500, 2), (200, 5), (100, 10))
RELATED: tuple[Correlation, ...] = (0.0, 0.3, 0.6, "mixed")
RELATED_WIDELY: tuple[Correlation, ...] = (0.0, 0.3, 0.7, "mixed")
SHARES = (0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99)
LARGE = {
    "30 x 5, 300 x 1": (np.repeat([5, 1], [30, 300]), 5),
    "30 x 5, 100 x 2, 300 x 1": (np.repeat([5, 2, 1], [30, 100, 300]), 5),
    "60 x 5, 900 x 1": (np.repeat([5, 1], [60, 900]), 5),
    "100 x 2, 400 x 1": (np.repeat([2, 1], [100, 400]), 2),
    "50 x 4, 200 x 1": (np.repeat([4, 1], [50, 200]), 4),
    "20 x 10, 200 x 1": (np.repeat([10, 1], [20, 200]), 10),
    "10 x 10, 90 x 1": (np.repeat([10, 1], [10, 90]), 10),
    "500 x 5, sizes vary": (np.random.default_rng([500, 5]).geometric(1 / 5, 500), 12),
    "200 x 2, sizes vary": (np.random.default_rng([200, 2]).geometric(1 / 2, 200), 4),
}
NEAR = ("two patients more", USED)


def sizes_of(patients: int, each: int, *, vary: bool) -> np.ndarray:
    """(K,) cases of each patient: as many each, or of a geometric distribution with that mean."""
    if not vary:
        return np.full(patients, each)
    return np.random.default_rng([patients, each]).geometric(1 / each, patients)


def independent_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error of the paired score test, exact."""
    columns = [(0.02, 0.02), (0.02, 0.05), (0.02, 0.2), (0.05, 0.05), (0.05, 0.1), (0.1, 0.1), (0.1, 0.3)]
    tops = (0.9, 1.0)
    head = [f"largest, psi {limit}" for limit in ("to .9", "above .9")]
    rows = [["n", *[f"margin {m:g}, psi {p:g}" for m, p in columns], *head]]
    for n in (20, 30, 40, 60, 200, 1000):
        found: dict[tuple[float, float], float] = {}
        worst = dict.fromkeys(tops, (0.0, ""))
        for margin in (0.02, 0.05, 0.1, 0.15, 0.2):
            grid = [*(p for m, p in columns if m == margin), *np.linspace(margin, 1.0, 60).tolist()]
            values = cells(f"paired {n} {margin}", lambda _, n=n, m=margin, g=grid: paired_error(n, g, m))
            for psi, error in zip(grid, values, strict=True):
                found[margin, psi] = error
                top = tops[psi > tops[0]]
                worst[top] = max(worst[top], (error, f"margin {margin:g}, psi {psi:.2g}"))
                if n >= 60 and psi <= tops[0]:
                    cells.note(
                        "accuracy, recall; one case a patient", f"n {n}, margin {margin:g}, psi {psi:.2g}", error
                    )
        rows.append([str(n), *figures(found[c] for c in columns), *[f"{share(e)} ({at})" for e, at in worst.values()]])
    yield rows


def gains_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error where nothing is gained: exact with one case a patient, then by patient."""
    columns = (0.005, 0.02, 0.05, 0.1, 0.3, 0.6)
    rows = [["n", *[f"psi {p:g}" for p in columns]]]
    for n in (60, 200, 1000):
        row = []
        for psi in columns:
            errors = cells(f"gain {n} {psi}", lambda _, n=n, p=psi: gain_error(n, p))
            cells.note("robust gain", f"n {n}, psi {psi:g}", errors[0])
            row.append(" / ".join(figures(errors)))
        rows.append([str(n), *row])
    yield rows
    runs = max(20, int(10000 * scale))
    rows = [["patients x cases", *[f"psi {p:g}" for p in (0.02, 0.1, 0.4)]]]
    for patients, each in CLUSTERED:
        row = []
        for psi in (0.02, 0.1, 0.4):
            every = []
            for related in RELATED:
                key, options = f"gain {patients} {each} {psi} {related}", (patients, each, psi, related)
                every.append(
                    simulated(cells, key, runs, lambda rng, n, o=options: gain_by_patient(rng, n, *o), counts=0)
                )
                where = f"{patients} x {each}, psi {psi:g}, correlation {related}"
                cells.note("robust gain by patient", where, every[-1][0])
            row.append(" / ".join(span(column) for column in zip(*every, strict=True)))
        rows.append([f"{patients} x {each}", *row])
    yield rows


def proportion_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Error of lower limits of one proportion: exact with one case a patient, then by patient."""
    rows = [["n", *[f"share {p:g}" for p in SHARES]]]
    for n in (60, 100, 200, 1000):
        row = []
        for rate in SHARES:
            errors = cells(f"share {n} {rate}", lambda _, n=n, p=rate: share_rates(n, p, p))
            cells.note("floors, referral", f"n {n}, share {rate:g}", errors[1])
            row.append(" / ".join(figures(errors)))
        rows.append([str(n), *row])
    yield rows
    runs = max(20, int(10000 * scale))
    rates = (0.02, 0.1, 0.5, 0.9, 0.98)
    rows = [["patients x cases", *[f"share {p:g}" for p in rates]]]
    for patients, each in CLUSTERED:
        row = []
        for rate in rates:
            every = []
            for related in RELATED:
                key, options = f"share {patients} {each} {related} {rate}", (patients, each, rate, related, rate)
                every += simulated(cells, key, runs, lambda rng, n, o=options: share_by_patient(rng, n, *o), counts=0)
                where = f"{patients} x {each}, share {rate:g}, correlation {related}"
                cells.note("floors, referral by patient", where, every[-1])
            row.append(span(every))
        rows.append([f"{patients} x {each}", *row])
    yield rows


def remedy_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """One-sided error and power of each remedy over a wide grid; what looks high is simulated again with more runs."""
    runs, more = max(10, int(600 * scale)), max(20, int(20000 * scale))
    errors: dict[str, list[tuple[float, str]]] = {name: [] for name in REMEDIES}
    powers_of: dict[str, list[float]] = {name: [] for name in REMEDIES}
    settings = itertools.product((25, 100, 500), (2, 5, 20), RELATED_WIDELY, (False, True), (0.02, 0.05, 0.1))
    for patients, each, related, vary, margin in settings:
        sizes = sizes_of(patients, each, vary=vary)
        at_margin = [(p, margin) for p in (margin, 0.1, 0.3) if p >= margin]
        for psi, truth in [*dict.fromkeys(at_margin), *[(p, 0.0) for p in (0.005, 0.05, 0.2)]]:
            key = f"remedy {patients} {each} {related} {vary} {margin} {psi} {truth}"
            options = (sizes, psi, truth, related, margin)
            values = cells(f"{key} {runs}", lambda rng, o=options: remedy_rates(rng, runs, *o))
            if truth and max(values[REMEDIES.index(name)] for name in NEAR) > HIGH:
                values = cells(f"{key} {more}", lambda rng, o=options: remedy_rates(rng, more, *o))
            kind = f"{patients} x {each}{', sizes vary' * vary}, margin {margin:g}, psi {psi:g}, correlation {related}"
            for name, value in zip(REMEDIES, values, strict=True):
                if truth:
                    errors[name].append((value, kind))
                else:
                    powers_of[name].append(value)
    useful = [0.05 < p < 0.999 for p in powers_of["plain design effect"]]
    rows = [["remedy", "mean error", "largest error", "share of settings above .030", "mean power", "largest where"]]
    for name, found in errors.items():
        e = np.array([value for value, _ in found])
        power = float(np.mean(np.array(powers_of[name])[useful])) if any(useful) else 0.0
        rows.append(
            [name, *figures([float(e.mean()), float(e.max()), float(np.mean(e >= 0.0305)), power]), max(found)[1]]
        )
    yield rows
    for value, kind in errors[USED]:
        cells.note("accuracy, recall by patient, the wide grid", kind, value)


def clustered_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """The released test on clustered cases: error at the margin, and power beside other tests at no loss."""
    runs = max(20, int(10000 * scale))
    columns = ((0.05, 0.05), (0.05, 0.2), (0.1, 0.1), (0.1, 0.4))
    rows = [["patients x cases", *[f"margin {m:g}, psi {p:g}" for m, p in columns]]]
    for (patients, each), vary in itertools.product(CLUSTERED, (False, True)):
        sizes, row = sizes_of(patients, each, vary=vary), []
        kind = f"{patients} x {each}{', sizes vary' * vary}"
        for margin, psi in columns:
            every = []
            for related in RELATED:
                key = f"released {patients} {each} {vary} {margin} {psi} {related}"
                options = (sizes, psi, margin, related, margin)
                every += simulated(cells, key, runs, lambda rng, n, o=options: released_rate(rng, n, *o), counts=0)
                where = f"{kind}, margin {margin:g}, psi {psi:g}, correlation {related}"
                cells.note("accuracy, recall by patient", where, every[-1])
            row.append(span(every))
        rows.append([kind, *row])
    yield rows
    runs = max(20, int(4000 * scale))
    wanted = ((0.02, 0.02), (0.03, 0.05), (0.05, 0.1))
    rows = [["patients x cases", "correlation", *[f"margin {m:g}, psi {p:g}" for m, p in wanted]]]
    for (patients, each), related in itertools.product(((305, 2), (305, 4), (100, 5)), RELATED):
        row = []
        for margin, psi in wanted:
            options = (runs, patients, each, psi, related, margin)
            found = cells(
                f"power {patients} {each} {margin} {psi} {related} {runs}", lambda rng, o=options: powers(rng, *o)
            )
            row.append(" / ".join(figures(found)))
        rows.append([f"{patients} x {each}", str(related), *row])
    yield rows


def large_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Errors where all that is lost is lost by the patients with many cases, all or nothing."""
    runs = max(20, int(5000 * scale))
    columns = [(m, other) for m in (0.03, 0.05, 0.1) for other in (0.0, 0.03)]
    rows = [["patients x cases", *[f"loss {m:g}, others {other:g}" for m, other in columns]]]
    for kind, (sizes, many) in LARGE.items():
        row = []
        for margin, other in columns:
            if margin * sizes.sum() >= 0.95 * sizes[sizes >= many].sum():
                row.append("")
                continue
            key, options = f"large {kind} {margin} {other}", (sizes, many, margin, other)
            found = simulated(cells, key, runs, lambda rng, n, o=options: large_errors(rng, n, *o), counts=0)
            where = f"{kind}, loss {margin:g}, others {other:g}"
            cells.note("accuracy, recall, lost by large patients", where, found[0])
            if not other:
                cells.note("floors, referral, missed by large patients", where, found[1])
            row.append(" / ".join(figures(found[: 1 if other else 2])))
        rows.append([kind, *row])
    yield rows


def balanced_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Error of the lower limit of balanced accuracy at a loss of the margin in each of two classes."""
    runs = max(20, int(4000 * scale))
    columns = ((0.05, 0.1), (0.1, 0.2), (0.1, 0.5))
    rows = [["cases of each class", "cases a patient", *[f"margin {m:g}, psi {p:g}" for m, p in columns]]]
    sizes = ((30, 30), (20, 180), (100, 100), (100, 900), (500, 500))
    for (few, many), each in itertools.product(sizes, (1, 5)):
        row = []
        for margin, psi in columns:
            every = []
            for related in RELATED if each > 1 else (0.0,):
                key = f"balanced {few} {many} {each} {margin} {psi} {related}"
                options = ((few, many), each, psi, margin, related, margin)
                every += simulated(cells, key, runs, lambda rng, n, o=options: balanced_error(rng, n, *o), counts=0)
                where = f"{few} and {many}, {each} a patient, margin {margin:g}, psi {psi:g}, correlation {related}"
                cells.note("balanced accuracy" + " by patient" * (each > 1), where, every[-1])
            row.append(span(every))
        rows.append([f"{few}, {many}", str(each), *row])
    yield rows


def mcnemar_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """Two-sided error of McNemar's tests at .05 where nothing differs."""
    rows = [["patients x cases", "psi", "exact", "chi square", "Obuchowski", "Yang"]]
    runs = max(5, int(2000 * scale))
    settings = (((200, 1), 0.0), ((2000, 1), 0.0), ((50, 5), 0.3), ((200, 5), 0.3), ((100, 10), 0.6))
    for ((patients, each), related), psi in itertools.product(settings, (0.05, 0.2)):
        options = (runs, patients, each, psi, related)
        row = cells(f"mcnemar {patients} {each} {related} {psi} {runs}", lambda rng, o=options: mcnemar_errors(rng, *o))
        rows.append([f"{patients} x {each}", f"{psi:g}", *figures(row)])
    yield rows


TABLES: dict[str, Callable[[Cells, float], Iterator[Rows]]] = {
    "independent": independent_table,
    "clustered": clustered_table,
    "large": large_table,
    "remedies": remedy_table,
    "gains": gains_table,
    "proportions": proportion_table,
    "balanced": balanced_table,
    "auroc": auroc_table,
    "brier": brier_table,
    "mcnemar": mcnemar_table,
    "operating": operating_table,
    "groups": groups_table,
    "grades": grades_table,
    "kappa": kappa_remedies_table,
    "useful": useful_table,
    "power": power_table,
}
