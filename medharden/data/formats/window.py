"""Which of a file's units are black and which are white: its window, in torch, so that a gradient flows back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ChannelWindows", "Window"]


@dataclass(frozen=True)
class Window:
    """Which rescaled units become 0 and which become 1 (DICOM PS3.3 C.11.2).

    Attributes:
        low, high: the borders; `high == low` is a step, as LINEAR with a width of 1 is.
        kind: `linear` between the borders; `sigmoid`, whose centre and width the borders give; `table`, whose
            first and last entries lie at the borders.
        table: the table's entries in [0, 1]; between two of them the value is interpolated.
    """

    low: float
    high: float
    kind: Literal["linear", "sigmoid", "table"] = "linear"
    table: tuple[float, ...] = ()

    @classmethod
    def linear(cls, center: float, width: float) -> Window:
        """DICOM's LINEAR (C.11.2.1.2.1): centre c - 0.5, width w - 1."""
        return cls(center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)

    @classmethod
    def exact(cls, center: float, width: float) -> Window:
        """DICOM's LINEAR_EXACT (C.11.2.1.3.2)."""
        return cls(center - width / 2, center + width / 2)

    @classmethod
    def sigmoid(cls, center: float, width: float) -> Window:
        """DICOM's SIGMOID (C.11.2.1.3.1): 1 / (1 + exp(-4 (x - c) / w))."""
        return cls(center - width / 2, center + width / 2, "sigmoid")

    def __call__(self, values: Tensor) -> Tensor:
        """Rescaled units to [0, 1]; any shape."""
        if self.kind == "table":
            return self._look_up(values)
        if self.high <= self.low:
            return (values > self.low).to(values.dtype)
        unit = values - self.low
        unit = unit.div_(self.high - self.low)
        if self.kind == "sigmoid":
            return torch.sigmoid(4 * (unit - 0.5))
        return unit.clamp(0, 1) if unit.requires_grad else unit.clamp_(0, 1)

    def _look_up(self, values: Tensor) -> Tensor:
        table = torch.tensor(self.table, dtype=values.dtype, device=values.device)
        place = (values - self.low).clamp(0, len(self.table) - 1)
        below = place.detach().floor().long()
        above = (below + 1).clamp(max=len(self.table) - 1)
        return table[below] + (table[above] - table[below]) * (place - below)


@dataclass(frozen=True)
class ChannelWindows:
    """A window for each channel of an image that is stacked of several."""

    each: tuple[Window, ...]

    def __call__(self, values: Tensor) -> Tensor:
        """(C, *spatial) rescaled units to [0, 1], each channel through its own window."""
        return torch.stack([window(channel) for window, channel in zip(self.each, values, strict=True)])
