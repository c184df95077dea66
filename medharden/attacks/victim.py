"""The model under attack, checked at the door: its answers, losses and input gradients, and the best points found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from medharden.attacks.losses import Loss, safe_columns, succeeded
from medharden.attacks.projections import project
from medharden.errors import RangeError
from medharden.protocol import ThreatModel

__all__ = ["Climb", "Strongest", "Victim", "attackable", "check_cases", "check_counts", "climb_from", "refers"]


def refers(model: nn.Module) -> bool:
    """Whether the model's last column means `referred to a human`."""
    return bool(getattr(model, "refers", False))


@contextmanager
def attackable(model: nn.Module) -> Iterator[None]:
    """Eval mode and gradients for as long as it lasts; every submodule's own flag is restored at the end.

    Submodules may differ in mode (a frozen normalisation layer in a training network), so `train(mode)` on the
    whole would not restore them. Inference mode is left, for in it gradients would come out as zero in silence.
    """
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def check_cases(inputs: Tensor, labels: Tensor, threat: ThreatModel) -> None:
    """Refuses what can't be attacked.

    Args:
        inputs: expected (N, C, *spatial) floating point within the threat's bounds.
        labels: expected (N,) integers.
        threat: whose bounds hold, and whose eps must be in input units already.

    Raises:
        RangeError: anything else; the message names what was found.
    """
    if threat.unit != "input":
        raise RangeError(f"threat.eps must be in input units, got {threat.unit!r}; pass the protocol's input_threat")
    if inputs.dim() < 2 or not inputs.is_floating_point() or len(inputs) == 0:
        raise RangeError(
            f"inputs must be (N, C, *spatial) floating point with N >= 1, got {tuple(inputs.shape)} {inputs.dtype}"
        )
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise RangeError(f"labels must be (N,) class indices, got {tuple(labels.shape)} {labels.dtype}")
    if len(inputs) != len(labels):
        raise RangeError(f"inputs and labels must have the same length, got {len(inputs)} and {len(labels)}")
    low, high = threat.bounds
    least, most = inputs.detach().min().cpu(), inputs.detach().max().cpu()
    if not bool((least >= low) & (most <= high)):
        found = f"[{least.float().numpy()!s}, {most.float().numpy()!s}]"
        raise RangeError(f"inputs must lie in [{low:g}, {high:g}], got {found}; normalise inside the model")


def check_counts(steps: int, restarts: int) -> None:
    """Refuses an attack that would do nothing.

    Raises:
        RangeError: either is below one.
    """
    if steps < 1 or restarts < 1:
        raise RangeError(f"steps and restarts must be at least 1, got {steps} and {restarts}")


def _checked(output: Any, cases: int) -> Tensor:
    """A model's output as finite (N, columns) logits of at least single precision.

    Raises:
        RangeError: it is something else.
    """
    if not isinstance(output, Tensor):
        raise RangeError(f"a model must return one tensor of logits (N, K), got a {type(output).__name__}")
    if output.dim() != 2 or len(output) != cases:
        raise RangeError(f"a model must return logits ({cases}, K) for {cases} inputs, got {tuple(output.shape)}")
    bad = int((~output.isfinite()).any(1).sum())
    if bad:
        raise RangeError(f"logits must be finite, got NaN or infinity for {bad} of {cases} cases")
    return output if output.dtype in (torch.float32, torch.float64) else output.float()


@dataclass
class Tally:
    """How many gradients were asked for, and how many were not finite."""

    asked: int = 0
    broken: int = 0


@dataclass(frozen=True)
class Victim:
    """A model with the cases it is attacked on.

    Attributes:
        model: in eval mode (`attackable`).
        labels: (N,) on the model's device.
        loss: what to raise.
        tally: counts non-finite gradients, which are taken as zero.
    """

    model: nn.Module
    labels: Tensor
    loss: Loss
    tally: Tally = field(default_factory=Tally)

    def answer(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, columns) of all cases, without gradient, and their safe columns."""
        with torch.no_grad():
            logits = _checked(self.model(points.clone()), len(points))
        return logits, safe_columns(self.labels, logits.shape[1], refers=refers(self.model))

    def slope(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, input gradient and success at points.

        Args:
            points: (n, C, *spatial).
            rows: (n,) which of the victim's cases they are.

        Returns:
            Loss (n,), gradient (n, C, *spatial) with non-finite entries set to zero, success (n,) bool.

        Raises:
            RangeError: the model does not return finite logits (n, K), K >= 2.
        """
        points = points.detach().requires_grad_()
        # A copy, for a model may normalise its input in place.
        logits = _checked(self.model(points.clone()), len(points))
        safe = safe_columns(self.labels[rows], logits.shape[1], refers=refers(self.model))
        losses = self.loss(logits, safe)
        gradient = torch.zeros_like(points)
        # A model may cut its graph (argmax, no_grad): no gradient then means a zero one.
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(losses.sum(), points, materialize_grads=True)
        broken = ~gradient.isfinite().flatten(1).all(1)
        self.tally.asked += len(points)
        self.tally.broken += int(broken.sum())
        gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).detach()
        return losses.detach(), gradient, succeeded(logits.detach(), safe)


class Strongest:
    """The best point found for each case: one that succeeds, else one of highest loss."""

    def __init__(self, inputs: Tensor) -> None:
        """Starts from the inputs themselves, as if of lowest loss.

        Args:
            inputs: (N, C, *spatial).
        """
        self.points = inputs.clone()
        self.losses = torch.full((len(inputs),), -torch.inf, device=inputs.device)
        self.fallen = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)

    def offer(self, rows: Tensor, points: Tensor, losses: Tensor, won: Tensor) -> None:
        """Takes what is better. `rows` (n,) must not have fallen before."""
        better = won | (losses > self.losses[rows])
        taken = rows[better]
        self.points[taken] = points[better]
        self.losses[taken] = losses[better].to(self.losses)
        self.fallen[rows[won]] = True

    @property
    def standing(self) -> Tensor:
        """(n,) rows on which nothing has succeeded yet."""
        return (~self.fallen).nonzero().squeeze(1)


Climb = Callable[[Victim, Tensor, Tensor, Tensor, Strongest, ThreatModel, int], None]
"""One restart: (victim, inputs, rows, points, strongest, threat, steps), all but `strongest` given for the rows."""


def climb_from(
    climb: Climb, victim: Victim, inputs: Tensor, starts: Iterable[Tensor], *, threat: ThreatModel, steps: int
) -> Strongest:
    """Climbs from each start in turn, with the cases that still stand.

    Args:
        climb: one restart of an attack.
        victim: the model and the labels of all cases.
        inputs: (N, C, *spatial).
        starts: one (N, C, *spatial) perturbation a restart, drawn for all cases whether they still stand or not,
            so that a case's start does not depend on the others' fate.
        threat: norm, eps in input units, bounds.
        steps: gradient steps a restart.
    """
    inputs = inputs.detach()
    strongest = Strongest(inputs)
    for start in starts:
        rows = strongest.standing
        if len(rows) == 0:
            break
        around = inputs[rows]
        points = project(around + start.to(inputs)[rows], around, threat)
        climb(victim, around, rows, points, strongest, threat, steps)
    return strongest
