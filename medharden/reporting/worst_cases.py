"""The endpoints under each worst case of what was left out: a row an endpoint, a column a worst case."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record import Endpoint, Verdict
from medharden.reporting.limits import endpoint_numbers
from medharden.reporting.naming import endpoint_name
from medharden.reporting.numbers import count
from medharden.reporting.source import RunRecords

__all__ = ["WorstCases", "WorstCell", "WorstRow", "worst_cases"]

_ARMS = {
    "against_release": "the release alone",
    "against_original": "the original alone",
    "against_both": "both",
}
"""Who lost every case that was left out."""


@dataclass(frozen=True)
class WorstCell:
    """An endpoint under one worst case, formatted; `turned` where its verdict is another than the decided one."""

    estimate: str
    interval: str
    cases: str
    verdict: Verdict
    turned: bool


@dataclass(frozen=True)
class WorstRow:
    """One endpoint: as decided, and under each worst case; None where it was not measured."""

    label: str
    limit: str
    decided: WorstCell | None
    cells: tuple[WorstCell | None, ...]


@dataclass(frozen=True)
class WorstCases:
    """The table and what it comes to.

    Attributes:
        arms: who lost the cases left out, a column each.
        rows: endpoints of which any number changes.
        unchanged: names of those on which no case that was left out can bear.
        turned: verdicts that a worst case turns, in words; empty where it turns none.
        methods: of the intervals, each once.
    """

    arms: tuple[str, ...]
    rows: tuple[WorstRow, ...]
    unchanged: tuple[str, ...]
    turned: tuple[str, ...]
    methods: tuple[str, ...]


def worst_cases(records: RunRecords) -> WorstCases | None:
    """None where no case was left out that can belong to the test split."""
    held: dict[str, dict[str, Endpoint]] = {}
    for e in records.decision.worst_case:
        arm, _, name = e.name.partition(":")
        held.setdefault(name, {})[arm] = e
    if not held:
        return None
    decided = {e.name: e for e in records.decision.endpoints}
    arms = tuple(arm for arm in _ARMS if any(arm in by_arm for by_arm in held.values()))
    rows, unchanged, turned = [], [], []
    for name, by_arm in held.items():
        before, label = decided.get(name), endpoint_name(name, records)
        if before is not None and all(_same(e, before) for e in by_arm.values()):
            unchanged.append(label)
            continue
        cells = tuple(None if arm not in by_arm else _cell(by_arm[arm], before) for arm in arms)
        limit = endpoint_numbers(next(iter(by_arm.values())))[2]
        rows.append(WorstRow(label, limit, None if before is None else _cell(before, before), cells))
        turned += [
            f"{label}: {before.verdict.value} as decided, {cell.verdict.value} had {_ARMS[arm]} lost them"
            for arm, cell in zip(arms, cells, strict=True)
            if before is not None and cell is not None and cell.turned
        ]
    methods = dict.fromkeys(e.method for e in records.decision.worst_case if e.method)
    return WorstCases(tuple(_ARMS[arm] for arm in arms), tuple(rows), tuple(unchanged), tuple(turned), tuple(methods))


def _same(e: Endpoint, before: Endpoint) -> bool:
    """Whether every number and the verdict are the decided ones."""
    return all(
        getattr(e, part) == getattr(before, part)
        for part in ("estimate", "lower", "upper", "limit", "n", "table", "verdict")
    )


def _cell(e: Endpoint, before: Endpoint | None) -> WorstCell:
    estimate, interval, _ = endpoint_numbers(e)
    cases = f"n = {count(e.n)}"
    if len(e.table) == 4:
        cases += f", {count(e.table[1])} gained, {count(e.table[2])} lost"
    return WorstCell(estimate, interval, cases, e.verdict, before is not None and e.verdict is not before.verdict)
