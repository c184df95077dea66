"""The report's four charts: margins, robustness, training and fusion frontier."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from medharden.record import CohortRecord, Endpoint, FusionRecord, HardenRecord, Verdict
from medharden.reporting.accuracy import clean_limits, robust_limits
from medharden.reporting.numbers import percent, points, points_interval
from medharden.reporting.robust import subject_label
from medharden.reporting.source import RunRecords
from medharden.reporting.svg import COLOURS, short, style_axes, to_svg
from medharden.stats import wilson_interval

__all__ = ["forest_chart", "frontier_chart", "robustness_chart", "training_chart"]

_WIDTH = 5.0  # inches at 72 units an inch: 360 units, readable unscaled on a phone
_MARKS = {Verdict.PASS: "o", Verdict.FAIL: "s", Verdict.INCONCLUSIVE: "D", Verdict.INVALID: "^"}
_SUBJECT_COLOURS = {"original": "original", "robust_branch": "branch", "composite": "released"}
_BEHIND = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1.0}
_BASE = {"font.size": 9.0, "text.parse_math": False}


def forest_chart(
    endpoints: tuple[Endpoint, ...],
    labels: tuple[str, ...],
    kind: str = "noninferiority",
    axis: str = "released minus original",
) -> Markup | None:
    """Paired differences of one kind with their intervals against each one's own margin; None without any."""
    rows = [(e, label) for e, label in zip(endpoints, labels, strict=True) if e.kind == kind]
    if not rows:
        return None
    with mpl.rc_context(_BASE):
        rows_high = 0.5 * len(rows)
        figure = Figure(figsize=(_WIDTH, rows_high + 0.62))
        axes = figure.add_axes((0.012, 0.48 / (rows_high + 0.62), 0.968, rows_high / (rows_high + 0.62)))
        style_axes(axes)
        low = min(min(100 * e.lower, 100 * e.limit) for e, _ in rows)
        high = max(max(100 * e.upper, 0.0) for e, _ in rows)
        pad = 0.06 * (high - low)
        axes.set_xlim(low - pad, high + pad)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks([])
        axes.axvline(0, color=COLOURS["muted"], linewidth=0.9)
        for y, (e, label) in enumerate(rows):
            _forest_row(axes, y, e, label)
        whole = high - low > 6
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=whole))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: points(x / 100, 0 if whole else 1)))
        axes.set_xlabel(f"{axis}, percentage points")
    said = "; ".join(
        f"{label} {points(e.estimate)} {points_interval((e.lower, e.upper))}, margin {points(e.limit)}: {e.verdict}"
        for e, label in rows
    )
    name = "forest" if kind == "noninferiority" else f"forest-{kind}"
    return to_svg(figure, name, f"Paired clean differences in percentage points with intervals. {said}.")


def _forest_row(axes: Axes, y: int, e: Endpoint, label: str) -> None:
    colour = COLOURS[e.verdict.value.lower()]
    left = axes.get_xlim()[0]
    axes.fill_betweenx([y - 0.12, y + 0.42], left, 100 * e.limit, color=COLOURS["line"], alpha=0.45, linewidth=0)
    axes.plot([100 * e.limit] * 2, [y - 0.12, y + 0.42], color=COLOURS["ink"], linewidth=1.6, solid_capstyle="butt")
    axes.plot([100 * e.lower, 100 * e.upper], [y + 0.15] * 2, color=colour, linewidth=2.0, solid_capstyle="butt")
    axes.plot([100 * e.estimate], [y + 0.15], marker=_MARKS[e.verdict], markersize=6.5, color=colour)
    axes.annotate(
        f"{short(label, 46)} · {e.verdict.value}",
        (0.0, y - 0.3),
        xycoords=("axes fraction", "data"),
        color=COLOURS["ink"],
        va="center",
        zorder=5,
        bbox=_BEHIND,
    )


