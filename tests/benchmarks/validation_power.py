"""The table of power in `docs/validation-of-statistics.md`: how often each endpoint passes where nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from validation_cells import Cells, Rows, figures
from validation_errors import (
    auroc_rates,
    balanced_error,
    brier_rates,
    brier_truth,
    gain_by_patient,
    powers,
    share_by_patient,
)

__all__ = ["power_table"]

Passes = Callable[[np.random.Generator, int, int, int], float]
"""How often it passes, in so many runs, of so many patients with so many cases each."""

SIZES = ((60, 1), (200, 1), (1000, 1), (200, 5))
_RELATED = 0.3  # within a patient, where one has several cases


def _answers(discordance: float, margin: float) -> Passes:
    return lambda rng, runs, k, m: powers(rng, runs, k, m, discordance, _RELATED * (m > 1), margin)[0]


def _gain(discordance: float, gain: float) -> Passes:
    return lambda rng, runs, k, m: gain_by_patient(rng, runs, k, m, discordance, _RELATED * (m > 1), gain=gain)[0]


def _floor(rate: float, floor: float) -> Passes:
    return lambda rng, runs, k, m: share_by_patient(rng, runs, k, m, rate, _RELATED * (m > 1), floor)[0]


def _referral(rate: float, budget: float) -> Passes:
    """The upper limit of a rate is 1 less the lower one of the rest."""
    return _floor(1.0 - rate, 1.0 - budget)


def _balanced(discordance: float, margin: float) -> Passes:
    def passes(rng: np.random.Generator, runs: int, k: int, m: int) -> float:
        half = k * m // 2
        return balanced_error(rng, runs, (half, half), m, discordance, 0.0, _RELATED * (m > 1), margin)[0]

    return passes


def _auroc(area: float, margin: float) -> Passes:
    def passes(rng: np.random.Generator, runs: int, k: int, m: int) -> float:
        truth = np.zeros((k, m), dtype=bool)
        truth[: k // 2] = True
        kind = {"alike": 0.9, "related": _RELATED * (m > 1)}
        return auroc_rates(rng, runs, truth, (area, area), margin=margin, **kind)[-1]

    return passes


def _brier(margin: float) -> Passes:
    """The margin beyond a true rise of .026, the smaller noise of the other table."""

    def passes(rng: np.random.Generator, runs: int, k: int, m: int) -> float:
        [rise] = brier_truth(rng, "noise", 0.5)
        return brier_rates(rng, runs, k, m, "noise", 0.5, rise + margin, rise)[2]

    return passes


SETTINGS: tuple[tuple[str, Passes], ...] = (
    ("accuracy: psi .02, margin .02", _answers(0.02, 0.02)),
    ("accuracy: psi .05, margin .02", _answers(0.05, 0.02)),
    ("accuracy: psi .10, margin .05", _answers(0.1, 0.05)),
    ("robust gain: .10 with psi .30", _gain(0.3, 0.1)),
    ("robust gain: .20 with psi .40", _gain(0.4, 0.2)),
    ("robust floor: .60 where .50 is asked", _floor(0.6, 0.5)),
    ("referral: .05 within a budget of .10", _referral(0.05, 0.1)),
    ("balanced accuracy: psi .10, margin .05", _balanced(0.1, 0.05)),
    ("AUROC: .95, margin .05", _auroc(0.95, 0.05)),
    ("AUROC: .999, margin .02", _auroc(0.999, 0.02)),
    ("Brier score: .05 more than it rose", _brier(0.05)),
)


def power_table(cells: Cells, scale: float) -> Iterator[Rows]:
    """How often each endpoint passes."""
    runs = max(20, int(4000 * scale))
    rows = [["true, and asked", *[f"{k}" if m == 1 else f"{k} x {m}" for k, m in SIZES]]]
    for name, passes in SETTINGS:
        row = []
        for patients, each in SIZES:
            options = (runs, patients, each)
            key = f"power of {name} {patients} {each} {runs}"
            row += cells(key, lambda rng, o=options, f=passes: [f(rng, *o)])
        rows.append([name, *figures(row)])
    yield rows
