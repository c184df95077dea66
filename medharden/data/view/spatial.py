"""The spatial steps of a view, in their order: differentiable in the values, but for a change of spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from torch import Tensor
from torch.nn import functional

from medharden.data.view.pillow import resized_by_pillow
from medharden.errors import DataError
from medharden.monai_import import monai_module
from medharden.protocol import PILLOW_MODES, Step

__all__ = ["Affine", "spatial"]

Affine = tuple[tuple[float, ...], ...]
"""4 x 4: voxel indices to millimetres (RAS+)."""

_MOST_VOXELS = 2**27
_MOST_PIXELS = 2**25
Placed = npt.NDArray[np.float64]
_LINEAR = {2: "bilinear", 3: "trilinear"}


def spatial(values: Tensor, steps: Sequence[Step], affine: Affine | None) -> Tensor:
    """Applies the steps one after the other.

    Args:
        values: (C, *spatial) floating point.
        steps: of the protocol.
        affine: of the values, RAS+; null where the format has none.

    Returns:
        (C, *other) of the same data type.

    Raises:
        DataError: a step needs what the image does not have.
    """
    placed = None if affine is None else np.array(affine, dtype=np.float64)
    for step in steps:
        if step.step in ("orientation", "spacing") and placed is None:
            raise DataError(
                f"has no position in space, which input.spatial needs for {step.step}; give NIfTI, or DICOM with "
                "positions and sizes of pixels (ImagePositionPatient, PixelSpacing)"
            )
        if step.step == "orientation":
            assert placed is not None, "checked above"  # noqa: S101
            values, placed = _turned(values, step.axes or "", placed)
        elif step.step == "spacing":
            assert placed is not None, "checked above"  # noqa: S101
            values, placed = _spaced(values, step.mm or (), placed)
        else:
            values, placed = _on_grid(values, step), placed
    return values


def _on_grid(values: Tensor, step: Step) -> Tensor:
    size = step.size or ()
    if step.step == "transpose":
        return values.transpose(1, 2)
    if step.step == "foreground":
        return _foreground(values)
    if step.step == "crop":
        inner = [min(have, want) for have, want in zip(values.shape[1:], size, strict=True)]
        pairs = list(zip(values.shape[1:], inner, strict=True))
        if step.place == "torchvision":
            starts = [round((have - want) / 2) for have, want in pairs]
        else:
            starts = [have // 2 - want // 2 for have, want in pairs]
        return values[(slice(None), *(slice(s, s + n) for s, n in zip(starts, inner, strict=True)))]
    if step.step == "pad":
        margins: list[int] = []
        for have, want in reversed(list(zip(values.shape[1:], size, strict=True))):
            lacking = max(want - have, 0)
            margins += [lacking // 2, lacking - lacking // 2]
        return functional.pad(values, margins)
    return _resized(values, _fitted(tuple(values.shape[1:]), size, step.fit), step)


def _fitted(have: tuple[int, ...], size: tuple[int, ...], fit: str) -> tuple[int, ...]:
    """The grid of a resize to `size`, as torchvision's and MONAI's `Resize` and timm's `ResizeKeepRatio` find it.

    Raises:
        DataError: a sliver of an image, which would become huge.
    """
    if fit == "stretch":
        return size
    if fit == "longest":
        scale = size[0] / max(have)
        return tuple(round(now * scale) for now in have)
    if len(set(size)) == 1:
        grid = tuple(int(size[0] * now / min(have)) for now in have)
    else:
        ratio = min(now / then for now, then in zip(have, size, strict=True))
        grid = tuple(round(now / ratio) for now in have)
    if math.prod(grid) > _MOST_PIXELS:
        raise DataError(
            f"is so oblong that it would be {'x'.join(map(str, grid))} where its shorter side fits input.spatial"
        )
    return grid


def _resized(values: Tensor, size: tuple[int, ...], step: Step) -> Tensor:
    if step.mode in PILLOW_MODES:
        return resized_by_pillow(values, (size[0], size[1]), step.mode)
    if tuple(values.shape[1:]) == size:
        return values
    if step.mode in ("linear", "cubic"):
        mode = "bicubic" if step.mode == "cubic" else _LINEAR[len(size)]
        return functional.interpolate(values[None], size, mode=mode, align_corners=step.align_corners)[0]
    return functional.interpolate(values[None], size, mode=step.mode or "area")[0]


def _foreground(values: Tensor) -> Tensor:
    """The box of what is above 0 in any channel; everything where nothing is."""
    seen = (values.detach() > 0).any(dim=0)
    if not seen.any():
        return values
    box = [slice(None)]
    for axis in range(seen.ndim):
        along = seen.any(dim=tuple(a for a in range(seen.ndim) if a != axis)).nonzero()
        box.append(slice(int(along.min()), int(along.max()) + 1))
    return values[tuple(box)]


def _turned(values: Tensor, axes: str, affine: Placed) -> tuple[Tensor, Placed]:
    change = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    flipped = [int(axis) + 1 for axis, way in enumerate(change[:, 1]) if way < 0]
    order = np.argsort(change[:, 0]).astype(int)
    turned = affine @ inv_ornt_aff(change, tuple(values.shape[1:]))
    return torch.flip(values, flipped).permute(0, *(int(a) + 1 for a in order)).contiguous(), turned


def _spaced(values: Tensor, mm: tuple[float, ...], affine: Placed) -> tuple[Tensor, Placed]:
    """MONAI's own resampling, through which no gradient is asked for."""
    if values.requires_grad:
        raise DataError("is resampled to another spacing (input.spatial), through which medharden takes no gradient")
    extents = np.array(values.shape[1:]) * np.linalg.norm(affine[:3, :3], axis=0) / np.array(mm)
    if not np.isfinite(extents).all() or extents.prod() > _MOST_VOXELS:
        raise DataError(f"would have more than {_MOST_VOXELS} voxels at the spacing of input.spatial")
    with torch.no_grad():
        track = monai_module("monai.data").MetaTensor(values, affine=torch.from_numpy(affine))
        result = monai_module("monai.transforms").Spacing(pixdim=mm, mode="bilinear")(track)
    return result.as_tensor().to(values.dtype), result.affine.numpy()
