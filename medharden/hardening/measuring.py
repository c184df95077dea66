"""What a step costs on this machine: an ordinary one, a hardening one, and one gradient of an attack."""

from __future__ import annotations

import copy
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from medharden.attacks import pgd, searched
from medharden.data import Cohort
from medharden.hardening.branch import check_form, make_branch
from medharden.hardening.clean import step_seconds
from medharden.hardening.probe import Probe
from medharden.hardening.training import BranchTraining
from medharden.models import Classifier, DecisionView, check_classifier, logits_in_batches
from medharden.protocol import Protocol

__all__ = ["StepCosts", "quick_costs", "step_costs"]

_STEPS = 4
_SECONDS = 12.0  # for each of three measurements, or what one step takes
_ATTACKED = 16
_ROUNDS = 6
_GRADIENTS = 2
_MIB = 2**20


@dataclass(frozen=True)
class StepCosts:
    """Seconds a case, and peak memory in MiB: of the device where that is CUDA, else of the process until then.

    Attributes:
        clean: an ordinary fine-tuning step of every weight.
        harden: a hardening step.
        forward: an answer of the original.
        gradient: one gradient of an attack on the original.
        trained: how many weights train.
        memory: by what was measured, in the same order.
    """

    clean: float
    harden: float
    forward: float
    gradient: float
    trained: int
    memory: dict[str, float]


def step_costs(original: Classifier, cohort: Cohort, protocol: Protocol, device: str, batch_size: int) -> StepCosts:
    """Times a few steps on copies; nothing is kept.

    Args:
        original: as loaded; not modified.
        cohort: with four batches of training, and some of the other splits.
        protocol: settings of hardening and attack.
        device: such as `cpu` or `cuda:0`.
        batch_size: cases a pass in evaluation.

    Raises:
        ModelError: the model does not fit the data.
    """
    inputs, _ = cohort.batch(cohort.indices("train")[:2])
    check_classifier(original, inputs, cohort.classes, multilabel=protocol.task.multilabel)
    settings, memory = protocol.hardening, dict[str, float]()
    check_form(original, settings.branch)
    clean_path = copy.deepcopy(original).requires_grad_(False).to(device)
    with _peak(memory, "attack", device):
        forward, gradient = _attack_seconds(clean_path, cohort, protocol, device, min(batch_size, _ATTACKED))
    with _peak(memory, "clean step", device):
        steps = min(_STEPS, 1 + int(_SECONDS / (1.5 * gradient * settings.batch_size)))  # the first is not counted
        clean = step_seconds(clean_path, cohort, settings, seed=protocol.seed, device=device, most=steps)
    with _peak(memory, "hardening step", device):
        branch = make_branch(clean_path, settings.branch, rank=settings.rank, seed=protocol.seed)
        bias = torch.zeros(len(cohort.classes), device=device)
        probe = Probe(clean_path, cohort, protocol, bias, device)
        training = BranchTraining(clean_path, branch, cohort, protocol, probe, device)
        seconds = training.time_steps(_SECONDS)
    size = settings.batch_size
    return StepCosts(
        clean=clean / size,
        harden=statistics.median(seconds[1:] or seconds) / size,
        forward=forward,
        gradient=gradient,
        trained=training.trained_parameters,
        memory=memory,
    )


def quick_costs(original: Classifier, cohort: Cohort, protocol: Protocol, device: str) -> tuple[float, float]:
    """Seconds a case of an answer, and of one gradient of an attack, on a few training cases; nothing is kept.

    Args:
        original: as loaded; not modified.
        cohort: with some training cases.
        protocol: its threat.
        device: such as `cpu` or `cuda:0`.
    """
    clean_path = copy.deepcopy(original).requires_grad_(False).to(device)
    return _attack_seconds(clean_path, cohort, protocol, device, _ATTACKED, "train")


def _attack_seconds(
    model: Classifier, cohort: Cohort, protocol: Protocol, device: str, batch_size: int, split: str = "test"
) -> tuple[float, float]:
    """Seconds a case of an answer, and of a gradient."""
    rows = cohort.indices(split)[:batch_size]
    inputs, labels = (t.to(device) for t in cohort.batch(rows))
    view = DecisionView(model, torch.zeros(len(cohort.classes), device=device))
    fast, generator = searched(view, inputs.dim() - 2), torch.Generator().manual_seed(0)
    taken = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        with torch.no_grad():
            logits_in_batches(view, inputs, batch_size).cpu()
        answered = time.perf_counter()
        pgd(fast, inputs, labels, threat=protocol.input_threat, steps=_GRADIENTS, restarts=1, loss="ce",
            generator=generator)[0].cpu()  # fmt: skip
        taken.append((answered - started, time.perf_counter() - answered))
        if sum(map(sum, taken)) > _SECONDS / 2:
            break
    # the least: the first round also pays for what is set up once, and any may have waited for other processes
    answer, gradient = (min(each) for each in zip(*taken, strict=True))
    return answer / len(rows), gradient / _GRADIENTS / len(rows)


@contextmanager
def _peak(memory: dict[str, float], name: str, device: str) -> Iterator[None]:
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    yield
    if on_cuda:
        memory[name] = torch.cuda.max_memory_allocated(device) / _MIB
    else:
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        memory[name] = kibibytes / 1024