def robustness_chart(records: RunRecords) -> Markup:
    """Each subject's clean and attacked accuracy with their exact limits."""
    subjects = records.evaluation.subjects
    height = 0.85 + 0.55 * len(subjects)
    with mpl.rc_context(_BASE):
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_axes((0.012, 0.48 / height, 0.968, (height - 0.85) / height))
        style_axes(axes)
        axes.set_xlim(-2, 102)
        axes.set_ylim(len(subjects) - 0.4, -0.6)
        axes.set_yticks([])
        for y, s in enumerate(subjects):
            colour = COLOURS[_SUBJECT_COLOURS.get(s.name, "branch")]
            axes.text(-2, y - 0.3, subject_label(s.name), color=COLOURS["ink"], va="center")
            axes.plot([100 * s.robust_accuracy, 100 * s.clean_accuracy], [y + 0.12] * 2, color=colour, alpha=0.35, lw=1)
            clean, robust = (s.clean_accuracy, clean_limits), (s.robust_accuracy, robust_limits)
            for (value, limits), mark, fill in ((clean, "o", True), (robust, "D", False)):
                low, high = limits(records, s.name)
                axes.plot([100 * low, 100 * high], [y + 0.12] * 2, color=colour, linewidth=2.4, solid_capstyle="butt")
                face = colour if fill else COLOURS["paper"]
                axes.plot(100 * value, y + 0.12, mark, markersize=6.5, color=colour, markerfacecolor=face, mew=1.6)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}%"))
        axes.set_xlabel("accuracy with 95% interval")
        for x, mark, face, text in (
            (0.03, "o", "ink", "clean"),
            (0.16, "D", "paper", "under attack, all attacks together"),
        ):
            key = figure.add_axes((x, 1 - 0.25 / height, 0.03, 0.2 / height))
            key.axis("off")
            key.plot(
                0, 0, mark, markersize=6, color=COLOURS["ink"], markerfacecolor=COLOURS[face], mew=1.4, clip_on=False
            )
            key.annotate(text, (1.1, 0.5), xycoords="axes fraction", va="center", color=COLOURS["muted"])
    said = "; ".join(
        f"{subject_label(s.name)}: clean {percent(s.clean_accuracy)}, attacked {percent(s.robust_accuracy)}"
        for s in subjects
    )
    return to_svg(figure, "robustness", f"Clean and attacked accuracy of each model. {said}.")


def training_chart(harden: HardenRecord, cohort: CohortRecord) -> Markup | None:
    """Validation accuracy and radius by epoch, with the best epoch marked; None where nothing was trained."""
    epochs = harden.epochs
    if not epochs:
        return None
    x = [e.epoch for e in epochs]
    best = next((e for e in epochs if e.epoch == harden.branch.best_epoch), None)
    with mpl.rc_context(_BASE):
        figure = Figure(figsize=(_WIDTH, 3.55))
        top = figure.add_axes((0.1, 0.42, 0.88, 0.5))
        below = figure.add_axes((0.1, 0.135, 0.88, 0.17))
        series = (
            ("clean", [100 * e.val_clean for e in epochs], "original", "-", "o"),
            ("under the probe attack", [100 * e.val_robust for e in epochs], "released", "-", "D"),
        )
        for _, values, colour, line, mark in series:
            top.plot(x, values, line, marker=mark, markersize=3.2, linewidth=1.6, color=COLOURS[colour])
        reference = _original_clean(harden, cohort)
        if reference is not None:
            top.axhline(100 * reference, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 2)))
        below.plot(x, [100 * e.radius for e in epochs], linewidth=1.6, color=COLOURS["branch"])
        for axes in (top, below):
            style_axes(axes, grid="y")
            axes.set_xlim(min(x) - 0.4, max(x) + 0.4)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f}%"))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            if best is not None:
                axes.axvline(best.epoch, color=COLOURS["ink"], linewidth=0.9)
        top.set_ylim(min(0.0, 100 * min(e.val_robust for e in epochs)), 102)
        top.tick_params(labelbottom=False)
        below.set_ylim(0, max(105.0, 105 * max(e.radius for e in epochs)))
        below.set_yticks([0, 100])
        below.set_xlabel("epoch")
        below.set_title("mean radius, share of eps", loc="left", fontsize=9, color=COLOURS["muted"], pad=4)
        _training_key(figure, reference is not None)
        if best is not None:
            _epoch_label(top, best.epoch, (min(x), max(x)))
    measure = "mean AUROC" if cohort.multilabel else "accuracy"
    said = f"Validation {measure} over {len(epochs)} epochs: clean {percent(epochs[-1].val_clean)} and attacked "
    said += f"{percent(epochs[-1].val_robust)} in the last"
    if best is not None:
        said += f"; the kept epoch is {best.epoch}: {percent(best.val_clean)} and {percent(best.val_robust)}"
    return to_svg(figure, "training", said + ". The second panel shows the mean radius.")


