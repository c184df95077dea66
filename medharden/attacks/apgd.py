"""Auto-PGD (Croce & Hein 2020): PGD with momentum that finds its own step size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medharden.attacks.criterion import Criterion, Objective
from medharden.attacks.projections import per_case, project, random_start, steepest
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, check_counts, climb_from, refers
from medharden.protocol import ThreatModel

__all__ = ["apgd", "checkpoints", "climb"]

MOMENTUM = 0.75  # alpha: weight of the new step against the last move
RHO = 0.75  # share of steps that must raise the loss, or the step size is halved


def apgd(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    steps: int,
    restarts: int,
    loss: str,
    generator: torch.Generator,
    finding: Objective = "any",
) -> Tensor:
    """Climbs the loss from random starts on the ball's surface, halving each case's step where it stalls.

    Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020, Algorithm 1.

    Args:
        model: as for `pgd`.
        inputs: (N, C, *spatial), as for `pgd`.
        labels: (N,) or (N, K), as for `pgd`.
        threat: norm, eps in input units, bounds.
        steps: gradient steps a restart.
        restarts: random starts; a case that has fallen is not attacked again.
        loss: `ce`, `margin` or `dlr`.
        generator: as for `pgd`.
        finding: as for `pgd`.

    Returns:
        (N, C, *spatial), as `pgd`.

    Raises:
        RangeError: as `pgd`.
    """
    check_cases(inputs, labels, threat, finding)
    check_counts(steps, restarts)
    victim = Victim(model, Criterion(labels, finding, refers(model)), loss)
    starts = (random_start(inputs.shape, threat, [generator], surface=True) for _ in range(restarts))
    with attackable(model):
        return climb_from(climb, victim, inputs, starts, threat=threat, steps=steps).points


def checkpoints(steps: int) -> frozenset[int]:
    """Steps after which step sizes are reconsidered: ceil(p_j * steps), at ever shorter intervals (section 3.2)."""
    before, now, found = 0.0, 0.22, []
    while now <= 1.0:
        found.append(math.ceil(now * steps - 1e-9))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return frozenset(found)


def climb(
    victim: Victim, inputs: Tensor, rows: Tensor, at: Tensor, strongest: Strongest, threat: ThreatModel, steps: int
) -> None:
    """One restart, as `Climb` says; cases leave it as they fall, and `strongest` gets every point visited."""
    checks, last_check = checkpoints(steps), 0
    loss, gradient, won = victim.slope(at, rows)
    strongest.offer(rows, at, loss, won)
    before = top_at = at
    top_gradient, top, top_then = gradient, loss, loss
    size = torch.full_like(loss, 2 * threat.eps)
    rises, halved = torch.zeros_like(loss), torch.zeros_like(won)
    for step in range(1, steps + 1):
        if won.all():
            return
        if won.any():
            state = (rows, inputs, at, before, gradient, loss, top_at, top_gradient, top, top_then, size, rises, halved)
            rows, inputs, at, before, gradient, loss, top_at, top_gradient, top, top_then, size, rises, halved = (
                tensor[~won] for tensor in state
            )
        target = project(at + per_case(size, at) * steepest(gradient, threat.norm), inputs, threat)
        # The first step has no move behind it: it goes all the way.
        alpha = MOMENTUM if step > 1 else 1.0
        moved = project(at + alpha * (target - at) + (1 - alpha) * (at - before), inputs, threat)
        before, at, loss_before = at, moved, loss
        loss, gradient, won = victim.slope(at, rows)
        strongest.offer(rows, at, loss, won)
        rises = rises + (loss > loss_before)
        better = loss > top
        top = torch.where(better, loss, top)
        top_at = torch.where(per_case(better, at), at, top_at)
        top_gradient = torch.where(per_case(better, at), gradient, top_gradient)
        if step in checks:
            stalled = (rises < RHO * (step - last_check)) | (~halved & (top == top_then))
            size = torch.where(stalled, size / 2, size)
            at = torch.where(per_case(stalled, at), top_at, at)
            gradient = torch.where(per_case(stalled, at), top_gradient, gradient)
            loss = torch.where(stalled, top, loss)
            rises, halved, top_then, last_check = torch.zeros_like(rises), stalled, top, step
