"""A branch whose answers have moved between classes is set right."""

from __future__ import annotations

import copy

import pytest
import torch

from medharden.hardening.operating_point import keep_operating_point, operating_shift
from medharden.models import Classifier
from medharden.record import ModelRecord

CASES = 200


def linear(classes: int, *, bias: bool = True, one_logit: bool = False) -> tuple[Classifier, torch.Tensor]:
    """A linear model and images on which it answers every class."""
    torch.manual_seed(classes)
    outputs = 1 if one_logit else classes
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, outputs, bias=bias))
    record = ModelRecord("python", "x:Linear", {}, classes, 1, 2, (0.5,), (0.1,), one_logit, "0" * 64, "0" * 64, 34)
    return Classifier(network, record).requires_grad_(False), torch.rand(CASES, 1, 4, 4)


def moved(original: Classifier, towards: int, by: float) -> Classifier:
    """A copy that answers one class more often."""
    branch = copy.deepcopy(original)
    branch.network[1].bias[towards] += by
    return branch


def counted(logits: torch.Tensor) -> torch.Tensor:
    """(K,) share of answers of each class, each spread over a quarter of the calibrated width."""
    return (4 * logits).softmax(1).mean(0)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_every_class_is_answered_as_often_as_by_the_original(classes: int) -> None:
    torch.manual_seed(0)
    original = torch.randn(CASES, classes)
    branch = torch.randn(CASES, classes) + 0.5 * torch.arange(classes)
    added = operating_shift(original, branch, multilabel=False)
    assert float((counted(branch) - counted(original)).abs().max()) > 0.05
    torch.testing.assert_close(counted(branch + added), counted(original), atol=0.01, rtol=0)
    assert float(added.sum()) == pytest.approx(0, abs=1e-4)


def test_findings_are_shifted_one_by_one_and_stay_finite_where_nothing_is_uncertain() -> None:
    torch.manual_seed(0)
    branch = torch.randn(CASES, 3) - 1
    original = torch.randn(CASES, 3) - torch.tensor([0.0, 1.5, 50.0])
    added = operating_shift(original, branch, multilabel=True)
    now = (4 * (branch + added)).sigmoid().mean(0)
    torch.testing.assert_close(now, (4 * original).sigmoid().mean(0), atol=0.02, rtol=0)
    assert -20 < float(added[2]) < -1
    sure = 1e4 * torch.eye(2)[torch.arange(CASES) % 2]
    more = 1e4 * torch.eye(2)[(torch.arange(CASES) % 5 > 1).long()]
    assert float(operating_shift(more, sure, multilabel=False).abs().max()) < 100


@pytest.mark.parametrize(("classes", "one_logit"), [(2, False), (2, True), (4, False)])
def test_a_branch_that_favours_a_class_answers_each_as_often_as_the_original_again(
    classes: int, one_logit: bool
) -> None:
    original, inputs = linear(classes, one_logit=one_logit)
    branch, heat = moved(original, 0, 2.0), 1.5
    clean, robust, names = original(inputs), branch(inputs), [f"class {k}" for k in range(classes)]
    shift, finding = keep_operating_point(
        branch, inputs, clean / heat, robust / heat, names, temperature=heat, multilabel=False
    )
    now = branch(inputs)
    counts = now.argmax(1).bincount(minlength=classes) - clean.argmax(1).bincount(minlength=classes)
    assert int(counts.abs().max()) <= 3
    torch.testing.assert_close(now.softmax(1), (robust + shift).softmax(1))
    assert (finding.code, finding.severity) == ("hardening.operating_point", "info")


def test_a_finding_that_is_named_too_often_is_named_as_often_as_by_the_original_again() -> None:
    original, inputs = linear(3)
    branch = moved(original, 1, 2.0)
    clean, names = original(inputs), ["a", "b", "c"]
    shift, finding = keep_operating_point(
        branch, inputs, clean, branch(inputs), names, temperature=1.0, multilabel=True
    )
    torch.testing.assert_close(shift, torch.tensor([0.0, -2.0, 0.0]), atol=0.1, rtol=0)
    assert int(((branch(inputs) > 0).sum(0) - (clean > 0).sum(0)).abs().max()) <= 3
    assert "'a' +0.00, 'b' -1." in finding.message


def test_a_branch_without_a_bias_to_set_right_says_so() -> None:
    original, images = linear(2, bias=False)
    inputs = 0.45 + images / 4  # above the mean, so that a larger weight answers its class more often
    branch = copy.deepcopy(original)
    branch.network[1].weight[0] += 0.1
    state = copy.deepcopy(branch.state_dict())
    clean, robust = original(inputs), branch(inputs)
    shift, finding = keep_operating_point(branch, inputs, clean, robust, ["a", "b"], temperature=1.0, multilabel=False)
    assert float(shift.abs().sum()) == 0
    assert finding.severity == "warning"
    assert all(torch.equal(state[name], value) for name, value in branch.state_dict().items())
