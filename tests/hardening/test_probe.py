"""The probe: an attack on validation that goes on from epoch to epoch, and looks longer where accuracy has fallen."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attack_models import Linear
from tiny import tiny_cohort, tiny_model, tiny_protocol
from torch import Tensor

from medharden.data import Cohort
from medharden.hardening.allotting import Allotment
from medharden.hardening.probe import Probe
from medharden.models import Classifier
from medharden.protocol import Protocol


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return tiny_cohort(tmp_path_factory.mktemp("probe"), tiny_protocol())


@pytest.fixture
def original(tmp_path: Path) -> Classifier:
    return tiny_model(tmp_path)


PAID = Allotment(training=10**6, epochs=20, every=1, answered=80, attacked=60, of_probes=200_000)


class Counting(Linear):
    """Counts the cases that pass with their gradient asked for."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += int(x.requires_grad) * len(x)
        return super().forward(x)


def separating(cohort: Cohort) -> Counting:
    """The linear model of the two class means, with its border between them."""
    inputs, labels = cohort.batch(cohort.indices("train"))
    means = torch.stack([inputs[labels == k].flatten(1).mean(0) for k in (0, 1)])
    model = Counting(tuple(inputs.shape[1:]), 2)
    with torch.no_grad():
        model.weight.copy_(means)
        model.bias.copy_(-means.square().sum(1) / 2)
    return model


def standing(model: Linear, cohort: Cohort, eps: float) -> float:
    """Exact accuracy under attack of a linear model of two classes."""
    inputs, labels = cohort.batch(cohort.indices("val"))
    away = (model.weight[1] - model.weight[0]) * (1 - 2 * labels)[:, None]
    worst = (inputs + eps * away.sign().reshape(inputs.shape)).clamp(0, 1)
    with torch.no_grad():
        return float((model(worst).argmax(1) == labels).float().mean())


def one_step(eps: float) -> Protocol:
    fields = tiny_protocol().model_dump()
    fields["threat"]["eps"] = eps
    fields["hardening"] |= {"probe_steps": 1, "probe_cases": 1000}
    return Protocol.model_validate(fields)


def test_a_step_an_epoch_ends_where_the_strongest_attack_does(cohort: Cohort, original: Classifier) -> None:
    """From a random start one step of half the radius is not enough; the steps of a few epochs are."""
    eps = 0.085
    model, probe = (
        separating(cohort),
        Probe(original, cohort, one_step(eps), torch.zeros(2), "cpu", allotment=replace(PAID, attacked=80)),
    )
    held = [probe.measure(model).robust for _ in range(4)]  # type: ignore[arg-type]
    exact = standing(model, cohort, eps)
    assert 0.1 < exact < held[0] - 0.1
    assert held[-1] == pytest.approx(exact, abs=0.011)


@pytest.mark.parametrize(("before", "passes"), [(None, 5), (0.1, 2), (2.0, 5)])
def test_a_later_look_is_shorter_unless_accuracy_has_fallen(
    cohort: Cohort, original: Classifier, before: float | None, passes: int
) -> None:
    probe, model = Probe(original, cohort, tiny_protocol(), torch.zeros(2), "cpu", allotment=PAID), separating(cohort)
    probe.last_robust = before
    probe.measure(model)  # type: ignore[arg-type]
    assert model.passes == 60 * passes


def test_an_interrupted_probe_goes_on_as_if_it_had_not_been(cohort: Cohort, original: Classifier) -> None:
    model = separating(cohort)
    probes = [Probe(original, cohort, tiny_protocol(), torch.zeros(2), "cpu", allotment=PAID) for _ in range(2)]
    probes[0].measure(model)  # type: ignore[arg-type]
    probes[1].restore(copy.deepcopy(probes[0].state()))
    assert probes[1].measure(model) == probes[0].measure(model)  # type: ignore[arg-type]
    assert torch.equal(probes[1].state()["adversary"]["codes"], probes[0].state()["adversary"]["codes"])
