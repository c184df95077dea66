"""Ordinary clean fine-tuning: how the demonstration and the benchmarks make an original, and the yardstick of cost."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from torch.nn import functional

from medharden.data import Cohort
from medharden.hardening.augmentation import augment
from medharden.hardening.schedule import learning_rate
from medharden.models import Classifier
from medharden.protocol import Hardening
from medharden.record import Progress

__all__ = ["clean_epoch_seconds", "fine_tune"]

_WARM_STEPS = 3


def fine_tune(
    model: Classifier,
    cohort: Cohort,
    settings: Hardening,
    *,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Classifier:
    """Trains every weight on the clean training split, with batch statistics; AdamW, one-cycle, cross-entropy.

    Args:
        model: trained in place.
        cohort: its `train` split is used.
        settings: epochs, batch size, learning rate, weight decay, warm-up, augmentation.
        seed: of order and augmentation.
        device: where to train.
        progress: called with `train`, steps done and in all.

    Returns:
        The same model in eval mode, on the CPU.
    """
    model.to(device).train()
    model.requires_grad_(True)
    _clean_epochs(model, cohort, settings, settings.epochs, seed, device, progress)
    return model.eval().to("cpu")


def clean_epoch_seconds(model: Classifier, cohort: Cohort, settings: Hardening, *, seed: int, device: str) -> float:
    """Wall clock of one epoch of ordinary fine-tuning of every weight, on a copy that is thrown away."""
    trial = copy.deepcopy(model).to(device).train()
    trial.requires_grad_(True)
    return _clean_epochs(trial, cohort, settings, 1, seed, device, None)


def _clean_epochs(
    model: Classifier,
    cohort: Cohort,
    settings: Hardening,
    epochs: int,
    seed: int,
    device: str,
    progress: Progress | None,
) -> float:
    rows = cohort.indices("train")
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=settings.weight_decay)
    batches = max(1, len(rows) // settings.batch_size)
    total, done, started = epochs * batches, 0, time.perf_counter()
    for _ in range(epochs):
        order = rows[torch.randperm(len(rows), generator=generator).numpy()]
        for part in np.array_split(order, batches):
            inputs, labels = (t.to(device) for t in cohort.batch(part))
            optimiser.param_groups[0]["lr"] = learning_rate(settings, done / total)
            loss = functional.cross_entropy(model(augment(inputs, settings, generator)), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimiser.step()
            done += 1
            if total > 2 * _WARM_STEPS and done == _WARM_STEPS:
                started = time.perf_counter()
            if progress is not None:
                progress("train", done, total)
    counted = total - _WARM_STEPS if total > 2 * _WARM_STEPS else total
    return (time.perf_counter() - started) * total / counted
