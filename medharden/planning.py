"""`plan()`: what a number of cases can show of a protocol's margins, before any of them is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medharden.errors import RangeError
from medharden.protocol import Margin, Protocol
from medharden.stats import cases_needed, power_to_show, smallest_margin

__all__ = ["Plan", "PlanRow", "plan"]

POWER = 0.8
_COUNTED = ("accuracy", "recall")


@dataclass(frozen=True)
class PlanRow:
    """One endpoint of counts.

    Attributes:
        endpoint: such as `accuracy` or `sensitivity`.
        margin: the protocol's.
        needed: cases that show the margin with power .80.
        cases: at hand, or null where nobody said.
        smallest_margin: what these cases show with power .80.
        power: the chance that these cases show the protocol's margin.
    """

    endpoint: str
    margin: float
    needed: int
    cases: int | None
    smallest_margin: float | None
    power: float | None


@dataclass(frozen=True)
class Plan:
    """What the cases can show, if the true difference is 0.

    Attributes:
        discordance: share of cases that the two models answer with different success, as assumed.
        unplanned: endpoints whose power does not follow from counts.
    """

    alpha: float
    discordance: float
    rows: tuple[PlanRow, ...]
    unplanned: tuple[str, ...]


def plan(protocol: Protocol, counts: Mapping[str, int], *, cases: int | None, discordance: float) -> Plan:
    """Plans every endpoint of counts; all must pass, so the chance of all together is no larger than the smallest.

    Args:
        protocol: margins and alpha.
        counts: test cases of each class, or with each finding, by name; empty where only their number is known.
        cases: test cases in all, or null.
        discordance: psi in [0, 1], from an earlier comparison.

    Raises:
        RangeError: a discordance outside [0, 1], or classes of more cases than there are.
    """
    findings, alpha = protocol.task.multilabel, protocol.endpoints.alpha_per_look
    if cases is not None and not findings and sum(counts.values()) > cases:
        raise RangeError(f"expected classes that add up to {cases} cases at most, got {sum(counts.values())}")
    rows = []
    for wanted in protocol.endpoints.noninferiority:
        if wanted.metric == "accuracy":
            rows.append(_row("accuracy", wanted.margin, cases, alpha, discordance))
        elif wanted.metric == "recall" and findings:
            rows += _of_findings(wanted, protocol, counts, cases, discordance)
        elif wanted.metric == "recall":
            named: Mapping[str, int | None] = counts or {"of each class": None}
            rows += [
                _row(
                    _recall(protocol, name, len(named)),
                    wanted.margin,
                    n,
                    protocol.endpoints.alpha_per_look,
                    discordance,
                )
                for name, n in named.items()
            ]
    unplanned = tuple(m.metric for m in protocol.endpoints.noninferiority if m.metric not in _COUNTED)
    return Plan(alpha, discordance, tuple(rows), unplanned)


def _of_findings(
    wanted: Margin, protocol: Protocol, counts: Mapping[str, int], cases: int | None, discordance: float
) -> list[PlanRow]:
    """Sensitivity over the cases with a finding, specificity over those without, of each finding that is asked of."""
    rows = []
    for name in wanted.findings or protocol.task.classes or ():
        held = counts.get(name)
        free = None if held is None or cases is None else cases - held
        for metric, n in (("sensitivity", held), ("specificity", free)):
            rows.append(_row(f"{metric} {name}", wanted.margin, n, protocol.endpoints.alpha_per_look, discordance))
    return rows


def _recall(protocol: Protocol, name: str, classes: int) -> str:
    if classes != 2 or protocol.task.positive is None:
        return f"recall {name}"
    return f"sensitivity ({name})" if name == protocol.task.positive else f"specificity ({name})"


def _row(endpoint: str, margin: float, cases: int | None, alpha: float, discordance: float) -> PlanRow:
    needed = cases_needed(discordance, margin, alpha=alpha, power=POWER)
    if cases is None:
        return PlanRow(endpoint, margin, needed, None, None, None)
    smallest = smallest_margin(cases, discordance, alpha=alpha, power=POWER)
    power = power_to_show(cases, discordance, margin, alpha=alpha)
    return PlanRow(endpoint, margin, needed, cases, smallest, power)
