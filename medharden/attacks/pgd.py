"""Projected gradient descent (Madry et al. 2018), the plain baseline among the attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.attacks.losses import loss_named
from medharden.attacks.projections import project, random_start, steepest
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, check_counts, climb_from
from medharden.protocol import ThreatModel

__all__ = ["climb", "pgd"]


def pgd(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    steps: int,
    restarts: int,
    loss: str,
    generator: torch.Generator,
) -> Tensor:
    """Climbs the loss with fixed steps from random starts in the ball.

    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018. Steps of 2.5 eps / steps: they reach any point of the linf ball from any start.

    Args:
        model: takes (N, C, *spatial) within the bounds and returns logits (N, K); with a true attribute `refers`,
            (N, K + 1), the last meaning `referred to a human`. Left as it was, in every flag and buffer.
        inputs: (N, C, *spatial) floating point within `threat.bounds`, on the model's device.
        labels: (N,) class indices, on the same device.
        threat: norm, eps in input units, bounds.
        steps: gradient steps a restart.
        restarts: random starts; a case that has fallen is not attacked again.
        loss: `ce` or `margin`.
        generator: a CPU generator, the only source of randomness.

    Returns:
        (N, C, *spatial) the best point a case, one that succeeds before one of high loss.

    Raises:
        RangeError: inputs, labels, logits or counts outside what is said above.
    """
    check_cases(inputs, labels, threat)
    check_counts(steps, restarts)
    victim = Victim(model, labels, loss_named(loss))
    starts = (random_start(inputs.shape, threat, [generator], surface=False) for _ in range(restarts))
    with attackable(model):
        return climb_from(climb, victim, inputs, starts, threat=threat, steps=steps).points


def climb(
    victim: Victim, inputs: Tensor, rows: Tensor, at: Tensor, strongest: Strongest, threat: ThreatModel, steps: int
) -> None:
    """One restart; cases leave it as they fall.

    Args:
        victim: the model and the labels of all cases.
        inputs: (n, C, *spatial) clean inputs.
        rows: (n,) which of the victim's cases they are.
        at: (n, C, *spatial) where to climb from, within the threat.
        strongest: receives every point visited.
        threat: norm, eps in input units, bounds.
        steps: gradient steps.
    """
    size = 2.5 * threat.eps / steps
    loss, gradient, won = victim.slope(at, rows)
    strongest.offer(rows, at, loss, won)
    for _ in range(steps):
        if won.all():
            return
        rows, inputs, at, gradient = (state[~won] for state in (rows, inputs, at, gradient))
        at = project(at + size * steepest(gradient, threat.norm), inputs, threat)
        loss, gradient, won = victim.slope(at, rows)
        strongest.offer(rows, at, loss, won)
