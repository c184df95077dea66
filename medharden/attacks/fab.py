"""FAB (Croce & Hein 2020): the shortest perturbation that changes the answer, whatever the budget."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.attacks.criterion import Criterion, Objective
from medharden.attacks.projections import lengths, per_case, reach
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, check_counts, refers
from medharden.protocol import ThreatModel

__all__ = ["climb", "fab", "toward_nearest"]

BIAS = 0.1  # alpha_max: most weight of the step from the clean input against the step from where the walk is
_COMPETING = 20
OVERSHOOT = (0.05, 0.001)  # how far beyond the linearised boundary, first and last


def fab(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    steps: int,
    targets: int = 9,
    finding: Objective = "any",
) -> tuple[Tensor, Tensor]:
    """Walks along the decision boundary towards the clean input, and keeps the nearest wrong answer.

    Croce & Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", ICML 2020. The
    other classes, or findings, are walked towards one after the other, those first whose boundary, linearised at the
    clean input, is nearest; the overshoot shrinks to 0.1 % over a walk, in place of the paper's final search.

    Args:
        model: takes (N, C, *spatial) within the bounds and returns logits (N, K); with a true attribute `refers`,
            (N, K + 1), the last meaning `referred to a human`. Left as it was, in every flag and buffer.
        inputs: (N, C, *spatial) floating point within `threat.bounds`, on the model's device.
        labels: (N,) class indices, or (N, K) floating point of 0 and 1, on the same device.
        threat: norm and bounds; the budget plays no part.
        steps: gradient steps a target.
        targets: the most targets a case.
        finding: of several findings, the one to be changed: its index, `any` or `all`.

    Returns:
        (N, C, *spatial) the nearest input found that is answered wrongly, and (N,) its distance in the norm: 0 where
        the clean answer is wrong, infinity (beside the clean input) where nothing was found.

    Raises:
        RangeError: inputs, labels, logits or counts outside what is said above.
    """
    check_cases(inputs, labels, threat, finding)
    check_counts(steps, 1)
    victim = Victim(model, Criterion(labels, finding, refers(model)), "margin")
    inputs = inputs.detach()
    nearest = _Nearest(inputs, threat.norm)
    rows = torch.arange(len(inputs), device=inputs.device)
    with attackable(model):
        for targeted in toward_nearest(victim, inputs, threat, targets):
            at = inputs
            for step in range(steps + 1):
                margins, gradient, won = targeted.slope(at, rows)
                nearest.offer(at, won)
                at = _move(at, inputs, margins, gradient, threat, step / steps)
    return nearest.points, nearest.distances


def toward_nearest(victim: Victim, inputs: Tensor, threat: ThreatModel, targets: int) -> list[Victim]:
    """Victims whose targets are those with the nearest linearised boundary, the second nearest, and so on.

    Args:
        victim: the model and the labels of all cases; its loss must be `margin`.
        inputs: (N, C, *spatial) clean inputs.
        threat: whose norm measures.
        targets: the most targets a case; of more than 20 classes or findings, the 20 nearest by logit compete.
    """
    rivals = victim.criterion.rivals(victim.logits(inputs), max(targets, _COMPETING))
    if rivals.shape[1] == 0:
        return [victim]
    rows, distances = torch.arange(len(inputs), device=inputs.device), []
    for rank in range(rivals.shape[1]):
        margins, gradient, _ = victim.toward(rivals[:, rank]).slope(inputs, rows)
        steep = gradient.flatten(1).abs().sum(1) if threat.norm == "linf" else lengths(gradient, "l2")
        distances.append(-margins / steep.clamp_min(1e-30))
    ranked = rivals.gather(1, torch.stack(distances, dim=1).argsort(1))
    return [victim.toward(ranked[:, rank]) for rank in range(min(targets, ranked.shape[1]))]


def climb(
    victim: Victim, inputs: Tensor, rows: Tensor, at: Tensor, strongest: Strongest, threat: ThreatModel, steps: int
) -> None:
    """One walk within a suite, as `Climb` says; the victim's loss must be `margin`.

    Cases leave it once a wrong answer lies within the budget; these points alone go to `strongest`.
    """
    for step in range(steps + 1):
        margins, gradient, won = victim.slope(at, rows)
        done = won & (lengths(at - inputs, threat.norm) <= threat.eps)
        if done.any():
            strongest.offer(rows[done], at[done], margins[done], won[done])
            rows, inputs, at, margins, gradient = (t[~done] for t in (rows, inputs, at, margins, gradient))
        if len(rows) == 0 or step == steps:
            return
        at = _move(at, inputs, margins, gradient, threat, step / steps)


def _move(at: Tensor, inputs: Tensor, margins: Tensor, gradient: Tensor, threat: ThreatModel, done: float) -> Tensor:
    """From `at` to beyond the linearised boundary, drawn a little towards the boundary's point nearest to the input.

    The overshoot is a share of the linearised margin of the clean input. `margins` (n,) and `gradient` are those at
    `at`, `done` in [0, 1] is the share of the walk behind.
    """
    first, last = OVERSHOOT
    offset = margins + ((inputs - at) * gradient).flatten(1).sum(1)
    beyond = first * (last / first) ** done * offset.abs()
    there = reach(at, gradient, beyond - margins, threat)
    home = reach(inputs, gradient, beyond - offset, threat)
    step, leap = lengths(there, threat.norm), lengths(home, threat.norm)
    share = (step / (step + leap).clamp_min(1e-30)).clamp_max(BIAS)
    own, drawn = at + there, inputs + home
    moved: Tensor = own + per_case(share, at) * (drawn - own)
    return moved.clamp(*threat.bounds)


class _Nearest:
    """The nearest wrong answer of each case."""

    def __init__(self, inputs: Tensor, norm: str) -> None:
        self.inputs, self.norm = inputs, norm
        self.points = inputs.clone()
        self.distances = torch.full((len(inputs),), torch.inf, device=inputs.device, dtype=inputs.dtype)

    def offer(self, points: Tensor, won: Tensor) -> None:
        distances = lengths(points - self.inputs, self.norm)
        better = won & (distances < self.distances)
        self.points[better] = points[better]
        self.distances[better] = distances[better]
