"""The protocol's suite against every subject, and what beat one path tried on the release."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden._version import __version__
from medharden.attacks import Criterion, SuiteResult, SuiteState, run_suite
from medharden.attacks.victim import refers
from medharden.errors import RunError
from medharden.evaluating.resuming import Partial, key_of
from medharden.evaluating.subjects import Subject
from medharden.models import HardenedClassifier, logits_in_batches, state_digest
from medharden.protocol import Protocol
from medharden.record import AttackOutcome, Finding, Progress
from medharden.rows import Cases, copy_of, parts

__all__ = ["attack_all", "referred_under_attack", "with_transfer"]

_TRANSFER = "transfer"
_DIGESTED_AT_ONCE = 64


def attack_all(
    subjects: tuple[Subject, ...],
    inputs: Cases,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    device: str,
    progress: Progress | None,
    run: Path | None = None,
    seal: bytes = b"",
    numbers: Tensor | None = None,
) -> dict[str, SuiteResult]:
    """Runs the protocol's suite on each subject; results by the subject's name.

    With a run directory, an interrupted evaluation of the same models, cases and protocol is gone on with, where what
    it left is sealed under `seal`; what is not is a finding, and the suite begins anew. `numbers` are those of the
    cases among all that are attacked, where they are a part.
    """
    stages = {"original": "attack original", "robust_branch": "attack branch", "composite": "attack release"}
    results = {}
    for s in subjects:
        partial, saved, refused = None, None, ""
        if progress:
            progress(stages[s.name], 0, 1)
        if run is not None:
            partial = Partial(run, s.name, inputs, _key(s, inputs, labels, numbers, protocol, batch_size, device), seal)
            saved, refused = _left_by_an_earlier(partial)
        try:
            result = run_suite(
                s.view,
                inputs,
                labels,
                threat=protocol.input_threat,
                suite=protocol.suite.attacks,
                seed=protocol.seed,
                batch_size=batch_size,
                device=device,
                precision=protocol.suite.precision,
                progress=progress,
                stage=stages[s.name],
                saved=saved,
                keep=partial.keep if partial else None,
                numbers=numbers,
                reach=protocol.suite.moved_grades,
            )
        finally:
            # After an interrupt too: the next evaluation need not repeat what this one did.
            if partial:
                partial.write()
        anew = (Finding("evaluation.begun_anew", "warning", f"{refused}; the suite began anew."),) if refused else ()
        results[s.name] = replace(result, findings=(*result.findings, *anew))
    return results


def _left_by_an_earlier(partial: Partial) -> tuple[SuiteState | None, str]:
    """What an interrupted evaluation left, or why it is not taken."""
    try:
        return partial.load(), ""
    except RunError as error:
        return None, str(error)


def _key(
    subject: Subject,
    inputs: Cases,
    labels: Tensor,
    numbers: Tensor | None,
    protocol: Protocol,
    batch_size: int,
    device: str,
) -> str:
    """What a subject's result depends on: its weights, the cases, the protocol, batches and the stack."""
    return key_of(
        medharden=__version__,
        torch=str(torch.__version__),
        subject=subject.name,
        model=state_digest(subject.view),
        # What a state does not say: the layers, and how the release makes one answer of two.
        layers=repr(subject.view),
        fusion=str(getattr(getattr(subject.view, "model", None), "fusion", None)),
        inputs=_digest(inputs),
        labels=_digest(labels),
        numbers="" if numbers is None else _digest(numbers),
        protocol=protocol.digest,
        batch_size=batch_size,
        device=device,
    )


def _digest(values: Cases) -> str:
    """SHA-256 of the values' bytes."""
    total = hashlib.sha256()
    for part in parts(values, _DIGESTED_AT_ONCE):
        total.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


@torch.no_grad()
def with_transfer(
    composite: Subject, results: dict[str, SuiteResult], inputs: Cases, labels: Tensor, batch_size: int, reach: int = 1
) -> SuiteResult:
    """Tries what beat each path alone on the release: a case is robust only if that fails too."""
    own = results["composite"]
    won, adversarial = list(own.won_by), copy_of(own.adversarial)
    outcomes = list(own.outcomes)
    for source in ("original", "robust_branch"):
        candidates = results[source].adversarial
        logits = logits_in_batches(composite.view, candidates, batch_size)
        lost = Criterion(labels, refers=refers(composite.view), reach=reach).won(logits)
        tried = [i for i, name in enumerate(won) if name == ""]
        for i in tried:
            if bool(lost[i]):
                won[i] = f"{_TRANSFER}-{source}"
                adversarial[i : i + 1] = candidates[i : i + 1]
        wins = sum(won[i] != "" for i in tried)
        recipe = f"what the suite found against the {source.replace('_', ' ')}, tried on the release"
        outcomes.append(AttackOutcome(f"{_TRANSFER}-{source}", recipe, len(tried), wins, 0.0))
    return replace(own, adversarial=adversarial, won_by=tuple(won), outcomes=tuple(outcomes))


@torch.no_grad()
def referred_under_attack(
    model: HardenedClassifier, result: SuiteResult, batch_size: int, device: str
) -> npt.NDArray[np.bool_] | None:
    """(n,) which attacked cases `guarded` refers at the strongest input that was found for each; null otherwise.

    Attacks seek a wrong answer that is not referred. One that only wants a case referred may refer more.
    """
    if model.fusion.mode != "guarded":
        return None
    found = [model.assess(part.to(device)).referred for part in parts(result.adversarial, batch_size)]
    return torch.cat(found).cpu().numpy()
