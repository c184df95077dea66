"""The protocol's suite against every subject, and what beat one path tried on the release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden._version import __version__
from medharden.attacks import Aim, SuiteResult, SuiteState, run_suite
from medharden.attacks.victim import refers
from medharden.audit import digest_bytes
from medharden.errors import RunError
from medharden.evaluating.resuming import Partial, key_of
from medharden.evaluating.subjects import Subject
from medharden.models import HardenedClassifier, logits_in_batches, state_digest
from medharden.protocol import Protocol
from medharden.record import AttackOutcome, Finding, Progress

__all__ = ["attack_all", "referred_under_attack", "with_transfer"]

_TRANSFER = "transfer"


def attack_all(
    subjects: tuple[Subject, ...],
    inputs: Tensor,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    device: str,
    progress: Progress | None,
    run: Path | None = None,
    seal: bytes = b"",
) -> dict[str, SuiteResult]:
    """Runs the protocol's suite on each subject; results by the subject's name.

    With a run directory, an interrupted evaluation of the same models, cases and protocol is gone on with, where what
    it left is sealed under `seal`; what is not is a finding, and the suite begins anew.
    """
    stages = {"original": "attack original", "robust_branch": "attack branch", "composite": "attack release"}
    results = {}
    for s in subjects:
        partial, saved, refused = None, None, ""
        if run is not None:
            partial = Partial(run, s.name, inputs, _key(s, inputs, labels, protocol, batch_size, device), seal)
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


def _key(subject: Subject, inputs: Tensor, labels: Tensor, protocol: Protocol, batch_size: int, device: str) -> str:
    """What a subject's result depends on: its weights, the cases, the protocol, batches and the stack."""
    cases = [t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() for t in (inputs, labels)]
    return key_of(
        medharden=__version__,
        torch=str(torch.__version__),
        subject=subject.name,
        model=state_digest(subject.view),
        # What a state does not say: the layers, and how the release makes one answer of two.
        layers=repr(subject.view),
        fusion=str(getattr(getattr(subject.view, "model", None), "fusion", None)),
        inputs=digest_bytes(cases[0]),
        labels=digest_bytes(cases[1]),
        protocol=protocol.digest,
        batch_size=batch_size,
        device=device,
    )


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
        lost = Aim(labels, refers=refers(composite.view)).won(logits)
        tried = [i for i, name in enumerate(won) if name == ""]
        for i in tried:
            if bool(lost[i]):
                won[i], adversarial[i] = f"{_TRANSFER}-{source}", candidates[i]
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
    parts = torch.split(result.adversarial, batch_size)
    return torch.cat([model.assess(part.to(device)).referred for part in parts]).cpu().numpy()
