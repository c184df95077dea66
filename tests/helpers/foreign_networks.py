"""An architecture from outside, as a user would have it: named on the command line by its import path."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn


class BreastCnn(nn.Module):
    """The two-convolution network that `breastmnist_cnn.pth` belongs to: (N, 1, 28, 28) to (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.fc_layers = nn.Sequential(nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc_layers(self.conv_layers(inputs))


class TinyNet(nn.Module):
    """A small network with batch normalisation: (N, 1, any, any) to (N, num_classes)."""

    def __init__(self, num_classes: int = 2, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(96, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.features(inputs))


class TinyVolumes(nn.Module):
    """A small network for volumes: (N, in_channels, any, any, any) to (N, num_classes)."""

    def __init__(self, num_classes: int = 2, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(in_channels, 8, 3, stride=2, padding=1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.features(inputs))


class Passed(TinyNet):
    """`TinyNet`, whose logits pass through what a test sets, such as something that hides their gradient."""

    through: Callable[[Tensor], Tensor] = staticmethod(lambda logits: logits)

    def forward(self, inputs: Tensor) -> Tensor:
        return type(self).through(super().forward(inputs))


class SeveralAnswers(nn.Module):
    """`TinyNet`, answering with a dict of which the logits are one part, and not what the last layer makes."""

    def __init__(self, num_classes: int = 2, in_channels: int = 1) -> None:
        super().__init__()
        net = TinyNet(num_classes, in_channels)
        self.features, self.classifier, self.projector = net.features, net.classifier, nn.Linear(96, 5)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.features(inputs)
        return {"features": features, "logits": self.classifier(features), "projected": self.projector(features)}


class Lacking(TinyNet):
    """A network whose package has an optional need that is not installed."""

    def __init__(self) -> None:
        raise ImportError("from einops import rearrange (No module named 'einops').\n\nA long explanation.")


class Fussy(TinyNet):
    """A network that wants more than an image, or fails without a word."""

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            raise TypeError
        return super().forward(inputs)


class Cached(TinyNet):
    """A network that keeps what the first one of its class made."""

    kept: ClassVar[list[Tensor]] = []

    def __init__(self, num_classes: int = 2, in_channels: int = 1) -> None:
        super().__init__(num_classes, in_channels)
        if not self.kept:
            self.kept.append(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * self.kept[0]


class TinyVolumeNet(nn.Module):
    """A small network of volumes with batch normalisation: (N, 1, any, any, any) to (N, num_classes)."""

    def __init__(self, num_classes: int = 2, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(in_channels, 8, 3, stride=2, padding=1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.Conv3d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(128, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.features(inputs))
