"""Drawing a sample of cases, or an order of all, with each class in its share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["stratified_order", "stratified_sample"]


def stratified_sample(labels: npt.NDArray[Any], cases: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Row numbers of at most `cases` cases, drawn from the seed, sorted.

    Args:
        labels: (N,) class indices, or (N, L) findings, of which each combination has its share: 1 there, 0 absent, NaN
            (or -1, of whole numbers) left out of the case.
        cases: how many at most; null takes all.
        seed: of the draw.

    Returns:
        (min(cases, N),) row numbers.
    """
    if cases is None or cases >= len(labels):
        return np.arange(len(labels))
    return np.sort(stratified_order(labels, seed)[:cases])


def stratified_order(labels: npt.NDArray[Any], seed: int) -> npt.NDArray[np.int64]:
    """All row numbers in an order whose beginnings, of whatever length, are samples with each class in its share.

    Args:
        labels: as `stratified_sample` takes them.
        seed: of the draw.
    """
    if labels.ndim == 2:
        states = np.nan_to_num(labels.astype(np.float64), nan=-1.0)
        labels = np.unique(states, axis=0, return_inverse=True)[1].reshape(-1)
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    # sorting by rank within the class interleaves the classes in their shares
    rank = np.zeros(len(labels))
    for k in np.unique(labels):
        mine = order[labels[order] == k]
        rank[mine] = (np.arange(len(mine)) + random.random()) / len(mine)
    return np.argsort(rank, kind="stable")
