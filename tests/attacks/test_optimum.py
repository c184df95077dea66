"""Attacks on linear models, whose strongest perturbation is known in closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_models import Convolutional, Linear, answers, generator, threat, uniform
from torch import Tensor, nn

from medharden.attacks import apgd, margin, pgd, safe_columns, succeeded
from medharden.attacks.projections import project, random_start
from medharden.protocol import ThreatModel

ATTACKS = {"pgd": pgd, "apgd": apgd}
SHAPE = (2, 5, 7)


def _far_cases(model: Linear, inputs: Tensor, norm: str, keep: int = 12) -> tuple[Tensor, Tensor, float]:
    """Cases, labels and an eps within which no answer flips and each case's nearest wrong class stays the nearest."""
    logits = model(inputs).detach()
    order = logits.argsort(1, descending=True)
    order_of = 1 if norm == "linf" else 2

    def radius(first: Tensor, second: Tensor) -> Tensor:
        gap = logits.gather(1, first[:, None]) - logits.gather(1, second[:, None])
        return gap.squeeze(1) / (model.weight[first] - model.weight[second]).norm(order_of, dim=1).detach()

    safe_radius = torch.stack([radius(order[:, i], order[:, j]) for i, j in _pairs(logits.shape[1])]).amin(0)
    chosen = safe_radius.argsort(descending=True)[:keep]
    return inputs[chosen], order[chosen, 0], 0.5 * float(safe_radius[chosen].min())


def _pairs(classes: int) -> list[tuple[int, int]]:
    return [(0, 1)] + [(1, j) for j in range(2, classes)]


def _margins(model: Linear, points: Tensor, labels: Tensor) -> Tensor:
    logits = model(points).detach()
    return margin(logits, safe_columns(labels, logits.shape[1], refers=False))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd", "apgd"])
@pytest.mark.parametrize(("loss", "classes"), [("margin", 2), ("margin", 3), ("margin", 5), ("margin", 10), ("ce", 2)])
def test_margin_of_a_linear_model_falls_by_eps_times_the_dual_norm(
    attack: str, loss: str, norm: str, classes: int
) -> None:
    model = Linear(SHAPE, classes, seed=classes)
    inputs, labels, eps = _far_cases(model, uniform(400, *SHAPE, seed=1, low=0.4, high=0.6), norm)
    assert eps < 0.4, "nothing may clip"
    found = ATTACKS[attack](
        model, inputs, labels, threat=threat(norm, eps), steps=30, restarts=1, loss=loss, generator=generator()
    )
    logits = model(inputs).detach()
    nearest = logits.argsort(1, descending=True)[:, 1]
    dual = (model.weight[nearest] - model.weight[labels]).norm(1 if norm == "linf" else 2, dim=1).detach()
    ratio = (_margins(model, found, labels) - _margins(model, inputs, labels)) / (eps * dual)
    assert (ratio >= 0.99).all()
    assert (ratio <= 1.0001).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd", "apgd"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_optimum_is_reached_where_the_bounds_clip(attack: str, loss: str, norm: str) -> None:
    model = Linear(SHAPE, 2, seed=3)
    edges = uniform(60, *SHAPE, seed=4, low=-0.5, high=1.5).clamp(0, 1)
    inputs, labels, eps = _far_cases(model, edges, norm)
    found = ATTACKS[attack](
        model, inputs, labels, threat=threat(norm, eps), steps=40, restarts=1, loss=loss, generator=generator()
    )
    uphill = (model.weight[1 - labels] - model.weight[labels]).detach().reshape(inputs.shape)
    best = _clipped_optimum(inputs, uphill, eps, norm)
    clean = _margins(model, inputs, labels)
    ratio = (_margins(model, found, labels) - clean) / (_margins(model, best, labels) - clean)
    assert (ratio >= 0.99).all()
    assert (ratio <= 1.0001).all()


