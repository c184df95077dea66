"""Projected gradient descent (Madry et al. 2018), the plain baseline among the attacks."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from medharden.attacks.criterion import Criterion, Objective
from medharden.attacks.projections import project, random_start, steepest
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, check_counts, climb_from, refers
from medharden.protocol import ThreatModel

__all__ = ["REACH", "climb", "pgd"]

REACH = {"linf": 2.5, "l2": 4.0}  # all steps together, in eps


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
    finding: Objective = "any",
    start: Tensor | None = None,
    reach: int = 1,
) -> Tensor:
    """Climbs the loss with fixed steps from random starts in the ball, or from what was found before.

    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018. Steps of 2.5 eps / steps reach any point of the linf ball from any start. Along the l2 sphere, small
    steps that add up to s eps turn a start at an angle a from the optimum to an angle b with
    tan(b / 2) = exp(-s) tan(a / 2): s = 4 ends within 8 degrees, cos(b) > 0.99, from any start nearer than 150 degrees.

    Args:
        model: takes (N, C, *spatial) within the bounds and returns logits (N, K); with a true attribute `refers`,
            (N, K + 1), the last meaning `referred to a human`. Left as it was, in every flag and buffer.
        inputs: (N, C, *spatial) floating point within `threat.bounds`, on the model's device.
        labels: (N,) class indices, or (N, K) floating point of 0 and 1, on the same device.
        threat: norm, eps in input units, bounds.
        steps: gradient steps a restart.
        restarts: random starts; a case that has fallen is not attacked again.
        loss: `ce`, `margin` or `dlr`.
        generator: a CPU generator, the only source of randomness.
        finding: of several findings, the one to be changed: its index, `any` or `all`.
        start: (N, C, *spatial) points to climb from first, brought within the threat; null draws them.
        reach: of ordered grades, how many the answer must be off to be a success.

    Returns:
        (N, C, *spatial) the best point a case, one that succeeds before one of high loss.

    Raises:
        RangeError: inputs, labels, logits or counts outside what is said above.
    """
    check_cases(inputs, labels, threat, finding)
    check_counts(steps, restarts)
    victim = Victim(model, Criterion(labels, finding, refers(model), reach=reach), loss)
    given = [] if start is None else [start - inputs]
    drawn = (random_start(inputs.shape, threat, [generator], surface=False) for _ in range(restarts - len(given)))
    with attackable(model):
        return climb_from(climb, victim, inputs, chain(given, drawn), threat=threat, steps=steps).points


def climb(
    victim: Victim, inputs: Tensor, rows: Tensor, at: Tensor, strongest: Strongest, threat: ThreatModel, steps: int
) -> None:
    """One restart, as `Climb` says; cases leave it as they fall, and `strongest` gets every point visited."""
    size = REACH[threat.norm] * threat.eps / steps
    loss, gradient, won = victim.slope(at, rows)
    strongest.offer(rows, at, loss, won)
    for _ in range(steps):
        if won.all():
            return
        rows, inputs, at, gradient = (state[~won] for state in (rows, inputs, at, gradient))
        at = project(at + size * steepest(gradient, threat.norm), inputs, threat)
        loss, gradient, won = victim.slope(at, rows)
        strongest.offer(rows, at, loss, won)
