"""A branch whose answers have moved between classes is set right; one whose answers have not is left alone."""

from __future__ import annotations

import copy

import pytest
import torch

from medharden.hardening.operating_point import keep_operating_point, offsets
from medharden.models import Classifier
from medharden.record import ModelRecord

CASES = 200
PATIENTS = [str(i) for i in range(CASES)]


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


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_offsets_give_every_class_the_wanted_number_of_answers(classes: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(CASES, classes) + 1.5 * torch.arange(classes)
    wanted = torch.randn(CASES, classes).argmax(1).bincount(minlength=classes)
    added = offsets(logits, wanted, multilabel=False)
    assert torch.equal((logits + added).argmax(1).bincount(minlength=classes), wanted)
    assert float(added.sum()) == pytest.approx(0, abs=1e-4)


def test_offsets_of_findings_are_found_one_by_one_and_none_for_what_is_never_wanted() -> None:
    torch.manual_seed(0)
    logits, wanted = torch.randn(CASES, 3) - 1, torch.tensor([90, 10, 0])
    added = offsets(logits, wanted, multilabel=True)
    assert ((logits + added) > 0).sum(0).tolist()[:2] == [90, 10]
    assert float(added[2]) == 0


@pytest.mark.parametrize(("classes", "one_logit"), [(2, False), (2, True), (4, False)])
def test_a_branch_that_favours_a_class_answers_each_as_often_as_the_original_again(
    classes: int, one_logit: bool
) -> None:
    original, inputs = linear(classes, one_logit=one_logit)
    branch = moved(original, 0, 2.0)
    clean, robust, names = original(inputs), branch(inputs), [f"class {k}" for k in range(classes)]
    shift, findings = keep_operating_point(branch, inputs, clean, robust, PATIENTS, names, multilabel=False)
    now = branch(inputs)
    assert torch.equal(now.argmax(1).bincount(minlength=classes), clean.argmax(1).bincount(minlength=classes))
    torch.testing.assert_close(now.softmax(1), (robust + shift).softmax(1))
    assert [(f.code, f.severity) for f in findings] == [("hardening.operating_point", "info")]


def test_a_finding_that_is_named_too_often_is_named_as_often_as_by_the_original_again() -> None:
    original, inputs = linear(3)
    branch = moved(original, 1, 2.0)
    clean, names = original(inputs), ["a", "b", "c"]
    _, findings = keep_operating_point(branch, inputs, clean, branch(inputs), PATIENTS, names, multilabel=True)
    assert torch.equal((branch(inputs) > 0).sum(0), (clean > 0).sum(0))
    assert "'b' 1" in findings[0].message
    assert "'a' 1" not in findings[0].message


def test_what_chance_could_do_is_left_alone_and_one_patient_s_many_cases_are_one() -> None:
    original, inputs = linear(2)
    clean, names = original(inputs), ["a", "b"]
    for patients, at_least, settled in ((PATIENTS, 1, False), (PATIENTS, 8, True), (["same"] * CASES, 8, False)):
        branch = copy.deepcopy(original)
        while int((branch(inputs).argmax(1) != clean.argmax(1)).sum()) < at_least:
            branch.network[1].bias[0] += 0.01
        before = branch.network[1].bias.clone()
        _, findings = keep_operating_point(branch, inputs, clean, branch(inputs), patients, names, multilabel=False)
        assert bool(findings) == settled
        assert torch.equal(before, branch.network[1].bias) != settled


def test_a_branch_without_a_bias_to_set_right_says_so() -> None:
    original, images = linear(2, bias=False)
    inputs = 0.45 + images / 4  # above the mean, so that a larger weight answers its class more often
    branch = copy.deepcopy(original)
    branch.network[1].weight[0] += 0.1
    state = copy.deepcopy(branch.state_dict())
    clean, robust = original(inputs), branch(inputs)
    shift, findings = keep_operating_point(branch, inputs, clean, robust, PATIENTS, ["a", "b"], multilabel=False)
    assert float(shift.abs().sum()) == 0
    assert findings[0].severity == "warning"
    assert all(torch.equal(state[name], value) for name, value in branch.state_dict().items())
