"""Hardening several findings a case: attacks of training, the probe, temperatures, referral and the choice of epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import KEY, PROTOCOL, at

from medharden.data import Cohort, load_cohort
from medharden.hardening.baselines import FreshAdversary
from medharden.hardening.calibration import _NEUTRAL, _guard, fit_temperature
from medharden.hardening.clean import fine_tune
from medharden.hardening.probe import Probe, collapsed, mean_auroc
from medharden.hardening.training import BranchTraining
from medharden.models import Classifier, refers_findings, task_loss
from medharden.protocol import Hardening, Protocol, ThreatModel, parse_protocol
from medharden.record import ModelRecord

TASK = """
task: {kind: multilabel, classes: [left, top], threshold: 0.5}
endpoints: {noninferiority: [{metric: accuracy, margin: 0.2}, {metric: recall, margin: 0.2}]}
"""


def protocol(extra: str = "") -> Protocol:
    return parse_protocol(PROTOCOL + TASK + extra, "tiny.yaml")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """16x16 images: the left half is bright with the first finding, the upper half with the second, rarer one."""
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 120), ("val", 60), ("test", 40)):
        labels = np.stack([np.arange(count) % 2, np.arange(count) % 5 == 0], axis=1).astype(np.uint8)
        images = random.normal(100, 8, (count, 16, 16))
        images[:, :, :8] += 40.0 * labels[:, 0, None, None]
        images[:, :8, :] += 40.0 * labels[:, 1, None, None]
        arrays |= {f"{split}_images": images.clip(0, 255).astype(np.uint8), f"{split}_labels": labels}
    path = tmp_path_factory.mktemp("data") / "findings.npz"
    np.savez(path, **arrays)
    return load_cohort(Path(path), protocol(), key=KEY)


@pytest.fixture(scope="module")
def model(cohort: Cohort) -> Classifier:
    from foreign_networks import TinyNet

    torch.manual_seed(0)
    record = ModelRecord(
        "python", "TinyNet", {}, 2, 1, 2, (0.5,), (0.5,), one_logit=False, file="", state="", parameters=0
    )
    settings = Hardening(epochs=8, min_steps=1, batch_size=20, learning_rate=0.01)
    return fine_tune(Classifier(TinyNet(2), record), cohort, settings, seed=0)


def test_ordinary_fine_tuning_learns_each_finding(cohort: Cohort, model: Classifier) -> None:
    inputs, labels = cohort.batch(cohort.indices("test"))
    with torch.no_grad():
        assert mean_auroc(model(inputs), labels) > 0.95


@pytest.mark.parametrize("method", ["pgd", "trades", "n-fgsm", "fgsm-rs"])
def test_a_baselines_attack_raises_the_loss_over_findings(cohort: Cohort, model: Classifier, method: str) -> None:
    inputs, labels = cohort.batch(cohort.indices("train")[:20])
    adversary = FreshAdversary(ThreatModel(eps=0.05), Hardening(method=method, attack_steps=3))
    generator = torch.Generator().manual_seed(0)
    attacked = at(adversary, model, torch.arange(20), inputs, labels, 0.05, generator)
    with torch.no_grad():
        assert task_loss(model(attacked), labels) > task_loss(model(inputs), labels)


@pytest.mark.parametrize("extra", ["", "teacher", "regulate", "trades", "free"])
def test_an_epoch_of_every_kind_trains_on_findings(cohort: Cohort, model: Classifier, extra: str) -> None:
    changes = {
        "teacher": "teacher: {weight: 0.5}, clean_share: 0.3",
        "regulate": "regulate: true, branch: norm",
        "trades": "method: trades, attack_steps: 1",
        "free": "method: free, replays: 2",
    }
    settings = "hardening: {epochs: 2, min_steps: 1, batch_size: 30, learning_rate: 0.001, probe_cases: 20"
    text = PROTOCOL.replace("hardening: {branch: full", "unused: {branch: full")
    lines = [line for line in text.splitlines() if not line.startswith("unused")]
    chosen = f", {changes[extra]}" if extra else ""
    asked = parse_protocol("\n".join(lines) + TASK + settings + chosen + "}\n", "tiny.yaml")
    probe = Probe(model, cohort, asked, torch.zeros(2), "cpu")
    from medharden.hardening.branch import make_branch

    branch = make_branch(model, "full", rank=1, seed=0)
    training = BranchTraining(model, branch, cohort, asked, probe, "cpu")
    training.run_epoch(None)
    epoch = training.state.history[0]
    assert np.isfinite(epoch.loss)
    assert 0.5 < epoch.val_clean <= 1.0, "the mean AUROC over findings"


def test_the_probe_sees_through_a_branch_that_calls_everything_absent(cohort: Cohort, model: Classifier) -> None:
    """Its accuracy is that of the cases without a finding, and no attack can lower it: its AUROC is 1/2."""
    probe = Probe(model, cohort, protocol(), torch.zeros(2), "cpu")

    class Absent(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.flatten(1)[:, :2] * 0 - 3.0

    result = probe.measure(Absent())  # type: ignore[arg-type]
    assert (result.clean, result.robust) == (0.5, 0.5)
    assert result.constant == (0, 1)
    assert "mean AUROC" in str(collapsed(result, probe.original, probe.classes, 0.0, probe.measures))
    assert collapsed(probe.original, probe.original, probe.classes, 0.0, probe.measures) is None


def test_an_epoch_that_gives_a_finding_up_is_the_last_to_be_chosen(cohort: Cohort, model: Classifier) -> None:
    asked = protocol()
    probe = Probe(model, cohort, asked, torch.zeros(2), "cpu")
    training = BranchTraining(model, model, cohort, asked, probe, "cpu")
    honest = replace(probe.original, robust=0.3)
    training._keep(honest)
    training.state.epoch = 1
    training._keep(replace(honest, robust=0.9, constant=(1,)))
    assert training.state.best_epoch == 0
    training.state.best_constant = (1,)
    training.finish()
    assert "top" in next(f.message for f in training.state.findings if f.code == "hardening.constant_findings")


def test_the_temperature_undoes_a_scale_over_all_findings() -> None:
    generator = torch.Generator().manual_seed(0)
    true = 2.0 * torch.randn(4000, 3, generator=generator)
    labels = (torch.rand(4000, 3, generator=generator) < true.sigmoid()).float()
    assert fit_temperature(3.0 * true, labels, torch.zeros(true.shape[1])) == pytest.approx(3.0, rel=0.1)


def test_the_referral_threshold_keeps_to_its_budget_on_validation() -> None:
    generator = torch.Generator().manual_seed(1)
    clean = 3.0 * torch.randn(500, 3, generator=generator)
    robust = clean + 0.1 * torch.randn(500, 3, generator=generator)
    asked = protocol("fusion: {mode: guarded, referral_budget: 0.3}\n")
    fusion, findings = _guard(replace(_NEUTRAL, mode="guarded"), clean, robust, torch.zeros(3), asked)
    assert not findings
    assert 0.2 < fusion.referral_rate <= 0.3
    referred = refers_findings(clean, robust, torch.zeros(3), fusion)
    assert float(referred.float().mean()) == pytest.approx(fusion.referral_rate)
