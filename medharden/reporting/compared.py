"""A comparison of two sets of answers as formatted rows, and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record import ComparedAnswers, ComparedRow, Verdict
from medharden.reporting.markdown import plain
from medharden.reporting.numbers import count, percent, points, points_interval, score_change, telling_digits
from medharden.reporting.wording import endpoint_label
from medharden.text import neutral_lines

__all__ = ["ShownRow", "compared_markdown", "sample_words", "shown_rows"]

_HEADS = ("metric", "cases", "old", "new", "change", "limits", "margin", "verdict")


@dataclass(frozen=True)
class ShownRow:
    """One metric as it is shown; every text is formatted, none is markup."""

    label: str
    n: str
    patients: str
    old: str
    new: str
    change: str
    interval: str
    margin: str
    verdict: Verdict | None
    discordant: str
    needed: str
    reason: str
    method: str


def shown_rows(found: ComparedAnswers) -> tuple[ShownRow, ...]:
    """Every row, shares in per cent and their changes in points; the Brier score as it is."""
    return tuple(_shown(row, found) for row in found.rows)


def compared_markdown(found: ComparedAnswers) -> str:
    """Verdict, rows, reasons and notes, for the summary page of a build or a document."""
    lines = [f"## New answers against old: {_word(found)}", "", plain(sample_words(found)), ""]
    lines += [f"| {' | '.join(_HEADS)} |", "|---" * len(_HEADS) + "|"]
    for row in shown_rows(found):
        cells = (row.label, row.n, row.old, row.new, row.change, row.interval, row.margin or "none stated")
        lines.append(f"| {' | '.join(map(plain, cells))} | {row.verdict or ''} |")
    for title, entries in (("Reasons", found.reasons), ("Notes", found.notes)):
        if entries:
            lines += ["", f"### {title}", "", *(f"- {plain(entry)}" for entry in entries)]
    return neutral_lines("\n".join(lines) + "\n")


def _word(found: ComparedAnswers) -> str:
    return "no margin stated" if found.verdict is None else found.verdict.value


def sample_words(found: ComparedAnswers) -> str:
    """How many cases and patients, and what the limits are."""
    people = "" if found.patients == found.cases else f" of {count(found.patients)} patients"
    return (
        f"{count(found.cases)} cases{people}, each answered in both sets; limits are two-sided "
        f"{100 * found.level:g} %, so each one-sided at {100 * found.alpha:g} %."
    )


def _shown(row: ComparedRow, found: ComparedAnswers) -> ShownRow:
    score = row.name == "brier"
    value = (lambda x: f"{x:.4f}") if score else percent
    change = score_change if score else points
    digits = 1
    if row.margin is not None and row.lower is not None and row.upper is not None:
        deciding, bound = (row.upper, row.margin) if score else (row.lower, -row.margin)
        digits = telling_digits(deciding, bound, change)
    interval = "not estimated"
    if row.lower is not None and row.upper is not None:
        limits = (row.lower, row.upper)
        interval = f"[{', '.join(change(x, digits) for x in limits)}]" if score else points_interval(limits, digits)
    return ShownRow(
        label=endpoint_label(row.name, found.classes, found.positive),
        n=count(row.n),
        patients=count(row.patients),
        old="–" if row.old is None else value(row.old),
        new="–" if row.new is None else value(row.new),
        change="–" if row.estimate is None else change(row.estimate, digits),
        interval=interval,
        margin="" if row.margin is None else change(row.margin if score else -row.margin, 1),
        verdict=row.verdict,
        discordant=f"{row.table[1]}, {row.table[2]}" if row.table else "",
        needed="" if row.needed is None else count(row.needed),
        reason=row.reason,
        method=row.method,
    )
