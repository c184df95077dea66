"""`plan()`: what a number of cases can show of a protocol's margins, before any of them is answered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from medharden.errors import RangeError
from medharden.protocol import Margin, Protocol
from medharden.stats import cases_needed, joint_power, power_to_show, smallest_margin

__all__ = ["Plan", "PlanRow", "plan"]

POWER = 0.8
_COUNTED = ("accuracy", "recall")


@dataclass(frozen=True)
class PlanRow:
    """One endpoint of counts.

    Attributes:
        endpoint: such as `accuracy` or `sensitivity`.
        margin: the protocol's.
        needed: cases that show the margin with power .80; null where the expected loss uses it up.
        cases: at hand, or null where nobody said.
        smallest_margin: what these cases show with power .80.
        power: the chance that these cases show the protocol's margin.
    """

    endpoint: str
    margin: float
    needed: int | None
    cases: int | None
    smallest_margin: float | None
    power: float | None


@dataclass(frozen=True)
class Plan:
    """What the cases can show at one look.

    Attributes:
        alpha: what is left to each look.
        discordance: share of cases that the two models answer with different success, as assumed.
        loss: share that is truly lost, as assumed: lost less gained.
        unplanned: endpoints whose power does not follow from counts.
        joint: the chance that all planned endpoints are shown in one split; null where not all cases are known.
        joint_least: what that chance is at least, however the endpoints depend on each other (Bonferroni).
    """

    alpha: float
    discordance: float
    rows: tuple[PlanRow, ...]
    unplanned: tuple[str, ...]
    loss: float = 0.0
    joint: float | None = None
    joint_least: float | None = None


@dataclass(frozen=True)
class _Assumed:
    alpha: float
    discordance: float
    loss: float


def plan(
    protocol: Protocol,
    counts: Mapping[str, int],
    *,
    cases: int | None,
    discordance: float,
    loss: float = 0.0,
    masked: Mapping[str, int] | None = None,
) -> Plan:
    """Plans every endpoint of counts, each by itself and all together, since all must pass.

    Args:
        protocol: margins, alpha and looks.
        counts: test cases of each class, or with each finding, by name; empty where only their number is known.
        cases: test cases in all, or null.
        discordance: psi in [0, 1], from an earlier comparison.
        loss: the share that is truly lost, of all cases and of each class; no more than the discordance.
        masked: of how many cases nobody knows each finding; null where all are known.

    Raises:
        RangeError: a discordance or loss outside its range, or classes of more cases than there are.
    """
    if not 0.0 <= loss <= discordance:
        raise RangeError(
            f"an expected loss of {loss:g} needs as large a share of discordant cases, and none below 0; got "
            f"{discordance:g}"
        )
    findings = protocol.task.multilabel
    if cases is not None and not findings and sum(counts.values()) > cases:
        raise RangeError(f"expected classes that add up to {cases} cases at most, got {sum(counts.values())}")
    assumed = _Assumed(protocol.endpoints.alpha_per_look, discordance, loss)
    rows: list[PlanRow] = []
    whole = None
    for wanted in protocol.endpoints.noninferiority:
        if wanted.metric == "accuracy":
            whole = _row("accuracy", wanted.margin, cases, assumed)
            rows.append(whole)
        elif wanted.metric == "recall" and findings:
            rows += _of_findings(wanted, protocol, counts, cases, masked or {}, assumed)
        elif wanted.metric == "recall":
            rows += _of_classes(wanted, protocol, counts, assumed)
    unplanned = tuple(m.metric for m in protocol.endpoints.noninferiority if m.metric not in _COUNTED)
    parts = [row for row in rows if row is not whole]
    split = not findings and cases is not None and sum(counts.values()) == cases
    joint, least = _together(whole, parts, assumed, split=split)
    return Plan(assumed.alpha, discordance, tuple(rows), unplanned, loss, joint, least)


def _together(
    whole: PlanRow | None, parts: list[PlanRow], assumed: _Assumed, *, split: bool
) -> tuple[float | None, float | None]:
    """The chance that all are shown, and its lower bound; `split` says that the parts make up the whole."""
    rows = [*parts, *([whole] if whole else [])]
    powers = [row.power for row in rows if row.power is not None]
    if not rows or len(powers) < len(rows):
        return None, None
    least = max(0.0, 1.0 - sum(1.0 - power for power in powers))
    if not split or whole is None:
        return math.prod(powers), least
    counted = [(row.cases or 0, row.margin) for row in parts]
    joint = joint_power(counted, whole.margin, assumed.discordance, alpha=assumed.alpha, loss=assumed.loss)
    return joint, least


def _of_classes(wanted: Margin, protocol: Protocol, counts: Mapping[str, int], assumed: _Assumed) -> list[PlanRow]:
    """The recall of each class by name, or of any class where their cases are not known."""
    if not counts:
        margins = {wanted.margin, *(bound.margin for bound in wanted.by_class.values())}
        return [_row("recall of each class", margin, None, assumed) for margin in sorted(margins)]
    rows = []
    for name, n in counts.items():
        side = _side(protocol, name, len(counts))
        keys = (side, name) if side else (f"recall:{name}", name)
        rows.append(_row(f"{side} ({name})" if side else f"recall {name}", wanted.of(*keys).margin, n, assumed))
    return rows


def _of_findings(
    wanted: Margin,
    protocol: Protocol,
    counts: Mapping[str, int],
    cases: int | None,
    masked: Mapping[str, int],
    assumed: _Assumed,
) -> list[PlanRow]:
    """Sensitivity over the cases with a finding, specificity over those without, of each finding that is asked of."""
    rows = []
    for name in wanted.findings or protocol.task.classes or ():
        held = counts.get(name)
        free = None if held is None or cases is None else cases - held - masked.get(name, 0)
        for side, n in (("sensitivity", held), ("specificity", free)):
            margin = wanted.of(f"{side}:{name}", name, side).margin
            rows.append(_row(f"{side} {name}", margin, n, assumed))
    return rows


def _side(protocol: Protocol, name: str, classes: int) -> str:
    if classes != 2 or protocol.task.positive is None:
        return ""
    return "sensitivity" if name == protocol.task.positive else "specificity"


def _row(endpoint: str, margin: float, cases: int | None, assumed: _Assumed) -> PlanRow:
    given = {"alpha": assumed.alpha, "loss": assumed.loss}
    needed = cases_needed(assumed.discordance, margin, power=POWER, **given) if assumed.loss < margin else None
    if cases is None:
        return PlanRow(endpoint, margin, needed, None, None, None)
    smallest = smallest_margin(cases, assumed.discordance, power=POWER, **given)
    return PlanRow(
        endpoint, margin, needed, cases, smallest, power_to_show(cases, assumed.discordance, margin, **given)
    )
