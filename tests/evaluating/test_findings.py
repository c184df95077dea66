"""Each finding under an attack of its own: against its closed form, past referral, and whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medharden.attacks.worst_finding import worst_finding, wrongness
from medharden.protocol import ThreatModel

EPS = 0.05


class Linear(nn.Module):
    """Three findings, each a linear function; with `flag`, a last column that refers where it is above 0."""

    def __init__(self, flag: float | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("weight", torch.randn(3, 16, generator=generator))
        self.flag, self.refers = flag, flag is not None

    def forward(self, inputs: Tensor) -> Tensor:
        logits = (inputs.flatten(1) - 0.5) @ self.weight.T
        if self.flag is None:
            return logits
        return torch.cat([logits, self.flag - inputs.flatten(1)[:, :1]], dim=1)


def cases(n: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = 0.3 + 0.4 * torch.rand(n, 1, 4, 4, generator=generator)
    return inputs, (torch.rand(n, 3, generator=generator) > 0.5).float()


def pushed(model: nn.Module, inputs: Tensor, labels: Tensor, finding: int, seed: int = 0) -> Tensor:
    generators = [torch.Generator().manual_seed(seed + row) for row in range(len(inputs))]
    threat = ThreatModel(eps=EPS)
    return worst_finding(model, inputs, labels, finding=finding, threat=threat, steps=20, generators=generators)


@pytest.mark.parametrize("finding", [0, 1, 2])
def test_a_linear_finding_falls_by_the_radius_times_its_weights_though_it_was_wrong_before(finding: int) -> None:
    model, (inputs, labels) = Linear(), cases()
    points = pushed(model, inputs, labels, finding)
    move = (model(points) - model(inputs))[:, finding] * (1 - 2 * labels[:, finding])
    assert torch.allclose(move, EPS * model.weight[finding].abs().sum().expand(len(inputs)), rtol=1e-4)
    assert (points - inputs).abs().max() <= EPS + 1e-6


def test_a_push_within_the_sphere_reaches_a_linear_finding_s_optimum() -> None:
    model, (inputs, labels) = Linear(), cases()
    generators = [torch.Generator().manual_seed(row) for row in range(len(inputs))]
    threat = ThreatModel(norm="l2", eps=EPS)
    points = worst_finding(model, inputs, labels, finding=1, threat=threat, steps=20, generators=generators)
    move = (model(points) - model(inputs))[:, 1] * (1 - 2 * labels[:, 1])
    share = move / (EPS * model.weight[1].norm())
    assert (share > 0.99).all()
    assert (share < 1 + 1e-4).all()


def test_a_push_does_not_go_where_the_case_is_referred() -> None:
    """The first pixel raises the flag when it falls: a push that would need that stays short of it."""
    model, (inputs, labels) = Linear(flag=0.45), cases()
    inputs[:, 0, 0, 0] = 0.47
    points = pushed(model, inputs, labels, 1)
    after = model(points)
    assert (after[:, -1] <= 0).all()
    free = pushed(Linear(), inputs, labels, 1)
    off = wrongness(after, labels, refers=True)[:, 1]
    assert (off > wrongness(model(inputs), labels, refers=True)[:, 1]).all()
    assert (off <= wrongness(Linear()(free), labels, refers=False)[:, 1] + 1e-5).all()


def test_a_case_that_is_always_referred_stays_as_it_is() -> None:
    model, (inputs, labels) = Linear(flag=9.0), cases()
    assert torch.equal(pushed(model, inputs, labels, 0), inputs)
    assert torch.isinf(wrongness(model(inputs), labels, refers=True)).all()


def test_a_batch_is_pushed_as_its_cases_one_by_one() -> None:
    model, (inputs, labels) = Linear(), cases()
    whole = pushed(model, inputs, labels, 2)
    for row in range(len(inputs)):
        alone = pushed(model, inputs[row : row + 1], labels[row : row + 1], 2, seed=row)
        assert torch.allclose(whole[row : row + 1], alone, atol=1e-6)
