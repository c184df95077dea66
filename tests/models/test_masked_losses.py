"""Losses and answers where a case says nothing of a finding: as if the finding were not there for that case."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medharden.hardening.probe import mean_auroc
from medharden.models import answered_rightly, divergence, probability_of_truth, task_loss
from medharden.stats import auroc

NAN = torch.nan
LABELS = torch.tensor([[1.0, 0.0, 1.0], [NAN, 0.0, 1.0], [1.0, NAN, NAN], [0.0, 1.0, NAN]])
KNOWN = ~LABELS.isnan()


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_the_loss_is_the_mean_over_cases_of_the_mean_over_known_findings() -> None:
    z = logits()
    each = [
        functional.binary_cross_entropy_with_logits(z[n, KNOWN[n]], LABELS[n, KNOWN[n]]) for n in range(len(LABELS))
    ]
    assert torch.allclose(task_loss(z, LABELS), torch.stack(each).mean())
    added = functional.binary_cross_entropy_with_logits(z[KNOWN], LABELS[KNOWN], reduction="sum")
    assert torch.allclose(task_loss(z, LABELS, reduction="sum"), added)


def test_a_batch_in_parts_adds_up_to_the_whole_however_much_is_masked() -> None:
    z = logits()
    parts = 0.25 * task_loss(z[:1], LABELS[:1]) + 0.75 * task_loss(z[1:], LABELS[1:])
    assert torch.allclose(parts, task_loss(z, LABELS))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_gradient_reaches_a_masked_logit(reduction: str) -> None:
    z, teacher = logits(), logits(1).detach()
    loss = task_loss(z, LABELS, reduction=reduction)
    loss = loss + divergence(
        z, teacher, multilabel=True, known=KNOWN, reduction="batchmean" if reduction == "mean" else "sum"
    )
    slope = torch.autograd.grad(loss, z)[0]
    assert (slope[~KNOWN] == 0).all()
    assert (slope[KNOWN] != 0).all()
    assert torch.isfinite(slope).all()


def test_the_teacher_says_nothing_of_a_masked_finding() -> None:
    z, teacher = logits().detach(), logits(1).detach()
    other = torch.where(KNOWN, teacher, 9.0)
    held = [divergence(z, target, multilabel=True, known=KNOWN) for target in (teacher, other)]
    assert torch.equal(*held)
    rows = [divergence(z[n : n + 1, KNOWN[n]], teacher[n : n + 1, KNOWN[n]], multilabel=True) for n in range(4)]
    assert torch.allclose(held[0], torch.stack(rows).mean())


def test_without_a_mask_nothing_changes_by_a_bit() -> None:
    z, whole = logits(), LABELS.nan_to_num(1.0)
    assert torch.equal(task_loss(z, whole), functional.binary_cross_entropy_with_logits(z, whole))
    teacher = logits(1)
    everything = divergence(z, teacher, multilabel=True, known=torch.ones_like(KNOWN))
    assert torch.equal(everything, divergence(z, teacher, multilabel=True))


def test_answers_are_right_where_every_known_finding_is() -> None:
    z = torch.tensor([[1.0, -1.0, 1.0], [9.0, -1.0, 1.0], [1.0, 9.0, -9.0], [-1.0, -1.0, 9.0]])
    assert answered_rightly(z, LABELS).tolist() == [True, True, True, False]
    truth = probability_of_truth(z, LABELS)
    assert torch.allclose(truth[2], torch.tensor(1.0).sigmoid()), "of the only known finding"
    assert torch.isfinite(truth).all()


def test_the_probe_measures_each_finding_on_the_cases_that_know_it() -> None:
    random = torch.Generator().manual_seed(0)
    z, labels = torch.randn(40, 2, generator=random), (torch.rand(40, 2, generator=random) > 0.5).float()
    labels[10:30, 1] = NAN
    known = ~labels[:, 1].isnan()
    areas = auroc(z[:, 0], labels[:, 0] > 0.5), auroc(z[known, 1], labels[known, 1] > 0.5)
    assert mean_auroc(z, labels) == pytest.approx(sum(areas) / 2)
