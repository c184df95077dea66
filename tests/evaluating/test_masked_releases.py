"""Releases that hide from attacks, through evaluation and gate: none gets a PASS that an honest one gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from attack_models import Backward
from foreign_networks import Passed
from tiny import tiny_cohort, tiny_model
from torch import nn

from medharden.data import Cohort
from medharden.errors import ModelError
from medharden.evaluating import evaluate
from medharden.gating import gate
from medharden.hardening import harden
from medharden.models import load_classifier, load_hardened
from medharden.protocol import Protocol, parse_protocol
from medharden.record import GateDecision, Verdict

ARCH = "python:foreign_networks:Passed"
TEXT = """
schema_version: 1
name: masked
title: Masked
intended_use: Tests.
threat: {eps: 0.06}
splits: {patients: {unit: each_case, reason: Each image is drawn by itself.}}
hardening: {epochs: 8, min_steps: 1, batch_size: 25, learning_rate: 0.01, probe_cases: 20}
suite:
  attacks: [{attack: apgd, loss: ce, steps: 6}, {attack: apgd, loss: margin, steps: 6}, {attack: square, steps: 20}]
  cases: 60
  reason: Tests are quick.
  sanity_cases: 6
endpoints:
  noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.2}]
  robustness: {floor: 0.3}
"""


HIDING = {
    "saturation": (lambda z: (z * 1e4).softmax(1), "attack.vanishing_gradient"),
    "probabilities": (lambda z: (z / 4).softmax(1), "attack.probabilities"),
    "argmax": (lambda z: nn.functional.one_hot(z.argmax(1), 2).float(), "attack.vanishing_gradient"),
    "rounding": (lambda z: z.mul(2).round().div(2), "attack.vanishing_gradient"),
    "noise": (lambda z: z + 0.5 * torch.randn(z.shape), "attack.random_answers"),
    "gradients downhill": (lambda z: Backward.apply(z, torch.neg), "attack.misleading_gradient"),
    "gradients of noise": (lambda z: Backward.apply(z, torch.randn_like), "attack.random_gradient"),
    "one gradient for all": (
        lambda z: Backward.apply(z, lambda g: torch.tensor([0.7, -0.4]).expand_as(g)),
        "attack.misleading_gradient",
    ),
    "constant labels": (lambda z: z * 1e-3 + torch.tensor([5.0, 0.0]), "evaluation.constant_answer"),
}


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return parse_protocol(TEXT, "masked.yaml")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, protocol: Protocol) -> Cohort:
    return tiny_cohort(tmp_path_factory.mktemp("data"), protocol)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort, protocol: Protocol) -> Path:
    """A network and a run directory in which it was hardened while it hid nothing."""
    folder = tmp_path_factory.mktemp("shop")
    tiny_model(folder, cohort=cohort)
    harden(load_classifier(folder / "model.pt", arch=ARCH), cohort, protocol, folder / "run")
    return folder


def judged(shop: Path, folder: Path, cohort: Cohort, protocol: Protocol) -> GateDecision:
    """Evaluates a copy of the run and decides on it."""
    run = folder / "run"
    shutil.copytree(shop / "run", run)
    original = load_classifier(shop / "model.pt", arch=ARCH)
    evaluate(load_hardened(run, arch=ARCH), cohort, protocol, run, original=original)
    return gate(run)


def test_an_honest_release_passes(shop: Path, tmp_path: Path, cohort: Cohort, protocol: Protocol) -> None:
    assert judged(shop, tmp_path, cohort, protocol).verdict is Verdict.PASS


@pytest.mark.parametrize("how", HIDING)
def test_a_release_that_hides_gets_no_pass_and_the_gate_says_why(
    how: str, shop: Path, tmp_path: Path, cohort: Cohort, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    through, code = HIDING[how]
    monkeypatch.setattr(Passed, "through", staticmethod(through))
    decision = judged(shop, tmp_path, cohort, protocol)
    assert decision.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)
    assert [reason for reason in decision.reasons if reason.startswith(f"critical finding {code}: ")]


def test_labels_that_no_attack_can_change_are_no_robustness(
    shop: Path, tmp_path: Path, cohort: Cohort, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Passed, "through", staticmethod(HIDING["constant labels"][0]))
    decision = judged(shop, tmp_path, cohort, protocol)
    assert [reason for reason in decision.reasons if "cases survive an attack that may change everything" in reason]


def test_a_network_without_a_gradient_is_refused_before_it_is_trained(
    shop: Path, tmp_path: Path, cohort: Cohort, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Passed, "through", staticmethod(lambda z: 4 * HIDING["argmax"][0](z) - 2))
    with pytest.raises(ModelError, match="no gradient in its weights, so no branch can be trained"):
        harden(load_classifier(shop / "model.pt", arch=ARCH), cohort, protocol, tmp_path / "run")
    assert not (tmp_path / "run" / "harden.json").exists()
