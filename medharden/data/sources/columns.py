"""A CSV file as rows, and which of its columns mean what."""

from __future__ import annotations

import re
from pathlib import Path

from medharden.data.sources.datalist import image_column, read_datalist, read_lines
from medharden.data.sources.findings import FINDINGS_NAMES, has_finding_columns, is_state
from medharden.data.sources.folder import split_of
from medharden.data.sources.labels import is_missing, one_hot_columns, plain
from medharden.delimited import BrokenRowError, delimited
from medharden.errors import DataError, Problem
from medharden.protocol import Columns, Protocol

__all__ = ["GUESSED", "Row", "join_tables", "one_hot_of", "path_columns", "read_table", "roles_of", "splits_of"]

_ALIASES = {
    "path": (
        "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_id", "imageid", "image_name",
        "image index", "image_path",
    ),
    "label": ("label", "class", "target", "diagnosis", "dx"),
    "patient": ("patient", "patient_id", "patientid", "patient id", "subject", "subject_id"),
    "split": ("split", "fold", "set"),
}  # fmt: skip
_FINDING_ALIASES = {"path": (), "label": FINDINGS_NAMES, "patient": (), "split": ()}
GUESSED = frozenset(_ALIASES["label"])
"""Headings, in small letters, by which a label is known without a guess."""

_LARGEST_BYTES = 256 * 2**20
_MOST_CLASSES = 20
_LIKE_A_VALUE = re.compile(r"[/\\^]|\.\w{2,5}$|^[\d.,:-]+$|\d{5}|\d{4}-\d\d")

Row = dict[str, str]


def read_table(table: Path) -> tuple[list[str], dict[int, Row], list[Problem]]:
    """Header, rows by line number, and the rows that have another number of fields."""
    if table.suffix.lower() == ".json":
        return read_datalist(table)
    if table.suffix.lower() == ".jsonl":
        return read_lines(table)
    try:
        if table.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"the manifest is larger than {_LARGEST_BYTES} bytes")
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the manifest can't be read as UTF-8 text ({type(error).__name__}); save it as CSV in UTF-8"
        ) from None
    try:
        header, found = delimited(text)
    except BrokenRowError as error:
        raise DataError(f"the manifest is not readable as CSV near line {error.line}") from None
    rows: dict[int, Row] = {}
    problems = []
    for line, cells in found:
        if len(cells) == len(header):
            rows[line] = dict(zip(header, cells, strict=True))
        else:
            problems.append(Problem(f"row {line}", f"has {len(cells)} fields, expected {len(header)}"))
    if len(set(header)) != len(header):
        raise DataError(f"the manifest names a column twice; {_shown(header)}")
    return header, rows, problems


def join_tables(root: Path, header: list[str], rows: dict[int, Row], columns: Columns) -> list[str]:
    """Puts the columns of the protocol's further tables into the rows, where the keys agree; gives the whole header.

    Rows that a further table lacks have blanks there; rows that it alone has are left aside.

    Raises:
        DataError: a further table is missing, lacks a key, or says two things of one.
    """
    for place, join in enumerate(columns.join, 1):
        where = f"columns.join {place}"
        other = root / join.table
        if not other.resolve().is_relative_to(root.resolve()) or not other.is_file():
            raise DataError(f"{where}: there is no such table in the manifest's folder")
        more, lines, bad = read_table(other)
        lacking = [key for key in join.on if key not in header or key not in more]
        if bad or lacking:
            raise DataError(
                f"{where}: {lacking or len(bad)} {'is not in both tables' if lacking else 'rows are broken'}"
            )
        new = [column for column in more if column not in header]
        said: dict[tuple[str, ...], Row] = {}
        for line in lines.values():
            values = {column: line[column] for column in new}
            if said.setdefault(tuple(plain(line[key]) for key in join.on), values) != values:
                raise DataError(f"{where}: rows of one key say different things; name more columns in `on`")
        blank = dict.fromkeys(new, "")
        found = 0
        for row in rows.values():
            key = tuple(plain(row[key]) for key in join.on)
            found += key in said
            row |= said.get(key, blank)
        if not found:
            raise DataError(f"{where}: no row of the manifest has its key there")
        header = [*header, *new]
    return header


def _shown(header: list[str]) -> str:
    """The columns, for a message; but not those of a table without headings, whose first line is a patient's."""
    if any(_LIKE_A_VALUE.search(cell) for cell in header):
        return (
            f"the first line must name the columns; some of its {len(header)} fields look like a case's, so they are "
            "not shown here"
        )
    return f"found the columns {header}"


