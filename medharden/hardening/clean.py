"""Ordinary clean fine-tuning: how the demonstration and the benchmarks make an original, and the yardstick of cost."""

from __future__ import annotations

import copy
import statistics
import time
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden import ranks
from medharden.attacks import lay_out
from medharden.data import Cohort
from medharden.hardening.augmentation import Changes, augment
from medharden.hardening.lifting import lifted, lower
from medharden.hardening.schedule import learning_rate
from medharden.models import Classifier, task_loss
from medharden.protocol import Hardening
from medharden.record import Progress
from medharden.rows import read_ahead
from medharden.transfers import held, sent, settled

__all__ = ["clean_epoch_seconds", "fine_tune", "step_seconds"]

_TIMED_STEPS = 20


def fine_tune(
    model: Classifier,
    cohort: Cohort,
    settings: Hardening,
    *,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Classifier:
    """Trains every weight on the clean training split, with batch statistics; AdamW, one-cycle, (binary) cross-entropy.

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
    """Wall clock of one epoch of ordinary fine-tuning of every weight, on a copy that is thrown away.

    It is the median of the first steps times the number of steps: a machine busy with something else for a moment does
    not count. Of several processes each times its share of the batches, without the exchange of gradients.
    """
    return step_seconds(model, cohort, settings, seed=seed, device=device, most=_TIMED_STEPS) * _batches(
        cohort, settings
    )


def step_seconds(model: Classifier, cohort: Cohort, settings: Hardening, *, seed: int, device: str, most: int) -> float:
    """Wall clock of one step of ordinary fine-tuning, on a copy that is thrown away.

    It is the median of `most` steps but the first, which also pays for what is set up once; of one, that one.
    """
    trial = copy.deepcopy(model).to(device).train()
    trial.requires_grad_(True)
    taken = _clean_epochs(trial, cohort, settings, 1, seed, device, None, most=most)
    return statistics.median(taken[1:] or taken)


def _clean_epochs(
    model: Classifier,
    cohort: Cohort,
    settings: Hardening,
    epochs: int,
    seed: int,
    device: str,
    progress: Progress | None,
    *,
    most: int | None = None,
) -> list[float]:
    """Trains in place, `most` steps an epoch where that is given; returns the wall clock of each."""
    lay_out(model, model.record.dims, fast=True)
    rows = cohort.indices("train")
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=settings.weight_decay)
    batches = _batches(cohort, settings)
    total = epochs * batches
    seconds: list[float] = []
    for _ in range(epochs):
        order = rows[torch.randperm(len(rows), generator=generator).numpy()]
        started = time.perf_counter()
        for read in read_ahead(
            partial(_read, cohort, device), [_own(part) for part in np.array_split(order, batches)[:most]]
        ):
            inputs, labels = (sent(t, device) for t in read)
            optimiser.param_groups[0]["lr"] = learning_rate(settings, len(seconds) / total)
            changes = Changes.drawn(len(inputs), inputs.ndim - 2, settings, generator)
            loss = task_loss(model(augment(inputs, changes)), labels)
            optimiser.zero_grad()
            lifted(loss).backward()  # type: ignore[no-untyped-call]
            lower(model.parameters())
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimiser.step()
            if most is not None:
                settled(device)
            now = time.perf_counter()
            seconds.append(now - started)
            started = now
            if progress is not None:
                progress("train", len(seconds), total)
    lay_out(model, model.record.dims, fast=False)
    return seconds


def _read(cohort: Cohort, device: str, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    inputs, labels = cohort.batch(rows)
    return held(inputs, device), labels


def _own(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """This process's share of a batch, of two cases at least: batch statistics ask for that."""
    mine = ranks.share(len(rows))
    return rows[mine] if mine.stop - mine.start > 1 else rows[:2]


def _batches(cohort: Cohort, settings: Hardening) -> int:
    return max(1, len(cohort.indices("train")) // settings.batch_size)
