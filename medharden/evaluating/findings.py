"""Each finding of a multi-label task attacked by itself: accuracy over all findings hides what is done to one.

The suite tries to make any finding of a case wrong, and stops once one is. Here every finding is pushed in turn as far
to its wrong side as the budget allows, so that its AUROC, sensitivity and specificity under attack can be told.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medharden.attacks import Criterion, SuiteResult, wrong_findings
from medharden.attacks.victim import refers
from medharden.attacks.worst_finding import worst_finding, wrongness
from medharden.evaluating.subjects import Subject
from medharden.models import logits_in_batches
from medharden.protocol import Protocol
from medharden.record import AttackOutcome, Progress
from medharden.rows import Cases, RowFile, copy_of, parts

__all__ = ["Pushed", "push_all"]

_STEPS = 20
_NAME = f"push-{_STEPS}"
_TRANSFER, _REPLAY = "transfer-push", "replay-push"


@dataclass(frozen=True)
class Pushed:
    """What became of each finding of the attacked cases.

    Attributes:
        robust: (n, L) bool, rightly answered on clean input and under every attack.
        logits: (n, L) decision logits where the finding was furthest on its wrong side and the case not referred.
    """

    robust: Tensor
    logits: Tensor


def push_all(
    subjects: tuple[Subject, ...],
    results: dict[str, SuiteResult],
    inputs: Cases,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    progress: Progress | None,
    numbers: Tensor,
    beside: Subject | None = None,
) -> tuple[dict[str, Pushed], dict[str, SuiteResult]]:
    """Pushes every finding of every subject; what beats another subject is tried on the release too.

    Args:
        subjects: original, branch and composite, the composite last.
        results: of the suite, by subject.
        inputs: (n, C, *spatial) of the attacked cases.
        labels: (n, L) in {0, 1}, NaN where unknown.
        protocol: threat and seed.
        batch_size: cases a pass.
        progress: called with `attack findings`, passes over the cases done and in all.
        numbers: (n,) of the cases among all that are attacked, by which each has its randomness.
        beside: a further subject, which gives no gradient: what was pushed against all others is tried on it.

    Returns:
        By subject what became of each finding, and the suite's results with the cases that fell to a push.
    """
    findings, pushed, found = labels.shape[1], {}, {}
    points: list[list[Cases]] = [[] for _ in range(findings)]
    if progress is not None:
        progress("attack findings", 0, findings * len(subjects))
    for place, subject in enumerate(subjects):
        started = time.perf_counter()
        tried = _Tried(subject, inputs, labels, batch_size)
        tried.all_findings(results[subject.name].adversarial)
        own = []
        for k in range(findings):
            own.append(_push(subject, inputs, labels, k, protocol, batch_size, numbers))
            tried.all_findings(own[-1])
            if progress is not None:
                progress("attack findings", place * findings + k + 1, findings * len(subjects))
        results_now = _fallen(results[subject.name], _NAME, tried, own, protocol, time.perf_counter() - started)
        if place == len(subjects) - 1:
            others = [candidate for of_finding in points for candidate in of_finding]
            for candidates in others:
                tried.all_findings(candidates)
            results_now = _fallen(results_now, _TRANSFER, tried, others, protocol, 0.0)
        for k, candidate in enumerate(own):
            points[k].append(candidate)
        pushed[subject.name], found[subject.name] = tried.outcome(), results_now
    if beside is not None:
        tried = _Tried(beside, inputs, labels, batch_size)
        every = [candidate for of_finding in points for candidate in of_finding]
        for candidates in (*(result.adversarial for result in results.values()), *every):
            tried.all_findings(candidates)
        found[beside.name] = _fallen(results[beside.name], _REPLAY, tried, every, protocol, 0.0)
        pushed[beside.name] = tried.outcome()
    return pushed, found


class _Tried:
    """The worst that was seen of each finding, over all points tried on one subject."""

    def __init__(self, subject: Subject, inputs: Cases, labels: Tensor, batch_size: int) -> None:
        self._view, self._labels, self._batch_size = subject.view, labels, batch_size
        self._logits = self.answers(inputs)[:, : labels.shape[1]].clone()
        # also where the clean case is referred: that is its answer until an attack gets another one past the flag
        self._worst = wrongness(self._logits, labels, refers=False)

    @torch.no_grad()
    def answers(self, points: Cases) -> Tensor:
        """(n, columns) at the points."""
        return logits_in_batches(self._view, points, self._batch_size)

    def all_findings(self, points: Cases) -> None:
        """Takes each finding's logit at points where it is further off than before."""
        logits = self.answers(points)
        off = wrongness(logits, self._labels, refers=self.refers)
        worse = off > self._worst
        self._worst = torch.where(worse, off, self._worst)
        self._logits = torch.where(worse, logits[:, : self._labels.shape[1]], self._logits)

    def wins(self, points: Cases) -> Tensor:
        """(n,) bool: some finding is wrong there, and the case is not referred."""
        return Criterion(self._labels, refers=self.refers).won(self.answers(points))

    @property
    def refers(self) -> bool:
        """Whether the last column means `referred`."""
        return refers(self._view)

    def outcome(self) -> Pushed:
        """What became of each finding, over all that was tried."""
        wrong = wrong_findings(self._logits, self._labels)
        return Pushed(robust=~wrong & ~self._labels.isnan(), logits=self._logits)


