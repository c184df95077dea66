"""Augmentations that a gradient flows through, so that the carried perturbation stays in the un-augmented frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medharden.protocol import Hardening

__all__ = ["augment"]

_OFFSET = 1e-2  # of a root: its slope at 0 would be infinite, and without one black pixels would not be attacked


def augment(inputs: Tensor, settings: Hardening, generator: torch.Generator) -> Tensor:
    """Mirrors cases left to right, shifts the batch and varies each case's tones, as the protocol says.

    Args:
        inputs: (N, C, *spatial) in [0, 1].
        settings: `flip` (each case with probability 1/2, last axis), `shift` (one shift a batch, in pixels) and
            `photometric` (each case's gamma, contrast and brightness).
        generator: on the CPU.

    Returns:
        (N, C, *spatial), differentiable in `inputs`.
    """
    if settings.flip:
        mirrored = torch.rand(len(inputs), generator=generator) < 0.5
        shape = (-1,) + (1,) * (inputs.ndim - 1)
        inputs = torch.where(mirrored.to(inputs.device).view(shape), inputs.flip(-1), inputs)
    if settings.shift:
        dims, most = inputs.ndim - 2, settings.shift
        starts = torch.randint(0, 2 * most + 1, (dims,), generator=generator).tolist()
        lengths = inputs.shape[2:]
        inputs = functional.pad(inputs, [most] * (2 * dims), mode="replicate")
        for axis, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            inputs = inputs.narrow(axis + 2, start, length)
    return _vary_tones(inputs, settings.photometric, generator) if settings.photometric else inputs


def _vary_tones(inputs: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Makes x into clip(((t(x) - 1/2) c + 1/2) b), the logarithms of g, c and b uniform within `most`, for each case.

    t(x) is (x + d)^g, moved and scaled so that 0 and 1 stay.
    """
    drawn = (torch.rand((3, len(inputs)), generator=generator) * 2 - 1) * most
    gamma, contrast, brightness = drawn.exp().to(inputs).view(3, -1, *(1,) * (inputs.ndim - 1))
    black, white = _OFFSET**gamma, (1 + _OFFSET) ** gamma
    toned = ((inputs + _OFFSET) ** gamma - black) / (white - black)
    varied: Tensor = (((toned - 0.5) * contrast + 0.5) * brightness).clamp(0, 1)
    return varied
