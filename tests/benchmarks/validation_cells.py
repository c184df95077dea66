"""Cells of a validation table: numbers by key, and how they are written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rows = list[list[str]]
Compute = Callable[[np.random.Generator], list[float]]
Cells = Callable[[str, Compute], list[float]]
"""Numbers of one cell by its key: looked up, or computed from a generator of its own."""


def share(value: float) -> str:
    """Three decimals without the leading zero, as error rates are written."""
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1.00"


def figures(values: list[float]) -> list[str]:
    """All of them as they are written."""
    return [share(v) for v in values]
