"""From stored units to the model's input in [0, 1], in torch, so that a gradient flows the whole way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medharden.data.formats.window import ChannelWindows, Window
from medharden.data.view.spatial import Affine, spatial
from medharden.errors import RangeError
from medharden.protocol import Step

__all__ = ["Recipe", "preprocess"]

_LUMA = (0.299, 0.587, 0.114)
_LARGE = 2**22  # values; of more, no second copy is made where no gradient is asked for
_SLAB = 2**20  # values that are windowed at a time


@dataclass(frozen=True)
class Recipe:
    """How one case becomes model input.

    Attributes:
        window: from rescaled units to [0, 1]; one for each channel of a case that is stacked of several images.
        inverted: whether 0 and 1 change places afterwards (MONOCHROME1).
        channels: 1 or 3, or as many as are stacked; colour becomes grey by ITU-R BT.601 luma.
        size: (H, W) or (D, H, W) to resample to; None keeps the native size.
        fit: `stretch` each axis, or `pad` with 0 around the image in its own proportions.
        steps: in the place of size and fit.
        after: whether the window comes after the steps.
        affine: of the values, where their format has one.
    """

    window: Window | ChannelWindows
    inverted: bool
    channels: int
    size: tuple[int, ...] | None
    fit: Literal["stretch", "pad"]
    steps: tuple[Step, ...] = ()
    after: bool = False
    affine: Affine | None = None

    @property
    def one_window(self) -> Window:
        """The window of a case that is one image."""
        assert isinstance(self.window, Window), "a stack of images has a window a channel"  # noqa: S101
        return self.window


def preprocess(values: Tensor, recipe: Recipe) -> Tensor:
    """Window, invert, mix channels, resample; differentiable in `values`.

    Two-dimensional resampling is bilinear with anti-aliasing. In three dimensions an axis that shrinks is averaged
    over (adaptive average pooling), one that grows is interpolated linearly.

    Args:
        values: (C, *spatial) floating point in rescaled units, C = 1 or 3, or as many as are stacked.
        recipe: how.

    Returns:
        (recipe.channels, *size) in [0, 1], of the same data type.

    Raises:
        RangeError: another number of axes or channels.
    """
    if values.ndim not in (3, 4) or values.shape[0] not in (1, 3, recipe.channels):
        raise RangeError(f"expected values of shape (1 or 3, *spatial), found {tuple(values.shape)}")
    if recipe.after:
        values = spatial(values, recipe.steps, recipe.affine)
    large = values.numel() > _LARGE and not values.requires_grad
    unit = _mix(_shown(values, recipe, large), recipe.channels, large)
    if not recipe.after:
        unit = spatial(unit, recipe.steps, recipe.affine)
    if recipe.size is not None and tuple(unit.shape[1:]) != recipe.size:
        if len(recipe.size) != unit.ndim - 1:
            raise RangeError(f"expected {len(recipe.size)} spatial axes, found {unit.ndim - 1}")
        unit = _resample(unit, recipe.size) if recipe.fit == "stretch" else _letterbox(unit, recipe.size)
    return unit.clamp_(0, 1) if not unit.requires_grad and unit.is_contiguous() else unit.clamp(0, 1)


def _shown(values: Tensor, recipe: Recipe, large: bool) -> Tensor:
    """Window and inversion; a large image slab by slab, so that what lies between takes next to no memory."""
    if not large:
        unit = recipe.window(values)
        return 1 - unit if recipe.inverted else unit
    unit, step = torch.empty_like(values), max(1, _SLAB * values.shape[1] // values.numel())
    for start in range(0, values.shape[1], step):
        part = slice(start, start + step)
        unit[:, part] = _shown(values[:, part], recipe, large=False)
    return unit


def _mix(unit: Tensor, channels: int, large: bool) -> Tensor:
    if unit.shape[0] == channels:
        return unit
    if channels == 3:
        return unit.expand(3, *unit.shape[1:])
    weights = torch.tensor(_LUMA, dtype=unit.dtype, device=unit.device).reshape(3, *[1] * (unit.ndim - 1))
    return (unit.mul_(weights) if large else weights * unit).sum(dim=0, keepdim=True)


def _resample(unit: Tensor, size: tuple[int, ...]) -> Tensor:
    if len(size) == 2:
        flat: Tensor = functional.interpolate(
            unit[None], size=list(size), mode="bilinear", align_corners=False, antialias=True
        )
        return flat[0]
    shrunk = tuple(min(now, then) for now, then in zip(unit.shape[1:], size, strict=True))
    if shrunk != tuple(unit.shape[1:]):
        unit = functional.adaptive_avg_pool3d(unit[None], (shrunk[0], shrunk[1], shrunk[2]))[0]
    if shrunk != size:
        unit = functional.interpolate(unit[None], size=size, mode="trilinear", align_corners=False)[0]
    return unit


def _letterbox(unit: Tensor, size: tuple[int, ...]) -> Tensor:
    native = tuple(unit.shape[1:])
    scale = min(then / now for now, then in zip(native, size, strict=True))
    inner = tuple(min(then, max(1, round(now * scale))) for now, then in zip(native, size, strict=True))
    if inner != native:
        unit = _resample(unit, inner)
    margins: list[int] = []
    for have, want in reversed(list(zip(inner, size, strict=True))):
        margins += [(want - have) // 2, want - have - (want - have) // 2]
    return functional.pad(unit, margins)
