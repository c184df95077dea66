"""The model under attack, checked at the door: its answers, losses and input gradients, and the best points found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from medharden.attacks.criterion import Criterion, Objective, check_objective
from medharden.attacks.projections import project
from medharden.errors import RangeError
from medharden.protocol import ThreatModel
from medharden.rows import Cases, parts

__all__ = [
    "Climb",
    "Held",
    "Strongest",
    "Tally",
    "Victim",
    "attackable",
    "check_cases",
    "check_counts",
    "climb_from",
    "refers",
]

_CHECKED_AT_ONCE = 64


def refers(model: nn.Module) -> bool:
    """Whether the model's last column means `referred to a human`."""
    return bool(getattr(model, "refers", False))


@dataclass
class Held:
    """A model while it is attacked.

    Attributes:
        moved: whether its forward pass changed a buffer in eval mode; known once the attack has ended.
    """

    moved: bool = False


@contextmanager
def attackable(model: nn.Module) -> Iterator[Held]:
    """Eval mode and gradients of the input alone for as long as it lasts; every flag and buffer is restored at the end.

    Submodules may differ in mode (a frozen normalisation layer in a training network), so `train(mode)` on the
    whole would not restore them. Inference mode is left, for in it gradients would come out as zero in silence.
    """
    flags = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    held = Held()
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for parameter in trained:
                parameter.requires_grad_(False)
            yield held
    finally:
        for module, training in flags:
            module.training = training
        for parameter in trained:
            parameter.requires_grad_()
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if not torch.equal(getattr(module, name).nan_to_num(), before.nan_to_num()):
                    held.moved = True
                    buffer.copy_(before)
                setattr(module, name, buffer)


def check_cases(inputs: Cases, labels: Tensor, threat: ThreatModel, finding: Objective = "any") -> None:
    """Refuses what can't be attacked.

    Args:
        inputs: expected (N, C, *spatial) floating point within the threat's bounds.
        labels: expected (N,) integers, or (N, L) floating point of 0, 1 and, where unknown, NaN.
        finding: what is sought.
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
    classes = labels.dim() == 1 and not labels.is_floating_point() and labels.dtype != torch.bool
    findings = labels.dim() == 2 and labels.is_floating_point()
    if not (classes or findings):
        raise RangeError(
            f"labels must be (N,) class indices, got {tuple(labels.shape)} {labels.dtype}; "
            "several findings a case are (N, L) floating point of 0 and 1"
        )
    if findings and not bool(((labels == 0) | (labels == 1) | labels.isnan()).all()):
        raise RangeError("labels of several findings must be 0 or 1, or NaN where a case says nothing of a finding")
    if findings and bool(labels.isnan().all(1).any()):
        raise RangeError("a case must have a finding of which something is known; leave out those that have none")
    check_objective(labels, finding)
    if len(inputs) != len(labels):
        raise RangeError(f"inputs and labels must have the same length, got {len(inputs)} and {len(labels)}")
    low, high = threat.bounds
    borders = [(part.detach().min().cpu(), part.detach().max().cpu()) for part in parts(inputs, _CHECKED_AT_ONCE)]
    least, most = torch.stack([b[0] for b in borders]).min(), torch.stack([b[1] for b in borders]).max()
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
        raise RangeError(
            f"a model must return one tensor of logits (N, K), got a {type(output).__name__}; name the part that holds "
            "them (model.output in a protocol), or wrap the model so that it returns them alone"
        )
    if output.dim() != 2 or len(output) != cases:
        raise RangeError(f"a model must return logits ({cases}, K) for {cases} inputs, got {tuple(output.shape)}")
    bad = int((~output.isfinite()).any(1).sum())
    if bad:
        raise RangeError(f"logits must be finite, got NaN or infinity for {bad} of {cases} cases")
    return output if output.dtype in (torch.float32, torch.float64) else output.float()


LOSSES = {"ce": Criterion.cross_entropy, "margin": Criterion.margin, "dlr": Criterion.dlr}


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
        criterion: the labels, on the model's device, and what counts as a success.
        loss: what to raise: `ce`, `margin` or `dlr`.
        tally: counts non-finite gradients, which are taken as zero.

    Raises:
        RangeError: no such loss.
    """

    model: nn.Module
    criterion: Criterion
    loss: str
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        """Refuses a loss of another name."""
        if self.loss not in LOSSES:
            raise RangeError(f"loss must be one of {sorted(LOSSES)}, got {self.loss!r}")

    def toward(self, targets: Tensor) -> Victim:
        """The same victim with losses that push towards (N,) classes or findings."""
        return replace(self, criterion=self.criterion.toward(targets))

    def logits(self, points: Tensor) -> Tensor:
        """Logits (n, columns) at points, without gradient."""
        with torch.no_grad():
            return _checked(self.model(points.clone()), len(points))

    def value(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (n,) and success (n,) at points, without gradient; `rows` (n,) are the victim's cases."""
        logits, criterion = self.logits(points), self.criterion.of(rows)
        return self._loss(criterion, logits), criterion.won(logits)

    def slope(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, input gradient and success at points.

        Args:
            points: (n, C, *spatial).
            rows: (n,) which of the victim's cases they are.

        Returns:
            Loss (n,), gradient (n, C, *spatial) with non-finite entries set to zero, success (n,) bool.

        Raises:
            RangeError: the model does not return finite logits of as many columns as the labels ask for.
        """
        points = points.detach().requires_grad_()
        # A copy, for a model may normalise its input in place.
        logits = _checked(self.model(points.clone()), len(points))
        criterion = self.criterion.of(rows)
        losses = self._loss(criterion, logits)
        gradient = torch.zeros_like(points)
        # A model may cut its graph (argmax, no_grad): no gradient then means a zero one.
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(losses.sum(), points, materialize_grads=True)
        broken = ~gradient.isfinite().flatten(1).all(1)
        self.tally.asked += len(points)
        self.tally.broken += int(broken.sum())
        gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).detach()
        return losses.detach(), gradient, criterion.won(logits.detach())

    def _loss(self, criterion: Criterion, logits: Tensor) -> Tensor:
        return LOSSES[self.loss](criterion, logits)


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
"""One restart of an attack: (victim, inputs, rows, at, strongest, threat, steps).

victim: the model and the labels of all cases; inputs: (n, C, *spatial) clean; rows: (n,) which of the victim's cases
they are; at: (n, C, *spatial) within the threat, where to climb from; strongest: receives points; threat: norm, eps in
input units, bounds; steps: gradient steps.
"""


def climb_from(
    climb: Climb,
    victim: Victim,
    inputs: Tensor,
    starts: Iterable[Tensor],
    *,
    threat: ThreatModel,
    steps: int,
    strongest: Strongest | None = None,
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
        strongest: what was found before, which is added to.
    """
    inputs = inputs.detach()
    strongest = strongest or Strongest(inputs)
    for start in starts:
        rows = strongest.standing
        if len(rows) == 0:
            break
        around = inputs[rows]
        points = project(around + start.to(inputs)[rows], around, threat)
        climb(victim, around, rows, points, strongest, threat, steps)
    return strongest
