"""Accuracy over budgets below and above the protocol's: how far each attacked case stands, from where the suite ended.

A case that falls within a budget falls within every larger one, so below the protocol's only those are attacked again
that the suite beat, and above it only those that stand. Each search starts at the point that the last one ended at,
brought within its own budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from medharden.attacks import Criterion, SuiteResult, pgd
from medharden.attacks.victim import refers
from medharden.evaluating.subjects import Subject
from medharden.heap import give_back_freed_memory
from medharden.models import logits_in_batches
from medharden.protocol import Protocol
from medharden.record import CURVE_RATIOS, CaseTable, CurvePoint, Progress
from medharden.rows import Cases

__all__ = ["curve_points", "withstood"]

_SHOWN = ("original", "composite")
_STAGE = "accuracy curve"
_WRONG, _CLEAN = -1.0, 0.0


def withstood(
    subjects: tuple[Subject, ...],
    results: Mapping[str, SuiteResult],
    inputs: Cases,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    device: str,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """The largest budget of the curve that each attacked case withstands, by subject; nothing where none is asked.

    One PGD on the margin of logits (Madry et al. 2018), without random restarts, of the protocol's `curve_steps`. It is
    a weaker search than the suite, so away from the protocol's budget what stands is an upper limit all the more.

    Args:
        subjects: the models; original and composite are taken.
        results: of the suite, by subject: which case fell, and the strongest point found for each.
        inputs: (n, C, *spatial) float32 in [0, 1], the attacked cases.
        labels: (n,) or (n, L), of the same.
        protocol: whose threat and steps hold.
        batch_size: cases a pass.
        device: where the models are.
        progress: called with `accuracy curve`, cases done and in all.

    Returns:
        (n,) float64 multiples of the protocol's eps: -1 where the answer is wrong without an attack, 0 where it falls
        at the smallest budget.
    """
    if protocol.suite.curve_steps == 0:
        return {}
    found, done = {}, 0
    chosen = [s for s in subjects if s.name in _SHOWN]
    for subject in chosen:
        won = results[subject.name].won_by
        values = torch.full((len(won),), _WRONG, dtype=torch.float64)
        for fell in (True, False):
            rows = torch.tensor(
                [n for n, by in enumerate(won) if by != "clean" and bool(by) is fell], dtype=torch.int64
            )
            for part in torch.split(rows, batch_size):
                if len(part):
                    points = results[subject.name].adversarial[part]
                    values[part] = _stands_to(subject, inputs[part], points, labels[part], protocol, device, fell=fell)
        found[subject.name], done = values, done + len(won)
        if progress:
            progress(_STAGE, done, len(chosen) * len(won))
    return found


def curve_points(table: CaseTable, protocol: Protocol) -> tuple[CurvePoint, ...]:
    """How many of the attacked cases stand at each budget, without an attack first."""
    eps, points = protocol.input_threat.eps, []
    for name in _SHOWN:
        withstands = table.subjects[name].withstands
        if withstands is None:
            continue
        held = withstands[table.attacked]
        for ratio in (0.0, *CURVE_RATIOS):
            attack = {0.0: "clean", 1.0: "suite"}.get(ratio, f"pgd-margin-{protocol.suite.curve_steps}")
            points.append(CurvePoint(name, ratio, eps * ratio, attack, len(held), int((held >= ratio).sum())))
    return tuple(points)


def _stands_to(
    subject: Subject, inputs: Tensor, points: Tensor, labels: Tensor, protocol: Protocol, device: str, *, fell: bool
) -> Tensor:
    """(n,) how far cases stand that all fell at the protocol's budget, or that all stood there."""
    inputs, points, labels = (values.to(device) for values in (inputs, points, labels))
    open_ones = torch.arange(len(inputs), device=inputs.device)
    threat = protocol.input_threat
    budgets = [r for r in CURVE_RATIOS if r < 1][::-1] if fell else [r for r in CURVE_RATIOS if r > 1]
    reached = torch.full((len(inputs),), _CLEAN if fell else 1.0, dtype=torch.float64)
    for ratio in budgets:
        if not len(open_ones):
            break
        points = pgd(
            subject.view,
            inputs[open_ones],
            labels[open_ones],
            threat=threat.model_copy(update={"eps": min(threat.eps * ratio, _whole(threat.norm, inputs))}),
            steps=protocol.suite.curve_steps,
            restarts=1,
            loss="margin",
            generator=torch.Generator(),
            start=points,
            reach=protocol.suite.moved_grades,
        )
        with torch.no_grad():
            logits = logits_in_batches(subject.view, points, len(points))
        won = Criterion(labels[open_ones], refers=refers(subject.view), reach=protocol.suite.moved_grades).won(logits)
        reached[open_ones[~won].cpu()] = ratio
        going_on = won if fell else ~won
        open_ones, points = open_ones[going_on], points[going_on]
        give_back_freed_memory()  # the next search is of fewer cases
    return reached


def _whole(norm: str, inputs: Tensor) -> float:
    """The budget that reaches every input in [0, 1]."""
    return 1.0 if norm == "linf" else math.sqrt(math.prod(inputs.shape[1:]))
