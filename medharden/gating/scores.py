"""The endpoints beyond counts on which the protocol may ask for non-inferiority: balanced accuracy, AUROC, Brier.

None of them gates alone: accuracy and every class's recall are always there too. Where nothing varied, the limits rest
on the number of patients, so that equal scores of few patients don't pass.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from medharden.errors import RangeError
from medharden.gating.findings import finding_difference
from medharden.gating.words import apart, percent
from medharden.protocol import Margin, Protocol
from medharden.record import CaseTable, Endpoint, Verdict
from medharden.stats import (
    Difference,
    auroc_difference,
    balanced_accuracy_difference,
    brier_difference,
    macro_auroc_difference,
)

__all__ = ["score_endpoint"]

_POWER = 0.8


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
    rises, level = wanted.metric == "brier", 1.0 - 2.0 * alpha
    change = _change(wanted.metric, finding, protocol, classes, cases, level)
    verdict, text = _verdict(change, wanted.margin, rises)
    smallest, needed = _plan(change, wanted.margin)
    patients = "" if change.patients == change.cases else f" of {change.patients} patients"
    text = f"{name}: {text} (n = {change.cases}{patients})"
    if verdict is Verdict.INCONCLUSIVE and needed is not None and needed > change.cases:
        text += f"; not shown: needs about {needed} cases at this variance"
    return Endpoint(
        name=name,
        kind="brier" if rises else "noninferiority",
        verdict=verdict,
        estimate=change.estimate,
        lower=change.interval[0],
        upper=change.interval[1],
        level=level,
        limit=wanted.margin if rises else -wanted.margin,
        n=change.cases,
        patients=change.patients,
        table=(),
        smallest_margin=smallest,
        needed=needed,
        method=change.method,
        justification=wanted.justification or "",
        reason=text,
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
        far = 2.0 if metric == "brier" and not cases.multilabel else 1.0
        method = "not estimated: it takes cases of two patients or more in every class"
        people = len(set(cases.patient))
        return Difference(0.0, (-far, far), level, 0.0, 1.0, len(cases.case), people, method, degenerate=True)


def _estimated(metric: str, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, level: float) -> Difference:
    if metric == "balanced_accuracy":
        before, after = cases.right("original"), cases.right("composite")
        return balanced_accuracy_difference(
            after & ~before, before & ~after, cases.label, level=level, patients=cases.patient
        )
    # The table's check allows a rounding error below 0.
    new, old = (np.maximum(cases.subjects[name].probabilities, 0.0) for name in ("composite", "original"))
    if metric == "brier":
        return brier_difference(new, old, cases.label, level=level, patients=cases.patient)
    if len(classes) == 2:
        positive = classes.index(protocol.task.positive) if protocol.task.positive is not None else 1
        truth = cases.label == positive
        return auroc_difference(new[:, positive], old[:, positive], truth, level=level, patients=cases.patient)
    each = cases.label[:, None] == np.arange(len(classes))
    return macro_auroc_difference(new, old, each, level=level, patients=cases.patient)


def _verdict(change: Difference, margin: float, rises: bool) -> tuple[Verdict, str]:
    """On a scale where a loss is negative, whichever way the metric runs."""
    lower, upper = change.interval
    limit = f"{'upper' if rises else 'lower'} {percent(change.level)} limit"
    deciding, bound = (upper, margin) if rises else (lower, -margin)
    side, other = ("is below", "is above") if rises else ("is above", "is below")
    loss = change.estimate if rises else -change.estimate
    if (deciding < bound) if rises else (deciding > bound):
        return Verdict.PASS, f"{limit} {apart(deciding, side, bound)}"
    if loss >= margin:
        return Verdict.FAIL, f"the observed change {change.estimate:.3f} uses up the margin of {margin:g}"
    return Verdict.INCONCLUSIVE, f"{limit} {apart(deciding, other, bound)}"


def _plan(change: Difference, margin: float) -> tuple[float | None, int | None]:
    """Smallest margin and cases needed, from the interval's width; none where nothing varied."""
    if change.degenerate:
        return None, None
    z = NormalDist().inv_cdf(0.5 + change.level / 2.0)
    half = (change.interval[1] - change.interval[0]) / 2.0
    smallest = half * (z + NormalDist().inv_cdf(_POWER)) / z
    return smallest, math.ceil(change.cases * (smallest / margin) ** 2)
