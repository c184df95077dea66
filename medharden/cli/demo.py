"""`medharden demo`: phantom CT slices, a small classifier trained on them, and the whole pipeline on both."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from medharden.audit import write_atomic
from medharden.cli.console import marked, out, stage_progress
from medharden.cli.pipeline import Job, interruptible, prepare, run_all
from medharden.data import load_cohort, load_pseudonym_key, write_phantom_cohort
from medharden.hardening import fine_tune
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, load_classifier, timm_module
from medharden.protocol import Hardening, Protocol, load_protocol

__all__ = ["run_demo"]

_ARCH = "test_resnet"
_PATIENTS = 700
_ORIGINAL = Hardening(branch="full", epochs=12, min_steps=1, batch_size=32, learning_rate=3e-3, shift=2)


def run_demo(folder: Path) -> int:
    """Writes `data`, `model.pt` and `run` into a folder; what is there already is used again."""
    shows = "This shows how medharden works; it says nothing about any real model."
    out.say(marked("[bold]Phantoms are no patients.[/] {}", shows))
    # one thread: the network is tiny, the figures are then the same on any number of cores, and a busy machine with
    # two processes of two threads each took five times as long
    torch.set_num_threads(1)
    protocol = load_protocol("demo")
    data, model, run = folder / "data", folder / "model.pt", folder / "run"
    job = Job(model, data, "demo", run, None, "cpu", 64, 2, None, pictures=True)
    prepare(job)
    with interruptible(folder), stage_progress() as progress:
        if not data.exists():
            write_phantom_cohort(data, patients=_PATIENTS, seed=protocol.seed, progress=progress)
        if not model.exists():
            cohort = load_cohort(data, protocol, key=load_pseudonym_key(), progress=progress)
            keep_freed_memory()
            network = _untrained(folder, protocol, len(cohort.classes))
            fine_tune(network, cohort, _ORIGINAL, seed=protocol.seed, progress=progress)
            write_atomic(
                model,
                _checkpoint(
                    network.network, mean=network.record.mean, std=network.record.std, class_names=list(cohort.classes)
                ),
            )
    out.say(f"$ medharden harden {model} --data {data} --protocol demo --out {run} --pictures")
    return run_all(job)


def _untrained(folder: Path, protocol: Protocol, classes: int) -> Classifier:
    """A small timm network with seeded random weights, by way of a checkpoint as any other."""
    torch.manual_seed(protocol.seed)
    network = timm_module().create_model(_ARCH, num_classes=classes, in_chans=1)
    start = folder / ".untrained.pt"
    write_atomic(start, _checkpoint(network))
    try:
        return load_classifier(start, spec=protocol.model)
    finally:
        start.unlink()


def _checkpoint(network: torch.nn.Module, **told: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"arch": _ARCH, "state_dict": network.state_dict(), **told}, buffer)
    return buffer.getvalue()
