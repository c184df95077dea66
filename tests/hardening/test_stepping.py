"""A step in smaller passes, in lower precision, and what bad luck gets: no memory, a loss that is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_cohort, tiny_model, tiny_protocol
from torch import nn

from medharden.data import Cohort
from medharden.errors import HardeningError, RunError
from medharden.hardening import harden
from medharden.models import Classifier, load_classifier, load_hardened
from medharden.protocol import ModelSpec, Protocol


def settings(**changed: object) -> Protocol:
    protocol = tiny_protocol()
    fields = protocol.model_dump()
    fields["hardening"] |= {
        "epochs": 3,
        "clean_share": 0.2,
        "shift": 1,
        "photometric": 0.1,
        "learning_rate": 0.003,
    } | changed
    return type(protocol).model_validate(fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stepping")


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return tiny_cohort(folder, settings())


@pytest.fixture(scope="module")
def original(folder: Path, cohort: Cohort) -> Classifier:
    return tiny_model(folder, cohort=cohort)


def branch_of(run: Path) -> torch.Tensor:
    return torch.cat(
        [
            p.detach().flatten()
            for p in load_hardened(run, arch="python:foreign_networks:TinyNet").robust_branch.parameters()
        ]
    )


def short_of_memory(
    monkeypatch: pytest.MonkeyPatch, most: int, word: str = "CUDA out of memory. Tried to allocate 2 GiB"
) -> list[int]:
    """Passes of more cases than that run out of memory; returns the sizes that were tried."""
    from medharden.hardening import stepping

    whole, tried = stepping.augment, []

    def augment(inputs, changes):
        tried.append(len(inputs))
        if len(inputs) > most:
            raise torch.OutOfMemoryError(word)
        return whole(inputs, changes)

    monkeypatch.setattr(stepping, "augment", augment)
    return tried


@pytest.mark.parametrize("method", ["carried", "pgd"])
def test_a_step_that_does_not_fit_is_taken_in_smaller_passes_and_is_the_same_step(
    tmp_path: Path, cohort: Cohort, original: Classifier, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = settings(method=method)
    whole = harden(original, cohort, protocol, tmp_path / "whole")
    tried = short_of_memory(monkeypatch, 7)
    record = harden(original, cohort, protocol, tmp_path / "small")
    assert tried[:3] == [25, 12, 6]
    one, other = branch_of(tmp_path / "whole"), branch_of(tmp_path / "small")
    assert float((one - other).norm() / one.norm()) < 1e-4
    assert [e.val_robust for e in record.epochs] == [e.val_robust for e in whole.epochs]
    said = [f.message for f in record.findings if f.code == "hardening.smaller_passes"]
    assert len(said) == 1
    assert "4 passes" in said[0]


def test_where_one_case_does_not_fit_the_numbers_are_said(
    tmp_path: Path, cohort: Cohort, original: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = short_of_memory(monkeypatch, 0)
    with pytest.raises(HardeningError, match=r"pass of 1 case of 1x16x16 values.*Tried to allocate 2 GiB.*more memory"):
        harden(original, cohort, settings(), tmp_path)
    assert tried == [25, 12, 6, 3, 1, 1]


RESNET: dict[str, Any] = {
    "block": "basic",
    "layers": [2, 2, 2, 2],
    "block_inplanes": [8, 8, 16, 16],
    "spatial_dims": 2,
    "n_input_channels": 1,
    "num_classes": 2,
}


def blocks_of(dims: int) -> tuple[nn.Module, int]:
    """A network of a kind that teams use, and how many blocks it has."""
    from monai.networks.nets import DenseNet, ResNet

    torch.manual_seed(0)
    if dims == 3:
        return DenseNet(3, 1, 2, init_features=8, growth_rate=4, block_config=(6, 6), bn_size=2).eval(), 3
    return ResNet(**RESNET).eval(), 8


@pytest.mark.parametrize("dims", [2, 3])
def test_what_blocks_compute_twice_has_the_same_gradients_and_keeps_less(dims: int) -> None:
    from medharden.hardening.recomputing import keep_all, recompute

    network, expected = blocks_of(dims)
    inputs = torch.rand(2, 1, *[32] * dims, generator=torch.Generator().manual_seed(1))

    def gradients() -> tuple[list[torch.Tensor], int]:
        kept = []
        given = inputs.clone().requires_grad_(True)
        network.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
            loss = network(given).square().sum()
        held = sum(kept)
        loss.backward()
        return [given.grad, *(p.grad.clone() for p in network.parameters())], held

    whole, all_kept = gradients()
    names = list(network.state_dict())
    assert recompute(network) == expected
    again, kept = gradients()
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert kept < 0.6 * all_kept
    assert list(network.state_dict()) == names
    keep_all(network)
    assert gradients()[1] == all_kept


def test_where_one_case_does_not_fit_blocks_compute_twice_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medharden.hardening import recomputing, stepping

    protocol = settings(epochs=2)
    cohort, network = tiny_cohort(tmp_path, protocol), blocks_of(2)[0]
    torch.save(network.state_dict(), tmp_path / "model.pt")
    arch = ModelSpec(arch="monai:ResNet", arguments=RESNET)
    original = load_classifier(tmp_path / "model.pt", spec=arch)
    whole = stepping.augment

    def augment(inputs, changes):
        if len(inputs) > 1 or not recomputed:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(inputs, changes)

    recomputed = []
    monkeypatch.setattr(stepping, "augment", augment)
    monkeypatch.setattr(stepping, "recompute", lambda net: recomputed.append(1) or recomputing.recompute(net))

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "harden" and done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, protocol, tmp_path / "run", checkpoint_minutes=0, progress=stop)
    record = harden(original, cohort, protocol, tmp_path / "run", checkpoint_minutes=0)
    assert len(recomputed) == 2, "once a process"
    said = [f.message for f in record.findings if f.code == "hardening.smaller_passes"]
    assert len(said) == 1
    assert "25 passes" in said[0]
    assert "8 blocks" in said[0]


def test_an_error_that_is_not_of_memory_is_not_tried_again(
    tmp_path: Path, cohort: Cohort, original: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medharden.hardening import stepping

    def broken(inputs, changes):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(stepping, "augment", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        harden(original, cohort, settings(), tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_on_record_trains_in_it_and_leaves_the_clean_path(
    tmp_path: Path, cohort: Cohort, original: Classifier, precision: str
) -> None:
    exact = harden(original, cohort, settings(), tmp_path / "exact")
    record = harden(original, cohort, settings(), tmp_path / "lower", precision=precision)
    assert (exact.environment.precision, record.environment.precision) == ("fp32", precision)
    assert record.hardened != exact.hardened
    assert record.clean_logits_identical
    assert record.clean_state_before == exact.clean_state_before
    assert abs(record.epochs[-1].loss - exact.epochs[-1].loss) < 0.05
    assert abs(record.epochs[-1].val_robust - exact.epochs[-1].val_robust) < 0.1


def test_a_run_goes_on_in_the_precision_it_was_begun_in(tmp_path: Path, cohort: Cohort, original: Classifier) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "harden" and done >= 13:
            raise KeyboardInterrupt

    wanted = harden(original, cohort, settings(), tmp_path / "whole", precision="fp16").hardened
    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, settings(), tmp_path / "run", precision="fp16", checkpoint_minutes=0, progress=stop)
    with pytest.raises(RunError, match="begun with --precision fp16, not fp32"):
        harden(original, cohort, settings(), tmp_path / "run")
    assert harden(original, cohort, settings(), tmp_path / "run", precision="fp16").hardened == wanted


def test_a_loss_that_is_not_finite_rolls_back_and_is_an_error_in_the_end(
    tmp_path: Path, cohort: Cohort, original: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medharden.hardening import stepping

    monkeypatch.setattr(stepping, "task_loss", lambda logits, labels: logits.sum() * torch.nan)
    with pytest.raises(HardeningError, match=r"none of 3 epochs.*the loss is no longer finite.*learning_rate"):
        harden(original, cohort, settings(), tmp_path)
    assert not (tmp_path / "hardened.safetensors").exists()
