"""The losses that attacks maximise: their values, their gradients, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medharden.attacks import cross_entropy, margin, safe_columns, succeeded
from medharden.errors import RangeError


def _logits(cases: int, columns: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn((cases, columns), generator=torch.Generator().manual_seed(columns), dtype=torch.float64) * scale


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_cross_entropy_of_a_plain_model_is_the_usual_one(classes: int) -> None:
    logits, labels = _logits(20, classes), torch.arange(20) % classes
    usual = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, safe_columns(labels, classes, refers=False)), usual)


def test_margin_of_a_plain_model_is_the_best_wrong_logit_less_the_true_one() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 7.0]])
    assert margin(logits, safe_columns(torch.tensor([0, 1]), 3, refers=False)).tolist() == [-1.0, 2.0]


def test_losses_count_a_referral_as_safe() -> None:
    logits = torch.tensor([[0.0, 1.0, 4.0], [0.0, 5.0, 4.0]])
    safe = safe_columns(torch.tensor([0, 0]), 3, refers=True)
    assert safe.tolist() == [[True, False, True]] * 2
    assert margin(logits, safe).tolist() == [-3.0, 1.0]
    assert succeeded(logits, safe).tolist() == [False, True]
    probability = logits.softmax(1)[:, [0, 2]].sum(1)
    torch.testing.assert_close(cross_entropy(logits, safe), -probability.log())


@pytest.mark.parametrize("loss", [cross_entropy, margin])
@pytest.mark.parametrize(("columns", "refers"), [(2, False), (5, False), (3, True), (6, True)])
def test_gradients_of_losses_agree_with_finite_differences(loss, columns: int, refers: bool) -> None:
    labels = torch.arange(6) % (columns - int(refers))
    safe = safe_columns(labels, columns, refers=refers)
    assert torch.autograd.gradcheck(lambda z: loss(z, safe), _logits(6, columns).requires_grad_())


def test_cross_entropy_keeps_value_and_gradient_where_the_softmax_saturates() -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    loss = cross_entropy(logits, safe_columns(torch.tensor([0]), 2, refers=False))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert functional.cross_entropy(logits, torch.tensor([0])).item() == 0.0
    expected = torch.exp(torch.tensor(-60.0))
    torch.testing.assert_close(loss.squeeze(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient.squeeze(), torch.stack([-expected, expected]), rtol=1e-4, atol=0)


def test_a_tie_is_answered_by_the_first_column() -> None:
    safe = safe_columns(torch.tensor([0, 1]), 2, refers=False)
    assert succeeded(torch.zeros(2, 2), safe).tolist() == [False, True]


@pytest.mark.parametrize("labels", [[0, 2], [-1, 1]])
def test_labels_that_are_no_class_are_refused(labels: list[int]) -> None:
    with pytest.raises(RangeError, match=r"labels must lie in 0\.\.1"):
        safe_columns(torch.tensor(labels), 2, refers=False)


def test_a_label_may_not_name_the_referral_column() -> None:
    with pytest.raises(RangeError, match=r"labels must lie in 0\.\.1, the model's classes, got 0\.\.2"):
        safe_columns(torch.tensor([0, 2]), 3, refers=True)


@pytest.mark.parametrize(("columns", "refers"), [(1, False), (2, True)])
def test_fewer_than_two_classes_are_refused(columns: int, refers: bool) -> None:
    with pytest.raises(RangeError, match=r"at least 2 logits.* got 1"):
        safe_columns(torch.tensor([0]), columns, refers=refers)
