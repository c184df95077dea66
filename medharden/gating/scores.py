"""The endpoints beyond counts on which the protocol may ask for non-inferiority: balanced accuracy, AUROC, Brier.

None of them gates alone: accuracy and every class's recall are always there too. Limits keep away from the estimate by
what so many patients can't rule out, so that equal scores of few patients don't pass, nor worse ones where equal ones
don't. An AUROC passes only on enough patients of each class.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.gating.findings import finding_difference
from medharden.gating.words import apart, percent, uses_up
from medharden.protocol import Margin, Protocol
from medharden.record import CaseTable, Endpoint, Verdict
from medharden.stats import (
    FEWEST_PATIENTS,
    Difference,
    auroc_difference,
    balanced_accuracy_difference,
    brier_difference,
    class_patients,
    grade_error_difference,
    macro_auroc_difference,
    quadratic_kappa_difference,
)

__all__ = ["auroc_alone", "score_endpoint"]

_POWER = 0.8
_KINDS = {"brier": "brier", "grade_error": "grade_error", "quadratic_kappa": "kappa"}


def score_endpoint(
    wanted: Margin,
    protocol: Protocol,
    classes: tuple[str, ...],
    cases: CaseTable,
    alpha: float,
    *,
    name: str,
    finding: int | None = None,
) -> Endpoint:
    """Whether the composite is worse by less than the margin; for Brier, worse is higher.

    Args:
        wanted: metric and margin.
        protocol: names the positive class.
        classes: in the order of the model's outputs.
        cases: `original` in it is the comparator.
        alpha: one-sided error.
        name: of the endpoint.
        finding: whose score it is, where it is of one finding.
    """
    rises, level = wanted.metric in ("brier", "grade_error"), 1.0 - 2.0 * alpha
    bound = wanted if finding is None else wanted.of(classes[finding])
    change = _change(wanted.metric, finding, protocol, classes, cases, level)
    verdict, text = _verdict(change, bound.margin, rises)
    smallest, needed = _plan(change, bound.margin, rises)
    patients = "" if change.patients == change.cases else f" of {change.patients} patients"
    text = f"{name}: {text} (n = {change.cases}{patients})"
    few = _too_few(wanted.metric, finding, protocol, classes, cases)
    if few and verdict is not Verdict.FAIL:
        verdict, text = Verdict.INCONCLUSIVE, f"{text}; {few}"
    elif verdict is Verdict.INCONCLUSIVE and needed is not None and needed > change.cases:
        text += f"; not shown: needs about {needed} cases at this variance"
    return Endpoint(
        name=name,
        kind=_KINDS.get(wanted.metric, "noninferiority"),
        verdict=verdict,
        estimate=change.estimate,
        lower=change.interval[0],
        upper=change.interval[1],
        level=level,
        limit=bound.margin if rises else -bound.margin,
        n=change.cases,
        patients=change.patients,
        table=(),
        smallest_margin=smallest,
        needed=needed,
        method=change.method,
        justification=bound.justification or "",
        reason=text,
    )


def auroc_alone(
    name: str, subject: str, floor: float, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable
) -> Endpoint:
    """Whether one model's AUROC is shown to reach a floor: its difference from scores that are all the same.

    Args:
        name: of the endpoint.
        subject: whose AUROC.
        floor: in (0, 1).
        protocol: names the positive class; alpha.
        classes: in the order of the model's outputs.
        cases: the patients are the units of analysis.
    """
    level, scores = 1.0 - 2.0 * protocol.endpoints.alpha_per_look, cases.subjects[subject].probabilities
    alone = replace(cases.subjects[subject], probabilities=np.full_like(scores, 0.5))
    against = replace(cases, subjects={"original": alone, "composite": cases.subjects[subject]})
    change = _change("auroc", None, protocol, classes, against, level)
    estimate, lower, upper = (0.5 + d for d in (change.estimate, *change.interval))
    limit = f"lower {percent(level)} limit"
    if lower >= floor:
        verdict, text = Verdict.PASS, f"{limit} {apart(lower, 'reaches', floor, '%')}"
    elif estimate < floor:
        verdict, text = Verdict.FAIL, f"AUROC {apart(estimate, 'is below', floor, '%')}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"{limit} {apart(lower, 'does not reach', floor, '%')}"
    return Endpoint(
        name=name,
        kind="clean_floor",
        verdict=verdict,
        estimate=estimate,
        lower=lower,
        upper=upper,
        level=level,
        limit=floor,
        n=change.cases,
        patients=change.patients,
        table=(),
        smallest_margin=None,
        needed=None,
        method=change.method,
        justification="",
        reason=f"{name}: {text} (n = {change.cases})",
    )


def _change(
    metric: str, finding: int | None, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, level: float
) -> Difference:
    """New minus old; the widest limits there are where too few patients allow no estimate."""
    try:
        if cases.multilabel:
            return finding_difference(metric, finding, cases, level)
        return _estimated(metric, protocol, classes, cases, level)
    except RangeError:
        far = 2.0 if metric in ("brier", "quadratic_kappa") and not cases.multilabel else 1.0
        far = float(len(classes) - 1) if metric == "grade_error" else far
        method = "not estimated: it takes cases of two patients or more in every class"
        people = len(set(cases.patient))
        everything = (-far, far)
        return Difference(0.0, everything, level, 0.0, 1.0, len(cases.case), people, method, degenerate=True)


def _too_few(metric: str, finding: int | None, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> str:
    """Why an AUROC can't pass on so few patients of a class, or nothing."""
    if "auroc" not in metric:
        return ""
    owners = [
        (count, side, classes[k])
        for k in _targets(finding, protocol, classes, cases)
        for count, side in zip(_patients(k, cases), ("with", "without"), strict=True)
    ]
    fewest, side, name = min(owners)
    if fewest >= FEWEST_PATIENTS:
        return ""
    return f"it takes {FEWEST_PATIENTS} patients with {name} and as many without, there are {fewest} {side}"


