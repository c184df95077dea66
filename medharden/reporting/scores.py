"""Rows behind ROC and reliability: each class or finding, the original's and the release's scores on clean cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.reporting.accuracy import gate_level, unit_table
from medharden.reporting.numbers import count, percent
from medharden.reporting.source import COMPARED, RunRecords
from medharden.stats import (
    Estimate,
    ReliabilityBin,
    auroc,
    auroc_difference,
    calibration_error,
    recalibration,
    reliability,
)

__all__ = [
    "AurocRow",
    "Calibration",
    "ReliabilityRow",
    "ScorePanel",
    "auroc_rows",
    "calibrations",
    "reliability_rows",
    "score_panels",
]


@dataclass(frozen=True)
class ScorePanel:
    """One class or finding against the rest, on the clean test cases.

    Attributes:
        name: the class or finding.
        positive: (N,) bool, of the cases of which it is known.
        patients: (N,) whose cases these are.
        scores: by subject: (N,) probability of it.
        points: by subject: false and true positive rate as answered, under the protocol's decision rule.
    """

    name: str
    positive: npt.NDArray[np.bool_]
    patients: tuple[str, ...]
    scores: dict[str, npt.NDArray[np.float64]]
    points: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class AurocRow:
    """AUROC of one class or finding, formatted; the change with its interval by patient."""

    name: str
    positives: str
    negatives: str
    original: str
    released: str
    change: str
    interval: str
    method: str


@dataclass(frozen=True)
class Calibration:
    """One subject's bins, their calibration error, and calibration in the large and slope with limits, formatted."""

    subject: str
    bins: tuple[ReliabilityBin, ...]
    error: float
    in_the_large: tuple[str, str]
    slope: tuple[str, str]


@dataclass(frozen=True)
class ReliabilityRow:
    """One bin of both subjects, formatted: cases, mean probability, share observed."""

    between: str
    cells: tuple[tuple[str, str, str], ...]


def score_panels(records: RunRecords) -> tuple[ScorePanel, ...]:
    """One panel a class or finding with cases of both kinds; of two classes the positive one alone.

    Each image is in it once, as the gate counts.
    """
    cases, classes = unit_table(records), records.evaluation.classes
    if cases is None:
        return ()
    shown = list(range(len(classes)))
    if len(classes) == 2 and cases.label.ndim == 1:
        positive = records.protocol.task.positive
        shown = [classes.index(positive) if positive in classes else 1]
    panels = []
    for k in shown:
        rows = cases.known[:, k] if cases.multilabel else np.ones(len(cases.label), dtype=np.bool_)
        truth = _is(cases.label[rows], k)
        if truth.any() and not truth.all():
            scores = {s: cases.subjects[s].probabilities[rows, k] for s in COMPARED}
            points = {s: _point(truth, _is(cases.subjects[s].predicted[rows], k)) for s in COMPARED}
            owners = tuple(np.asarray(cases.patient)[rows].tolist())
            panels.append(ScorePanel(classes[k], truth, owners, scores, points))
    return tuple(panels)


def _is(answers: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.bool_]:
    """Whether each case has class k: index of one class, or a column a finding."""
    held: npt.NDArray[np.bool_] = answers == k if answers.ndim == 1 else answers[:, k].astype(np.bool_)
    return held


def _point(truth: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_]) -> tuple[float, float]:
    return float(said[~truth].mean()), float(said[truth].mean())


def auroc_rows(panels: tuple[ScorePanel, ...]) -> tuple[AurocRow, ...]:
    """AUROC of both models by panel, and the change with its 95 % interval."""
    old, new = COMPARED
    rows = []
    for panel in panels:
        try:
            change = auroc_difference(panel.scores[new], panel.scores[old], panel.positive, patients=panel.patients)
            estimate, interval = f"{change.estimate:+.3f}", f"[{change.interval[0]:+.3f}, {change.interval[1]:+.3f}]"
            method = change.method
        except RangeError:
            # one patient of a kind carries no variance: the areas are shown without a limit
            estimate, interval, method = "–", "", "too few patients for an interval"
        rows.append(
            AurocRow(
                panel.name,
                count(int(panel.positive.sum())),
                count(int((~panel.positive).sum())),
                f"{auroc(panel.scores[old], panel.positive):.3f}",
                f"{auroc(panel.scores[new], panel.positive):.3f}",
                estimate.replace("-", "\N{MINUS SIGN}"),
                interval.replace("-", "\N{MINUS SIGN}"),
                method,
            )
        )
    return tuple(rows)


def calibrations(records: RunRecords) -> tuple[str, tuple[Calibration, ...]]:
    """What is predicted, in words, and each compared model's bins of it.

    Of two classes it is the probability of the positive one, of more that of the most probable class, and of a
    multi-label task that of every finding, pooled.
    """
    cases, classes = records.cases, records.evaluation.classes
    if cases is None:
        return "", ()
    found = []
    for name in COMPARED:
        owners = np.asarray(cases.patient)
        probabilities = cases.subjects[name].probabilities
        if cases.label.ndim == 2:
            what = "probability of each finding, all findings pooled"
            known = cases.known
            given, so = probabilities[known], cases.label[known] == 1
            owners = np.repeat(owners[:, None], probabilities.shape[1], axis=1)[known]
        elif len(classes) == 2:
            positive = records.protocol.task.positive
            k = classes.index(positive) if positive in classes else 1
            what, given, so = f"probability of {classes[k]}", probabilities[:, k], cases.label == k
        else:
            what = "probability of the most probable class"
            given, so = probabilities.max(1), probabilities.argmax(1) == cases.label
        given = np.clip(given, 0.0, 1.0)
        bins = reliability(given, so)
        fitted = recalibration(given, so, patients=owners.tolist(), level=gate_level(records))
        large, slope = (("–", ""), ("–", "")) if fitted is None else (_limited(fitted[0], "+"), _limited(fitted[1], ""))
        found.append(Calibration(name, bins, calibration_error(bins), large, slope))
    return what, tuple(found)


def _limited(value: Estimate, sign: str) -> tuple[str, str]:
    """A coefficient, and its limits."""
    shown = [f"{x:{sign}.2f}".replace("-", "\N{MINUS SIGN}") for x in (value.value, value.lower, value.upper)]
    return shown[0], f"[{shown[1]}, {shown[2]}]"


def reliability_rows(found: tuple[Calibration, ...]) -> tuple[ReliabilityRow, ...]:
    """The bins that hold a case of either model, rising."""
    lowers = sorted({(b.lower, b.upper) for c in found for b in c.bins})
    return tuple(
        ReliabilityRow(
            f"{percent(lower, 0)} to {percent(upper, 0)}",
            tuple(_cell(next((b for b in c.bins if b.lower == lower), None)) for c in found),
        )
        for lower, upper in lowers
    )


def _cell(found: ReliabilityBin | None) -> tuple[str, str, str]:
    if found is None:
        return "0", "–", "–"
    return count(found.cases), percent(found.probability), percent(found.happened)
