"""The inputs of a cohort, as an array that lies in a store: what is asked for is read, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden.data.checks.near import Hashes, picture_hash
from medharden.data.store.keeping import Kept, Place
from medharden.rows import Rows
from medharden.transfers import sent

__all__ = ["InputRows", "Inputs", "input_hashes"]

Floats = npt.NDArray[np.float32]

_PLACE = np.dtype([("segment", "i4"), ("offset", "i8"), ("planes", "i4"), ("digest", "V32")])
"""Where a case lies, packed: an object a case would stay for as long as the cohort does."""


class Inputs:
    """(N, C, *spatial) float32 in [0, 1], read-only; each case is held to its digest whenever it is read.

    An index or `np.asarray` gives an ordinary array of that part, in memory.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, places: Sequence[Place], shape: tuple[int, ...]) -> None:
        """Takes the cases in their order, and the shape of each (C, *spatial): grey becomes colour where asked."""
        self.shape = (len(places), *shape)
        self._segments = list({id(place.segment): place.segment for place in places}.values())
        numbers = {id(segment): n for n, segment in enumerate(self._segments)}
        self._table = np.array(
            [(numbers[id(p.segment)], p.offset, p.shape[0], np.void(p.digest)) for p in places], dtype=_PLACE
        )

    @property
    def ndim(self) -> int:
        """Axes, with that of the cases."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Floats:
        """(n, C, *spatial) of some cases, as a new array.

        Raises:
            DataError: a case is no longer as it was kept.
        """
        found = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for n, row in enumerate(rows):
            place = self._place(row)
            if place.shape == self.shape[1:]:
                place.read(found[n])
            else:  # grey, which becomes colour
                found[n] = place.read()
        return found

    def _place(self, row: int | np.int64) -> Place:
        segment, offset, planes, digest = self._table[row]
        return Place(self._segments[segment], int(offset), (int(planes), *self.shape[2:]), digest.tobytes())

    def __getitem__(self, key: Any) -> Floats:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, (int, np.integer)):
            one: Floats = self.read([int(np.arange(len(self))[first])])[0][tuple(rest)]
            return one
        some: Floats = self.read(np.arange(len(self))[first])[(slice(None), *rest)]
        return some

    def __iter__(self) -> Iterator[Floats]:
        return (self.read([row])[0] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("the inputs lie in a file: an array of them is a copy")
        whole: npt.NDArray[Any] = self.read(range(len(self))).astype(dtype or np.float32, copy=False)
        return whole


def input_hashes(kept: Sequence[Kept], inputs: Inputs) -> Hashes:
    """The perceptual hash of each case, as `picture_hashes` gives them; made anew where grey became colour.

    Args:
        kept: the cases.
        inputs: theirs, in the same order.
    """
    channels = inputs.shape[1]
    return [
        one.hash if one.case.shape[0] == channels else picture_hash(inputs.read([row])[0])
        for row, one in enumerate(kept)
    ]


class InputRows(Rows):
    """Some cases of the inputs, put on a device as they are read."""

    def __init__(self, inputs: Inputs, rows: Sequence[int], device: str) -> None:
        """Takes which cases, in their order."""
        super().__init__((len(rows), *inputs.shape[1:]), torch.float32, device)
        self._inputs, self._rows = inputs, tuple(rows)

    def take(self, rows: Sequence[int]) -> Tensor:
        """(n, C, *spatial) in [0, 1], on the device."""
        found = torch.from_numpy(self._inputs.read([self._rows[row] for row in rows]))
        return sent(found, self.device)
