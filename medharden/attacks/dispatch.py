"""The suite's attacks by the names that protocols give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from medharden.attacks.apgd import climb as climb_apgd
from medharden.attacks.fab import climb as climb_fab
from medharden.attacks.fab import toward_nearest
from medharden.attacks.pgd import climb as climb_pgd
from medharden.attacks.projections import random_start
from medharden.attacks.square import climb as climb_square
from medharden.attacks.square import draw
from medharden.attacks.targeted import climb_targets
from medharden.attacks.victim import Strongest, Victim, climb_from
from medharden.protocol import Attack, ThreatModel
from medharden.text import counted

__all__ = ["dispatch", "passes", "recipe"]

Attacker = Callable[[Victim, Tensor, Sequence[torch.Generator], ThreatModel, Attack], Strongest]

_LOSSES = {"ce": "cross-entropy", "margin": "margin of logits", "dlr": "difference of logits ratio"}


def dispatch(
    victim: Victim, inputs: Tensor, generators: Sequence[torch.Generator], threat: ThreatModel, attack: Attack
) -> Strongest:
    """Runs one attack of a suite on a batch.

    Args:
        victim: the model and the labels of all cases, in `attackable`.
        inputs: (N, C, *spatial) on the model's device.
        generators: one a case, the only source of randomness.
        threat: norm, eps in input units, bounds.
        attack: which one.
    """
    return _DISPATCH[attack.attack](victim, inputs, generators, threat, attack)


def recipe(attack: Attack, threat: ThreatModel, seed: int) -> str:
    """The whole recipe in words."""
    loss, steps, starts = _LOSSES[attack.loss], f"{attack.steps} steps", _random_starts(attack.restarts)
    further = f" and {_random_starts(attack.restarts - 1)}" if attack.restarts > 1 else ""
    targets = f"up to {counted(attack.targets, 'target')}"
    turned = " with turns of the whole perturbation" if threat.norm == "l2" else ""
    said = {
        "pgd": f"PGD (Madry et al. 2018) on the {loss}, {steps}, {starts}",
        "apgd": f"APGD (Croce & Hein 2020) on the {loss}, {steps}, {starts}",
        "apgd-t": f"targeted APGD (Croce & Hein 2020) on the {loss}, {targets}, {steps}, {starts}",
        "fab": f"FAB (Croce & Hein 2020), {targets}, {steps}, from the input{further}",
        "square": f"Square (Andriushchenko et al. 2020){turned}, {attack.steps} queries, {starts}",
    }[attack.attack]
    low, high = threat.bounds
    return f"{said}, {threat.norm} eps {threat.eps:.6g} within [{low:g}, {high:g}], seed {seed}"


def passes(attack: Attack, rivals: int) -> int:
    """What an attack costs a case that withstands it, about: its gradients, a query without one as half of one.

    Args:
        attack: which one.
        rivals: the classes or findings that there are to push a case towards.
    """
    targets = max(1, min(attack.targets, rivals)) if attack.attack in ("apgd-t", "fab") else 1
    whole = attack.steps * attack.restarts * targets
    return (whole + 1) // 2 if attack.attack == "square" else whole


def _random_starts(count: int) -> str:
    return counted(count, "random start")


def _starts(
    inputs: Tensor, generators: Sequence[torch.Generator], threat: ThreatModel, count: int, *, surface: bool
) -> Iterator[Tensor]:
    return (random_start(inputs.shape, threat, generators, surface=surface) for _ in range(count))


def _pgd(
    victim: Victim, inputs: Tensor, generators: Sequence[torch.Generator], threat: ThreatModel, attack: Attack
) -> Strongest:
    starts = _starts(inputs, generators, threat, attack.restarts, surface=False)
    return climb_from(climb_pgd, victim, inputs, starts, threat=threat, steps=attack.steps)


def _apgd(
    victim: Victim, inputs: Tensor, generators: Sequence[torch.Generator], threat: ThreatModel, attack: Attack
) -> Strongest:
    starts = _starts(inputs, generators, threat, attack.restarts, surface=True)
    return climb_from(climb_apgd, victim, inputs, starts, threat=threat, steps=attack.steps)


def _targeted(
    victim: Victim, inputs: Tensor, generators: Sequence[torch.Generator], threat: ThreatModel, attack: Attack
) -> Strongest:
    def starts() -> Iterator[Tensor]:
        return _starts(inputs, generators, threat, attack.restarts, surface=True)

    return climb_targets(victim, inputs, starts, threat=threat, steps=attack.steps, targets=attack.targets)


def _fab(
    victim: Victim, inputs: Tensor, generators: Sequence[torch.Generator], threat: ThreatModel, attack: Attack
) -> Strongest:
    def starts() -> Iterator[Tensor]:
        yield torch.zeros_like(inputs)
        yield from _starts(inputs, generators, threat, attack.restarts - 1, surface=False)

    strongest = Strongest(inputs)
    for targeted in toward_nearest(victim, inputs, threat, attack.targets):
        climb_from(climb_fab, targeted, inputs, starts(), threat=threat, steps=attack.steps, strongest=strongest)
    return strongest


def _square(
    victim: Victim, inputs: Tensor, generators: Sequence[torch.Generator], threat: ThreatModel, attack: Attack
) -> Strongest:
    strongest = Strongest(inputs)
    for _ in range(attack.restarts):
        rows = strongest.standing
        draws = draw(inputs.shape, attack.steps, threat.norm, generators).of(rows.cpu())
        if len(rows):
            climb_square(victim, inputs[rows], rows, draws, strongest, threat, attack.steps)
    return strongest


_DISPATCH: dict[str, Attacker] = {"pgd": _pgd, "apgd": _apgd, "apgd-t": _targeted, "fab": _fab, "square": _square}
