"""What validation costs: probes and calibration, at most a quarter of training's passes on any validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_networks import TinyNet
from tiny import KEY, tiny_model, tiny_protocol, write_archive
from torch import Tensor

from medharden.data import load_cohort
from medharden.hardening import harden, run
from medharden.hardening.allotting import FEW, LEAST, Allotment, training_work
from medharden.hardening.probe import Probe
from medharden.hardening.stepping import Steps
from medharden.protocol import Hardening, Protocol
from medharden.record import HardenRecord


def protocol(**hardening: Any) -> Protocol:
    fields = tiny_protocol().model_dump()
    fields["hardening"] |= hardening
    return Protocol.model_validate(fields)


class Passes:
    """Counts forward passes by case, of training and beside it; a backward pass of inputs, or of weights, is one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.training, self.validation, self.now = 0, 0, ""
        forward = TinyNet.forward

        def counted(network: TinyNet, inputs: Tensor) -> Tensor:
            backward = (
                torch.is_grad_enabled() * inputs.requires_grad
            )  # gradients of weights are asked for in steps alone
            if self.now == "training":
                self.training += len(inputs) * (2 + backward)
            elif self.now:
                self.validation += len(inputs) * (1 + backward)
            return forward(network, inputs)

        monkeypatch.setattr(TinyNet, "forward", counted)
        for owner, name, part in (
            (Steps, "take", "training"),
            (Probe, "__init__", "validation"),
            (Probe, "measure", "validation"),
            (run, "calibrate", "validation"),
        ):
            monkeypatch.setattr(owner, name, self.within(getattr(owner, name), part))

    def within(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            with self.as_(part):
                return function(*args, **named)

        return called

    @contextmanager
    def as_(self, part: str) -> Iterator[None]:
        self.now = part
        yield
        self.now = ""


def hardened(folder: Path, sizes: tuple[int, int], settings: Protocol) -> HardenRecord:
    cohort = load_cohort(write_archive(folder / "tiny.npz", sizes=(*sizes, 20)), settings, key=KEY)
    return harden(tiny_model(folder, cohort=cohort), cohort, settings, folder / "run")


@pytest.mark.parametrize("validation", [9, 60, 900])
@pytest.mark.parametrize("mode", ["mixed", "guarded"])
def test_probes_and_calibration_take_at_most_a_quarter_of_training_on_any_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: int, mode: str
) -> None:
    passes = Passes(monkeypatch)
    fusion = tiny_protocol().fusion.model_copy(update={"mode": mode})
    settings = protocol(epochs=12).model_copy(update={"fusion": fusion})
    record = hardened(tmp_path, (150, validation), settings)
    assert record.validation is not None
    assert (passes.training, passes.validation) == (record.validation.training_work, record.validation.work)
    assert 0 < passes.validation <= passes.training / 4
    said = {f.code: f.message for f in record.findings}.get("hardening.validation_work", "")
    wanted = min(validation, 512) if mode == "mixed" else 0
    seen = record.validation
    whole = (seen.answered, seen.calibrated, seen.searched, seen.probes) == (validation, validation, wanted, 12)
    assert said.startswith("" if whole else f"Of {validation} validation cases")
    assert bool(said) != whole
    assert whole or validation > 9
    assert record.validation.searched == (max(p.attacked for p in record.fusion.frontier) if mode == "mixed" else 0)


def test_training_too_short_to_pay_for_the_least_says_what_it_took(tmp_path: Path) -> None:
    record = hardened(tmp_path, (50, 60), protocol(epochs=1))
    assert record.validation is not None
    assert (record.validation.attacked, record.validation.searched) == (LEAST, LEAST)
    finding = next(f for f in record.findings if f.code == "hardening.validation_work")
    assert finding.severity == "warning"
    assert "more than a quarter" in finding.message


@pytest.mark.parametrize("branch", ["full", "norm"])
@pytest.mark.parametrize("method", ["carried", "pgd", "trades", "free"])
@pytest.mark.parametrize(
    ("cases", "validation"), [(8, 9), (64, 9), (1089, 273), (300, 300), (500, 20000), (20000, 400)]
)
def test_probes_take_at_most_a_fifth_of_training(branch: str, method: str, cases: int, validation: int) -> None:
    settings = Hardening(branch=branch, method=method)  # type: ignore[arg-type]
    allotment = Allotment.of(settings, cases, validation)
    assert allotment.all_probes(settings) <= training_work(settings, cases) / 5
    assert min(FEW, validation) <= allotment.attacked <= allotment.answered <= validation
    assert sum(map(allotment.probed, range(allotment.epochs))) == allotment.probes
    assert allotment.probed(allotment.epochs - 1)


def test_a_validation_split_that_training_pays_for_is_looked_at_whole() -> None:
    allotment = Allotment.of(Hardening(), 1089, 273)
    assert (allotment.every, allotment.answered, allotment.attacked) == (1, 273, 64)


def test_epochs_of_a_few_steps_are_not_probed_each_and_what_stands_there_is_of_the_last_that_was(
    tmp_path: Path,
) -> None:
    record = hardened(tmp_path, (20, 12), protocol(epochs=24, learning_rate=0.003))
    probed = [e.probed for e in record.epochs]
    assert record.validation is not None
    assert 1 < record.validation.probes == sum(probed) < len(probed)
    assert probed[-1]
    for before, now in pairwise(record.epochs):
        assert now.probed or (now.val_robust, now.val_clean) == (before.val_robust, before.val_clean)
        assert now.probed or not now.kept