def _graded(name: str, grades: int, cases: CaseTable) -> npt.NDArray[np.int64]:
    """(N,) a subject's answers; a case that is not answered counts as the grade that is furthest off."""
    answered, truth = cases.subjects[name].predicted, cases.label
    return np.where(answered < 0, np.where(2 * truth >= grades, 0, grades - 1), answered)


def _targets(finding: int | None, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> list[int]:
    """Whose AUROC counts: a finding's or all findings', the positive one of two classes, or each class."""
    if finding is not None:
        return [finding]
    if cases.multilabel or len(classes) > 2:
        return list(range(len(classes)))
    return [classes.index(protocol.task.positive) if protocol.task.positive is not None else 1]


def _patients(k: int, cases: CaseTable) -> tuple[int, int]:
    """How many patients have the class or finding, and how many lack it."""
    rows = cases.known[:, k] if cases.multilabel else np.ones(len(cases.label), dtype=np.bool_)
    return class_patients(_positive(k, cases)[rows], np.asarray(cases.patient)[rows].tolist())


def _positive(k: int, cases: CaseTable) -> npt.NDArray[np.bool_]:
    """(N,) who has the class or finding."""
    return np.asarray(cases.label[:, k] == 1 if cases.multilabel else cases.label == k)


def _estimated(metric: str, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, level: float) -> Difference:
    if metric == "balanced_accuracy":
        before, after = cases.right("original"), cases.right("composite")
        return balanced_accuracy_difference(
            after & ~before, before & ~after, cases.label, level=level, patients=cases.patient
        )
    if metric in ("grade_error", "quadratic_kappa"):
        graded = [_graded(name, len(classes), cases) for name in ("composite", "original")]
        difference = grade_error_difference if metric == "grade_error" else quadratic_kappa_difference
        return difference(graded[0], graded[1], cases.label, len(classes), level=level, patients=cases.patient)
    # The table's check allows a rounding error below 0.
    new, old = (np.maximum(cases.subjects[name].probabilities, 0.0) for name in ("composite", "original"))
    if metric == "brier":
        return brier_difference(new, old, cases.label, level=level, patients=cases.patient)
    targets = _targets(None, protocol, classes, cases)
    if len(targets) == 1:
        [k] = targets
        return auroc_difference(new[:, k], old[:, k], _positive(k, cases), level=level, patients=cases.patient)
    each = np.stack([_positive(k, cases) for k in targets], axis=1)
    return macro_auroc_difference(new, old, each, level=level, patients=cases.patient)


def _verdict(change: Difference, margin: float, rises: bool) -> tuple[Verdict, str]:
    """On a scale where a loss is negative, whichever way the metric runs."""
    unit = "" if rises else "pp"
    lower, upper = change.interval
    limit = f"{'upper' if rises else 'lower'} {percent(change.level)} limit"
    deciding, bound = (upper, margin) if rises else (lower, -margin)
    side, other = ("is below", "is above") if rises else ("is above", "is below")
    loss = change.estimate if rises else -change.estimate
    if (deciding < bound) if rises else (deciding > bound):
        return Verdict.PASS, f"{limit} {apart(deciding, side, bound, unit)}"
    if loss >= margin:
        return Verdict.FAIL, uses_up(change.estimate, margin, unit)
    return Verdict.INCONCLUSIVE, f"{limit} {apart(deciding, other, bound, unit)}"


def _plan(change: Difference, margin: float, rises: bool) -> tuple[float | None, int | None]:
    """Smallest margin that the cases show with power .80 if nothing is lost, and cases that show the protocol's.

    The limit's distance from the estimate falls with the root of the cases, and its least part, for what no sample
    holds, with their number.
    """
    if change.error is None:
        return _plan_by_width(change, margin)
    lower, upper = change.interval
    distance = upper - change.estimate if rises else change.estimate - lower
    if distance <= change.least * (1.0 + abs(change.estimate)):  # the least part decided
        distance = NormalDist().inv_cdf(0.5 + change.level / 2.0) * change.error
    power = NormalDist().inv_cdf(_POWER) * change.error

    def shown(times: float) -> float:
        return max(distance / math.sqrt(times), change.least / times) + power / math.sqrt(times)

    low, high = 0.0, 1.0
    while shown(high) > margin:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if middle == 0.0 or shown(middle) > margin else (low, middle)
    return shown(1.0), math.ceil(change.cases * high - 1e-9)


def _plan_by_width(change: Difference, margin: float) -> tuple[float | None, int | None]:
    """The same from the interval's width alone; none where nothing varied."""
    if change.degenerate:
        return None, None
    z = NormalDist().inv_cdf(0.5 + change.level / 2.0)
    half = (change.interval[1] - change.interval[0]) / 2.0
    smallest = half * (z + NormalDist().inv_cdf(_POWER)) / z
    return smallest, math.ceil(change.cases * (smallest / margin) ** 2)
