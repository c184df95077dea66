"""Pillow's own resize of a picture on 8 bits: its very numbers, and the gradient of the same filter unrounded."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["resized_by_pillow"]

_LEVELS = 255
_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SUPPORT = {"box": 0.5, "bilinear": 1.0, "hamming": 1.0, "bicubic": 2.0, "lanczos": 3.0}


def resized_by_pillow(values: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resizes as torchvision and timm do with a picture of Pillow's.

    The values are rounded to 8 bits, as Pillow's are, and Pillow itself does the rest; so it smooths where it shrinks,
    and rounds after each of its two passes. Rounding has no gradient: what flows back is that of the same filter in
    real numbers (the straight-through estimator), while the values stay Pillow's to the bit.

    Args:
        values: (C, H, W) floating point in [0, 1].
        size: height and width afterwards.
        mode: one of `PILLOW_MODES`.

    Returns:
        (C, *size) multiples of 1/255, of the same data type and on the same device.
    """
    levels = (values.detach() * _LEVELS).round().clamp(0, _LEVELS).to(torch.uint8).cpu().numpy()
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size[::-1], _FILTERS[mode])) for plane in levels
    ]
    exact = torch.from_numpy(np.stack(planes)).to(device=values.device, dtype=values.dtype) / _LEVELS
    if not values.requires_grad:
        return exact
    down = _weights(values.shape[1], size[0], mode).to(device=values.device, dtype=values.dtype)
    across = _weights(values.shape[2], size[1], mode).to(device=values.device, dtype=values.dtype)
    smooth = down @ values @ across.T
    return exact + (smooth - smooth.detach())


def _weights(have: int, want: int, mode: str) -> Tensor:
    """(want, have) float64: each new value's shares of the old ones (`precompute_coeffs` of Pillow's Resample.c)."""
    scale = have / want
    wide = max(scale, 1.0)
    centres = (torch.arange(want, dtype=torch.float64) + 0.5)[:, None] * scale
    places = torch.arange(have, dtype=torch.float64)[None]
    reach = _SUPPORT[mode] * wide
    within = (places >= (centres - reach + 0.5).clamp(min=0).floor()) & (places < (centres + reach + 0.5).floor())
    shares = _filtered((places - centres + 0.5) / wide, mode) * within
    return shares / shares.sum(dim=1, keepdim=True)


def _filtered(x: Tensor, mode: str) -> Tensor:
    """A filter's height at x, as Pillow has it; 0 outside its support."""
    size = x.abs()
    if mode == "box":
        return ((x > -0.5) & (x <= 0.5)).to(x.dtype)
    if mode == "bilinear":
        return (1 - size).clamp(min=0)
    if mode == "bicubic":  # a = -1/2
        near = (1.5 * size - 2.5) * size * size + 1
        far = -0.5 * (((size - 5) * size + 8) * size - 4)
        return torch.where(size < 1, near, torch.where(size < 2, far, torch.zeros_like(x)))
    if mode == "hamming":
        return torch.where(size < 1, torch.sinc(x) * (0.54 + 0.46 * torch.cos(math.pi * x)), torch.zeros_like(x))
    return torch.where(size < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))
