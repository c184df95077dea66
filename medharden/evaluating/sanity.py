"""Sanity curves: robust accuracy against the budget and against steps, on a few cases, and what they warn of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medharden import ranks
from medharden.attacks import run_suite
from medharden.evaluating.subjects import Subject
from medharden.protocol import Attack, Protocol, ThreatModel
from medharden.record import Finding, Progress, SanityPoint, SubjectOutcome
from medharden.rows import Cases, select
from medharden.stats.sampling import stratified_sample

__all__ = ["few_cases", "sanity_curves", "sanity_findings"]

_STEPS = 20
_RATIOS = (0.5, 1.0, 2.0, 4.0)
_STEP_COUNTS = (1, 5, _STEPS, 50)
_RESTARTS = 3  # at the whole range, where a start is an image of noise, and a network's answers may be flat around it
_SHOWN = ("original", "composite")
_SHARE = 0.06  # of the suite's gradients: a tenth of its time, as few cases a pass are slower
_FEWEST = 16  # cases, however small the suite: on fewer, masked gradients went unnoticed
# Of a few dozen cases, one or two move by the draw of the start alone.
_TOLERATED = 0.1


def sanity_curves(
    subjects: tuple[Subject, ...],
    inputs: Cases,
    labels: Tensor,
    protocol: Protocol,
    batch_size: int,
    device: str,
    progress: Progress | None = None,
    suite_work: float = math.inf,
) -> tuple[SanityPoint, ...]:
    """Attacks original and release with one PGD on the margin of logits, over budgets and over numbers of steps.

    A sound attack drives accuracy to about zero once the budget is the whole input range, and does not get weaker with
    more steps or a larger budget; where it does, robustness may be an illusion of the gradients (Carlini et al., "On
    Evaluating Adversarial Robustness", arXiv:1902.06705).

    Args:
        subjects: the models; those that nobody compares are left out.
        inputs: (N, C, *spatial) float32 in [0, 1], of which the protocol's few are drawn by class, and dealt.
        labels: (N,) class indices.
        protocol: whose threat, seed and number of sanity cases hold.
        batch_size: cases a pass.
        device: where the models are.
        progress: called with `sanity curves`, gradient steps done and in all.
        suite_work: cases x gradients that the suite took; the curves take a tenth of its time at most, on fewer cases
            where the protocol's number would take more, but on 16 at least: on fewer, a release whose gradients
            are masked passed.
    """
    if protocol.suite.sanity_cases == 0:
        return ()
    threat = protocol.input_threat
    whole = _whole_range(threat, math.prod(inputs.shape[1:]))
    budgets = [(r, threat.eps * r) for r in _RATIOS if threat.eps * r < whole] + [(whole / threat.eps, whole)]
    plan = [("eps", ratio, eps, _STEPS) for ratio, eps in budgets]
    plan += [("steps", 1.0, threat.eps, steps) for steps in _STEP_COUNTS]
    measured: dict[tuple[str, float, int], int] = {}
    chosen = [s for s in subjects if s.name in _SHOWN]
    points, done = [], 0
    attacks = {(eps, steps) for _, _, eps, steps in plan}
    work = len(chosen) * sum(_gradients(eps, steps, whole) for eps, steps in attacks)
    most = max(_FEWEST, int(min(_SHARE * suite_work / max(work, 1), protocol.suite.sanity_cases)))
    drawn = stratified_sample(labels.cpu().numpy(), min(most, protocol.suite.sanity_cases), protocol.seed)
    few = torch.as_tensor(drawn, device=inputs.device)
    cases, mine = len(few), ranks.own(len(few)).to(few.device)
    inputs, labels = select(inputs, few[mine]), labels[few[mine]]
    if progress:
        progress("sanity curves", 0, work)
    for subject in chosen:
        for sweep, ratio, eps, steps in plan:
            key = (subject.name, eps, steps)
            if key not in measured:
                restarts = _RESTARTS if eps == whole else 1
                done += _gradients(eps, steps, whole)
                stand = 0
                if len(inputs):  # not where there are more processes than cases
                    result = run_suite(
                        subject.view,
                        inputs,
                        labels,
                        threat=threat.model_copy(update={"eps": eps}),
                        suite=(Attack(attack="pgd", loss="margin", steps=steps, restarts=restarts),),
                        seed=protocol.seed,
                        batch_size=batch_size,
                        device=device,
                        precision=protocol.suite.precision,
                        numbers=mine.cpu(),
                        reach=protocol.suite.moved_grades,
                    )
                    stand = sum(won == "" for won in result.won_by)
                measured[key] = int(ranks.total(torch.tensor(stand)))
                if progress:
                    progress("sanity curves", done, work)
            points.append(SanityPoint(subject.name, sweep, ratio, eps, steps, cases, measured[key]))
    return tuple(points)


def _gradients(eps: float, steps: int, whole: float) -> int:
    """Of one attack on one case."""
    return steps * (_RESTARTS if eps == whole else 1)


def few_cases(points: tuple[SanityPoint, ...], protocol: Protocol, attacked: int) -> tuple[Finding, ...]:
    """That the curves rest on fewer cases than the protocol asks and were attacked, where they do."""
    wanted = min(protocol.suite.sanity_cases, attacked)
    if not points or points[0].cases >= wanted:
        return ()
    message = (
        f"The sanity curves were measured on {points[0].cases} cases, not on {wanted}: they may take a tenth of the "
        "suite's time."
    )
    return (Finding("sanity.few_cases", "info", message),)


def _whole_range(threat: ThreatModel, values: int) -> float:
    """The budget that reaches every input: the range, or under L2 the diagonal of the cube."""
    width = threat.bounds[1] - threat.bounds[0]
    return width if threat.norm == "linf" else width * math.sqrt(values)


def sanity_findings(points: tuple[SanityPoint, ...], outcomes: tuple[SubjectOutcome, ...]) -> tuple[Finding, ...]:
    """What the curves, and transferred attacks that beat the suite, say against the measured robustness."""
    found = []
    for name in dict.fromkeys(p.subject for p in points):
        by_eps = [p for p in points if p.subject == name and p.sweep == "eps"]
        by_steps = [p for p in points if p.subject == name and p.sweep == "steps"]
        last = by_eps[-1]
        if last.robust > _tolerated(last.cases):
            message = (
                f"{name}: {last.robust} of {last.cases} cases survive an attack that may change everything, so the "
                "attack does not find what is there; measured robustness may be masked gradients."
            )
            found.append(Finding("sanity.whole_range_survived", _gravity(name), message))
        for curve, what in ((by_eps, "a larger budget"), (by_steps, "more steps")):
            rise = max(b.robust - a.robust for i, a in enumerate(curve) for b in curve[i:])
            if rise > _tolerated(last.cases):
                message = f"{name}: {what} leaves {rise} cases more standing, of {last.cases}; the attack is unsound."
                found.append(Finding("sanity.accuracy_rises", _gravity(name), message))
    for outcome in outcomes:
        missed = sum(a.wins for a in outcome.attacks if a.name.startswith("transfer"))
        if missed > _tolerated(outcome.attacked):
            message = (
                f"{outcome.name}: {missed} of {outcome.attacked} cases fell to transferred perturbations after the "
                "white-box suite had failed on them, so the suite is weaker than it should be."
            )
            found.append(Finding("sanity.transfer_beats_white_box", _gravity(outcome.name), message))
    return tuple(found)


def _tolerated(cases: int) -> float:
    return max(1.0, _TOLERATED * cases)


def _gravity(subject: str) -> str:
    """What makes the attack on the release doubtful holds its verdict up; on another subject it is worth knowing."""
    return "critical" if subject == "composite" else "warning"
