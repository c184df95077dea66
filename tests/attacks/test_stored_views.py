"""Attacks in stored values through a model's own view: the written file gives the very logits that the search found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import KEY

from medharden.attacking import Target, attack
from medharden.audit import read_record
from medharden.data import load_cohort
from medharden.data.stored.cases import read_back, stored_cases
from medharden.data.stored.values import input_of, to_input
from medharden.models import Classifier, DecisionView, state_digest, timm_module
from medharden.protocol import parse_protocol
from medharden.record import AttackRecord, ModelRecord

HEAD = """
schema_version: 1
name: views
title: Views
intended_use: Tests.
threat: {space: stored, eps: 3, unit: counts}
splits: {near_duplicate_bits: null}
suite: {attacks: [{attack: apgd, loss: margin, steps: 6}], cases: 4, reason: Tests are quick.}
"""
VIEWS = {
    "timm, bicubic": "{step: resize, size: [36, 36], mode: bicubic, fit: shortest},"
    " {step: crop, size: [32, 32], place: torchvision}",
    "timm, squashed": "{step: resize, size: [32, 32], mode: lanczos}",
    "MONAI, linear": "{step: transpose}, {step: resize, size: [32, 32], mode: linear}",
    "MONAI, area and crop": "{step: resize, size: [40, 40], mode: area}, {step: crop, size: [32, 32]}",
}
INTENSITIES = {"file": "{mode: file}", "range of the case": "{mode: minmax}", "zero stays": "{mode: max}"}


def pictures(folder: Path, channels: int) -> Path:
    rng = np.random.default_rng(0)
    for n in range(24):
        place = folder / "data" / ("ill", "well")[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        values = rng.integers(20, 230, (44 + n % 3, 60, channels), dtype=np.uint8)
        Image.fromarray(values if channels == 3 else values[..., 0]).save(place / f"{n}.png")
    return folder / "data"


def model_of(zscore: str | None) -> Classifier:
    torch.manual_seed(0)
    network = timm_module().create_model("test_resnet", num_classes=2)
    mean, std = ((0.0,), (1.0,)) if zscore else ((0.45, 0.5, 0.4), (0.2, 0.25, 0.3))
    record = ModelRecord(
        "timm", "test_resnet", {}, 2, 3, 2, mean, std, False, "0" * 64, "0" * 64, 1, zscore=zscore,
        zscore_nonzero=zscore == "channel",
    )  # fmt: skip
    return Classifier(network, record)


@pytest.mark.parametrize(
    ("view", "intensity", "zscore", "channels"),
    [
        ("timm, bicubic", "file", None, 3),
        ("timm, squashed", "file", None, 1),
        ("timm, bicubic", "range of the case", "case", 3),
        ("MONAI, linear", "zero stays", "channel", 3),
        ("MONAI, area and crop", "range of the case", "case", 1),
    ],
)
def test_a_written_file_gives_the_logits_that_the_search_found(
    tmp_path: Path, view: str, intensity: str, zscore: str | None, channels: int
) -> None:
    lines = f"input: {{channels: rgb, spatial: [{VIEWS[view]}], intensity: {INTENSITIES[intensity]}}}\n"
    protocol = parse_protocol(HEAD + lines, "views.yaml")
    data = pictures(tmp_path, channels)
    cohort, files = load_cohort(data, protocol, key=KEY), stored_cases(data, protocol, key=KEY)
    model = model_of(zscore)
    first = files.stored_values(cohort.cases[0])
    stored = torch.from_numpy(first.stored).double().requires_grad_()
    made = to_input(first, protocol.input, 3)(stored)
    assert torch.equal(made.detach(), cohort.batch([0])[0][0]), "the attack sees what the model is fed"
    model(made[None])[0, 0].backward()
    assert stored.grad is not None
    assert int((stored.grad != 0).sum()) > 0.5 * stored.numel(), "and has a gradient to follow"

    target = Target("original", DecisionView(model, torch.zeros(2)), state_digest(model))
    attack(target, cohort, files, protocol, tmp_path / "out", split="train")
    record = read_record(tmp_path / "out" / "attack.json", AttackRecord)
    assert len(record.cases) == 4
    rows = {case.case: row for row, case in enumerate(cohort.cases)}
    for case in record.cases:
        assert case.difference == 0.0
        if not case.name:
            continue
        image = read_back(tmp_path / "out" / case.name, 2)
        with torch.no_grad():
            again = model(input_of(image, protocol.input, 3)[None])
        assert (int(again.argmax()) == cohort.cases[rows[case.case]].label) is case.file
    assert any(case.changed for case in record.cases)
