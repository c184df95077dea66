"""IMA: every training case has a margin of its own, which grows while the branch stands within it.

Ma and Liang, "Increasing-Margin Adversarial (IMA) training to improve adversarial robustness of neural networks",
Computer Methods and Programs in Biomedicine 2023, arXiv:2005.09147. Cases that the branch answers wrongly are not
attacked. What differs here: the data, schedule of the learning rate, probe and evaluation are those of all methods.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medharden import ranks
from medharden.attacks.projections import steepest
from medharden.hardening.adversary import column, project, start, uniform
from medharden.hardening.lifting import lifted
from medharden.models import Classifier, answered_rightly, task_loss
from medharden.protocol import Hardening, ThreatModel

__all__ = ["MarginAdversary"]

_STEP_OF_BALL = 2.5  # PGD's steps add up to this many radii
_HALVINGS = 5  # forward passes that bring what fell near to where the answer changes


class MarginAdversary:
    """PGD within each case's own margin, and what became of it.

    Attributes:
        margin: (N,) float32 in [0, 1], a share of eps; starts at one step.
    """

    replays = 1
    divisible = True

    def __init__(self, cases: int, threat: ThreatModel, settings: Hardening) -> None:
        """Takes the number of training cases, of attack steps, and by how much a margin grows."""
        self.threat, self.steps, self.step = threat, settings.attack_steps, settings.margin_step
        self.passes = self.steps + 2  # the loss asks for the clean answers too
        self.margin = torch.full((cases,), self.step)
        self._next = self.margin.clone()
        self._touched = torch.zeros(cases, dtype=torch.bool)

    def noise(self, rows: Tensor, like: Tensor, generator: torch.Generator) -> Tensor | None:
        """(N, C, *spatial) uniform in [-1, 1] for a whole batch."""
        return uniform((len(rows), *like.shape[1:]), generator)

    def attacked(
        self,
        branch: Classifier,
        rows: Tensor,
        inputs: Tensor,
        labels: Tensor,
        radius: float,
        noise: Tensor | None,
    ) -> Tensor:
        """The batch, each case that is answered rightly at the strongest point within its margin.

        What falls is brought back to where the answer changes, and its margin becomes the mean of the old one and that
        distance; what stands gets a step more, up to eps. Both are taken over by `update`.

        Args:
            branch: as it stands.
            rows: (n,) int64 case numbers.
            inputs: (n, C, *spatial) clean.
            labels: of the same.
            radius: not used: margins have a schedule of their own.
            noise: (n, C, *spatial) of `noise`.
        """
        norm, low_high = self.threat.norm, self.threat.bounds
        radii = column(self.margin[rows] * self.threat.eps, inputs)
        with torch.no_grad():
            right = answered_rightly(branch(inputs), labels)
        delta = start(noise, inputs, norm) * radii
        length = _STEP_OF_BALL * radii / self.steps
        for _ in range(self.steps):
            point = (inputs + delta).clamp(*low_high).detach().requires_grad_(True)
            loss = task_loss(branch(point), labels, reduction="sum")
            gradient = torch.autograd.grad(lifted(loss), point)[0].nan_to_num(nan=0, posinf=0, neginf=0)
            delta = project(point.detach() - inputs + length * steepest(gradient, norm), radii, norm)
        point = (inputs + delta).clamp(*low_high).detach()
        point, fell = self._near_the_border(branch, inputs, point, labels)
        distance = self._size(point - inputs) / self.threat.eps
        own = self.margin[rows].to(inputs.device)
        grown = torch.where(fell, (own + distance) / 2, own + self.step).clamp(0, 1)
        self._next[rows] = torch.where(right, grown, own).cpu()
        return torch.where(column(right, inputs), point, inputs)

    @torch.no_grad()
    def _near_the_border(
        self, branch: Classifier, inputs: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Points that are answered wrongly, brought back along the line by halving; and which are."""
        fell = ~answered_rightly(branch(points), labels)
        near, far = torch.zeros(len(inputs), device=inputs.device), torch.ones(len(inputs), device=inputs.device)
        for _ in range(_HALVINGS if bool(fell.any()) else 0):
            middle = (near + far) / 2
            wrong = ~answered_rightly(branch(inputs + column(middle, inputs) * (points - inputs)), labels)
            near, far = torch.where(wrong, near, middle), torch.where(wrong, middle, far)
        share = torch.where(fell, far, torch.ones_like(far))
        return inputs + column(share, inputs) * (points - inputs), fell

    def _size(self, delta: Tensor) -> Tensor:
        flat = delta.flatten(1)
        return flat.abs().amax(1) if self.threat.norm == "linf" else flat.norm(dim=1)

    def update(
        self, rows: Tensor, inputs: Tensor, attacked: Tensor, gradient: Tensor, own_probability: Tensor, radius: float
    ) -> None:
        """Takes over the margins that the attack on these cases came to."""
        self.margin[rows] = self._next[rows]
        self._touched[rows] = True

    def fetch(self, rows: Tensor) -> None:
        """Nothing lies in a file."""

    def settle(self) -> None:
        """Nothing lies in a file."""

    def leave(self, rows: Tensor) -> None:
        """Margins of cases that are left clean stay."""

    def exchange(self) -> None:
        """Takes over the margins of the cases that were other processes' since the last exchange."""
        if ranks.count() > 1:
            noted = torch.stack([torch.ones_like(self.margin), self.margin])
            ranks.total(noted.mul_(self._touched))
            known = noted[0] > 0
            self.margin[known] = noted[1, known]
        self._touched.zero_()

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"margin": self.margin}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave."""
        self.margin = state["margin"]
        self._next = self.margin.clone()
