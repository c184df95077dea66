"""Rows on clean performance under ordinary corruptions: what each gained and lost, and what the gate made of it."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record import Endpoint, ShiftPoint
from medharden.reporting.limits import endpoint_numbers
from medharden.reporting.numbers import percent
from medharden.reporting.source import RunRecords
from medharden.reporting.wording import corruption_words, endpoint_label

__all__ = ["ShiftRow", "shift_rows"]

_DECIDES_NOTHING = "reported"


@dataclass(frozen=True)
class ShiftRow:
    """One metric under one corruption, formatted.

    Attributes:
        original: the original's accuracy, over all severities; empty for a class.
        counts: gained and lost at each severity; of a class over all severities.
        verdict: of the gate, or empty where the endpoint is reported and decides nothing.
    """

    corruption: str
    metric: str
    original: str
    counts: str
    change: str
    interval: str
    limit: str
    verdict: str


def shift_rows(records: RunRecords) -> tuple[ShiftRow, ...]:
    """A row for accuracy and one for each class under each corruption, in the gate's order."""
    points = records.evaluation.shift
    return tuple(
        _row(e, [p for p in points if p.corruption == e.name.split(":")[1]], records)
        for e in records.decision.endpoints
        if e.kind == "shift"
    )


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _row(e: Endpoint, points: list[ShiftPoint], records: RunRecords) -> ShiftRow:
    _, corruption, metric = e.name.split(":", 2)
    estimate, interval, limit = endpoint_numbers(e)
    overall = metric == "accuracy"
    cases = sum(p.cases for p in points)
    return ShiftRow(
        corruption=_start(corruption_words(corruption)),
        metric=endpoint_label(metric, records.evaluation.classes, records.protocol.task.positive),
        original=percent(sum(p.original_correct for p in points) / cases) if overall and cases else "",
        counts=", ".join(f"{p.gained}/{p.lost}" for p in points) if overall else f"{e.table[1]}/{e.table[2]}",
        change=estimate,
        interval=interval,
        limit=limit,
        verdict="" if e.role == _DECIDES_NOTHING else e.verdict.value,
    )