def _clipped_optimum(inputs: Tensor, uphill: Tensor, eps: float, norm: str) -> Tensor:
    """argmax of uphill . x over ball and box: the corner (linf), or clip(x + t uphill) with t by bisection (l2)."""
    if norm == "linf":
        return (inputs + eps * uphill.sign()).clamp(0, 1)
    low, high = torch.zeros(len(inputs), 1, 1, 1), torch.full((len(inputs), 1, 1, 1), 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        outside = ((inputs + middle * uphill).clamp(0, 1) - inputs).flatten(1).norm(dim=1) > eps
        high = torch.where(outside.reshape(-1, 1, 1, 1), middle, high)
        low = torch.where(outside.reshape(-1, 1, 1, 1), low, middle)
    return (inputs + low * uphill).clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_a_linear_model_falls_exactly_where_eps_exceeds_the_distance_to_the_boundary(attack: str, norm: str) -> None:
    model = Linear(SHAPE, 2, seed=5)
    inputs = uniform(200, *SHAPE, seed=6, low=0.45, high=0.55)
    logits = model(inputs).detach()
    labels = logits.argmax(1)
    dual = (model.weight[0] - model.weight[1]).norm(1 if norm == "linf" else 2).item()
    distance = (logits[:, 0] - logits[:, 1]).abs() / dual
    eps = float(distance.median())
    found = ATTACKS[attack](
        model, inputs, labels, threat=threat(norm, eps), steps=40, restarts=1, loss="ce", generator=generator()
    )
    fell = succeeded(model(found), safe_columns(labels, 2, refers=False))
    assert fell[distance < 0.97 * eps].all()
    assert not fell[distance > eps * 1.0001].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_visits_the_points_that_the_paper_s_algorithm_visits(norm: str) -> None:
    model = Convolutional(1, 3).double().eval()
    model.head[3].bias.data[1] += 0.5
    inputs = uniform(8, 1, 9, 9, seed=8).double()
    labels = answers(model, inputs)
    limits = threat(norm, 0.02 if norm == "linf" else 0.12)
    visited: list[Tensor] = []
    start = random_start(inputs.shape, limits, [generator()], surface=True)
    hook = model.register_forward_pre_hook(lambda _, seen: visited.append(seen[0].detach().clone()))
    found = apgd(model, inputs, labels, threat=limits, steps=40, restarts=1, loss="ce", generator=generator())
    hook.remove()
    assert torch.equal(answers(model, found), labels), "a case that falls would leave the batch"
    halvings = 0
    for case in range(len(inputs)):
        begin = project(inputs[case : case + 1] + start[case], inputs[case : case + 1], limits)
        path, halved = _algorithm_1(model, inputs[case : case + 1], labels[case : case + 1], begin, limits, 40)
        torch.testing.assert_close(torch.stack(visited)[:, case], torch.cat(path), rtol=0, atol=1e-8)
        halvings += halved
    assert halvings > len(inputs)


def _algorithm_1(
    model: nn.Module, x: Tensor, label: Tensor, begin: Tensor, limits: ThreatModel, steps: int
) -> tuple[list[Tensor], int]:
    """Algorithm 1 of Croce & Hein (2020) for one case, line by line: every point visited, and how often eta halved."""

    def f(z: Tensor) -> tuple[float, Tensor]:
        z = z.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(z), label)
        (gradient,) = torch.autograd.grad(loss, z)
        return loss.item(), gradient.sign() if limits.norm == "linf" else gradient / gradient.norm()

    w, p = [0], [0.0, 0.22]
    while p[-1] <= 1:
        w.append(math.ceil(round(p[-1] * steps, 9)))
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    eta, eta_then, halvings = 2 * limits.eps, 0.0, 0
    previous, current = begin, project(begin + eta * f(begin)[1], x, limits)
    path, values = [begin, current], [f(begin)[0], f(current)[0]]
    best, best_value = (current, values[1]) if values[1] > values[0] else (begin, values[0])
    eta_then, best_then, rises = eta, values[0], int(values[1] > values[0])
    for k in range(1, steps):
        z = project(current + eta * f(current)[1], x, limits)
        following = project(current + 0.75 * (z - current) + 0.25 * (current - previous), x, limits)
        value = f(following)[0]
        path.append(following)
        rises += value > f(current)[0]
        if value > best_value:
            best, best_value = following, value
        previous, current = current, following
        if k + 1 in w:
            interval = k + 1 - w[w.index(k + 1) - 1]
            halve = rises < 0.75 * interval or (eta == eta_then and best_value == best_then)
            eta_then, best_then, rises = eta, best_value, 0
            if halve:
                eta, current, halvings = eta / 2, best, halvings + 1
    return path, halvings


@pytest.mark.parametrize(("norm", "eps", "restarts"), [("linf", 24 / 255, 5), ("l2", 1.5, 2)])
def test_apgd_alone_wins_as_often_as_a_much_longer_pgd_on_a_trained_network(
    test_data: Path, norm: str, eps: float, restarts: int
) -> None:
    model, inputs, labels = _breast_network(test_data)
    limits = threat(norm, eps)
    longer = {"steps": 200, "restarts": restarts}
    long = pgd(model, inputs, labels, threat=limits, **longer, loss="margin", generator=generator())
    falls = int((answers(model, long) != labels).sum())
    assert 0.2 * len(inputs) < falls < 0.9 * len(inputs), "a comparison needs cases that fall and cases that stand"
    for loss in ("ce", "margin"):
        short = apgd(model, inputs, labels, threat=limits, steps=50, restarts=1, loss=loss, generator=generator())
        assert int((answers(model, short) != labels).sum()) >= falls - 1


def _breast_network(test_data: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """A breast ultrasound classifier trained outside this project, with test cases that it answers rightly."""
    with np.load(test_data / "medmnist28" / "breastmnist.npz") as data:
        images = torch.from_numpy(data["test_images"]).unsqueeze(1) / 255
        labels = torch.from_numpy(data["test_labels"]).long().squeeze(1)
    weights = torch.load(test_data / "weights" / "breastmnist_cnn.pth", weights_only=True)
    model = BreastNetwork()
    model.load_state_dict(weights, strict=True)
    right = (answers(model, images) == labels).nonzero().squeeze(1)[:40]
    return model, images[right], labels[right]


class BreastNetwork(nn.Module):
    """Two convolutions and two linear layers, 1x28x28, by the names of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.fc_layers = nn.Sequential(nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_layers(self.conv_layers((x - 0.5) / 0.5))
