"""The attack suite: attacks in turn on the cases that still stand, every success checked by a fresh forward."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medharden.attacks.apgd import climb as climb_apgd
from medharden.attacks.losses import loss_named, margin, succeeded
from medharden.attacks.pgd import climb as climb_pgd
from medharden.attacks.projections import random_start, within
from medharden.attacks.victim import Climb, Tally, Victim, attackable, check_cases, climb_from
from medharden.errors import RangeError
from medharden.protocol import Attack, ThreatModel
from medharden.record import AttackOutcome, Finding, Progress

__all__ = ["SuiteResult", "run_suite"]

CLEAN = "clean"
BLIND_SHARE = 0.05  # share of cases without a usable gradient from which the suite's result is no evidence

_CLIMBS: dict[str, tuple[Climb, bool, str]] = {
    "pgd": (climb_pgd, False, "PGD (Madry et al. 2018)"),
    "apgd": (climb_apgd, True, "APGD (Croce & Hein 2020)"),
}
_LOSSES = {"ce": "cross-entropy", "margin": "difference of logits"}


@dataclass(frozen=True)
class SuiteResult:
    """What a suite of attacks came to; rows as in the inputs.

    Attributes:
        adversarial: (N, C, *spatial) the strongest found: a success, or else the highest margin loss; equal to the
            inputs where the clean answer was already wrong.
        won_by: (N,) the attack that won, `clean` where the answer was wrong without any, "" where none won.
        outcomes: one an attack, in order; `cases` are those it was run on.
        findings: what a reader of the result must know.
    """

    adversarial: Tensor
    won_by: tuple[str, ...]
    outcomes: tuple[AttackOutcome, ...]
    findings: tuple[Finding, ...]


@dataclass
class _Run:
    """A suite under way: what it is run on, and what was found so far."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    threat: ThreatModel
    seed: int
    batch_size: int
    device: str
    adversarial: Tensor
    margins: Tensor
    won_by: list[str]
    tally: Tally = field(default_factory=Tally)
    refuted: int = 0

    def batches(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, self.batch_size) if len(rows) else ()

    def victim(self, rows: Tensor, loss: str) -> Victim:
        return Victim(self.model, self.labels[rows].to(self.device), loss_named(loss), self.tally)

    @property
    def standing(self) -> Tensor:
        return torch.tensor([row for row, name in enumerate(self.won_by) if not name], dtype=torch.long)


def run_suite(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    suite: tuple[Attack, ...],
    seed: int,
    batch_size: int,
    device: str = "cpu",
    progress: Progress | None = None,
    stage: str = "attack",
) -> SuiteResult:
    """Runs attacks in order, each on the cases that none before it has won.

    A success counts once a fresh forward of the final input confirms it. Random starts are drawn from a generator
    for each (seed, place in the suite, row), so they depend neither on the batch size nor on the other cases;
    results then differ between batch sizes by floating-point rounding alone.

    Args:
        model: takes (N, C, *spatial) within the bounds and returns logits (N, K); with a true attribute `refers`,
            (N, K + 1), the last meaning `referred to a human`. On `device`; left as it was, in every flag and buffer.
        inputs: (N, C, *spatial) floating point within `threat.bounds`, on any device.
        labels: (N,) class indices, beside the inputs.
        threat: norm, eps in input units, bounds.
        suite: the attacks.
        seed: of all random starts.
        batch_size: largest number of cases on the device at once.
        device: where the model is and batches are moved.
        progress: called after each batch with cases x attacks done and in all.
        stage: what `progress` is told this is.

    Raises:
        RangeError: inputs, labels or logits outside what is said above, or a batch size below 1.
    """
    check_cases(inputs, labels, threat)
    if batch_size < 1:
        raise RangeError(f"batch_size must be at least 1, got {batch_size}")
    trained = any(module.training for module in model.modules())
    run = _Run(
        model=model,
        inputs=inputs.detach(),
        labels=labels.detach(),
        threat=threat,
        seed=seed,
        batch_size=batch_size,
        device=device,
        adversarial=inputs.detach().clone(),
        margins=torch.zeros(len(inputs)),
        won_by=[""] * len(inputs),
    )
    outcomes = []
    with attackable(model):
        _answer_clean(run)
        blind = _blind_cases(run, suite)
        looked_at = len(run.standing)
        for place, attack in enumerate(suite):
            outcomes.append(_run_attack(run, place, attack, len(suite), progress, stage))
    findings = _findings(trained=trained, blind=blind, looked_at=looked_at, tally=run.tally, refuted=run.refuted)
    return SuiteResult(run.adversarial, tuple(run.won_by), tuple(outcomes), findings)


def _answer_clean(run: _Run) -> None:
    """Marks the cases whose clean answer is wrong, and notes every case's clean margin loss."""
    for rows in run.batches(torch.arange(len(run.inputs))):
        logits, safe = run.victim(rows, "margin").answer(run.inputs[rows].to(run.device))
        run.margins[rows] = margin(logits, safe).to(run.margins)
        for row in rows[succeeded(logits, safe).cpu()].tolist():
            run.won_by[row] = CLEAN


