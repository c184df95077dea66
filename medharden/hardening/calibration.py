"""Calibrating the fusion on validation alone: temperatures, the branch's weight, the referral threshold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from medharden.attacks import pgd, searched
from medharden.data import Cohort
from medharden.data.sampling import stratified_sample
from medharden.hardening.operating_point import keep_operating_point
from medharden.models import (
    Classifier,
    DecisionView,
    HardenedClassifier,
    answered_rightly,
    finding_support,
    logits_in_batches,
    mix,
    mix_findings,
    refers,
    refers_findings,
    support,
    task_loss,
)
from medharden.protocol import Protocol
from medharden.record import Finding, FrontierPoint, FusionRecord, Progress
from medharden.stats import noninferiority_test, wilson_interval

__all__ = ["calibrate"]

_WEIGHTS = (0.05, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
# At a weight a the branch's probability of the truth has to stay above 1 / (2a) under attack, whatever the clean path
# says. Below .7 that is more than many a robust answer has: such weights are drawn and not chosen.
_LEAST_CHOSEN = 0.7
_SUREST = 1 - 1e-9  # of a saturated branch nothing more can be asked
_NEUTRAL = FusionRecord(
    mode="clean", weight=0.5, clean_temperature=1.0, robust_temperature=1.0, referral_threshold=0.0, referral_rate=0.0
)


def calibrate(
    clean_path: Classifier,
    branch: Classifier,
    cohort: Cohort,
    protocol: Protocol,
    bias: Tensor,
    *,
    device: str,
    progress: Progress | None = None,
) -> tuple[FusionRecord, tuple[Finding, ...]]:
    """Sets the branch's operating point and fits the fusion that the protocol asks for; the test split is not touched.

    Args:
        clean_path: frozen, on the device.
        branch: trained, on the device; a constant may be added to its logits, see `keep_operating_point`.
        cohort: its `val` split is used.
        protocol: fusion mode, margins, alpha, threat, referral budget.
        bias: (K,) decision bias.
        device: where both models are.
        progress: called with `calibrate`.

    Returns:
        The fusion, and findings where the operating point had moved or validation can't carry the choice.
    """
    rows, size, multilabel = cohort.indices("val"), protocol.hardening.batch_size, protocol.task.multilabel
    inputs, labels = (t.to(device) for t in cohort.batch(rows))
    patients = [cohort.cases[row].patient for row in rows]
    with torch.no_grad():
        clean = logits_in_batches(clean_path, inputs, size)
        robust = logits_in_batches(branch, inputs, size)
    shift, moved = keep_operating_point(
        branch, inputs, clean + bias, robust + bias, patients, cohort.classes, multilabel=multilabel
    )
    robust += shift
    fusion = replace(
        _NEUTRAL,
        mode=protocol.fusion.mode,
        clean_temperature=fit_temperature(clean, labels),
        robust_temperature=fit_temperature(robust, labels),
    )
    fusion, findings = _guard(fusion, clean, robust, bias, protocol)
    if protocol.fusion.mode != "mixed":
        return fusion, (*moved, *findings) if protocol.fusion.mode == "guarded" else moved
    model = HardenedClassifier(clean_path, branch, fusion, bias, multilabel=multilabel)
    points, right = _frontier(model, inputs, labels, clean, robust, patients, protocol, progress)
    weight, finding = _choose(points, right, _parts(labels, protocol), np.asarray(patients), protocol.endpoints.alpha)
    return replace(fusion, weight=weight, frontier=points), (*moved, *finding)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that maximises the likelihood on given cases (Guo et al. 2017), in [0.05, 20].

    Args:
        logits: (N, K).
        labels: (N,) classes, or (N, K) findings.
    """
    logits, labels = logits.double().cpu(), labels.cpu()
    labels = labels.double() if labels.ndim == 2 else labels
    found = minimize_scalar(
        lambda t: float(task_loss(logits / float(np.exp(t)), labels)),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def _guard(
    fusion: FusionRecord, clean: Tensor, robust: Tensor, bias: Tensor, protocol: Protocol
) -> tuple[FusionRecord, tuple[Finding, ...]]:
    """The strictest support threshold whose referral rate is expected within the budget (upper Wilson limit)."""
    cases, level = len(clean), 1 - 2 * protocol.endpoints.alpha
    affordable = max(
        (k for k in range(cases + 1) if wilson_interval(k, cases, level=level)[1] <= protocol.fusion.referral_budget),
        default=-1,
    )
    flag = refers_findings if protocol.task.multilabel else refers
    disagree = flag(clean, robust, bias, fusion)
    if protocol.task.multilabel:
        own = finding_support(clean, robust, bias, fusion).amin(1)
    else:
        own = support(robust, bias, fusion).gather(1, (clean + bias).argmax(1)[:, None]).squeeze(1)
    agreeing = own[~disagree].double().sigmoid().clamp(max=_SUREST).sort().values
    spare = affordable - int(disagree.sum())
    findings: tuple[Finding, ...] = ()
    if spare < 0:
        findings = (
            Finding(
                "fusion.referral_budget",
                "warning",
                f"The two paths disagree on {int(disagree.sum())} of {cases} clean validation cases; "
                f"a referral rate within {protocol.fusion.referral_budget:.1%} is not expected to hold.",
            ),
        )
    elif spare < len(agreeing):
        fusion = replace(fusion, referral_threshold=float(agreeing[spare]))
    else:
        fusion = replace(fusion, referral_threshold=_SUREST)
    rate = float(flag(clean, robust, bias, fusion).float().mean())
    return replace(fusion, referral_rate=rate), findings


def _frontier(
    model: HardenedClassifier,
    inputs: Tensor,
    labels: Tensor,
    clean: Tensor,
    robust: Tensor,
    patients: list[str],
    protocol: Protocol,
    progress: Progress | None,
) -> tuple[tuple[FrontierPoint, ...], dict[float, npt.NDArray[np.bool_]]]:
    """Clean change and end-to-end robust accuracy for each weight, on validation; and which cases it answers right.

    From the largest weight down, what beat one weight is tried on the next before anything is searched.
    """
    bias, margin = model.decision_bias, _accuracy_margin(protocol)
    right = answered_rightly(clean + bias, labels)
    blend = mix_findings if model.multilabel else mix
    rows = stratified_sample(labels.cpu().numpy(), protocol.hardening.probe_cases, protocol.seed)
    sample = torch.as_tensor(rows, device=labels.device)
    points, answered, tried = [], {0.0: right.cpu().numpy()}, inputs[sample]
    for number, weight in enumerate(reversed(_WEIGHTS)):
        model.fusion = replace(model.fusion, weight=weight)
        now = answered_rightly(blend(clean, robust, model.fusion) + bias, labels)
        answered[weight] = now.cpu().numpy()
        gained, lost = (now & ~right).cpu().numpy(), (~now & right).cpu().numpy()
        test = noninferiority_test(gained, lost, margin=margin, alpha=protocol.endpoints.alpha, patients=patients)
        held = _standing(DecisionView(model, bias), tried, inputs[sample], labels[sample], now[sample], protocol)
        points.append(
            FrontierPoint(
                weight=weight,
                gained=int(gained.sum()),
                lost=int(lost.sum()),
                cases=len(labels),
                lower=test.interval[0],
                upper=test.interval[1],
                robust=float(held.float().mean()),
                attacked=len(sample),
            )
        )
        if progress is not None:
            progress("calibrate", number + 1, len(_WEIGHTS))
    return tuple(reversed(points)), answered


def _standing(
    view: DecisionView, tried: Tensor, inputs: Tensor, labels: Tensor, right: Tensor, protocol: Protocol
) -> Tensor:
    """(N,) which of the cases that are answered rightly stay so at what was tried before and under the probe attack.

    Args:
        view: the release at one weight.
        tried: (N, C, *spatial) points within the threat; those found take their places.
        inputs: (N, C, *spatial) clean.
        labels: of the cases.
        right: (N,) whether the clean answer is right.
        protocol: threat, seed and the probe's steps.
    """
    with torch.no_grad():
        held = right & answered_rightly(view(tried), labels)
    if not bool(held.any()):
        return held
    tried[held] = pgd(
        searched(view, inputs.dim() - 2),
        inputs[held],
        labels[held],
        threat=protocol.input_threat,
        steps=protocol.hardening.probe_steps,
        restarts=1,
        loss="ce",
        generator=torch.Generator().manual_seed(protocol.seed),
    )
    with torch.no_grad():
        return held & answered_rightly(view(tried), labels)


def _accuracy_margin(protocol: Protocol) -> float:
    return next(m.margin for m in protocol.endpoints.noninferiority if m.metric == "accuracy")


@dataclass(frozen=True)
class _Part:
    """The validation cases that an endpoint is about, and its margin."""

    rows: npt.NDArray[np.intp]
    margin: float


def _parts(labels: Tensor, protocol: Protocol) -> tuple[_Part, ...]:
    """All cases for accuracy and, where classes are asked for their recall, those of each class."""
    margins, truth = {m.metric: m.margin for m in protocol.endpoints.noninferiority}, labels.cpu().numpy()
    parts = [_Part(np.arange(len(truth)), margins["accuracy"])]
    if truth.ndim == 1 and "recall" in margins:
        parts += [_Part(np.flatnonzero(truth == k), margins["recall"]) for k in np.unique(truth)]
    return tuple(parts)


def _choose(
    points: tuple[FrontierPoint, ...],
    right: dict[float, npt.NDArray[np.bool_]],
    parts: tuple[_Part, ...],
    patients: npt.NDArray[np.str_],
    alpha: float,
) -> tuple[float, tuple[Finding, ...]]:
    """The most robust weight at which accuracy and each class's recall are shown non-inferior on validation.

    Where a small validation split shows it for none, the most robust weight that in each of them is within one standard
    error of the safest weight: the one-standard-error rule (Breiman et al. 1984, section 3.4.3) on the paired
    difference, by patient. A case or two of a few hundred do not tell weights apart, and robustness is not given up
    for them. The safest weight is the one whose worst limit lies least below its margin.

    Args:
        points: what each weight gave.
        right: for each weight which cases are answered rightly; weight 0 is the original.
        parts: of `_parts`.
        patients: (N,) of the cases.
        alpha: one-sided level.
    """
    points = tuple(p for p in points if p.weight >= _LEAST_CHOSEN)
    slack = {
        p.weight: min(_slack(right[p.weight], right[0.0], part, patients, alpha) for part in parts) for p in points
    }
    holding = [p for p in points if slack[p.weight] > 0]
    if holding:
        return _most_robust(holding).weight, ()
    most = max(slack.values())
    safest = right[_most_robust([p for p in points if slack[p.weight] == most]).weight]
    near = [p for p in points if all(_within_one_error(right[p.weight], safest, part, patients) for part in parts)]
    chosen = _most_robust(near)
    message = (
        f"On {chosen.cases} validation cases no fusion weight shows non-inferiority of accuracy and, where classes "
        f"are gated by it, of each one's recall at the protocol's margins (the best misses one by {-most:.3f}); the "
        "most robust weight within one standard error of the safest was taken."
    )
    return chosen.weight, (Finding("fusion.not_shown_on_validation", "warning", message),)


def _slack(
    now: npt.NDArray[np.bool_],
    before: npt.NDArray[np.bool_],
    part: _Part,
    patients: npt.NDArray[np.str_],
    alpha: float,
) -> float:
    """How far the lower limit of the change lies above -margin; below 0 it is not shown."""
    now, before = now[part.rows], before[part.rows]
    test = noninferiority_test(
        now & ~before, before & ~now, margin=part.margin, alpha=alpha, patients=patients[part.rows].tolist()
    )
    return test.interval[0] + part.margin


def _most_robust(points: list[FrontierPoint]) -> FrontierPoint:
    """On ties the one that answers more cases rightly; then the smaller weight, which changes the original less."""
    return max(points, key=lambda p: (p.robust, p.gained - p.lost, -p.weight))


def _within_one_error(
    mine: npt.NDArray[np.bool_], safest: npt.NDArray[np.bool_], part: _Part, patients: npt.NDArray[np.str_]
) -> bool:
    """Whether it falls behind the safest weight by at most one standard error of their paired difference."""
    change = mine[part.rows].astype(int) - safest[part.rows].astype(int)
    _, patient = np.unique(patients[part.rows], return_inverse=True)
    error = float(np.sqrt((np.bincount(patient, weights=change) ** 2).sum()))
    return bool(-change.sum() <= error)
