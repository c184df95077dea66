"""Rows of the sanity curves, and what they were checked for."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record import Evaluation, SanityPoint
from medharden.reporting.numbers import percent, percent_interval
from medharden.reporting.score_charts import sanity_value
from medharden.reporting.source import COMPARED
from medharden.stats import wilson_interval

__all__ = ["SanityCheck", "SanityRow", "sanity_checks", "sanity_rows"]

_CHECKS = (
    ("sanity.whole_range_survived", "A budget of the whole input range leaves about nothing standing"),
    (
        "sanity.accuracy_rises",
        "Neither a larger budget nor more steps leave more standing, but for one case or a tenth by chance",
    ),
    ("sanity.transfer_beats_white_box", "Transferred perturbations win on few cases that the white-box suite missed"),
)


@dataclass(frozen=True)
class SanityRow:
    """One point of a curve, formatted: what the attack had, and for each compared model share standing and interval."""

    name: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SanityCheck:
    """One thing a sound attack shows, and whether it did."""

    text: str
    held: bool


def sanity_rows(points: tuple[SanityPoint, ...]) -> tuple[SanityRow, ...]:
    """Both curves, as tables can hold them."""
    rows = []
    for sweep in ("eps", "steps"):
        curves = {s: [p for p in points if p.sweep == sweep and p.subject == s] for s in COMPARED}
        first = curves[COMPARED[0]]
        for i, point in enumerate(first):
            name = _named(sweep, sanity_value(point, first))
            rows.append(SanityRow(name, tuple(_cell(curves[s][i]) for s in COMPARED)))
    return tuple(rows)


def _named(sweep: str, value: str) -> str:
    if sweep == "steps":
        return f"{value} step{'' if value == '1' else 's'}"
    return "the whole input range" if value == "all" else f"{value} × the budget"


def _cell(point: SanityPoint) -> tuple[str, str]:
    return percent(point.robust / point.cases), percent_interval(wilson_interval(point.robust, point.cases))


def sanity_checks(evaluation: Evaluation) -> tuple[SanityCheck, ...]:
    """What the evaluation's findings say of the curves; nothing where none were measured."""
    if not evaluation.sanity:
        return ()
    warned = {f.code for f in evaluation.findings}
    return tuple(SanityCheck(text, code not in warned) for code, text in _CHECKS)
