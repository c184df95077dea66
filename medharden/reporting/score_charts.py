"""Charts of scores and of attacks: ROC with operating points, reliability, and the sanity curves."""

from __future__ import annotations

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from medharden.record import SanityPoint
from medharden.reporting.numbers import percent
from medharden.reporting.robust import subject_label
from medharden.reporting.scores import Calibration, ScorePanel
from medharden.reporting.source import COMPARED
from medharden.reporting.svg import COLOURS, short, style_axes, to_svg
from medharden.stats import roc_curve, wilson_interval

__all__ = ["reliability_chart", "roc_chart", "sanity_chart", "sanity_value", "subject_key"]

_WIDTH = 5.0  # inches at 72 units an inch, as in the other charts
_BASE = {"font.size": 9.0, "text.parse_math": False}
_LOOKS = {"original": ("original", "o", (0, (4, 2))), "composite": ("released", "D", "-")}
_MOST_PANELS = 6


def roc_chart(panels: tuple[ScorePanel, ...]) -> Markup | None:
    """ROC of original and release, each with the point at which it answers; at most six classes, None without any."""
    shown = panels[:_MOST_PANELS]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    side = 2.6 if columns == 1 else (_WIDTH - 0.62) / columns - 0.32
    height = 0.3 + rows * (side + 0.64)
    with mpl.rc_context(_BASE):
        figure = Figure(figsize=(_WIDTH, height))
        for i, panel in enumerate(shown):
            left = (0.68 + (i % columns) * (side + 0.34)) / _WIDTH
            bottom = 1 - (0.5 + (i // columns) * (side + 0.64) + side) / height
            axes = figure.add_axes((left, bottom, side / _WIDTH, side / height))
            _roc_panel(axes, panel, ticks=i % columns == 0, longest=40 if columns == 1 else 30 - 5 * columns)
        subject_key(figure, height)
    said = "; ".join(
        f"{p.name}: "
        + ", ".join(
            f"{subject_label(s)} answers at sensitivity {percent(p.points[s][1])} and false positive rate "
            f"{percent(p.points[s][0])}"
            for s in COMPARED
        )
        for p in shown
    )
    return to_svg(figure, "roc", f"ROC curves on the clean test cases. {said}.")


def _roc_panel(axes: Axes, panel: ScorePanel, *, ticks: bool, longest: int) -> None:
    style_axes(axes, grid="both")
    axes.plot([0, 1], [0, 1], color=COLOURS["line"], linewidth=1)
    for name in COMPARED:
        colour, mark, line = _LOOKS[name]
        x, y = roc_curve(panel.scores[name], panel.positive)
        axes.plot(x, y, linestyle=line, linewidth=1.6, color=COLOURS[colour])
        axes.plot(*panel.points[name], mark, markersize=6, color=COLOURS[colour], mec=COLOURS["paper"], mew=0.8)
    _unit_axes(axes)
    if not ticks:
        axes.tick_params(labelleft=False)
    axes.set_title(short(panel.name, longest), loc="left", fontsize=9, color=COLOURS["ink"], pad=4)
    axes.set_xlabel("false positive rate")
    if ticks:
        axes.set_ylabel("sensitivity")


def _unit_axes(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.5, 1])
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f}%"))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)


def subject_key(figure: Figure, height: float) -> None:
    """The key above a chart that compares original and release; the height is the figure's, in inches."""
    for x, name in zip((0.11, 0.4), COMPARED, strict=True):
        colour, mark, line = _LOOKS[name]
        key = figure.add_axes((x, 1 - 0.22 / height, 0.07, 0.16 / height))
        key.axis("off")
        key.plot([0, 1], [0, 0], linestyle=line, linewidth=1.6, color=COLOURS[colour])
        key.plot(0.5, 0, mark, markersize=6, color=COLOURS[colour], mec=COLOURS["paper"], mew=0.8, clip_on=False)
        key.annotate(subject_label(name), (1.15, 0.5), xycoords="axes fraction", va="center", color=COLOURS["muted"])


