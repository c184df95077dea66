"""`medharden diff`: needs no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from medharden.cli.console import marked, out
from medharden.verifying import Comparison, compare

__all__ = ["run_diff"]

_LONGEST = 60


def run_diff(first: Path, second: Path) -> None:
    """Prints what changed from one run to the other; the exit code is 0 whatever it is."""
    found = compare(first, second)
    machine = asdict(found) | {"identical": not found.changes}
    out.show(_shown(found), machine)


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
