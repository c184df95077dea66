"""Several findings a case: answers and losses, the mixture, referral, and what a hardened model stores and answers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_networks import TinyNet
from tiny import ARCH
from torch import Tensor
from torch.nn import functional

from medharden.attacks import apgd
from medharden.errors import ModelError
from medharden.models import (
    HardenedClassifier,
    answered_rightly,
    check_classifier,
    divergence,
    load_classifier,
    mix,
    mix_findings,
    probability_of_truth,
    task_loss,
)
from medharden.protocol import ThreatModel
from medharden.record import FusionRecord

MIXED = FusionRecord("mixed", 0.7, 0.8, 1.6, 0.0, 0.0)
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def logits(seed: int, rows: int = 6, findings: int = 3, scale: float = 4.0) -> Tensor:
    return scale * torch.randn(rows, findings, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loaded(folder: Path, findings: int, seed: int = 1):
    torch.manual_seed(seed)
    torch.save(TinyNet(findings).state_dict(), folder / "model.pt")
    return load_classifier(folder / "model.pt", arch=ARCH, multilabel=True)


def hardened(folder: Path, fusion: FusionRecord, findings: int = 3, bias: Tensor | None = None) -> HardenedClassifier:
    bias = torch.zeros(findings) if bias is None else bias
    return HardenedClassifier(loaded(folder, findings, 1), loaded(folder, findings, 2), fusion, bias, multilabel=True)


def test_the_mixture_is_the_log_odds_of_the_mixed_probability() -> None:
    clean, robust = logits(0), logits(1)
    p = 0.3 * (clean / 0.8).sigmoid() + 0.7 * (robust / 1.6).sigmoid()
    assert torch.allclose(mix_findings(clean, robust, MIXED, torch.zeros(3)).sigmoid(), p, atol=1e-12)


def test_the_mixture_neither_overflows_nor_loses_its_gradient_where_both_paths_are_sure() -> None:
    clean = torch.tensor([[400.0, -400.0, 90.0]], requires_grad=True)
    mixed = mix_findings(clean, torch.tensor([[-300.0, -300.0, 80.0]]), MIXED, torch.zeros(3))
    assert torch.isfinite(mixed).all()
    assert mixed[0, 0].item() == pytest.approx(math.log(0.3 / 0.7), abs=1e-5), "the clean path's share is all there is"
    mixed.sum().backward()
    assert clean.grad is not None
    assert torch.isfinite(clean.grad).all()
    assert clean.grad[0, 2] > 0


def test_the_mixture_and_the_losses_have_the_gradients_they_should() -> None:
    clean, robust = logits(2, 3).requires_grad_(), logits(3, 3).requires_grad_()
    labels = (logits(4, 3) > 0).double()
    assert torch.autograd.gradcheck(
        lambda c, r: mix_findings(c, r, MIXED, torch.tensor([0.0, 1.4, -0.3])), (clean, robust)
    )
    assert torch.autograd.gradcheck(lambda c: task_loss(c, labels), (clean,))
    assert torch.autograd.gradcheck(lambda c: divergence(c, robust.detach(), multilabel=True), (clean,))


def test_one_finding_is_two_classes_said_in_another_way() -> None:
    """A sigmoid of z is the softmax of (0, z): mixture, loss and divergence agree with those of two classes."""
    z, w, labels = logits(5, 8, 1), logits(6, 8, 1), (logits(7, 8, 1) > 0).double()

    def two(column: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(column), column], dim=1)

    bias = torch.tensor([[-1.4]], dtype=torch.float64)
    mixed = mix(two(z), two(w), MIXED, two(bias)[0])
    assert torch.allclose(mix_findings(z, w, MIXED, bias[0])[:, 0], mixed[:, 1] - mixed[:, 0])
    whole = labels.long().flatten()
    assert torch.allclose(task_loss(z, labels), functional.cross_entropy(two(z), whole))
    for reduction in ("batchmean", "sum"):
        expected = divergence(two(z), two(w), multilabel=False, reduction=reduction)
        assert torch.allclose(divergence(z, w, multilabel=True, reduction=reduction), expected)
    assert torch.allclose(probability_of_truth(z, labels), probability_of_truth(two(z), whole))


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_divergence_from_an_answer_surer_than_a_float_can_say_has_a_gradient(multilabel: bool) -> None:
    """A fine-tuned original's logits lie hundreds apart: the other class's probability is 0 to the last bit."""
    sure = torch.tensor([[150.0, -150.0], [3.0, 0.0]], requires_grad=True)
    moved = torch.tensor([[-150.0, 150.0], [2.0, 0.0]], requires_grad=True)
    apart = divergence(moved, sure, multilabel=multilabel)
    apart.backward()
    assert float(apart.detach()) > 50
    assert all(values.grad is not None and torch.isfinite(values.grad).all() for values in (sure, moved))
    assert (moved.grad.abs().sum(1) > 0).all()


def test_a_branch_that_is_sure_of_a_finding_decides_it_whatever_the_clean_path_says() -> None:
    lead = (1 - 0.7) / 0.7  # how far its probability must lie beyond one half, twice
    sure = 1.6 * torch.tensor([[0.5 + lead / 2 + 1e-6, 0.5 - lead / 2 - 1e-6]], dtype=torch.float64).logit()
    for attacked in (-1e3, 1e3):
        assert (mix_findings(torch.full_like(sure, attacked), sure, MIXED, torch.zeros(2)) > 0).tolist() == [
            [True, False]
        ]


def test_a_case_is_right_only_with_every_finding_and_its_least_probable_truth_is_its_probability() -> None:
    answered = torch.tensor([[2.0, -1.0, 3.0], [-1.0, 0.5, -2.0]])
    assert answered_rightly(answered, LABELS).tolist() == [True, False]
    expected = [torch.tensor(1.0).sigmoid().item(), torch.tensor(-0.5).sigmoid().item()]
    assert probability_of_truth(answered, LABELS).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["mixed", "guarded"])
def test_a_batch_equals_its_cases_one_by_one_and_thresholds_hold_for_each_finding(tmp_path: Path, mode: str) -> None:
    bias = torch.tensor([math.log(0.9 / 0.1), 0.0, math.log(0.2 / 0.8)])
    model = hardened(tmp_path, replace(MIXED, mode=mode, referral_threshold=0.55), bias=bias)
    inputs = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        view, whole = model.decision_view()(inputs), model.assess(inputs)
        alone = [model.decision_view()(inputs[k : k + 1]) for k in range(5)]
        parts = [model.assess(inputs[k : k + 1]) for k in range(5)]
    assert torch.allclose(view, torch.cat(alone), atol=1e-5)
    assert whole.referred.tolist() == [bool(p.referred) for p in parts]
    assert torch.equal(view[:, :3] > 0, whole.logits.sigmoid() > torch.tensor([0.1, 0.5, 0.8]))
    if mode == "guarded":
        assert torch.equal(view[:, 3] > 0, whole.referred), "the attacker's last column is the flag itself"
        assert torch.equal(whole.logits, model.clean_path(inputs)), "the answer is the clean path's, bit for bit"


@pytest.mark.parametrize(
    ("robust", "referred"),
    [
        ([3.0, -3.0, 2.0], False),
        ([3.0, 3.0, 2.0], True),  # one finding answered otherwise
        ([3.0, -3.0, 0.5], True),  # one answer hardly supported
        ([30.0, -30.0, 0.5], True),  # however sure the others
    ],
)
def test_a_case_is_referred_for_its_least_supported_finding(robust: list[float], referred: bool) -> None:
    from medharden.models import refers_findings

    clean = torch.tensor([[1.0, -1.0, 9.0]])
    guarded = FusionRecord("guarded", 0.5, 1.0, 1.0, 0.8, 0.0)
    assert refers_findings(clean, torch.tensor([robust]), torch.zeros(3), guarded).tolist() == [referred]


def test_an_attack_on_one_finding_of_a_guarded_model_leaves_the_others_to_themselves(tmp_path: Path) -> None:
    """It wins where this finding is wrong and nothing is referred, whatever the others say."""
    fusion = replace(MIXED, mode="guarded", referral_threshold=0.5)
    paths = loaded(tmp_path, 3), loaded(tmp_path, 3)
    model = HardenedClassifier(*paths, fusion, torch.zeros(3), multilabel=True)
    view = model.decision_view()
    inputs = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = (view(inputs)[:, :3] > 0).float()
        attacked = apgd(
            view,
            inputs,
            labels,
            threat=ThreatModel(eps=0.3),
            steps=20,
            restarts=1,
            loss="margin",
            generator=torch.Generator().manual_seed(0),
            finding=1,
        )
        answers = view(attacked)
    won = ((answers[:, 1] > 0) != (labels[:, 1] > 0.5)) & (answers[:, 3] <= 0)
    assert won.float().mean() > 0.5, "two equal paths can be fooled alike"
    assert (attacked - inputs).abs().max() <= 0.3 + 1e-6


def test_a_network_with_one_output_is_one_finding_and_no_class_of_two(tmp_path: Path) -> None:
    model = loaded(tmp_path, 1)
    assert (model.record.classes, model.record.one_logit) == (1, False)
    assert model(torch.rand(2, 1, 16, 16)).shape == (2, 1)
    with pytest.raises(ModelError, match="answers 1 findings, the data have 2: a, b"):
        check_classifier(model, torch.rand(2, 1, 16, 16), ("a", "b"), multilabel=True)


def test_a_stored_model_answers_findings_again(tmp_path: Path) -> None:
    from medharden.audit import canonical_json
    from medharden.models import describe_hardened, hardened_bytes, load_hardened

    model = hardened(tmp_path, MIXED)
    description = canonical_json(describe_hardened(model)) + b"\n"
    (tmp_path / "hardened.json").write_bytes(description)
    (tmp_path / "hardened.safetensors").write_bytes(hardened_bytes(model, description))
    inputs = torch.rand(3, 1, 16, 16)
    assert torch.equal(load_hardened(tmp_path, arch=ARCH)(inputs), model(inputs))