def reliability_chart(what: str, found: tuple[Calibration, ...]) -> Markup | None:
    """What was predicted against the share observed, with 95 % Wilson intervals; None without cases."""
    if not found:
        return None
    side, height = 2.6, 3.45
    with mpl.rc_context(_BASE):
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_axes((0.68 / _WIDTH, 0.5 / height, side / _WIDTH, side / height))
        style_axes(axes, grid="both")
        axes.plot([0, 1], [0, 1], color=COLOURS["line"], linewidth=1)
        for aside, one in zip((-0.006, 0.006), found, strict=True):
            colour, mark, _ = _LOOKS[one.subject]
            x = [b.probability + aside for b in one.bins]
            for at, b in zip(x, one.bins, strict=True):
                axes.plot([at, at], list(b.interval), color=COLOURS[colour], linewidth=1.2, alpha=0.6)
            axes.plot(x, [b.happened for b in one.bins], mark, markersize=5, color=COLOURS[colour])
        _unit_axes(axes)
        axes.set_xlabel(f"predicted {short(what, 44)}")
        axes.set_ylabel("share observed")
        subject_key(figure, height)
    said = "; ".join(f"{subject_label(c.subject)}: expected calibration error {c.error:.3f}" for c in found)
    return to_svg(figure, "reliability", f"Reliability of the {what} on the clean test cases. {said}.")


def sanity_chart(points: tuple[SanityPoint, ...]) -> Markup | None:
    """Robust accuracy against the budget and against steps, with 95 % Wilson intervals; None where not measured."""
    if not points:
        return None
    height = 2.75
    with mpl.rc_context(_BASE):
        figure = Figure(figsize=(_WIDTH, height))
        for left, sweep, label in ((0.1, "eps", "budget, times the protocol's"), (0.6, "steps", "steps of the attack")):
            axes = figure.add_axes((left, 0.5 / height, 0.38, 1.75 / height))
            style_axes(axes, grid="y")
            held = [p for p in points if p.sweep == sweep]
            for aside, name in zip((-0.05, 0.05), COMPARED, strict=True):
                _sanity_curve(axes, [p for p in held if p.subject == name], name, aside)
            ticks = [p for p in held if p.subject == held[0].subject]
            axes.set_xticks(range(len(ticks)), [sanity_value(p, ticks) for p in ticks])
            axes.set_xlim(-0.3, len(ticks) - 0.7)
            axes.set_ylim(-3, 103)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f}%"))
            axes.set_xlabel(label)
            if sweep == "steps":
                axes.tick_params(labelleft=False)
        subject_key(figure, height)
    said = "; ".join(
        f"{subject_label(p.subject)}, {p.ratio:g} times the budget, {p.steps} steps: {p.robust} of {p.cases}"
        for p in points
    )
    return to_svg(figure, "sanity", f"Robust accuracy against budget and against steps. {said}.")


def sanity_value(point: SanityPoint, curve: list[SanityPoint]) -> str:
    """A point's place on its curve: `0.5`, `20`, or `all` for the budget that reaches every input."""
    if point.sweep == "steps":
        return str(point.steps)
    return "all" if point is curve[-1] else f"{point.ratio:g}"


def _sanity_curve(axes: Axes, curve: list[SanityPoint], name: str, aside: float) -> None:
    colour, mark, line = _LOOKS[name]
    x = [i + aside for i in range(len(curve))]
    for at, p in zip(x, curve, strict=True):
        low, high = wilson_interval(p.robust, p.cases)
        axes.plot([at, at], [100 * low, 100 * high], color=COLOURS[colour], linewidth=1.2, alpha=0.6)
    values = [100 * p.robust / p.cases for p in curve]
    axes.plot(x, values, linestyle=line, linewidth=1.6, color=COLOURS[colour])
    axes.plot(x, values, mark, markersize=5, color=COLOURS[colour])