def roles_of(header: list[str], rows: dict[int, Row], protocol: Protocol) -> dict[str, str]:
    """Role to column; path is always there, and label unless each finding has a column of its own.

    Raises:
        DataError: a named column is missing, or a role fits no column or several.
    """
    columns, multilabel = protocol.columns, protocol.task.multilabel
    shown = f"{_shown(header)}; name them in the protocol's `columns`"
    in_columns = multilabel and columns.label is None and has_finding_columns(header, protocol.task.classes or ())
    roles: dict[str, str] = {}
    one_hot = not multilabel and columns.label is None and bool(one_hot_of(header, rows, protocol))
    for role, aliases in _ALIASES.items():
        if role == "label" and (in_columns or one_hot):
            continue
        aliases = aliases + _FINDING_ALIASES[role] if multilabel else aliases
        named = columns.paths[0] if role == "path" and columns.paths else getattr(columns, role)
        if named is not None and named not in header:
            raise DataError(f"the protocol's columns.{role} is {named!r}, which the manifest lacks; {shown}")
        fitting = [named] if named is not None else [c for c in header if c.lower() in aliases]
        if len(fitting) > 1:
            raise DataError(f"{fitting} could each be the {role} of a case; {shown}")
        if fitting:
            roles[role] = fitting[0]
    if "path" not in roles:
        raise DataError(f"the manifest has no column for the path of a case; {shown}")
    if "label" not in roles and multilabel and not in_columns:
        raise DataError(
            f"the manifest has neither a 0/1 column for each finding of task.classes nor one that lists them; {shown}"
        )
    if "label" not in roles and not multilabel and not one_hot:
        rest = [c for c in header if c not in roles.values()]
        likely = [c for c in rest if 2 <= len({r[c] for r in rows.values()}) <= min(_MOST_CLASSES, len(rows) // 2)]
        if len(likely) != 1:
            said = _nearly_one_hot(header, rows)
            raise DataError(f"the manifest has no column that is plainly the label of a case{said}; {shown}")
        roles["label"] = likely[0]
    return roles


def _nearly_one_hot(header: list[str], rows: dict[int, Row]) -> str:
    """That columns say 1 and 0, or -1 and nothing, and yet of no row which class it is."""
    columns = [c for c in header if all(is_state(row[c]) or is_missing(row[c]) for row in rows.values())]
    if len(columns) < 2:
        return ""
    return (
        f", and of the {len(columns)} columns that hold 1 and 0 not exactly one is 1 in each row: where they are "
        "findings, set task.kind: multilabel and name them in task.classes"
    )


def path_columns(table: Path, header: list[str], roles: dict[str, str], columns: Columns) -> tuple[str, ...]:
    """The columns that name a case's images, one for each channel; of a datalist as many as its longest list has.

    Raises:
        DataError: a named column is missing.
    """
    lacking = [name for name in columns.paths if name not in header]
    if lacking:
        raise DataError(f"the protocol's columns.path names {lacking}, which the manifest lacks; {_shown(header)}")
    if len(columns.paths) > 1:
        return columns.paths
    listed = [roles["path"]]
    while table.suffix.lower() == ".json" and listed[0] == image_column(0) and image_column(len(listed)) in header:
        listed.append(image_column(len(listed)))
    return tuple(listed)


def one_hot_of(header: list[str], rows: dict[int, Row], protocol: Protocol) -> tuple[str, ...]:
    """The columns that say of each class whether it is the case's, in a table without a column of labels; or none."""
    classes = protocol.task.classes
    known = [c for c in header if c.lower() in {name for names in _ALIASES.values() for name in names}]
    if classes is None and any(c.lower() in GUESSED for c in known):
        return ()
    named = [c for c in (*protocol.columns.paths, protocol.columns.patient, protocol.columns.split) if c is not None]
    return one_hot_columns(header, rows, classes, [*known, *named])


def splits_of(rows: dict[int, Row], roles: dict[str, str], columns: Columns) -> dict[int, str]:
    """Row number to split; a column that names none of the splits (such as numbered folds) is an attribute."""
    if "split" not in roles:
        return {}
    named = {number: split_of(row[roles["split"]]) for number, row in rows.items()}
    if any(named.values()):
        unknown = sum(not split for split in named.values())
        if unknown:
            raise DataError(
                f"{unknown} rows of the manifest name no split in {roles['split']!r}; expected train, val or test, "
                "or validate, valid, dev, tune or holdout; or name another column as columns.split"
            )
        return named
    if columns.split is not None:
        raise DataError(f"the manifest's column {columns.split!r} holds none of train, val and test")
    del roles["split"]
    return {}
