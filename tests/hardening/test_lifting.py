"""Training on cases that the branch is very sure of: their gradients neither vanish nor lose digits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.baselines import FreshAdversary
from medharden.hardening.lifting import lifted, lower
from medharden.hardening.margins import MarginAdversary
from medharden.protocol import Hardening, ThreatModel

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


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["pgd", "n-fgsm", "ima"])  # that of TRADES begins where its loss is all rounding
def test_in_fewer_bits_an_attack_goes_where_it_goes_in_single_precision(method: str, precision: torch.dtype) -> None:
    inputs, labels, rows = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), torch.arange(4)
    threat, settings = ThreatModel(eps=0.05), Hardening(method=method, branch="full", attack_steps=3)
    found = []
    for enabled in (False, True):
        adversary = MarginAdversary(4, threat, settings) if method == "ima" else FreshAdversary(threat, settings)
        noise = adversary.noise(rows, inputs, torch.Generator().manual_seed(0))
        with torch.autocast("cpu", precision, enabled=enabled):
            found.append(adversary.attacked(network(), rows, inputs, labels, 0.05, noise) - inputs)
    same = (found[0].sign() == found[1].sign()).float().mean()
    assert float(same) > 0.9
    assert torch.allclose(found[0].abs().amax((1, 2, 3)), found[1].abs().amax((1, 2, 3)), rtol=0.1)
