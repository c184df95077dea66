"""`medharden diff` and `medharden compare`: need no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from medharden.audit import canonical_json, write_atomic
from medharden.cli.console import marked, out, write
from medharden.cli.verdicts import COLOURS, EXIT_CODES
from medharden.errors import ProtocolError
from medharden.gating import COLUMNS, AnswerColumns, Asked, compare_answers, read_answers
from medharden.record import ComparedAnswers
from medharden.reporting import compared_markdown, shown_rows
from medharden.verifying import Comparison, compare

__all__ = ["CompareJob", "run_compare", "run_diff"]

_LONGEST = 60


def run_diff(first: Path, second: Path) -> None:
    """Prints what changed from one run to the other; the exit code is 0 whatever it is."""
    found = compare(first, second)
    machine = asdict(found) | {"identical": not found.changes}
    out.show(_shown(found), machine)


@dataclass(frozen=True)
class CompareJob:
    """What `compare` was asked to do.

    Attributes:
        margins: such as `accuracy=0.02`.
        columns: such as `case=image_name`.
        classes: names joined by commas; empty takes the labels'.
        folder: for `compare.json` and `compare.html`, or None.
    """

    old: Path
    new: Path
    truth: Path | None
    margins: tuple[str, ...]
    alpha: float
    positive: str | None
    classes: str
    threshold: float | None
    columns: tuple[str, ...]
    each_case: str
    folder: Path | None
    as_markdown: bool


def run_compare(job: CompareJob) -> int:
    """Compares, prints, writes what was asked for, and returns the verdict's exit code; 0 where no margin was stated.

    Raises:
        DataError: files that are no two sets of answers to the same cases.
        ProtocolError: a margin, column or alpha that can't be.
        OutputError: the folder can't be written to.
    """
    margins = {name: _margin(name, value) for name, value in _pairs("--margin", job.margins, "accuracy=0.02")}
    named = dict(_pairs("--column", job.columns, "case=NAME"))
    unknown = sorted(set(named) - set(COLUMNS))
    if unknown:
        raise ProtocolError(f"--column: {', '.join(unknown)} is none of {', '.join(COLUMNS)}")
    classes = tuple(name.strip() for name in job.classes.split(",")) if job.classes else None
    columns = AnswerColumns(named=named, classes=classes, positive=job.positive, threshold=job.threshold)
    pair = read_answers(job.old, job.new, job.truth, columns)
    found = compare_answers(pair, Asked(margins, job.alpha, job.each_case.strip()))
    written = _written(found, job.folder)
    if job.as_markdown:
        write(compared_markdown(found))
    else:
        out.show(_compared(found, written), asdict(found) | {"written": [str(path) for path in written]})
    return 0 if found.verdict is None else EXIT_CODES[found.verdict]


def _pairs(option: str, given: Sequence[str], example: str) -> list[tuple[str, str]]:
    """`name=value`, each name once."""
    pairs = []
    for text in given:
        name, mark, value = text.rpartition("=") if option == "--margin" else text.partition("=")
        if not mark or not name.strip() or not value.strip():
            raise ProtocolError(f"{option}: expected such as {example}, got {text!r}")
        pairs.append((name.strip(), value.strip()))
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ProtocolError(f"{option}: {', '.join(sorted({n for n in names if names.count(n) > 1}))} is given twice")
    return pairs


def _margin(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProtocolError(f"--margin {name}: expected a proportion such as 0.02, got {text!r}") from None


def _written(found: ComparedAnswers, folder: Path | None) -> tuple[Path, ...]:
    if folder is None:
        return ()
    from medharden.reporting import compared_page

    contents = {"compare.json": canonical_json(asdict(found)) + b"\n", "compare.html": compared_page(found)}
    for name, data in contents.items():
        write_atomic(folder / name, data)
    return tuple(folder / name for name in contents)


def _compared(found: ComparedAnswers, written: tuple[Path, ...]) -> Group:
    parts: list[Table | Text | str] = []
    table = Table("metric", "old", "new", "change", "limits", "margin", "verdict", box=None, padding=(0, 1))
    for row in shown_rows(found):
        verdict = "" if row.verdict is None else marked(f"[{COLOURS[row.verdict]}]{{}}[/]", row.verdict)
        table.add_row(row.label, row.old, row.new, row.change, row.interval, row.margin, verdict)
    parts.append(table)
    people = "" if found.patients == found.cases else f" of {found.patients} patients"
    parts.append(f"{found.cases} cases{people}; limits at {100 * found.level:g} %, changes in points")
    parts += [f"· {text}" for text in (*found.reasons, *found.notes)]
    parts += [f"wrote {path}" for path in written]
    if found.verdict is None:
        parts.append("no margin was stated (--margin accuracy=0.02), so nothing is decided")
    else:
        parts.append(marked(f"[bold {COLOURS[found.verdict]}]{{}}[/]", found.verdict))
    return Group(*parts)


def _shown(found: Comparison) -> Group:
    parts: list[Table | Text | str] = []
    for part in dict.fromkeys(change.part for change in found.changes):
        table = Table(part, "first", "second", box=None, padding=(0, 1))
        for change in found.changes:
            if change.part == part:
                table.add_row(change.field, _short(change.first), _short(change.second))
        parts.append(table)
    if not found.changes:
        parts.append("no recorded field differs")
    for words in ("different", "only in the first", "only in the second"):
        names = [name for name, state in found.files.items() if state == words]
        if names:
            parts.append(f"files {words}: {', '.join(names)}")
    before, after = (verdict or "none" for verdict in found.verdicts)
    parts.append(marked("[bold]verdict {}[/]", before if before == after else f"{before} -> {after}"))
    return Group(*parts)


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
