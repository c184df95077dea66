"""A release of two-pixel images, small enough that everything within an attacker's budget can be tried on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.models import Classifier, HardenedClassifier
from medharden.record import FusionRecord, ModelRecord

EPS, CASES, GRID = 0.12, 40, 61


class TwoPixels(nn.Module):
    """A curved classifier of images of two pixels, of which every perturbation can be tried."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, classes))
        with torch.no_grad():
            self.layers[1].weight.mul_(6)
            self.layers[1].bias.copy_(-self.layers[1].weight.sum(1) / 2)
            self.layers[3].weight.mul_(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


def released(mode: str, classes: int) -> HardenedClassifier:
    record = ModelRecord("python", "x:Two", {}, classes, 1, 2, (0.0,), (1.0,), False, "0" * 64, "0" * 64, 34)
    clean = Classifier(TwoPixels(classes, 1), record)
    branch = Classifier(TwoPixels(classes, 1), record)
    with torch.no_grad():  # a neighbour of the clean path: they agree on most images and disagree near the border
        for weight, other in zip(branch.parameters(), TwoPixels(classes, 2).parameters(), strict=True):
            weight.add_(0.35 * other)
    fusion = FusionRecord(mode, 0.6, 1.3, 0.8, 0.6, 0.02)
    return HardenedClassifier(clean, branch, fusion, torch.zeros(classes))


def harmed(model: HardenedClassifier, points: Tensor, labels: Tensor) -> Tensor:
    """(N,) wrong, and nobody is told to look: by what the release itself says."""
    said = model.assess(points)
    return (said.logits.argmax(1) != labels) & ~said.referred


def ways(model: HardenedClassifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """(N,) at how many points of a fine grid over the whole budget each case is harmed."""
    steps = torch.linspace(-EPS, EPS, GRID)
    moves = torch.cartesian_prod(steps, steps).reshape(-1, 1, 1, 2)
    return torch.stack(
        [
            harmed(model, (case + moves).clamp(0, 1), label.expand(len(moves))).sum()
            for case, label in zip(inputs, labels, strict=True)
        ]
    )


def setting(mode: str, classes: int) -> tuple[HardenedClassifier, Tensor, Tensor]:
    """A release, and cases that the clean path answers rightly."""
    model = released(mode, classes)
    inputs = torch.rand((CASES, 1, 1, 2), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model, inputs, model.clean_path(inputs).argmax(1)
