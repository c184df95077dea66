"""Augmentations that a gradient flows through, so that the carried perturbation stays in the un-augmented frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medharden.protocol import Hardening
from medharden.transfers import sent

__all__ = ["Changes", "augment"]


_HELD = 4  # epochs for which a case keeps its place under the carried adversary
_OFFSET = 1e-2  # of a root: its slope at 0 would be infinite, and without one black pixels would not be attacked


@dataclass(frozen=True)
class Changes:
    """What was drawn for a batch: in what each case, or the batch, is changed; null where nothing is.

    Attributes:
        mirrored: (N,) bool.
        shifts: (N, axes) int64, where each axis of a case starts after padding by `padding`.
        padding: largest shift, in pixels.
        tones: (3, N) gamma, contrast and brightness.
    """

    mirrored: Tensor | None = None
    shifts: Tensor | None = None
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
        shifts = None
        if settings.shift:
            shifts = torch.randint(0, 2 * settings.shift + 1, (dims,), generator=generator).expand(cases, -1)
        tones = None
        if settings.photometric:
            tones = ((torch.rand((3, cases), generator=generator) * 2 - 1) * settings.photometric).exp()
        return cls(mirrored, shifts, settings.shift, tones)

    def held(self, rows: Tensor, seed: int, epoch: int) -> Changes:
        """The same with each case mirrored and shifted as its row says, four epochs alike.

        A perturbation that is carried was made for the image as it lay then: where the image is laid anew at each
        visit, it has never met the one that it is added to, and the branch learns to withstand what is no attack.

        Args:
            rows: (N,) training rows.
            seed: of the draws.
            epoch: from 0.
        """
        if self.mirrored is None and self.shifts is None:
            return self
        highs = [2] + [2 * self.padding + 1] * (0 if self.shifts is None else self.shifts.shape[1])
        drawn = np.stack(
            [np.random.default_rng((seed, epoch // _HELD, row)).integers(0, highs) for row in rows.tolist()]
        )
        table = torch.from_numpy(drawn)
        return replace(
            self,
            mirrored=None if self.mirrored is None else table[:, 0].bool(),
            shifts=None if self.shifts is None else table[:, 1:],
        )

    def of(self, start: int, stop: int) -> Changes:
        """Those of cases [start, stop)."""
        mirrored, shifts = (None if one is None else one[start:stop] for one in (self.mirrored, self.shifts))
        tones = None if self.tones is None else self.tones[:, start:stop]
        return replace(self, mirrored=mirrored, shifts=shifts, tones=tones)


def augment(inputs: Tensor, changes: Changes) -> Tensor:
    """Mirrors and shifts cases and varies their tones, as was drawn.

    Args:
        inputs: (N, C, *spatial) in [0, 1].
        changes: of these cases.

    Returns:
        (N, C, *spatial), differentiable in `inputs`.
    """
    if changes.mirrored is not None:
        shape = (-1,) + (1,) * (inputs.ndim - 1)
        inputs = torch.where(sent(changes.mirrored, inputs.device).view(shape), inputs.flip(-1), inputs)
    if changes.shifts is not None:
        inputs = _shifted(inputs, changes.shifts, changes.padding)
    return inputs if changes.tones is None else _vary_tones(inputs, changes.tones)


def _shifted(inputs: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Each case from its own start after padding; all at once where all start alike."""
    lengths = inputs.shape[2:]
    padded = functional.pad(inputs, [padding] * (2 * len(lengths)), mode="replicate")
    alike = bool((shifts == shifts[0]).all())
    parts = [padded] if alike else [padded[n : n + 1] for n in range(len(padded))]
    for n, starts in enumerate(shifts[: len(parts)].tolist()):
        for axis, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            parts[n] = parts[n].narrow(axis + 2, start, length)
    return parts[0] if alike else torch.cat(parts)


def _vary_tones(inputs: Tensor, tones: Tensor) -> Tensor:
    """Makes x into clip(((t(x) - 1/2) c + 1/2) b), with (3, N) g, c and b of each case.

    t(x) is (x + d)^g, moved and scaled so that 0 and 1 stay.
    """
    gamma, contrast, brightness = sent(tones, inputs.device).to(inputs.dtype).view(3, -1, *(1,) * (inputs.ndim - 1))
    black, white = _OFFSET**gamma, (1 + _OFFSET) ** gamma
    toned = ((inputs + _OFFSET) ** gamma - black) / (white - black)
    varied: Tensor = (((toned - 0.5) * contrast + 0.5) * brightness).clamp(0, 1)
    return varied
