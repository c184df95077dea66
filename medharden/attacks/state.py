"""How far a suite of attacks came: what it holds while it runs, and what it can go on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medharden.attacks.soundness import Signs
from medharden.errors import RangeError
from medharden.record import AttackOutcome
from medharden.rows import Cases, Overlay, copy_of

__all__ = ["Keep", "SuiteState"]


@dataclass
class SuiteState:
    """A suite under way; rows as in the inputs.

    Attributes:
        adversarial: (N, C, *spatial) the strongest points so far, beside the inputs.
        margins: (N,) their margin losses, on the CPU.
        won_by: (N,) the attack that won, `clean`, or "".
        signs: what was seen so far.
        outcomes: of the attacks that are finished.
        left: rows that the attack under way has still to run on; null between attacks, and before the first look.
        attacked, wins, seconds: of the attack under way: cases it had to run on, successes and time so far.
        looked: whether the clean answers and gradients were looked at.
        flat: rows whose gradient is zero, and is not where saturated activations are given a slope.
    """

    adversarial: Tensor | Overlay
    margins: Tensor
    won_by: list[str]
    signs: Signs = field(default_factory=Signs)
    outcomes: list[AttackOutcome] = field(default_factory=list)
    left: list[int] | None = None
    attacked: int = 0
    wins: int = 0
    seconds: float = 0.0
    looked: bool = False
    flat: list[int] = field(default_factory=list)

    @classmethod
    def at_the_start(cls, inputs: Cases) -> SuiteState:
        """Nothing done yet."""
        return cls(copy_of(inputs), torch.zeros(len(inputs)), [""] * len(inputs))

    @property
    def standing(self) -> list[int]:
        """Rows on which nothing has won."""
        return [row for row, name in enumerate(self.won_by) if not name]

    def check(self, inputs: Cases, attacks: int) -> None:
        """Refuses to go on with other cases, or under a shorter suite.

        Raises:
            RangeError: the shapes or counts differ.
        """
        if self.adversarial.shape != inputs.shape or len(self.outcomes) > attacks:
            raise RangeError(
                f"a suite can't go on from a state of {tuple(self.adversarial.shape)} inputs and {len(self.outcomes)} "
                f"finished attacks with {tuple(inputs.shape)} inputs and {attacks} attacks; start anew"
            )


Keep = Callable[[SuiteState], None]
"""Called after each batch with the state, which goes on to change: copy or write what shall last."""
