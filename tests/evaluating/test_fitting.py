"""Batches of evaluation that would not fit are made smaller, which is said and changes no outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ARCH, tiny_cohort, tiny_model, tiny_protocol
from torch import nn

from medharden.audit import RunFiles
from medharden.evaluating import evaluate, fitting
from medharden.evaluating.fitting import bytes_a_case, fitting_batch
from medharden.hardening import harden
from medharden.models import load_hardened


def network(channels: int) -> nn.Module:
    layers = [nn.Conv2d(1, channels, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(channels * 64, 2)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.mark.parametrize("channels", [4, 32])
def test_what_a_gradient_keeps_of_a_case_is_measured_without_the_weights(channels: int) -> None:
    # the convolution keeps its input, the sigmoid its output
    assert bytes_a_case(network(channels), torch.rand(1, 1, 8, 8)) == 4 * (1 + channels) * 64


def test_the_batch_is_the_largest_that_fits_and_never_more_than_was_asked_for() -> None:
    model, inputs = network(4), torch.rand(3, 1, 8, 8)
    assert fitting_batch(model, inputs, 64, "cpu", budget=64 * 1280) == (64, ())
    size, (said,) = fitting_batch(model, inputs, 64, "cpu", budget=10 * 1280 + 1)
    assert size == 10
    assert said.code == "evaluation.smaller_batches"
    assert "passes of 10" in said.message
    assert fitting_batch(model, inputs, 64, "cpu", budget=1)[0] == 1


def test_an_evaluation_in_smaller_batches_has_the_same_outcomes_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = tiny_protocol()
    fields = protocol.model_dump()
    fields["hardening"]["epochs"], fields["endpoints"]["looks"] = 2, 2
    protocol = type(protocol).model_validate(fields)
    cohort, run = tiny_cohort(tmp_path, protocol), tmp_path / "run"
    original = tiny_model(tmp_path, cohort=cohort)
    harden(original, cohort, protocol, run)
    tables, records = [], []
    for budget in (2**31, 400_000):
        monkeypatch.setattr(fitting, "_BUDGET", budget)
        records.append(evaluate(load_hardened(run, arch=ARCH), cohort, protocol, run, original=original))
        tables.append(RunFiles(run).cases())
    whole, small = records
    assert [f.code for f in whole.findings].count("evaluation.smaller_batches") == 0
    assert [f.code for f in small.findings].count("evaluation.smaller_batches") == 1
    assert small.identity.logits_equal
    for name, here in tables[0].subjects.items():
        assert here.won_by == tables[1].subjects[name].won_by
        assert np.array_equal(here.predicted, tables[1].subjects[name].predicted)
