"""Which table in a folder lists its cases; a table in each split folder as one."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from pathlib import Path

from medharden.data.sources.columns import Row, path_columns, read_table, roles_of
from medharden.data.sources.folder import split_of
from medharden.data.sources.foreign import parts_of
from medharden.data.sources.places import is_uid
from medharden.errors import DataError, Problem
from medharden.links import outside
from medharden.protocol import Protocol

__all__ = ["find_manifest", "read_split_tables", "tables_of_splits", "why_no_manifest"]

_PREFERRED = ("manifest.csv", "labels.csv", "metadata.csv")
DATALIST = "datalist.json"
_LIKE_TABLES = ("dataset.json", "metadata.jsonl")
_MOST_TABLES = 5


def find_manifest(folder: Path, protocol: Protocol) -> Path | None:
    """The folder's manifest: `manifest.csv` or `labels.csv`, else the only CSV with a path and labels.

    Raises:
        DataError: several CSV files could be it.
    """
    tables = sorted(f for f in folder.iterdir() if f.suffix.lower() == ".csv" and f.is_file())
    if (folder / DATALIST).is_file():
        return folder / DATALIST
    for other in _LIKE_TABLES:
        if (folder / other).is_file() and not _unfit(folder / other, protocol):
            return folder / other
    for preferred in _PREFERRED:
        for table in tables:
            if table.name.lower() == preferred:
                return table
    fitting = [table for table in tables if not _unfit(table, protocol)]
    if len(fitting) > 1:
        raise DataError(f"{len(fitting)} CSV files have a path and a label column; name the one to use as the data")
    return fitting[0] if fitting else None


def tables_of_splits(folder: Path, protocol: Protocol) -> dict[str, Path]:
    """Name of each split folder to the table in it that lists its cases; none where not one has such.

    Raises:
        DataError: some have one and others don't, or one has several.
    """
    folders = _split_folders(folder)
    if {f.name for f in folders} == set(protocol.task.classes or ()):
        return {}
    found, reason = {}, ""
    for place in folders:
        table = find_manifest(place, protocol)
        unfit = "no CSV or JSONL file there has a path and a label column" if table is None else _unfit(table, protocol)
        if table is not None and not unfit:
            found[place.name] = table
        reason = reason or unfit
    if found and reason:
        raise DataError(
            f"{len(found)} of {len(folders)} split folders have a table that lists their cases, such as metadata.csv; "
            f"expected one in each, or in none. Of the first without: {reason}"
        )
    return found


def _split_folders(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.iterdir()) if f.is_dir() and split_of(f.name) and not outside(folder, f)]


def read_split_tables(folder: Path, protocol: Protocol) -> tuple[list[str], dict[int, Row], list[Problem]]:
    """As `read_table`, of all split folders: paths are below the folder of all, and the split is the folder's.

    Where there is but one split folder, it says nothing of the split.

    Raises:
        DataError: a table can't be read, or names other splits than its folder.
    """
    tables = tables_of_splits(folder, protocol)
    header: dict[str, None] = {}
    rows: dict[int, Row] = {}
    problems: list[Problem] = []
    for number, (place, table) in enumerate(tables.items(), 1):
        names, lines, broken = read_table(table)
        roles = roles_of(names, lines, protocol)
        paths = path_columns(table, names, roles, protocol.columns)
        split = roles.get("split", protocol.columns.split or "split")
        other = sum(split_of(row.get(split, "")) not in ("", split_of(place)) for row in lines.values())
        if other:
            raise DataError(f"{other} rows of the table in one split folder name another split than that folder does")
        for row in lines.values():
            row |= {column: _below(folder, place, row[column]) for column in paths}
            row |= {split: place} if len(tables) > 1 else {}
        header |= dict.fromkeys(name for row in lines.values() for name in row)
        first = max(rows, default=0)
        rows |= {first + line: row for line, row in lines.items()}
        problems += [replace(one, case=f"{one.case} of table {number}") for one in broken]
    return list(header), {number: dict.fromkeys(header, "") | row for number, row in rows.items()}, problems


def _below(root: Path, place: str, written: str) -> str:
    """A row's path in its split folder as one below the root; absolute paths and UIDs of series as they are."""
    text = posixpath.normpath(f"{place}/{written}".replace("\\", "/"))
    if not written or parts_of(written) or text.startswith(".."):
        return written
    return written if is_uid(written) and not (root / text).exists() else text


def why_no_manifest(folder: Path, protocol: Protocol) -> str:
    """Of each CSV file of a folder why it is not its manifest, or "" where there is none; files by their number."""
    places = [folder, *_split_folders(folder)]
    tables = [f for place in places for f in sorted(place.iterdir()) if f.suffix.lower() == ".csv" and f.is_file()]
    reasons = [(n, _unfit(table, protocol)) for n, table in enumerate(tables[:_MOST_TABLES], 1)]
    return "; ".join(f"CSV file {n} of {len(tables)}: {reason}" for n, reason in reasons if reason)


def _unfit(table: Path, protocol: Protocol) -> str:
    try:
        header, rows, _ = read_table(table)
        roles_of(header, rows, protocol)
    except DataError as error:
        return str(error)
    return ""
