"""Sensitivity where specificity is fixed, and the reverse: each model at its own threshold, from validation.

The thresholds were fixed before the test split was opened, so on it each model answers by a rule that is given, and the
limits are those of any paired difference. What they don't hold is how the thresholds would fall on other validation
cases: the claim is of these two models at these two thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medharden.gating.groups import Flags
from medharden.gating.paired import compare, noninferiority
from medharden.gating.units import on_enough_units
from medharden.gating.words import number
from medharden.protocol import Bound, OperatingPoint, Protocol
from medharden.record import CaseTable, Endpoint, Evaluation, OperatingThreshold

__all__ = ["operating_endpoints", "operating_problems"]

_OTHER = {"specificity": "sensitivity", "sensitivity": "specificity"}
_SUBJECTS = ("original", "composite")


def operating_problems(protocol: Protocol, evaluation: Evaluation) -> Iterator[str]:
    """One sentence for each operating point for which the evaluation holds no thresholds."""
    known = {(found.fixed, found.at) for found in evaluation.operating_points}
    for point in protocol.endpoints.operating_points:
        if (point.fixed, point.at) not in known:
            yield f"evaluation.json holds no thresholds for {point.fixed} {point.at:g} from validation; evaluate again"


def operating_endpoints(
    protocol: Protocol, thresholds: tuple[OperatingThreshold, ...], classes: tuple[str, ...], cases: CaseTable
) -> Iterator[Endpoint]:
    """Two endpoints a point: the side that is compared, and what the fixed side comes to on the test split.

    Args:
        protocol: the points, the positive class, alpha, what a referred case counts as.
        thresholds: of each point, from validation.
        classes: in the order of the model's outputs.
        cases: the patients are the units of analysis.
    """
    if not protocol.endpoints.operating_points:
        return
    found = {(one.fixed, one.at): one for one in thresholds}
    positive = cases.label == classes.index(protocol.task.positive or "")
    k = classes.index(protocol.task.positive or "")
    for point in protocol.endpoints.operating_points:
        at = found[point.fixed, point.at]
        limits = {"original": at.original, "composite": at.composite}
        right = [_right(name, limits[name], k, positive, protocol, cases) for name in _SUBJECTS]
        for side, margin in ((_OTHER[point.fixed], point.margin), (point.fixed, point.held_margin or point.margin)):
            yield _endpoint(side, point, margin, right, positive, protocol, cases, at)


def _endpoint(
    side: str,
    point: OperatingPoint,
    margin: float,
    right: list[Flags],
    positive: Flags,
    protocol: Protocol,
    cases: CaseTable,
    at: OperatingThreshold,
) -> Endpoint:
    rows = positive if side == "sensitivity" else ~positive
    name = f"{side}_at_{point.key}"
    alpha = protocol.endpoints.alpha_per_look
    bound = Bound(margin=margin, justification=point.justification)
    pair = compare(right[0], right[1], rows, cases, margin, alpha)
    endpoint = on_enough_units(noninferiority(name, name, pair, alpha, bound))
    other = [number(float(np.mean(flags[rows])), 1, "%") for flags in right[:2]]
    method = (
        f"{endpoint.method}; thresholds from validation, original {at.original:.4g} and release {at.composite:.4g}, "
        f"where {side} on test is {other[0]} and {other[1]}"
    )
    return replace(endpoint, method=method, role=point.role)


def _right(name: str, limit: float, k: int, positive: Flags, protocol: Protocol, cases: CaseTable) -> Flags:
    """(N,) whether a model's call at its threshold is right; a referred case counts as the protocol says."""
    subject = cases.subjects[name]
    right: Flags = (subject.probabilities[:, k] >= limit) == positive
    counts_as = protocol.fusion.referred.counts_as
    if counts_as != "model_answer":
        right = np.where(subject.referred, counts_as == "right", right)
    return right
