"""What two sets of answers to the same cases come to, without a model or a run."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record.common import Verdict

__all__ = ["ComparedAnswers", "ComparedRow"]


@dataclass(frozen=True)
class ComparedRow:
    """One metric of both sets, on the same cases.

    Attributes:
        name: such as `accuracy`, `sensitivity` or `recall:glioma`.
        n, patients: cases behind it, and distinct patients.
        table: paired counts (both right, only the new right, only the old right, both wrong), or empty.
        old, new: the metric of each set; null where it can't be estimated.
        estimate, lower, upper: new minus old with its limits, in proportion units; null likewise.
        margin: the largest loss (Brier: increase) that is acceptable, or null where none was stated.
        verdict, reason: whether the new set is worse by less; null and empty without a margin.
        needed: cases that would show the margin with power .80 at the discordance or variance seen, or null.
        method: of the limits, with its source.
    """

    name: str
    n: int
    patients: int
    table: tuple[int, ...]
    old: float | None
    new: float | None
    estimate: float | None
    lower: float | None
    upper: float | None
    margin: float | None
    verdict: Verdict | None
    reason: str
    needed: int | None
    method: str


@dataclass(frozen=True)
class ComparedAnswers:
    """The comparison (`compare.json`); no case and no patient is named in it.

    Attributes:
        classes, positive: names; the positive of two classes, or null.
        cases, patients: in both sets.
        alpha: one-sided error of each row; its limits are at `level` = 1 - 2 alpha.
        verdict: the gravest of the rows with a margin; null where none has one.
        reasons: why it is not PASS, the gravest first.
        notes: what was assumed, counted otherwise or left out.
        inputs: SHA-256 of each file read, by its part: `old`, `new`, `truth`.
    """

    classes: tuple[str, ...]
    positive: str | None
    cases: int
    patients: int
    alpha: float
    level: float
    rows: tuple[ComparedRow, ...]
    verdict: Verdict | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    inputs: dict[str, str]
    medharden: str
