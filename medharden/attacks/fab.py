"""FAB (Croce & Hein 2020): the shortest perturbation that changes the answer, whatever the budget."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.attacks.aims import Aim, Sought
from medharden.attacks.projections import lengths, per_case, reach
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, check_counts, refers
from medharden.protocol import ThreatModel

__all__ = ["climb", "fab"]

BIAS = 0.1  # alpha_max: most weight of the step from the clean input against the step from where the walk is
OVERSHOOT = (0.05, 0.001)  # how far beyond the linearised boundary, first and last


def fab(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    steps: int,
    finding: Sought = "any",
) -> tuple[Tensor, Tensor]:
    """Walks along the decision boundary towards the clean input, and keeps the nearest wrong answer.

    Croce & Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", ICML 2020. The
    boundary linearised here is that of the margin, the nearest class by logit, at one backward pass a step whatever
    the number of classes; the overshoot shrinks to 0.1 % over the walk, in place of the paper's final search.

    Args:
        model: takes (N, C, *spatial) within the bounds and returns logits (N, K); with a true attribute `refers`,
            (N, K + 1), the last meaning `referred to a human`. Left as it was, in every flag and buffer.
        inputs: (N, C, *spatial) floating point within `threat.bounds`, on the model's device.
        labels: (N,) class indices, or (N, K) floating point of 0 and 1, on the same device.
        threat: norm and bounds; the budget plays no part.
        steps: gradient steps.
        finding: of several findings, the one to be changed: its index, `any` or `all`.

    Returns:
        (N, C, *spatial) the nearest input found that is answered wrongly, and (N,) its distance in the norm: 0 where
        the clean answer is wrong, infinity (beside the clean input) where nothing was found.

    Raises:
        RangeError: inputs, labels, logits or counts outside what is said above.
    """
    check_cases(inputs, labels, threat, finding)
    check_counts(steps, 1)
    victim = Victim(model, Aim(labels, finding, refers(model)), "margin")
    inputs = inputs.detach()
    nearest = _Nearest(inputs, threat.norm)
    rows = torch.arange(len(inputs), device=inputs.device)
    with attackable(model):
        at = inputs
        for step in range(steps + 1):
            margins, gradient, won = victim.slope(at, rows)
            nearest.offer(at, won)
            at = _move(at, inputs, margins, gradient, threat, step / steps)
    return nearest.points, nearest.distances


def climb(
    victim: Victim, inputs: Tensor, rows: Tensor, at: Tensor, strongest: Strongest, threat: ThreatModel, steps: int
) -> None:
    """One walk within a suite; cases leave it once a wrong answer lies within the budget.

    Args:
        victim: the model and the labels of all cases; its loss must be `margin`.
        inputs: (n, C, *spatial) clean inputs.
        rows: (n,) which of the victim's cases they are.
        at: (n, C, *spatial) where to walk from.
        strongest: receives the successes within the budget.
        threat: norm, eps in input units, bounds.
        steps: gradient steps.
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

    Equations 7 to 9 of the paper; `margins` (n,) and `gradient` are those at `at`, `done` in [0, 1] the share of the
    walk behind.
    """
    there = reach(at, gradient, -margins, threat)
    offset = margins + ((inputs - at) * gradient).flatten(1).sum(1)
    home = reach(inputs, gradient, -offset, threat)
    step, leap = lengths(there, threat.norm), lengths(home, threat.norm)
    share = (step / (step + leap).clamp_min(1e-30)).clamp_max(BIAS)
    first, last = OVERSHOOT
    beyond = 1 + first * (last / first) ** done
    own = at + beyond * there
    drawn = inputs + beyond * home
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
