"""Accuracy over budgets below and above the protocol's, and the area under it: figures beside the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from medharden.record import CURVE_RATIOS, CaseTable, CurvePoint
from medharden.reporting.accuracy import exact_share, gate_level, unit_table
from medharden.reporting.numbers import percent, percent_interval, points, points_interval
from medharden.reporting.robust import subject_label
from medharden.reporting.score_charts import subject_key
from medharden.reporting.source import COMPARED, RunRecords
from medharden.reporting.svg import COLOURS, style_axes, to_svg
from medharden.stats import MeanArea, case_areas, mean_area

__all__ = ["AreaRow", "CurveRow", "area_rows", "curve_chart", "curve_json", "curve_rows"]

_WIDTH = 5.0
_BASE = {"font.size": 9.0, "text.parse_math": False}
_LOOKS = {"original": ("original", "o", (0, (4, 2))), "composite": ("released", "D", "-")}
_ENDS = (1.0, 2.0)  # in multiples of the protocol's budget: weaker adversaries alone, and as many stronger ones


@dataclass(frozen=True)
class CurveRow:
    """One budget, formatted: each compared model's share that stands, and its interval by patient."""

    budget: str
    attack: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AreaRow:
    """The area under each model's curve from 0 to one budget, and its change, with intervals by patient."""

    upto: str
    cells: tuple[tuple[str, str], ...]


def curve_rows(records: RunRecords) -> tuple[CurveRow, ...]:
    """A row a budget; nothing where no curve was measured."""
    table = _measured(records)
    if table is None:
        return ()
    by_ratio = {p.ratio: p for p in records.evaluation.curve}
    return tuple(
        CurveRow(_budget(by_ratio[r]), by_ratio[r].attack, tuple(_share(table, s, r, records) for s in COMPARED))
        for r in (0.0, *CURVE_RATIOS)
    )


def area_rows(records: RunRecords) -> tuple[AreaRow, ...]:
    """Expected robustness over weaker budgets alone, and over weaker and stronger ones."""
    rows = []
    for upto, (original, released, change) in _areas(records):
        cells = [(percent(a.estimate), percent_interval((a.lower, a.upper))) for a in (original, released)]
        cells.append((points(change.estimate), points_interval((change.lower, change.upper))))
        rows.append(AreaRow("the protocol's budget" if upto == 1 else f"{upto:g} times the budget", tuple(cells)))
    return tuple(rows)


def curve_json(records: RunRecords) -> dict[str, Any]:
    """Points and areas as plain JSON values; nothing where no curve was measured."""
    areas = [
        {"upto": upto, "original": asdict(first), "composite": asdict(second), "change": asdict(change)}
        for upto, (first, second, change) in _areas(records)
    ]
    shown = [asdict(p) for p in records.evaluation.curve]
    return {"curve": {"points": shown, "expected_robustness": areas}} if shown else {}


def curve_chart(records: RunRecords) -> Markup | None:
    """Accuracy against the budget, with the budget that the verdict is on; None where no curve was measured."""
    table, height = _measured(records), 2.6
    if table is None:
        return None
    grid = (0.0, *CURVE_RATIOS)
    with mpl.rc_context(_BASE):
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_axes((0.11, 0.5 / height, 0.86, 1.62 / height))
        style_axes(axes, grid="y")
        for aside, name in zip((-0.012, 0.012), COMPARED, strict=True):
            colour, mark, line = _LOOKS[name]
            shares = [_exact(table, name, ratio, records) for ratio in grid]
            x = [ratio + aside for ratio in grid]
            for at, share in zip(x, shares, strict=True):
                limits = [100 * share.lower, 100 * share.upper]
                axes.plot([at, at], limits, color=COLOURS[colour], linewidth=1.2, alpha=0.6)
            heights = [100 * share.estimate for share in shares]
            axes.plot(x, heights, mark, linestyle=line, linewidth=1.6, markersize=5, color=COLOURS[colour])
        axes.axvline(1.0, color=COLOURS["ink"], linewidth=0.9)
        axes.annotate(
            "the verdict's", (1.0, 101), xytext=(4, 0), textcoords="offset points", va="bottom", color=COLOURS["ink"]
        )
        axes.set_xlim(-0.08, 2.08)
        axes.set_ylim(-3, 114)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_xticks(grid, [f"{ratio:g}" for ratio in grid])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f}%"))
        axes.set_xlabel("budget, times the protocol's")
        subject_key(figure, height)
    said = "; ".join(
        f"{subject_label(p.subject)}, {p.ratio:g} times the budget: {p.standing} of {p.cases}"
        for p in records.evaluation.curve
    )
    return to_svg(figure, "curve", f"Accuracy against the budget of the attack. {said}.")


def _measured(records: RunRecords) -> CaseTable | None:
    table = unit_table(records)
    if not records.evaluation.curve or table is None:
        return None
    return None if any(table.subjects[name].withstands is None for name in COMPARED) else table


def _areas(records: RunRecords) -> list[tuple[float, tuple[MeanArea, MeanArea, MeanArea]]]:
    table = _measured(records)
    if table is None:
        return []
    patients = [who for who, attacked in zip(table.patient, table.attacked.tolist(), strict=True) if attacked]
    level, found = gate_level(records), []
    for upto in _ENDS:
        first, second = (case_areas(_withstands(table, name)[table.attacked], CURVE_RATIOS, upto) for name in COMPARED)
        each = [mean_area(areas, patients, level=level) for areas in (first, second)]
        found.append((upto, (each[0], each[1], mean_area(second - first, patients, lowest=-1.0, level=level))))
    return found


def _withstands(table: CaseTable, name: str) -> Any:
    return table.subjects[name].withstands


def _exact(table: CaseTable, name: str, ratio: float, records: RunRecords) -> Any:
    return exact_share(_withstands(table, name) >= ratio, table.attacked, table, gate_level(records))


def _share(table: CaseTable, name: str, ratio: float, records: RunRecords) -> tuple[str, str]:
    share = _exact(table, name, ratio, records)
    return percent(share.estimate), percent_interval(share.interval)


def _budget(point: CurvePoint) -> str:
    return "no attack" if point.ratio == 0 else f"{point.ratio:g} × ({point.eps:.4g})"
