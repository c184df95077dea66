"""A cohort and a classifier small enough to harden in seconds, read through the ordinary doors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medharden.data import Cohort, load_cohort
from medharden.hardening import fine_tune
from medharden.models import Classifier, load_classifier
from medharden.protocol import Hardening, Protocol, parse_protocol

KEY = b"a key for tests, sixteen bytes or more"
ARCH = "python:foreign_networks:TinyNet"
EACH_CASE = 'splits: {patients: {unit: each_case, reason: "Each image is drawn by itself; nobody has two."}}\n'
PROTOCOL = (
    """
schema_version: 1
name: tiny
title: Tiny
intended_use: Tests.
threat: {eps: 0.06}
hardening: {branch: full, epochs: 20, min_steps: 1, batch_size: 25, learning_rate: 0.01, probe_cases: 60}
suite: {attacks: [{attack: apgd, loss: ce, steps: 10}, {attack: pgd, loss: margin, steps: 5}], reason: Tests are quick.}
"""
    + EACH_CASE
)


def tiny_protocol(extra: str = "") -> Protocol:
    """The protocol of the tests, with further top-level YAML."""
    return parse_protocol(PROTOCOL + extra, "tiny.yaml")


def write_archive(path: Path, classes: int = 2, sizes: tuple[int, int, int] = (200, 80, 120), seed: int = 0) -> Path:
    """16x16 images: a bright quadrant is the robust sign of the class, a faint stripe pattern the fragile one."""
    random = np.random.default_rng(seed)
    arrays = {}
    for split, count in zip(("train", "val", "test"), sizes, strict=True):
        labels = np.arange(count) % classes
        images = random.normal(100, 8, (count, 16, 16))
        stripes = 3.0 * np.sign(np.sin(np.arange(16) * np.pi / 2 + 0.1))
        for n, label in enumerate(labels):
            row, column = divmod(int(label) % 4, 2)
            images[n, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += random.uniform(35, 55)
            images[n] += stripes[:, None] if label % 2 else stripes[None, :]
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


def tiny_cohort(folder: Path, protocol: Protocol, classes: int = 2) -> Cohort:
    """The archive as a cohort."""
    return load_cohort(write_archive(folder / "tiny.npz", classes), protocol, key=KEY)


def tiny_model(folder: Path, classes: int = 2, cohort: Cohort | None = None) -> Classifier:
    """A `TinyNet` loaded from a state dict in `folder`; trained on the cohort where one is given."""
    from foreign_networks import TinyNet

    torch.manual_seed(1)
    path = folder / "model.pt"
    torch.save(TinyNet(classes).state_dict(), path)
    model = load_classifier(path, arch=ARCH)
    if cohort is not None:
        settings = Hardening(branch="full", epochs=6, min_steps=1, batch_size=25, learning_rate=0.01)
        fine_tune(model, cohort, settings, seed=1)
        torch.save(model.network.state_dict(), path)
        model = load_classifier(path, arch=ARCH)
    return model


def at(adversary: Any, branch: Any, rows: Tensor, inputs: Tensor, labels: Tensor, radius: float, generator: Any) -> Any:
    """What a training adversary makes of a whole batch in one process."""
    noise = adversary.noise(rows, inputs, generator)
    return adversary.attacked(branch, rows, inputs, labels, radius, noise)
