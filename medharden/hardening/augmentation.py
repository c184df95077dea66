"""Augmentations that a gradient flows through, so that the carried perturbation stays in the un-augmented frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from medharden.protocol import Hardening
from medharden.transfers import sent

__all__ = ["Changes", "augment"]

_OFFSET = 1e-2  # of a root: its slope at 0 would be infinite, and without one black pixels would not be attacked


@dataclass(frozen=True)
class Changes:
    """What was drawn for a batch: in what each case, or the batch, is changed; null where nothing is.

    Attributes:
        mirrored: (N,) bool.
        shifts: where each axis starts after padding by `padding`.
        padding: largest shift, in pixels.
        tones: (3, N) gamma, contrast and brightness.
    """

    mirrored: Tensor | None = None
    shifts: tuple[int, ...] = ()
    padding: int = 0
    tones: Tensor | None = None

    @classmethod
    def drawn(cls, cases: int, dims: int, settings: Hardening, generator: torch.Generator) -> Changes:
        """Draws as the protocol says.

        Args:
            cases: of the batch.
            dims: spatial axes.
            settings: `flip` (each case with probability 1/2, last axis), `shift` (one shift a batch, in pixels) and
                `photometric` (the logarithms of each case's tones, uniform within it).
            generator: on the CPU.
        """
        mirrored = torch.rand(cases, generator=generator) < 0.5 if settings.flip else None
        shifts: tuple[int, ...] = ()
        if settings.shift:
            shifts = tuple(torch.randint(0, 2 * settings.shift + 1, (dims,), generator=generator).tolist())
        tones = None
        if settings.photometric:
            tones = ((torch.rand((3, cases), generator=generator) * 2 - 1) * settings.photometric).exp()
        return cls(mirrored, shifts, settings.shift, tones)

    def of(self, start: int, stop: int) -> Changes:
        """Those of cases [start, stop)."""
        mirrored = None if self.mirrored is None else self.mirrored[start:stop]
        tones = None if self.tones is None else self.tones[:, start:stop]
        return replace(self, mirrored=mirrored, tones=tones)


def augment(inputs: Tensor, changes: Changes) -> Tensor:
    """Mirrors cases left to right, shifts the batch and varies each case's tones, as was drawn.

    Args:
        inputs: (N, C, *spatial) in [0, 1].
        changes: of these cases.

    Returns:
        (N, C, *spatial), differentiable in `inputs`.
    """
    if changes.mirrored is not None:
        shape = (-1,) + (1,) * (inputs.ndim - 1)
        inputs = torch.where(sent(changes.mirrored, inputs.device).view(shape), inputs.flip(-1), inputs)
    if changes.shifts:
        lengths = inputs.shape[2:]
        inputs = functional.pad(inputs, [changes.padding] * (2 * len(lengths)), mode="replicate")
        for axis, (start, length) in enumerate(zip(changes.shifts, lengths, strict=True)):
            inputs = inputs.narrow(axis + 2, start, length)
    return inputs if changes.tones is None else _vary_tones(inputs, changes.tones)


def _vary_tones(inputs: Tensor, tones: Tensor) -> Tensor:
    """Makes x into clip(((t(x) - 1/2) c + 1/2) b), with (3, N) g, c and b of each case.

    t(x) is (x + d)^g, moved and scaled so that 0 and 1 stay.
    """
    gamma, contrast, brightness = sent(tones, inputs.device).to(inputs.dtype).view(3, -1, *(1,) * (inputs.ndim - 1))
    black, white = _OFFSET**gamma, (1 + _OFFSET) ** gamma
    toned = ((inputs + _OFFSET) ** gamma - black) / (white - black)
    varied: Tensor = (((toned - 0.5) * contrast + 0.5) * brightness).clamp(0, 1)
    return varied