def _push(
    subject: Subject,
    inputs: Cases,
    labels: Tensor,
    finding: int,
    protocol: Protocol,
    batch_size: int,
    numbers: Tensor,
) -> Cases:
    """(n, C, *spatial) where one finding of each case is furthest to its wrong side, in a file."""
    generators = [_generator(protocol.seed, finding, number) for number in numbers.tolist()]
    found = RowFile(inputs.shape, inputs.dtype, inputs.device)
    for at, part, truth in zip(
        range(0, len(inputs), batch_size),
        parts(inputs, batch_size),
        torch.split(labels, batch_size),
        strict=True,
    ):
        found[at : at + batch_size] = worst_finding(
            subject.view,
            part,
            truth,
            finding=finding,
            threat=protocol.input_threat,
            steps=_STEPS,
            generators=generators[at : at + batch_size],
        )
    return found


def _generator(seed: int, finding: int, row: int) -> torch.Generator:
    """A case's own randomness for each finding, whatever the batch it comes in."""
    digest = hashlib.sha256(f"{seed}/push/{finding}/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _fallen(
    result: SuiteResult, name: str, tried: _Tried, points: list[Cases], protocol: Protocol, seconds: float
) -> SuiteResult:
    """The suite's result after the cases that still stood have met these points too."""
    won, adversarial = list(result.won_by), copy_of(result.adversarial)
    standing = [i for i, by in enumerate(won) if by == ""]
    for candidates in points:
        beaten = tried.wins(candidates)
        for i in standing:
            if won[i] == "" and bool(beaten[i]):
                won[i] = name
                adversarial[i : i + 1] = candidates[i : i + 1]
    wins = sum(won[i] != "" for i in standing)
    threat = protocol.input_threat
    recipe = (
        f"PGD on the logit of each finding in turn, {_STEPS} steps, 1 random start, never stopped, {threat.norm} eps "
        f"{threat.eps:.6g}, seed {protocol.seed}"
    )
    if name == _TRANSFER:
        recipe = "what was pushed against the original and the robust branch, tried on the release"
    if name == _REPLAY:
        recipe = "what was pushed against the original, the robust branch and the release, tried on the artefact"
    return replace(
        result,
        adversarial=adversarial,
        won_by=tuple(won),
        outcomes=(*result.outcomes, AttackOutcome(name, recipe, len(standing), wins, seconds)),
    )
