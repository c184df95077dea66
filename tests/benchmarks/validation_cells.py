"""Cells of a validation table: numbers by key, how they are written, and which of them count in the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

Rows = list[list[str]]
Compute = Callable[[np.random.Generator], list[float]]


Simulate = Callable[[np.random.Generator, int], list[float]]

HIGH, _MORE = 0.028, 5


class Cells(Protocol):
    """Where a table takes its numbers from, and says which are errors of a limit by which something passes."""

    def __call__(self, key: str, compute: Compute) -> list[float]:
        """Numbers of one cell by its key: looked up, or computed from a generator of its own."""

    def note(self, endpoint: str, where: str, error: float) -> None:
        """Counts a one-sided error in the summary."""


def simulated(cells: Cells, key: str, runs: int, simulate: Simulate, *, counts: int) -> list[float]:
    """A cell by so many runs; where the error that counts looks high, by five times as many others in their place.

    Args:
        cells: looks them up.
        key: of the cell, without the runs.
        runs: how many at first.
        simulate: so many runs.
        counts: the place of the error that counts among the numbers.
    """
    values = cells(f"{key} {runs}", lambda rng: simulate(rng, runs))
    if values[counts] > HIGH:
        values = cells(f"{key} {_MORE * runs}", lambda rng: simulate(rng, _MORE * runs))
    return values


def share(value: float) -> str:
    """Three decimals without the leading zero, as error rates are written."""
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1.00"


def figures(values: Iterable[float]) -> list[str]:
    """All of them as they are written."""
    return [share(v) for v in values]


def span(values: Iterable[float]) -> str:
    """The smallest and the largest, or the one that both are."""
    found = list(values)
    low, high = share(min(found)), share(max(found))
    return low if low == high else f"{low} to {high}"
