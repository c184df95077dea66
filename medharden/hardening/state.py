"""Where training stands: what a run that goes on starts from, beside weights, optimiser and perturbations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medharden.record import EpochRecord, Finding

__all__ = ["EpochState", "StepsSeen"]

_PENDING = 64


@dataclass
class EpochState:
    """All that a resumed run needs, as it stands after a step; plain values and tensors alone.

    Attributes:
        under_way: of an epoch that is not finished: steps done, the generator's state, what the steps gave, seconds.
    """

    epoch: int = 0
    rate: float = 1.0
    recoveries: int = 0
    train_seconds: float = 0.0
    probe_seconds: float = 0.0
    steps: int = 0
    best_epoch: int = -1
    best_score: tuple[bool, float] = (False, -1.0)
    best_constant: tuple[int, ...] = ()
    best: dict[str, Tensor] = field(default_factory=dict)
    good: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    under_way: dict[str, Any] = field(default_factory=dict)


@dataclass
class StepsSeen:
    """What the steps of an epoch gave, read from the device now and then: a read at each step would make it wait.

    Attributes:
        losses: of the steps that were read.
        rights: share of their attacked cases that was answered rightly.
        pending: (2,) loss and share of each step since, on the device.
    """

    losses: list[float]
    rights: list[float]
    pending: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.losses) + len(self.pending)

    def add(self, step: Tensor) -> None:
        """Takes (2,) loss and share of one step."""
        self.pending.append(step)
        if len(self.pending) >= _PENDING:
            self.read()

    def read(self) -> None:
        """Brings what is pending into the lists."""
        if self.pending:
            for loss, right in torch.stack(self.pending).tolist():
                self.losses.append(loss)
                self.rights.append(right)
            self.pending.clear()
