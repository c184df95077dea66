"""The protocol's suite against every subject, and what beat one path tried on the release."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.attacks import Aim, SuiteResult, run_suite
from medharden.evaluating.subjects import Subject
from medharden.models import logits_in_batches
from medharden.protocol import Protocol
from medharden.record import AttackOutcome, Progress

__all__ = ["attack_all", "with_transfer"]

_TRANSFER = "transfer"


def attack_all(
    subjects: tuple[Subject, ...],
    inputs: Tensor,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    device: str,
    progress: Progress | None,
) -> dict[str, SuiteResult]:
    """Runs the protocol's suite on each subject; results by the subject's name."""
    stages = {"original": "attack original", "robust_branch": "attack branch", "composite": "attack release"}
    return {
        s.name: run_suite(
            s.view,
            inputs,
            labels,
            threat=protocol.input_threat,
            suite=protocol.suite.attacks,
            seed=protocol.seed,
            batch_size=batch_size,
            device=device,
            progress=progress,
            stage=stages[s.name],
        )
        for s in subjects
    }


@torch.no_grad()
def with_transfer(
    composite: Subject, results: dict[str, SuiteResult], inputs: Tensor, labels: Tensor, batch_size: int
) -> SuiteResult:
    """Tries what beat each path alone on the release: a case is robust only if that fails too."""
    own = results["composite"]
    won, adversarial = list(own.won_by), own.adversarial.clone()
    outcomes = list(own.outcomes)
    for source in ("original", "robust_branch"):
        candidates = results[source].adversarial
        logits = logits_in_batches(composite.view, candidates, batch_size)
        lost = _wrong_and_unreferred(logits, labels, composite.view)
        tried = [i for i, name in enumerate(won) if name == ""]
        for i in tried:
            if bool(lost[i]):
                won[i], adversarial[i] = f"{_TRANSFER}-{source}", candidates[i]
        wins = sum(won[i] != "" for i in tried)
        recipe = f"what the suite found against the {source.replace('_', ' ')}, tried on the release"
        outcomes.append(AttackOutcome(f"{_TRANSFER}-{source}", recipe, len(tried), wins, 0.0))
    return SuiteResult(adversarial, tuple(won), tuple(outcomes), own.findings)


def _wrong_and_unreferred(logits: Tensor, labels: Tensor, view: nn.Module) -> Tensor:
    if labels.ndim == 2:
        return Aim(labels, refers=bool(getattr(view, "refers", False))).won(logits)
    answer = logits.argmax(1)
    wrong = answer != labels
    return wrong & (answer != logits.shape[1] - 1) if getattr(view, "refers", False) else wrong
