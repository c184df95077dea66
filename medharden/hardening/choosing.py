"""Which fusion weight is released: robust, and shown by validation to be non-inferior, or close to the safest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medharden.protocol import Protocol
from medharden.record import Finding, FrontierPoint
from medharden.stats import noninferiority_test

__all__ = ["LEAST_CHOSEN", "Part", "choose", "gated_parts"]

# At a weight a the branch's probability of the truth has to stay above 1 / (2a) under attack, whatever the clean path
# says. Below .7 that is more than many a robust answer has: such weights are drawn and not chosen.
LEAST_CHOSEN = 0.7
_KEPT = 0.95  # of the most robust weight's accuracy under attack, by one standard error


@dataclass(frozen=True)
class Part:
    """The validation cases that an endpoint is about, and its margin."""

    rows: npt.NDArray[np.intp]
    margin: float


def gated_parts(labels: Tensor, protocol: Protocol, classes: tuple[str, ...]) -> tuple[Part, ...]:
    """All cases for accuracy and, where classes are asked for their recall, those of each class.

    Args:
        labels: (N,) classes, or (N, L) findings, of the validation cases.
        protocol: margins.
        classes: in the order of the model's outputs.
    """
    margins, truth = {m.metric: m for m in protocol.endpoints.noninferiority}, labels.cpu().numpy()
    parts = [Part(np.arange(len(truth)), margins["accuracy"].margin)]
    if truth.ndim == 1:
        for k in np.unique(truth):
            bound = margins["recall"].of(protocol.task.recall_name(classes, k), classes[k])
            parts.append(Part(np.flatnonzero(truth == k), bound.margin))
    return tuple(parts)


def choose(
    points: tuple[FrontierPoint, ...],
    right: dict[float, npt.NDArray[np.bool_]],
    parts: tuple[Part, ...],
    patients: npt.NDArray[np.str_],
    alpha: float,
) -> tuple[float, tuple[Finding, ...]]:
    """The preferred weight of those at which accuracy and each class's recall are shown non-inferior on validation.

    Where a small validation split shows it for none, the preferred one of those that in each of them are within one
    standard error of the safest weight: the one-standard-error rule (Breiman et al. 1984, section 3.4.3) on the paired
    difference, by patient. A case or two of a few hundred do not tell weights apart, and robustness is not given up
    for them. The safest weight is the one whose worst limit lies least below its margin.

    Args:
        points: what each weight gave.
        right: for each weight which cases are answered rightly; weight 0 is the original.
        parts: of `gated_parts`.
        patients: (N,) of the cases.
        alpha: one-sided level.
    """
    points = tuple(p for p in points if p.weight >= LEAST_CHOSEN)
    slack = {
        p.weight: min(_slack(right[p.weight], right[0.0], part, patients, alpha) for part in parts) for p in points
    }
    holding = [p for p in points if slack[p.weight] > 0]
    if holding:
        return _preferred(holding).weight, ()
    most = max(slack.values())
    safest = right[_preferred([p for p in points if slack[p.weight] == most]).weight]
    near = [p for p in points if all(_within_one_error(right[p.weight], safest, part, patients) for part in parts)]
    chosen = _preferred(near)
    message = (
        f"On {chosen.cases} validation cases no fusion weight shows non-inferiority of accuracy and, where classes "
        f"are gated by it, of each one's recall at the protocol's margins (the best misses one by {-most:.3f}); a "
        "robust weight within one standard error of the safest was taken."
    )
    return chosen.weight, (Finding("fusion.not_shown_on_validation", "warning", message),)


def _slack(
    now: npt.NDArray[np.bool_],
    before: npt.NDArray[np.bool_],
    part: Part,
    patients: npt.NDArray[np.str_],
    alpha: float,
) -> float:
    """How far the lower limit of the change lies above -margin; below 0 it is not shown."""
    now, before = now[part.rows], before[part.rows]
    test = noninferiority_test(
        now & ~before, before & ~now, margin=part.margin, alpha=alpha, patients=patients[part.rows].tolist()
    )
    return test.interval[0] + part.margin


def _preferred(points: list[FrontierPoint]) -> FrontierPoint:
    """Of those that keep nearly all of the most robust one's accuracy under attack, the smallest weight.

    It changes the original's answers least, on cases unlike those of validation too. Net right answers on validation
    do not tell weights apart: they came first once, and one case more of 78 released .99 for .8.
    """
    most = max(p.robust for p in points)
    return min((p for p in points if _keeps_enough(p, most)), key=lambda p: p.weight)


def _keeps_enough(point: FrontierPoint, most: float) -> bool:
    """Whether the kept share of what stands at the most robust weight, less its standard error, is at least 95 %."""
    if point.robust >= most:
        return True
    kept = point.robust / most
    return kept - math.sqrt(kept * (1 - kept) / (most * point.attacked)) >= _KEPT


def _within_one_error(
    mine: npt.NDArray[np.bool_], safest: npt.NDArray[np.bool_], part: Part, patients: npt.NDArray[np.str_]
) -> bool:
    """Whether it falls behind the safest weight by at most one standard error of their paired difference."""
    change = mine[part.rows].astype(int) - safest[part.rows].astype(int)
    _, patient = np.unique(patients[part.rows], return_inverse=True)
    error = float(np.sqrt((np.bincount(patient, weights=change) ** 2).sum()))
    return bool(-change.sum() <= error)
