"""Composites of every branch form and fusion mode on a small network, to be exported."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from foreign_networks import TinyNet

from medharden.hardening.branch import make_branch, merge
from medharden.models import Classifier, Contract, HardenedClassifier, load_classifier
from medharden.protocol import Input, ModelSpec
from medharden.record import FusionRecord

__all__ = ["BRANCHES", "MODES", "composite", "tiny_classifier"]

MODES = ("clean", "robust", "mixed", "guarded")
BRANCHES = ("full", "norm", "lora")
FUSION = FusionRecord("mixed", 0.6, 1.3, 0.8, 0.55, 0.02)


def tiny_classifier(folder: Path, outputs: int = 3, *, multilabel: bool = False) -> Classifier:
    """A `TinyNet` whose normalisation layers have statistics of their own."""
    torch.manual_seed(3)
    network = TinyNet(outputs).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(32, 1, 16, 16))
    torch.save(network.state_dict(), folder / "tiny.pt")
    spec = ModelSpec(mean=(0.4,), std=(0.3,))
    return load_classifier(folder / "tiny.pt", arch="python:foreign_networks:TinyNet", spec=spec, multilabel=multilabel)


def composite(
    clean: Classifier, shape: tuple[int, ...], mode: str, branch: str, *, rank: int = 2, **more: Any
) -> HardenedClassifier:
    """A composite whose branch of the given form was moved as training moves it, without training."""
    robust = make_branch(clean, branch, rank=rank, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in robust.parameters():
            if parameter.requires_grad:
                size = float(parameter.abs().mean()) or 0.05
                parameter += 0.1 * size * torch.randn(parameter.shape, generator=generator)
    merge(robust)
    classes = clean.record.classes
    names = tuple(f"class {k}" for k in range(classes))
    view = Input(dims=clean.record.dims, size=shape[1:])
    contract = Contract(names, view, shape, "argmax", "0" * 64)
    bias = torch.linspace(-0.2, 0.3, classes)
    return HardenedClassifier(copy.deepcopy(clean), robust, replace(FUSION, mode=mode), bias, contract=contract, **more)
