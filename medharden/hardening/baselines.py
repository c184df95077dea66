"""The attacks of the baselines: what others train on, under the same schedule, data and evaluation.

PGD-AT (Madry et al. 2018), TRADES (Zhang et al. 2019), N-FGSM (de Jorge et al. 2022), FGSM-RS (Wong et al. 2020) and
Free-AT (Shafahi et al. 2019). Epsilon-Scheduling (Ngnawe et al. 2026) is PGD-AT under another schedule of the radius.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medharden.attacks.projections import steepest
from medharden.hardening.adversary import project, start, uniform
from medharden.hardening.allotting import passes_a_step
from medharden.hardening.lifting import lifted
from medharden.models import Classifier, divergence, task_loss
from medharden.protocol import Hardening, ThreatModel

__all__ = ["FreeAdversary", "FreshAdversary"]

_STEP_OF_BALL = 2.5  # PGD's steps add up to this many radii
_TRADES_START = 1e-3
_NOISE = {"n-fgsm": 2.0, "fgsm-rs": 1.0}  # in radii
_STEP = {"n-fgsm": 1.0, "fgsm-rs": 1.25}


class FreshAdversary:
    """Perturbations made anew at every visit: `pgd`, `eps-scheduling`, `trades`, `n-fgsm` or `fgsm-rs`."""

    replays = 1
    divisible = True

    def __init__(self, threat: ThreatModel, settings: Hardening) -> None:
        """Takes the method and the number of attack steps from the settings."""
        self.threat, self.method = threat, settings.method
        self.steps = settings.attack_steps if self.method in ("pgd", "eps-scheduling", "trades") else 1
        self.passes = passes_a_step(settings)

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
        """(n, C, *spatial) the batch under this method's attack on the branch as it stands."""
        if radius == 0:
            return inputs.detach().clone()
        norm, radii = self.threat.norm, inputs.new_full((len(rows), *(1,) * (inputs.ndim - 1)), radius)
        noise = start(noise, inputs, norm)
        if self.method in _NOISE:
            delta = _NOISE[self.method] * radii * noise
            delta = delta + _STEP[self.method] * radii * steepest(self._gradient(branch, inputs, delta, labels), norm)
            return self._clip(inputs, delta if self.method == "n-fgsm" else project(delta, radii, norm))
        delta = noise * (_TRADES_START if self.method == "trades" else radii)
        length = _STEP_OF_BALL * radii / self.steps
        for _ in range(self.steps):
            delta = project(delta + length * steepest(self._gradient(branch, inputs, delta, labels), norm), radii, norm)
        return self._clip(inputs, delta)

    def update(
        self, rows: Tensor, inputs: Tensor, attacked: Tensor, gradient: Tensor, own_probability: Tensor, radius: float
    ) -> None:
        """Nothing is carried."""

    def fetch(self, rows: Tensor) -> None:
        """Nothing is carried."""

    def leave(self, rows: Tensor) -> None:
        """Nothing is carried."""

    def settle(self) -> None:
        """Nothing is carried."""

    def exchange(self) -> None:
        """Nothing is carried."""

    def state(self) -> dict[str, Tensor]:
        """Nothing to resume."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to resume."""

    def _gradient(self, branch: Classifier, inputs: Tensor, delta: Tensor, labels: Tensor) -> Tensor:
        point = self._clip(inputs, delta).requires_grad_(True)
        logits = branch(point)
        if self.method == "trades":
            with torch.no_grad():
                target = branch(inputs)
            known = ~labels.isnan() if labels.ndim == 2 else None
            loss = divergence(logits, target, multilabel=labels.ndim == 2, known=known, reduction="sum")
        else:
            loss = task_loss(logits, labels, reduction="sum")
        return torch.autograd.grad(lifted(loss), point)[0]

    def _clip(self, inputs: Tensor, delta: Tensor) -> Tensor:
        return (inputs + delta).clamp(*self.threat.bounds).detach()


class FreeAdversary:
    """One perturbation for every place in the batch, moved by each of several steps on the same batch (Free-AT)."""

    passes = 1
    divisible = False  # a perturbation belongs to a place in the whole batch

    def __init__(self, threat: ThreatModel, settings: Hardening) -> None:
        """Takes the number of replays from the settings."""
        self.threat, self.replays = threat, settings.replays
        self.delta: Tensor | None = None

    def noise(self, rows: Tensor, like: Tensor, generator: torch.Generator) -> Tensor | None:
        """Nothing is drawn."""
        return None

    def attacked(
        self,
        branch: Classifier,
        rows: Tensor,
        inputs: Tensor,
        labels: Tensor,
        radius: float,
        noise: Tensor | None,
    ) -> Tensor:
        """(n, C, *spatial) the batch under the perturbation that the last step left."""
        delta = self._fitting(inputs)
        delta = project(delta, torch.full_like(inputs[:, :1], radius), self.threat.norm)
        return (inputs + delta).clamp(*self.threat.bounds).detach()

    def update(
        self, rows: Tensor, inputs: Tensor, attacked: Tensor, gradient: Tensor, own_probability: Tensor, radius: float
    ) -> None:
        """Moves the perturbation of each place by one step of the radius."""
        radii = torch.full_like(inputs[:, :1], radius)
        moved = self._fitting(inputs) + radii * steepest(gradient, self.threat.norm)
        self.delta = project(moved, radii, self.threat.norm).detach()

    def fetch(self, rows: Tensor) -> None:
        """Perturbations are on the device."""

    def settle(self) -> None:
        """Perturbations are on the device."""

    def leave(self, rows: Tensor) -> None:
        """Perturbations belong to places in the batch."""

    def exchange(self) -> None:
        """One process has all places."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {} if self.delta is None else {"delta": self.delta}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave."""
        self.delta = state.get("delta")

    def _fitting(self, inputs: Tensor) -> Tensor:
        if self.delta is None:
            return torch.zeros_like(inputs)
        missing = max(0, len(inputs) - len(self.delta))
        padded = torch.cat([self.delta, self.delta.new_zeros(missing, *self.delta.shape[1:])])
        return padded[: len(inputs)]
