"""What a table seems to hold that no protocol speaks of yet: several findings a case, in columns or in one cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from medharden.data.sources.columns import GUESSED, read_table
from medharden.data.sources.findings import FINDINGS_NAMES, NO_FINDING, finding_names, is_state, lists_several
from medharden.data.sources.labels import is_missing, plain
from medharden.errors import DataError
from medharden.protocol import Protocol

__all__ = ["with_findings_of"]

_FEWEST, _MOST = 2, 60  # findings
_TABLES = 2  # that are looked at
_RARE = 0.002  # of the rows: a name in fewer is rather a slip than a finding


def with_findings_of(source: Path, protocol: Protocol) -> Protocol | None:
    """The protocol for several findings a case, where a table says 1 and 0 of each or lists them; null where none does.

    Args:
        source: a table, or a folder with one.
        protocol: of one class a case.
    """
    if protocol.task.multilabel:
        return None
    tables = [*sorted(source.glob("*.csv")), *sorted(source.glob("*/metadata.csv"))] if source.is_dir() else [source]
    for table in tables[:_TABLES]:
        try:
            header, rows, _ = read_table(table)
        except DataError:
            continue
        cells = {column: Counter(row[column] for row in rows.values()) for column in header}
        named = [column for column in header if column.lower() in FINDINGS_NAMES]
        named = named or [c for c in header if c.lower() in GUESSED and lists_several(cells[c], ())]
        if len(named) == 1 and (classes := _listed(cells[named[0]])):
            return _multilabel(protocol, classes, named[0])
        columns = tuple(column for column in header if plain(column) not in NO_FINDING and _is_finding(cells[column]))
        if _FEWEST <= len(columns) <= _MOST:
            return _multilabel(protocol, columns, None)
    return None


def _is_finding(cells: Counter[str]) -> bool:
    """Whether a column says of one finding whether it is there: 1 or 0, and maybe -1 or nothing."""
    said = {cell for cell in cells if not is_missing(cell)}
    return bool(said) and all(map(is_state, said)) and any(cell in cells for cell in ("1", "1.0", "True", "true"))


def _listed(cells: Counter[str]) -> tuple[str, ...]:
    counts = finding_names(cells)
    rows = sum(cells.values())
    names = tuple(sorted(name for name, n in counts.items() if n >= max(2, _RARE * rows)))
    return names if _FEWEST <= len(names) <= _MOST else ()


def _multilabel(protocol: Protocol, classes: Collection[str], label: str | None) -> Protocol:
    task = protocol.task.model_copy(update={"kind": "multilabel", "classes": tuple(classes), "positive": None})
    columns = protocol.columns.model_copy(update={"label": label})
    return protocol.model_copy(update={"task": task, "columns": columns})
