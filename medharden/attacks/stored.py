"""Attacks whose variable is the file's stored integers: every point that a model is shown lies on their lattice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medharden.attacks.suite import run_suite
from medharden.attacks.victim import refers
from medharden.errors import RangeError
from medharden.protocol import Attack, ThreatModel
from medharden.record import AttackOutcome, Finding, Progress

__all__ = ["Lattice", "StoredResult", "StoredView", "attack_stored"]

_UNIT_BALL = ThreatModel(norm="linf", eps=1.0, bounds=(-1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where one case's stored values may go.

    Attributes:
        stored: (C, *spatial) float64 holding integers, the file's own.
        movable: (C, *spatial) bool; the others stay.
        counts: by how many whole steps a value may move, at least 1.
        lowest, highest: what the file's bits can hold.
        to_input: differentiable, from (C, *spatial) stored values to (C', *size) model input in [0, 1].
    """

    stored: Tensor
    movable: Tensor
    counts: int
    lowest: int
    highest: int
    to_input: Callable[[Tensor], Tensor]

    def at(self, shares: Tensor) -> Tensor:
        """The lattice point at shares of the budget.

        Rounding passes the gradient as if it were not there (the straight-through estimator of Bengio et al. 2013,
        arXiv:1308.3432), so that small steps add up until a value moves by a whole count.

        Args:
            shares: (C, *spatial) in [-1, 1].

        Returns:
            (C, *spatial) float64 integers within `counts` of the file's and within its bits.
        """
        moved = shares.double() * self.counts
        whole = (self.stored + moved.detach()).round().clamp(self.lowest, self.highest)
        there = whole + (moved - moved.detach())
        return torch.where(self.movable, there, self.stored)


class StoredView(nn.Module):
    """A model as the attacker of one file faces it: shares of the budget in, the model's columns out."""

    def __init__(self, model: nn.Module, lattice: Lattice) -> None:
        """Takes a model of (N, C', *size) input and the case's lattice, both on one device."""
        super().__init__()
        self.model = model
        self.lattice = lattice
        self.refers = refers(model)
        self.training = model.training

    def forward(self, shares: Tensor) -> Tensor:
        """(N, C, *spatial) shares of the budget in [-1, 1] to (N, columns)."""
        inputs = torch.stack([self.lattice.to_input(self.lattice.at(case)) for case in shares])
        columns: Tensor = self.model(inputs)
        return columns


@dataclass(frozen=True, eq=False)
class StoredResult:
    """What a suite came to on one case's stored values.

    Attributes:
        stored: (C, *spatial) int64 on the CPU: the strongest point found; the file's own where the clean answer was
            already wrong.
        won_by: the attack that won, `clean`, or "" where none won.
        outcomes: one an attack, in order.
        findings: what a reader of the result must know.
    """

    stored: Tensor
    won_by: str
    outcomes: tuple[AttackOutcome, ...]
    findings: tuple[Finding, ...]


def attack_stored(
    model: nn.Module,
    lattice: Lattice,
    label: Tensor,
    *,
    suite: tuple[Attack, ...],
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> StoredResult:
    """Runs a suite on the stored values of one case.

    The attacks climb in shares of the budget, from -1 to 1 of `counts`, and the model sees the whole counts that these
    come to; so a success is one on the lattice, and nothing is left to be rounded afterwards.

    Args:
        model: as `run_suite` takes it, on `device`.
        lattice: the case, on `device`.
        label: (1,) or (1, L), as `run_suite` takes it.
        suite: the attacks.
        seed: of all random starts.
        device: where model and lattice are; it must know float64.
        progress: as `run_suite` takes it.

    Raises:
        RangeError: a budget below one count, stored values that are not whole or leave their bits, or a device
            without float64.
    """
    if lattice.counts < 1:
        raise RangeError(f"the budget must be one stored count or more, got {lattice.counts}")
    if lattice.stored.dtype != torch.float64 or not bool((lattice.stored == lattice.stored.round()).all()):
        raise RangeError(f"stored values must be whole numbers in float64, got {lattice.stored.dtype}")
    low, high = float(lattice.stored.min()), float(lattice.stored.max())
    if low < lattice.lowest or high > lattice.highest:
        raise RangeError(
            f"stored values must lie in {lattice.lowest}..{lattice.highest}, what the bits hold; got {low:g}..{high:g}"
        )
    still = torch.zeros(1, *lattice.stored.shape, device=lattice.stored.device)
    result = run_suite(
        StoredView(model, lattice),
        still,
        label,
        threat=_UNIT_BALL,
        suite=suite,
        seed=seed,
        batch_size=1,
        device=device,
        progress=progress,
    )
    with torch.no_grad():
        stored = lattice.at(result.adversarial[0].to(lattice.stored.device)).round().long().cpu()
    moved = (stored - lattice.stored.long().cpu()).abs().max()
    assert int(moved) <= lattice.counts, "an attack left the lattice's budget"  # noqa: S101
    return StoredResult(stored, result.won_by[0], result.outcomes, result.findings)
