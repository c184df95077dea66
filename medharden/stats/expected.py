"""Expected robustness: the area under accuracy over budgets, by case, with limits of its mean by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.bounded import mean_limits
from medharden.stats.difference import Floats

__all__ = ["MeanArea", "case_areas", "mean_area"]


@dataclass(frozen=True)
class MeanArea:
    """The mean of the cases' areas, in [0, 1], or of their differences, in [-1, 1], with limits at a level."""

    estimate: float
    lower: float
    upper: float
    cases: int
    patients: int
    level: float
    method: str


def case_areas(withstands: npt.ArrayLike, ratios: Sequence[float], upto: float) -> Floats:
    """(N,) of each case the area under standing (1) or not (0), over budgets from 0 to `upto`, divided by `upto`.

    Between two budgets that were tried the mean of both is taken (trapezoids), as for the accuracy of all cases: the
    mean over cases is the area under the accuracy curve, the expected robustness of Ngnawe et al. (arXiv:2509.23325)
    under a budget that is uniform in [0, upto].

    Args:
        withstands: (N,) the largest budget tried that the case withstands; 0 where it is right without an attack and
            falls at the smallest, below 0 where it is wrong without one.
        ratios: the budgets that were tried, above 0 and rising.
        upto: one of them.

    Raises:
        RangeError: `upto` was not tried.
    """
    if upto not in ratios:
        raise RangeError(f"expected an end among the budgets {list(ratios)}, got {upto:g}")
    grid = np.array([0.0, *(r for r in ratios if r <= upto)])
    stands = (np.asarray(withstands, dtype=np.float64)[:, None] >= grid).astype(np.float64)
    areas: Floats = (np.diff(grid) * (stands[:, :-1] + stands[:, 1:]) / 2).sum(axis=1) / upto
    return areas


def mean_area(
    areas: npt.ArrayLike, patients: Sequence[str] | None = None, *, lowest: float = 0.0, level: float = 0.95
) -> MeanArea:
    """The mean of cases' areas, or of paired differences of them, with Gaffke's limits by patient.

    Args:
        areas: (N,) in [lowest, 1].
        patients: (N,) whose case it is; null where each case is a patient of its own.
        lowest: 0 of areas, -1 of differences.
        level: two-sided, in (0, 1).

    Raises:
        RangeError: areas outside the range, or as many as patients were not given.
    """
    values = np.asarray(areas, dtype=np.float64)
    if values.size and (values.min() < lowest - 1e-9 or values.max() > 1 + 1e-9):
        raise RangeError(f"expected areas in [{lowest:g}, 1], got {values.min():g} to {values.max():g}")
    lower, upper, people = mean_limits(values.clip(lowest, 1.0), patients, lowest, level)
    estimate = float(values.mean()) if values.size else 0.0
    return MeanArea(estimate, lower, upper, values.size, people, level, "Gaffke 2005, by patient")