def _blind_cases(run: _Run, suite: tuple[Attack, ...]) -> int:
    """Counts the rightly answered cases whose clean gradient is zero or not finite under every loss of the suite."""
    blind = run.standing
    for loss in dict.fromkeys(attack.loss for attack in suite):
        without = []
        for rows in run.batches(blind):
            victim = run.victim(rows, loss)
            _, gradient, _ = victim.slope(run.inputs[rows].to(run.device), torch.arange(len(rows), device=run.device))
            without.append(rows[(gradient == 0).flatten(1).all(1).cpu()])
        blind = torch.cat(without) if without else blind
    return len(blind) if suite else 0


def _run_attack(
    run: _Run, place: int, attack: Attack, attacks: int, progress: Progress | None, stage: str
) -> AttackOutcome:
    """Runs one attack on the cases that stand, and notes what it won."""
    started = time.perf_counter()
    cases, attacked, wins = len(run.inputs), run.standing, 0
    done = place * cases + cases - len(attacked)
    for rows in run.batches(attacked):
        wins += _attack_batch(run, place, attack, rows)
        done += len(rows)
        if progress:
            progress(stage, done, attacks * cases)
    if progress and len(attacked) == 0:
        progress(stage, done, attacks * cases)
    return AttackOutcome(
        attack.name, _recipe(attack, run.threat, run.seed), len(attacked), wins, time.perf_counter() - started
    )


def _attack_batch(run: _Run, place: int, attack: Attack, rows: Tensor) -> int:
    """Attacks one batch; keeps each case's strongest point and returns how many successes were confirmed."""
    climb, surface, _ = _CLIMBS[attack.attack]
    inputs = run.inputs[rows].to(run.device)
    generators = [_generator(run.seed, place, row) for row in rows.tolist()]
    starts = (random_start(inputs.shape, run.threat, generators, surface=surface) for _ in range(attack.restarts))
    victim = run.victim(rows, attack.loss)
    best = climb_from(climb, victim, inputs, starts, threat=run.threat, steps=attack.steps)
    # A point outside the threat would be a mistake of ours; leaving it uncounted would flatter the model.
    assert bool(within(best.points, inputs, run.threat).all()), "an attack left the threat model"  # noqa: S101
    logits, safe = victim.answer(best.points)
    won, margins = succeeded(logits, safe), margin(logits, safe).to(run.margins)
    run.refuted += int((best.fallen & ~won).sum())
    stronger = won.cpu() | (margins > run.margins[rows])
    run.adversarial[rows[stronger]] = best.points[stronger.to(best.points.device)].to(run.adversarial)
    run.margins[rows[stronger]] = margins[stronger]
    for row in rows[won.cpu()].tolist():
        run.won_by[row] = attack.name
    return int(won.sum())


def _generator(seed: int, place: int, row: int) -> torch.Generator:
    """A case's own randomness: seeded by SHA-256 of the suite's seed, the attack's place and the row."""
    digest = hashlib.sha256(f"{seed}/{place}/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _recipe(attack: Attack, threat: ThreatModel, seed: int) -> str:
    """The whole recipe in words."""
    restarts = f"{attack.restarts} random start" + ("s" if attack.restarts > 1 else "")
    return (
        f"{_CLIMBS[attack.attack][2]} on the {_LOSSES[attack.loss]}, {attack.steps} steps, {restarts}, "
        f"{threat.norm} eps {threat.eps:.6g} within [{threat.bounds[0]:g}, {threat.bounds[1]:g}], seed {seed}"
    )


def _findings(*, trained: bool, blind: int, looked_at: int, tally: Tally, refuted: int) -> tuple[Finding, ...]:
    found = []
    if blind > BLIND_SHARE * looked_at:
        found.append(
            Finding(
                "attack.vanishing_gradient",
                "critical",
                f"The input gradient is exactly zero or not finite for {blind} of {looked_at} rightly answered cases, "
                "under every loss of the suite. Attacks that follow gradients are blind there: that they failed is "
                "no evidence of robustness.",
            )
        )
    if tally.broken:
        found.append(
            Finding(
                "attack.nonfinite_gradient",
                "warning",
                f"{tally.broken} of {tally.asked} input gradients held NaN or infinity, which was taken as zero; "
                "the attacks were weaker for it.",
            )
        )
    if refuted:
        found.append(
            Finding(
                "attack.unconfirmed_success",
                "warning",
                f"{refuted} successes were not confirmed by a fresh forward of the same input and were not counted. "
                "One or two can be rounding at a tie; more mean that the model answers at random.",
            )
        )
    if trained:
        found.append(
            Finding(
                "attack.training_mode",
                "info",
                "The model came with layers in training mode; it was attacked in eval mode and given back as it came.",
            )
        )
    return tuple(found)
