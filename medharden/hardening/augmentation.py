"""Augmentations that a gradient flows through, so that the carried perturbation stays in the un-augmented frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medharden.protocol import Hardening

__all__ = ["augment"]


def augment(inputs: Tensor, settings: Hardening, generator: torch.Generator) -> Tensor:
    """Mirrors cases left to right and shifts the batch, as the protocol says.

    Args:
        inputs: (N, C, *spatial) in [0, 1].
        settings: `flip` (each case with probability 1/2, last axis) and `shift` (one shift a batch, in pixels).
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
    return inputs
