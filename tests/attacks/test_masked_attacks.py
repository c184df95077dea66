"""Findings that nobody knows of a case: an attack gains nothing by changing their answers, and doesn't climb there."""

from __future__ import annotations

import pytest
import torch
from attack_models import Linear, generator, threat, uniform
from torch import Tensor

from medharden.attacks import Criterion, apgd, apgd_targeted, fab, pgd, run_suite, square, wrong_findings
from medharden.attacks.worst_finding import worst_finding, wrongness
from medharden.protocol import Attack

NAN = torch.nan
LABELS = torch.tensor([[1.0, 0.0, 1.0], [NAN, 0.0, 1.0], [1.0, NAN, NAN]])
SUITE = (
    Attack(attack="apgd", loss="ce", steps=5),
    Attack(attack="apgd-t", loss="margin", steps=4),
    Attack(attack="fab", steps=4),
    Attack(attack="square", steps=10),
)


def _logits(cases: int = 3, columns: int = 3) -> Tensor:
    return torch.randn(cases, columns, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("finding", ["any", "all", 1])
@pytest.mark.parametrize("loss", ["margin", "cross_entropy", "dlr"])
@pytest.mark.parametrize("refers", [False, True])
def test_a_masked_finding_has_no_slope_and_its_logit_does_not_matter(finding, loss: str, refers: bool) -> None:
    criterion = Criterion(LABELS, finding, refers)
    logits = _logits(columns=3 + refers).detach()
    logits[:, 3:] = -5.0  # nothing is referred, so that the findings decide
    logits.requires_grad_()
    value = getattr(criterion, loss)(logits)
    assert torch.isfinite(value).all()
    slope = torch.autograd.grad(value.sum(), logits)[0]
    unknown = LABELS.isnan()
    assert torch.isfinite(slope).all()
    assert (slope[:, :3][unknown] == 0).all()
    assert (slope[:, :3][~unknown] != 0).any(), "what is known still has one"
    moved = logits.detach().clone()
    moved[:, :3][unknown] = 50.0 * torch.sign(moved[:, :3][unknown] - 0.1)
    assert torch.equal(getattr(criterion, loss)(moved), value.detach())
    assert torch.equal(criterion.won(moved), criterion.won(logits))


@pytest.mark.parametrize("finding", ["any", "all"])
@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_masking_a_finding_is_dropping_its_column_for_the_case(finding: str, loss: str) -> None:
    labels = torch.tensor([[NAN, 0.0, 1.0], [NAN, 1.0, 1.0], [NAN, 0.0, 0.0]])
    logits = _logits()
    masked, dropped = Criterion(labels, finding), Criterion(labels[:, 1:], finding)
    assert torch.allclose(getattr(masked, loss)(logits), getattr(dropped, loss)(logits[:, 1:]))
    assert torch.equal(masked.won(logits), dropped.won(logits[:, 1:]))


def test_an_attack_that_flips_a_masked_finding_alone_is_no_success() -> None:
    labels = torch.tensor([[1.0, NAN]])
    wrong_where_unknown = torch.tensor([[2.0, -9.0], [2.0, 9.0]])
    for finding in ("any", "all", 1):
        criterion = Criterion(labels.expand(2, -1), finding)
        assert not criterion.won(wrong_where_unknown).any()
        assert (criterion.margin(wrong_where_unknown) < 0).all()
    assert not wrong_findings(wrong_where_unknown, labels.expand(2, -1)).any()
    assert Criterion(labels, "all").won(torch.tensor([[-2.0, 9.0]])).all(), "all that is known is wrong"


def test_targets_are_known_findings_first() -> None:
    criterion = Criterion(LABELS)
    nearest = criterion.rivals(_logits().detach(), 3)
    assert set(nearest[1, :2].tolist()) == {1, 2}
    assert nearest[2, 0] == 0
    towards = criterion.toward(torch.tensor([0, 0, 1]))
    logits = _logits()
    slope = torch.autograd.grad(towards.cross_entropy(logits).sum() + towards.margin(logits).sum(), logits)[0]
    assert (slope[1:] == 0).all()
    assert slope[0, 0] != 0


@pytest.mark.parametrize("attack", [pgd, apgd, apgd_targeted, fab, square])
def test_every_attack_leaves_a_case_alone_that_only_a_masked_finding_could_lose(attack) -> None:
    """Finding 0 stands wherever one looks; finding 1 changes at a touch, and is masked in the first three cases."""
    model = Linear((1, 4, 4), 2, seed=1)
    inputs = uniform(6, 1, 4, 4, seed=2, low=0.4, high=0.6)
    with torch.no_grad():
        model.bias[0] += 1e3
        model.bias[1] -= model(inputs)[:, 1].mean()
    labels = (model(inputs) > 0).float()
    labels[:3, 1] = NAN
    gradient = {"loss": "ce", "restarts": 1, "steps": 10, "generator": generator()}
    settings = {square: {"queries": 300, "generator": generator()}, fab: {"steps": 10}}.get(attack, gradient)
    settings |= {"targets": 2} if attack is apgd_targeted else {}
    found = attack(model, inputs, labels, threat=threat(eps=0.3), **settings)
    fallen = Criterion(labels).won(model(found[0] if attack is fab else found))
    assert fallen.tolist() == [False] * 3 + [True] * 3


def test_the_suite_counts_no_win_on_a_masked_finding() -> None:
    model = Linear((1, 4, 4), 2, seed=1)
    inputs = uniform(4, 1, 4, 4, seed=2, low=0.4, high=0.6)
    with torch.no_grad():
        model.bias[0] += 1e3
    labels = (model(inputs) > 0).float()
    labels[:, 1] = NAN
    result = run_suite(model, inputs, labels, threat=threat(eps=0.4), suite=SUITE, seed=0, batch_size=4)
    assert set(result.won_by) == {""}
    assert all(outcome.wins == 0 for outcome in result.outcomes)


@pytest.mark.parametrize("refers", [False, True])
def test_a_masked_finding_is_not_pushed(refers: bool) -> None:
    model = Linear((1, 4, 4), 2 + refers, seed=1)
    model.refers = refers
    with torch.no_grad():
        model.bias[-1] -= 1e3 * refers
    inputs = uniform(2, 1, 4, 4, seed=2, low=0.4, high=0.6)
    labels = torch.tensor([[1.0, NAN], [1.0, 0.0]])
    pushed = worst_finding(
        model, inputs, labels, finding=1, threat=threat(eps=0.1), steps=3, generators=[generator(), generator()]
    )
    assert torch.equal(pushed[0], inputs[0])
    assert not torch.equal(pushed[1], inputs[1])
    off = wrongness(model(inputs), labels, refers=refers)
    assert off[0, 1] == -torch.inf
    assert torch.isfinite(off[1]).all()