def _epoch_label(axes: Axes, epoch: int, span: tuple[int, int]) -> None:
    late = epoch > (span[0] + span[1]) / 2
    axes.annotate(
        f"kept: epoch {epoch}",
        (epoch, 4),
        xytext=(-4 if late else 4, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        color=COLOURS["ink"],
    )


def _training_key(figure: Figure, reference: bool) -> None:
    entries: list[tuple[float, str, str, Any, str]] = [
        (0.02, "original", "o", "-", "clean"),
        (0.2, "released", "D", "-", "under the probe attack"),
    ]
    if reference:
        entries.append((0.64, "muted", "", (0, (3, 2)), "original, clean"))
    for x, colour, mark, line, text in entries:
        key = figure.add_axes((x, 0.945, 0.06, 0.045))
        key.axis("off")
        key.plot([0, 1], [0, 0], marker=mark, markersize=3.2, linestyle=line, linewidth=1.6, color=COLOURS[colour])
        key.annotate(text, (1.15, 0.5), xycoords="axes fraction", va="center", color=COLOURS["muted"])


def _original_clean(harden: HardenRecord, cohort: CohortRecord) -> float | None:
    """The original's clean accuracy on validation: the branch's, less what it gained, plus what it lost.

    Of a multi-label task the epochs hold AUROC, of which cases gained and lost say nothing: None.
    """
    cases = len(cohort.split("val")) if harden.validation is None else harden.validation.answered
    if cases == 0 or cohort.multilabel:
        return None
    found = [e.val_clean - (e.val_gained - e.val_lost) / cases for e in harden.epochs]
    return found[0] if max(found) - min(found) < 1e-6 else None


def frontier_chart(fusion: FusionRecord, margin: float | None, level: float) -> Markup | None:
    """Clean change against robustness on validation, by fusion weight, with bands at a level; None without a frontier.

    Args:
        fusion: the weights tried and the one chosen.
        margin: of accuracy, as a proportion; None draws no margin.
        level: two-sided, of the bands; the clean band is the record's own.
    """
    tried = sorted(fusion.frontier, key=lambda p: p.weight)
    if not tried:
        return None
    with mpl.rc_context(_BASE):
        figure = Figure(figsize=(_WIDTH, 3.0))
        axes = figure.add_axes((0.11, 0.17, 0.86, 0.72))
        style_axes(axes, grid="both")
        x, y = [100 * p.robust for p in tried], [100 * (p.gained - p.lost) / p.cases for p in tried]
        lower, upper = [100 * p.lower for p in tried], [100 * p.upper for p in tried]
        axes.vlines(x, lower, upper, color=COLOURS["line"], linewidth=1.6)
        for p, at in zip(tried, y, strict=True):
            around = wilson_interval(round(p.robust * p.attacked), p.attacked, level=level)
            axes.hlines(at, 100 * around[0], 100 * around[1], color=COLOURS["line"], linewidth=1.6)
        axes.plot(x, y, "-o", color=COLOURS["branch"], linewidth=1.3, markersize=4)
        axes.axhline(0, color=COLOURS["muted"], linewidth=0.9)
        low, high = min([*lower, 0.0]), max([*upper, 0.0])
        if margin is not None:
            low = min(low, -100 * margin)
            axes.axhline(-100 * margin, color=COLOURS["ink"], linewidth=1.4)
        pad = 0.2 * (high - low) or 1.0
        axes.set_ylim(low - pad, high + pad)
        axes.margins(x=0.09)
        if margin is not None:
            axes.annotate(
                f"margin {points(-margin)}",
                (0.005, -100 * margin),
                xycoords=("axes fraction", "data"),
                xytext=(0, -4),
                textcoords="offset points",
                va="top",
                color=COLOURS["ink"],
            )
        chosen = min(tried, key=lambda p: abs(p.weight - fusion.weight))
        height = {p.weight: at for p, at in zip(tried, y, strict=True)}
        axes.plot(100 * chosen.robust, height[chosen.weight], "D", markersize=8, color=COLOURS["released"])
        for p in {id(p): p for p in (tried[0], tried[-1], chosen)}.values():
            axes.annotate(
                f"{p.weight:.2f}" + (" chosen" if p is chosen else ""),
                (100 * p.robust, height[p.weight]),
                xytext=(0, -9) if p is tried[-1] else (0, 9),
                textcoords="offset points",
                ha="center",
                va="top" if p is tried[-1] else "bottom",
                color=COLOURS["ink"],
                bbox=_BEHIND,
            )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f}%"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: points(v / 100)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("robust accuracy on validation")
        figure.text(0.0, 0.95, f"clean change with {level:.0%} limits, points", color=COLOURS["muted"])
    said = "; ".join(f"weight {p.weight:.2f}: robust {percent(p.robust)}, lower limit {points(p.lower)}" for p in tried)
    return to_svg(figure, "frontier", f"Fusion weights tried on validation. {said}. Chosen: {fusion.weight:.2f}.")
