"""How a model's convolutions are computed for speed: the same sums in another order, and no weight changes."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["lay_out"]

_FEW_CHANNELS = 4
_LARGE_KERNEL = 27  # values; from here on the product of matrices was faster
_COLUMNS = 2**22  # values of a product at a time: 16 MiB


def lay_out(model: nn.Module, dims: int, *, fast: bool) -> None:
    """Arranges the convolutions of a model for speed, in place; no weight changes, and answers only by rounding.

    Of images, weights lie channels last. Of volumes, convolutions that take few channels, as the first layer does, have
    a faster gradient of the input: those of stride two are computed over blocks of voxels, of those of stride one with
    one channel that gradient is a product of matrices.

    Args:
        model: whose forward pass then rounds differently.
        dims: spatial dimensions of its input.
        fast: or else as models come.
    """
    if dims == 2:
        layout = torch.channels_last if fast else torch.contiguous_format
        model.to(memory_format=layout)  # type: ignore[call-overload]  # the stubs know it of tensors alone
        return
    for layer in model.modules():
        if fast and type(layer) is nn.Conv3d:
            layer.__class__ = _faster(layer)
        elif not fast and type(layer) in (_BlockedConv3d, _FoldedConv3d):
            layer.__class__ = nn.Conv3d


def _faster(layer: nn.Conv3d) -> type[nn.Conv3d]:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and layer.groups == 1
    if not plain or layer.dilation != (1, 1, 1):
        return nn.Conv3d
    if layer.stride == (2, 2, 2) and layer.in_channels <= _FEW_CHANNELS:
        return _BlockedConv3d
    folded = layer.stride == (1, 1, 1) and layer.in_channels == 1 and math.prod(layer.kernel_size) >= _LARGE_KERNEL
    return _FoldedConv3d if folded else nn.Conv3d


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


class _FoldedConv3d(nn.Conv3d):
    """The same convolution of one channel, whose input gradient is a product of matrices and folded, on a CPU.

    Of a kernel of 7 x 7 x 7 over 48 x 48 x 48 voxels to 64 channels that gradient took .10 s instead of .32, of three
    times the time of the answer (one thread). The answer and the gradient of the weights are computed as ever.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        lower = torch.is_autocast_enabled(inputs.device.type)
        if lower or not inputs.requires_grad or inputs.device.type != "cpu" or inputs.dim() != 5:
            return super().forward(inputs)
        padding = cast("tuple[int, int, int]", self.padding)
        answer: Tensor = _Folded.apply(inputs, self.weight, self.bias, padding)  # type: ignore[no-untyped-call]
        return answer


class _Folded(torch.autograd.Function):
    """A convolution of stride one of one channel."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.padding, ctx.biased = padding, bias is not None
        return functional.conv3d(inputs, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        inputs, weight = ctx.saved_tensors
        of_inputs = _folded(slope, weight, ctx.padding, inputs.shape[2:]) if ctx.needs_input_grad[0] else None
        wanted = (False, ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2])
        of_weight = of_bias = None
        if any(wanted):
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(
                slope, inputs, weight, [len(weight)], (1,) * 3, ctx.padding, (1,) * 3, False, (0,) * 3, 1, wanted
            )
        return of_inputs, of_weight if wanted[1] else None, of_bias if wanted[2] else None, None


def _folded(slope: Tensor, weight: Tensor, padding: tuple[int, int, int], size: torch.Size) -> Tensor:
    """(N, 1, D, H, W) the input gradient: what each place of the kernel sends back, added up where it came from.

    Args:
        slope: (N, K, d, h, w) gradient of the answer.
        weight: (K, 1, a, b, c).
        padding: of the input, on each side.
        size: (D, H, W) of the input.
    """
    _, channels, depth, height, width = slope.shape
    deep, high, wide = weight.shape[2:]
    front, top, left = padding
    whole = [extent + 2 * pad for extent, pad in zip(size, padding, strict=True)]
    found = slope.new_zeros(len(slope), *whole)
    kernels = weight.permute(2, 1, 3, 4, 0).reshape(deep, high * wide, channels)
    planes = max(1, _COLUMNS // (high * wide * height * width))
    for case, sent in zip(found, slope, strict=True):
        for start in range(0, depth, planes):
            part = sent[:, start : start + planes].transpose(0, 1).reshape(-1, channels, height * width)
            for place in range(deep):
                columns = functional.fold(kernels[place] @ part, (whole[1], whole[2]), (high, wide))
                case[start + place : start + place + len(part)] += columns[:, 0]
    return found[:, None, front : front + size[0], top : top + size[1], left : left + size[2]]
