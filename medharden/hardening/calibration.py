"""Calibrating the fusion on validation alone: temperatures, the branch's weight, the referral threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy
import torch
from torch import Tensor

from medharden.data import Cohort
from medharden.hardening.allotting import ANSWER, PATHS, Account, answers_paid
from medharden.hardening.choosing import choose, gated_parts
from medharden.hardening.dealing import dealt_logits
from medharden.hardening.operating_point import OPERATING_POINT, keep_operating_point
from medharden.hardening.weighing import weigh
from medharden.models import (
    Classifier,
    HardenedClassifier,
    calibrated,
    finding_support,
    refers,
    refers_findings,
    support,
    task_loss,
)
from medharden.protocol import Protocol
from medharden.record import Finding, FusionRecord, Progress
from medharden.stats import clopper_pearson_interval
from medharden.stats.sampling import stratified_sample

__all__ = ["calibrate"]

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
    account: Account,
    progress: Progress | None = None,
) -> tuple[FusionRecord, tuple[Finding, ...]]:
    """Sets the operating point of a branch that answers, and fits the fusion that the protocol asks for.

    The test split is not touched. Where the account does not pay for answers to all of validation, as many as half of
    it pays for are drawn by class.

    Args:
        clean_path: frozen, on the device.
        branch: trained, on the device; a constant is added to its logits where it answers, see `keep_operating_point`.
        cohort: its `val` split is used.
        protocol: fusion mode, margins, alpha, threat, referral budget.
        bias: (K,) decision bias.
        device: where both models are.
        account: what may be spent.
        progress: called with `calibrate`.

    Returns:
        The fusion, and findings: how the operating point was set, and where validation can't carry the choice.
    """
    rows, size, multilabel = cohort.indices("val"), protocol.hardening.batch_size, protocol.task.multilabel
    rows = rows[stratified_sample(cohort.labels(rows).numpy(), answers_paid(account, len(rows)), protocol.seed)]
    account.spend(PATHS * ANSWER * len(rows))
    inputs, labels = cohort.stream(rows, device), cohort.labels(rows).to(device)
    patients = [cohort.cases[row].patient for row in rows]
    with torch.no_grad():
        clean, robust = (dealt_logits(model, inputs, size) for model in (clean_path, branch))
    fusion = replace(_NEUTRAL, mode=protocol.fusion.mode, clean_temperature=fit_temperature(clean, labels, bias))
    findings: tuple[Finding, ...] = ()
    if fusion.mode in ("mixed", "robust"):  # the answers of the others are the clean path's
        heat = fit_temperature(robust, labels, bias)
        account.spend(OPERATING_POINT)
        shift, said = keep_operating_point(
            branch,
            inputs,
            (clean + bias) / fusion.clean_temperature,
            (robust + bias) / heat,
            cohort.classes,
            temperature=heat,
            multilabel=multilabel,
        )
        robust, findings = robust + shift, (said,)
    fusion = replace(fusion, robust_temperature=fit_temperature(robust, labels, bias))
    fusion, guarded = _guard(fusion, clean, robust, bias, protocol)
    if fusion.mode != "mixed":
        return fusion, guarded if fusion.mode == "guarded" else findings
    model = HardenedClassifier(clean_path, branch, fusion, bias, multilabel=multilabel)
    points, right = weigh(model, inputs, labels, clean, robust, patients, protocol, account, progress)
    parts = gated_parts(labels, protocol, cohort.classes)
    weight, unshown = choose(points, right, parts, np.asarray(patients), protocol.endpoints.alpha)
    return replace(fusion, weight=weight, frontier=points), (*findings, *unshown)


def fit_temperature(logits: Tensor, labels: Tensor, bias: Tensor) -> float:
    """The temperature that maximises the likelihood on given cases (Guo et al. 2017), in [0.05, 20].

    It works about the decision threshold, see `calibrated`.

    Args:
        logits: (N, K).
        labels: (N,) classes, or (N, K) findings.
        bias: (K,) decision bias.
    """
    logits, labels, bias = logits.cpu().double(), labels.cpu(), bias.cpu().double()
    labels = labels.double() if labels.ndim == 2 else labels
    found = scipy.optimize.minimize_scalar(
        lambda t: float(task_loss(calibrated(logits, float(np.exp(t)), bias), labels)),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def _guard(
    fusion: FusionRecord, clean: Tensor, robust: Tensor, bias: Tensor, protocol: Protocol
) -> tuple[FusionRecord, tuple[Finding, ...]]:
    """The strictest support threshold whose referral rate is expected within the budget, by exact limit."""
    cases, level = len(clean), 1 - 2 * protocol.endpoints.alpha
    budget = protocol.fusion.referral_budget
    affordable = max(
        (k for k in range(cases + 1) if clopper_pearson_interval(k, cases, level=level)[1] <= budget), default=-1
    )
    flag = refers_findings if protocol.task.multilabel else refers
    disagree = flag(clean, robust, bias, fusion)
    if protocol.task.multilabel:
        own = finding_support(clean, robust, bias, fusion).amin(1)
    else:
        own = support(robust, bias, fusion).gather(1, (clean + bias).argmax(1)[:, None]).squeeze(1)
    agreeing = own[~disagree].cpu().double().sigmoid().clamp(max=_SUREST).sort().values
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
