"""Training on cases that the branch is very sure of: their gradients neither vanish nor lose digits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.lifting import lifted, lower
from medharden.protocol import ThreatModel

SURE = 95.0  # apart in logits: a softmax of 6e-42, which single precision rounds coarsely


def network(gain: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2)
    ).eval()
    with torch.no_grad():
        model[0].weight.mul_(gain)
    return model


def slopes(model: nn.Module, inputs: Tensor, apart: float, lift: bool) -> tuple[Tensor, list[Tensor]]:
    """Gradients of inputs and of weights of cases whose logits lie so far apart."""
    model.zero_grad()
    at = inputs.clone().requires_grad_()
    logits = model(at)
    logits = logits - logits.detach() + torch.tensor([apart, 0.0], dtype=logits.dtype)
    loss = functional.cross_entropy(logits, torch.zeros(len(inputs), dtype=torch.long))
    (lifted(loss) if lift else loss).backward()
    if lift:
        lower(model.parameters())
    return at.grad, [weight.grad.clone() for weight in model.parameters()]


def test_gradients_that_were_normal_are_the_same_bit_for_bit() -> None:
    inputs = torch.rand(5, 1, 8, 8)
    (plain, plain_weights), (high, weights) = (slopes(network(), inputs, 3.0, lift) for lift in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(plain_weights, weights, strict=True))
    assert torch.equal(plain.sign(), high.sign())
    assert torch.equal(plain, high / 2.0**64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_case_that_the_branch_is_sure_of_is_pushed_up_the_slope_that_double_precision_has(norm: str) -> None:
    inputs, model = 0.3 + 0.4 * torch.rand(4, 1, 8, 8), network(gain=1e-4)
    exact, _ = slopes(copy.deepcopy(model).double(), inputs.double(), SURE, lift=False)
    high, _ = slopes(model, inputs, SURE, lift=True)
    plain, _ = slopes(model, inputs, SURE, lift=False)
    assert not torch.equal(plain.sign().double(), exact.sign())  # where nothing is lifted, the slope is lost
    threat, rows = ThreatModel(norm=norm, eps=0.1), torch.arange(4)
    adversary = CarriedAdversary(inputs.shape, threat=threat, step=1.0, regulate=False)
    adversary.update(rows, inputs, inputs, high, torch.ones(4), 0.1)
    adversary.settle()
    carried = adversary.attacked(model, rows, inputs, torch.zeros(4), 0.1, None) - inputs
    if norm == "linf":
        assert torch.equal(carried.sign().double(), exact.sign())
    else:
        aligned = functional.cosine_similarity(carried.flatten(1).double(), exact.flatten(1) / exact.abs().max())
        assert float(aligned.min()) > 0.999
        assert torch.allclose(carried.flatten(1).norm(dim=1), torch.tensor(0.1), rtol=0.02)
