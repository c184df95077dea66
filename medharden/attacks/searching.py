"""What attacks are searched on: a copy of the model that is faster and answers the same but for rounding."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medharden.attacks.victim import refers
from medharden.pinning import loose_copy
from medharden.protocol import Precision

__all__ = ["lay_out", "searched", "with_surrogate_slopes"]

_FEW_CHANNELS = 4
_SLOPE = 0.1  # added to an activation's own
_FLAT = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish)


def lay_out(model: nn.Module, dims: int, *, fast: bool) -> None:
    """Arranges the convolutions of a model for speed, in place; no weight changes, and answers only by rounding.

    Of images, weights lie channels last. Of volumes, convolutions of stride two that take few channels, as the first
    layer often does, are computed over blocks of voxels.

    Args:
        model: whose forward pass then rounds differently.
        dims: spatial dimensions of its input.
        fast: or else as models come.
    """
    if dims == 2:
        layout = torch.channels_last if fast else torch.contiguous_format
        model.to(memory_format=layout)  # type: ignore[call-overload]  # the stubs know it of tensors alone
        return
    usual, other = (nn.Conv3d, _BlockedConv3d) if fast else (_BlockedConv3d, nn.Conv3d)
    for layer in model.modules():
        if type(layer) is usual and _of_blocks(layer):
            layer.__class__ = other


def _of_blocks(layer: nn.Conv3d) -> bool:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and layer.groups == 1
    return plain and layer.stride == (2, 2, 2) and layer.dilation == (1, 1, 1) and layer.in_channels <= _FEW_CHANNELS


class _BlockedConv3d(nn.Conv3d):
    """The same sums as a convolution of stride one, over blocks of 2 x 2 x 2 voxels that become channels.

    With few input channels and a stride of two the gradient of the input is slow on a CPU: half of a training step of a
    narrow DenseNet-121 on 32 x 32 x 32 voxels, a ninth of one of MONAI's own.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        weight, room = self.weight, list[int]()
        paddings = cast("tuple[int, ...]", self.padding)
        for size, kernel, padding in zip(inputs.shape[2:], weight.shape[2:], paddings, strict=True):
            met = (size + 2 * padding - kernel) // 2 + (kernel + 1) // 2  # blocks that the kernel comes to lie on
            room = [padding, 2 * met - size - padding, *room]
        odd = [side for kernel in reversed(weight.shape[2:]) for side in (0, kernel % 2)]
        blocks, weight = _blocks(functional.pad(inputs, room)), _blocks(functional.pad(weight, odd))
        return functional.conv3d(blocks, weight, self.bias)


def _blocks(values: Tensor) -> Tensor:
    """(N, C, 2D, 2H, 2W) as (N, 8C, D, H, W): the eight voxels of a block side by side."""
    n, channels, *sizes = values.shape
    depth, height, width = (size // 2 for size in sizes)
    split = values.reshape(n, channels, depth, 2, height, 2, width, 2)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, 8 * channels, depth, height, width)


def searched(model: nn.Module, dims: int, precision: Precision = "float32") -> nn.Module:
    """A faster copy of the model to search on; the model itself where there is none.

    A success on the copy is only a candidate: whoever searches asks the model itself.

    Args:
        model: to copy as it is.
        dims: spatial dimensions of its input.
        precision: `bfloat16` computes convolutions and matrix products in half the bits.
    """
    copied = _copied(model)
    if copied is None:
        return model
    lay_out(copied, dims, fast=True)
    return _HalfPrecision(copied) if precision == "bfloat16" else copied


def _copied(model: nn.Module) -> nn.Module | None:
    """A copy; null where there can't be one: of weights that carry a graph, or of a lock or a file that it holds."""
    try:
        return loose_copy(model)
    except (RuntimeError, TypeError):
        return None


class _HalfPrecision(nn.Module):
    """A model whose convolutions and matrix products are computed in bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.refers, self.training = model, refers(model), model.training

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            logits: Tensor = self.model(inputs)
        return logits.float()


def with_surrogate_slopes(model: nn.Module) -> nn.Module | None:
    """A copy that answers alike, and whose saturated activations have a slope in the backward pass.

    Backward pass differentiable approximation (Athalye et al. 2018): where every unit of a layer is saturated, the
    gradient is exactly zero, and an attack that follows it learns nothing, though the input may have a way out.

    Args:
        model: whose activations are modules (ReLU, ReLU6 and other pieces of straight lines).

    Returns:
        The copy; null where there is nothing to replace or the model can't be copied.
    """
    copied = _copied(model)
    if copied is None:
        return None
    flat = [
        (module, name, layer)
        for module in copied.modules()
        for name, layer in module.named_children()
        if type(layer) in _FLAT
    ]
    for module, name, layer in flat:
        setattr(module, name, _Sloped(layer))
    return copied if flat else None


class _Sloped(nn.Module):
    """An activation, exactly; its slope is steeper by `_SLOPE` in the backward pass."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.training = layer, layer.training
        layer.inplace = False  # type: ignore[assignment]  # all of these have it, and the input is needed once more

    def forward(self, inputs: Tensor) -> Tensor:
        line = _SLOPE * inputs
        outputs: Tensor = self.layer(inputs)
        return outputs + (line - line.detach())
