"""Small models whose behaviour under attack is known, for the tests of attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.protocol import ThreatModel


def threat(norm: str = "linf", eps: float = 0.05) -> ThreatModel:
    return ThreatModel(norm=norm, eps=eps, unit="input")  # type: ignore[arg-type]


class Linear(nn.Module):
    """logits = weight . x + bias, whatever the input's shape."""

    def __init__(self, shape: tuple[int, ...], classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = torch.Size(shape).numel()
        self.weight = nn.Parameter(torch.randn((classes, size), generator=generator))
        self.bias = nn.Parameter(torch.randn((classes,), generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class Convolutional(nn.Module):
    """Two convolutions with batch normalisation and dropout, for 2D or 3D input with any number of channels."""

    def __init__(self, channels: int, classes: int, dims: int = 2, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        pool = nn.AdaptiveAvgPool2d(2) if dims == 2 else nn.AdaptiveAvgPool3d(2)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                conv(channels, width, 3, padding=1), norm(width), nn.ReLU(), conv(width, width, 3, stride=2), nn.ReLU()
            )
            self.head = nn.Sequential(pool, nn.Flatten(), nn.Dropout(0.5), nn.Linear(width * 2**dims, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x - 0.5))


class Backward(torch.autograd.Function):
    """Passes values on and turns gradients into something else."""

    @staticmethod
    def forward(ctx, x: Tensor, change) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.change(gradient), None


class Wrapped(nn.Module):
    """A model whose logits pass through a function, such as one that hides the gradient."""

    def __init__(self, model: nn.Module, change) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.model(x))


def answers(model: nn.Module, inputs: Tensor) -> Tensor:
    """The classes that a model answers in eval mode; the model keeps its mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        classes = model(inputs).argmax(1)
    for module, mode in modes:
        module.training = mode
    return classes


def uniform(*shape: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
