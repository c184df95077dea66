"""Gradients that do not underflow: a loss is multiplied before its backward pass, and what it gave divided behind.

A case that the network answers with logits 60 and more apart has gradients below 1e-38, the smallest normal number of
single precision. There they lose digits, then vanish, and a CPU computes on them up to twenty times as slowly. The
factor is a power of two and a backward pass linear in it, so that gradients that were normal are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["lifted", "lower"]

_LIFT = 2.0**64  # the largest gradient that it leaves finite, 1.8e19, is the largest whose square is, as in clipping


def lifted(loss: Tensor) -> Tensor:
    """The loss by a positive factor: gradients of inputs have the same direction.

    Within autocast to half precision, whose largest number is 65504, it is the loss itself.
    """
    kind = loss.device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.float16
    return loss if half else loss * _LIFT


def lower(weights: Iterable[Tensor]) -> None:
    """Takes the factor of `lifted` from the gradients of weights, in place."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, 1 / _LIFT)
