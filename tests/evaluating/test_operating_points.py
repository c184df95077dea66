"""Thresholds from validation in a run: on record before the verdict, told from the models' own scores, and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from released_runs import Released, copied, released
from tiny import ARCH

from medharden.audit import digest_file, read_record, write_record
from medharden.gating import gate
from medharden.models import load_classifier, load_hardened
from medharden.record import Evaluation, GateDecision, Verdict
from medharden.reporting import render

MORE = """
  operating_points: [{fixed: specificity, at: 0.9, margin: 0.3, justification: Recalls.}]
task: {positive: "1", classes: ["0", "1"]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released(tmp_path_factory.mktemp("made"), more=MORE)


@torch.no_grad()
def test_thresholds_give_the_specificity_on_validation_and_no_test_case_was_asked(made: Released) -> None:
    [found] = read_record(made.run / "evaluation.json", Evaluation).operating_points
    inputs, labels = made.cohort.batch(made.cohort.indices("val"))
    models = load_classifier(made.model, arch=ARCH), load_hardened(made.run, arch=ARCH)
    negative = labels.numpy() == 0
    for model, threshold, reached in zip(
        models, (found.original, found.composite), (found.original_reached, found.composite_reached), strict=True
    ):
        score = model(inputs).double().softmax(1).numpy()[:, 1]
        assert np.mean(score[negative] < threshold) == pytest.approx(reached)
        assert reached >= 0.9
        below = np.sort(score[negative])[: int(np.ceil(0.9 * negative.sum()) - 1)]
        assert threshold > below.max()
    assert found.cases == negative.sum()


def test_the_gate_decides_at_these_thresholds_and_the_report_says_where_they_are_from(made: Released) -> None:
    decision = read_record(made.run / "gate.json", GateDecision)
    found = {e.name: e for e in decision.endpoints}
    assert found["sensitivity_at_specificity_0.9"].justification == "Recalls."
    assert found["sensitivity_at_specificity_0.9"].n == found["sensitivity"].n
    assert "specificity_at_specificity_0.9" in found
    render(made.run)
    page = (made.run / "report.html").read_text(encoding="utf-8")
    assert "Sensitivity (1) where specificity was 0.9 on validation" in page
    assert "thresholds from validation" in page


def test_other_thresholds_than_were_recorded_are_no_evidence(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    path = run / "evaluation.json"
    record = read_record(path, Evaluation)
    easier = replace(record.operating_points[0], composite=0.0)
    write_record(path, replace(record, operating_points=(easier,)))
    assert digest_file(path) != digest_file(made.run / "evaluation.json")
    assert gate(run, read_only=True).verdict is Verdict.INVALID
