"""NumPy arrays as a torch file describes them: their bytes stand in the pickle itself, and NumPy is never called."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["ArrayRef", "Kind", "Latin", "array_tensor"]

_DTYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}
_MOST_DIMENSIONS = 8
_LARGEST_NUMBER = 2**48


@dataclass(eq=False)
class Kind:
    """A `numpy.dtype`: its code, such as `f4`, and the order of its bytes."""

    code: str
    order: str = ""

    def build(self, state: Any) -> None:
        """Takes the order of bytes from the state that NumPy gives."""
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1][:1]


@dataclass(frozen=True)
class Latin:
    """Bytes that are written as text, one character each, and are made bytes only where they are asked for."""

    text: str


@dataclass(eq=False)
class ArrayRef:
    """An array: shape, type, whether the first axis runs fastest, and its bytes; null where it is not numeric."""

    size: tuple[int, ...] = ()
    kind: Kind | None = None
    fortran: bool = False
    data: bytes | Latin | None = None

    def build(self, state: Any) -> None:
        """Takes the state that NumPy gives."""
        match state:
            case (int(), tuple(size), Kind() as kind, bool(fortran), bytes() | Latin() as data):
                if len(size) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < _LARGEST_NUMBER for n in size):
                    raise ValueError
                self.size, self.kind, self.fortran, self.data = size, kind, fortran, data

    @property
    def bytes(self) -> int:
        """Bytes that its shape and type come to; 0 where it is not numeric."""
        if self.kind is None or self.kind.code not in _DTYPES:
            return 0
        return math.prod(self.size) * _DTYPES[self.kind.code].itemsize


def array_tensor(ref: ArrayRef) -> Tensor | str:
    """The values of an array, or why they are none, in words that follow `it is a file with`.

    Args:
        ref: whose `bytes` the caller has held against the file.
    """
    if ref.kind is None or ref.data is None or ref.kind.code not in _DTYPES:
        return "NumPy arrays of other things than real numbers; keep the weights' arrays alone"
    if ref.kind.order not in ("<", "|"):
        return "NumPy arrays of a big-endian machine"
    written = ref.data.text if isinstance(ref.data, Latin) else ref.data
    if len(written) != ref.bytes:
        return "NumPy arrays of other values than it holds"
    dtype = _DTYPES[ref.kind.code]
    if not written:
        return torch.empty(ref.size, dtype=dtype)
    raw = written.encode("latin-1") if isinstance(written, str) else written
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the bytes can't be written to: nobody does
        flat = torch.frombuffer(raw, dtype=torch.uint8)
    values = flat != 0 if dtype is torch.bool else flat.view(dtype)
    if not ref.fortran:
        return values.reshape(ref.size)
    return values.reshape(ref.size[::-1]).permute(tuple(range(len(ref.size)))[::-1]).contiguous()
