"""A run directory that passed the gate, small enough to be made in seconds, and its test cases as picture files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_networks import TinyNet
from PIL import Image
from tiny import ARCH, KEY, tiny_cohort, tiny_model

from medharden.data import Cohort, load_cohort
from medharden.evaluating import evaluate
from medharden.gating import gate
from medharden.hardening import fine_tune, harden
from medharden.models import load_classifier, load_hardened
from medharden.protocol import Hardening, Protocol, parse_protocol

__all__ = ["Released", "copied", "released", "released_findings", "released_once"]

TEXT = """
schema_version: 1
name: released
title: Released
intended_use: Tests.
threat: {eps: 0.06}
splits: {patients: {unit: each_case, reason: Each image is drawn by itself.}}
hardening: {branch: BRANCH, epochs: 8, min_steps: 1, batch_size: 25, learning_rate: 0.01, probe_cases: 20}
fusion: {mode: MODE, referral_budget: 0.3}
suite:
  attacks: [{attack: apgd, loss: ce, steps: 6}, {attack: apgd, loss: margin, steps: 6}]
  cases: 60
  reason: Tests are quick.
  sanity_cases: 6
endpoints:
  noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.2}]
  robustness: {floor: 0.3}
"""


FINDINGS = """
schema_version: 1
name: findings
title: Findings
intended_use: Tests.
task: {kind: multilabel, classes: [a, b, c], threshold: {a: 0.5, b: 0.4, c: 0.3}}
threat: {eps: 0.05}
splits: {patients: {unit: each_case, reason: Each image is drawn by itself.}}
hardening: {branch: full, epochs: 4, min_steps: 1, batch_size: 25, learning_rate: 0.01, probe_cases: 20}
fusion: {mode: guarded, referral_budget: 0.3}
suite: {attacks: [{attack: apgd, loss: ce, steps: 3}], cases: 30, sanity_cases: 0, reason: Tests are quick.}
endpoints:
  noninferiority: [{metric: accuracy, margin: 0.15}, {metric: recall, margin: 0.2}]
  robustness: {floor: 0.05}
"""


@dataclass(frozen=True)
class Released:
    """A run with its verdict, the cohort and protocol it was made with, and the archive of the cases."""

    run: Path
    cohort: Cohort
    protocol: Protocol
    archive: Path
    model: Path

    def pictures(self, folder: Path, count: int = 4) -> list[Path]:
        """The first test cases as PNG files."""
        folder.mkdir(parents=True, exist_ok=True)
        images = np.load(self.archive)["test_images"]
        paths = [folder / f"case-{n}.png" for n in range(count)]
        for path, image in zip(paths, images, strict=False):
            Image.fromarray(image).save(path)
        return paths


def released(folder: Path, mode: str = "mixed", branch: str = "full", more: str = "") -> Released:
    """Hardens, evaluates and decides; `more` goes on below `endpoints`."""
    protocol = parse_protocol(TEXT.replace("MODE", mode).replace("BRANCH", branch) + more, "released.yaml")
    folder.mkdir(parents=True, exist_ok=True)
    cohort = tiny_cohort(folder, protocol)
    tiny_model(folder, cohort=cohort)
    original, run = load_classifier(folder / "model.pt", arch=ARCH), folder / "run"
    harden(original, cohort, protocol, run)
    evaluate(load_hardened(run, arch=ARCH), cohort, protocol, run, original=original)
    gate(run)
    return Released(run, cohort, protocol, folder / "tiny.npz", folder / "model.pt")


def released_findings(folder: Path) -> Released:
    """A run on images of three findings, each a bright quadrant; evaluated and decided on, whatever the verdict."""
    protocol, random, arrays = parse_protocol(FINDINGS, "findings.yaml"), np.random.default_rng(0), {}
    for split, count in (("train", 150), ("val", 60), ("test", 60)):
        labels, images = random.integers(0, 2, (count, 3)), random.normal(100, 8, (count, 16, 16))
        for k in range(3):
            row, column = divmod(k, 2)
            images[labels[:, k] == 1, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 45
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez(folder / "findings.npz", **arrays)
    cohort, file = load_cohort(folder / "findings.npz", protocol, key=KEY), folder / "model.pt"
    torch.manual_seed(1)
    torch.save(TinyNet(3).state_dict(), file)
    model = load_classifier(file, arch=ARCH, multilabel=True)
    training = Hardening(branch="full", epochs=6, min_steps=1, batch_size=25, learning_rate=0.01)
    fine_tune(model, cohort, training, seed=1)
    torch.save(model.network.state_dict(), file)
    model, run = load_classifier(file, arch=ARCH, multilabel=True), folder / "run"
    harden(model, cohort, protocol, run)
    evaluate(load_hardened(run, arch=ARCH), cohort, protocol, run, original=model)
    gate(run)
    return Released(run, cohort, protocol, folder / "findings.npz", file)


def released_once(factory: pytest.TempPathFactory, mode: str) -> Released:
    """`released`, which is made once by a process; the run directory is the caller's own, to be added to."""
    if mode not in _MADE:
        _MADE[mode] = released(factory.mktemp("released"), mode)
    return replace(_MADE[mode], run=copied(_MADE[mode], factory.mktemp("own")))


_MADE: dict[str, Released] = {}


def copied(made: Released, folder: Path) -> Path:
    """The run directory again, to be changed."""
    return shutil.copytree(made.run, folder / "run")
