"""A comparison of two sets of answers as one page."""

from __future__ import annotations

from markupsafe import Markup

from medharden.record import ComparedAnswers, ComparedRow, Endpoint, Verdict
from medharden.reporting.charts import forest_chart
from medharden.reporting.compared import ShownRow, sample_words, shown_rows
from medharden.reporting.page import environment
from medharden.text import neutral_lines

__all__ = ["compared_page"]


def compared_page(found: ComparedAnswers) -> bytes:
    """One self-contained page: no script, nothing fetched, no case or patient named."""
    rows = shown_rows(found)
    text = (
        environment()
        .get_template("compared.html.j2")
        .render(
            found=found,
            verdict=None if found.verdict is None else found.verdict.value,
            sample=sample_words(found),
            rows=rows,
            paired=[(row, shown) for row, shown in zip(found.rows, rows, strict=True) if row.table],
            forest=_forest(found, rows),
        )
    )
    return neutral_lines(text).encode("utf-8")


def _forest(found: ComparedAnswers, rows: tuple[ShownRow, ...]) -> Markup | None:
    """The differences that are held against a margin, but of the Brier score, which is of another scale."""
    drawn = [
        (_endpoint(row, found.level, row.margin, row.verdict), shown.label)
        for row, shown in zip(found.rows, rows, strict=True)
        if row.margin is not None and row.verdict is not None and row.lower is not None and row.name != "brier"
    ]
    if not drawn:
        return None
    return forest_chart(tuple(e for e, _ in drawn), tuple(label for _, label in drawn), axis="new minus old")


def _endpoint(row: ComparedRow, level: float, margin: float, verdict: Verdict) -> Endpoint:
    """The row as the gate's charts take it."""
    return Endpoint(
        name=row.name,
        kind="noninferiority",
        verdict=verdict,
        estimate=row.estimate or 0.0,
        lower=row.lower or 0.0,
        upper=row.upper or 0.0,
        level=level,
        limit=-margin,
        n=row.n,
        patients=row.patients,
        table=row.table,
        smallest_margin=None,
        needed=row.needed,
        method=row.method,
        justification="",
        reason=row.reason,
    )
