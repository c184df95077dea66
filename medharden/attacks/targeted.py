"""Targeted APGD (Croce & Hein 2020): towards each of the nearest other answers in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from medharden.attacks.apgd import climb
from medharden.attacks.criterion import Criterion, Objective
from medharden.attacks.projections import random_start
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, check_counts, climb_from, refers
from medharden.errors import RangeError
from medharden.protocol import ThreatModel

__all__ = ["apgd_targeted", "climb_targets"]


def apgd_targeted(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    steps: int,
    restarts: int,
    loss: str,
    targets: int,
    generator: torch.Generator,
    finding: Objective = "any",
) -> Tensor:
    """Climbs towards each of the other classes, or of the findings, from its own random starts, nearest first.

    Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020, section 4 (APGD-T). Two classes, one finding, or all findings at once have no targets to choose
    between: it is then APGD.

    Args:
        model: as for `pgd`.
        inputs: (N, C, *spatial), as for `pgd`.
        labels: (N,) or (N, K), as for `pgd`.
        threat: norm, eps in input units, bounds.
        steps: gradient steps a restart.
        restarts: random starts a target; a case that has fallen is not attacked again.
        loss: `dlr`, `margin` or `ce`, each towards the target.
        targets: the most targets a case.
        generator: as for `pgd`.
        finding: as for `pgd`.

    Returns:
        (N, C, *spatial), as `pgd`.

    Raises:
        RangeError: as `pgd`, or no targets.
    """
    check_cases(inputs, labels, threat, finding)
    check_counts(steps, restarts)
    if targets < 1:
        raise RangeError(f"targets must be at least 1, got {targets}")
    victim = Victim(model, Criterion(labels, finding, refers(model)), loss)

    def starts() -> Iterator[Tensor]:
        return (random_start(inputs.shape, threat, [generator], surface=True) for _ in range(restarts))

    with attackable(model):
        return climb_targets(victim, inputs, starts, threat=threat, steps=steps, targets=targets).points


def climb_targets(
    victim: Victim,
    inputs: Tensor,
    starts: Callable[[], Iterator[Tensor]],
    *,
    threat: ThreatModel,
    steps: int,
    targets: int,
) -> Strongest:
    """Climbs towards each target in turn, with the cases that still stand.

    Args:
        victim: the model and the labels of all cases.
        inputs: (N, C, *spatial).
        starts: draws one (N, C, *spatial) perturbation a restart, anew for each target.
        threat: norm, eps in input units, bounds.
        steps: gradient steps a restart.
        targets: the most targets a case.
    """
    rivals = victim.criterion.rivals(victim.logits(inputs.detach()), targets)
    victims = [victim.toward(rivals[:, rank]) for rank in range(rivals.shape[1])] or [victim]
    strongest = Strongest(inputs.detach())
    for targeted in victims:
        climb_from(climb, targeted, inputs, starts(), threat=threat, steps=steps, strongest=strongest)
        if len(strongest.standing) == 0:
            break
    return strongest
