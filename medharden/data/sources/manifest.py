"""Cases listed in a CSV file: which column means what, and which rows can be used."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from medharden.data.formats.files import looks_like_image, read_file
from medharden.data.sources.findings import FindingReader, has_finding_columns
from medharden.data.sources.folder import SPLIT_NAMES, Entry, Listing, outside, sorted_classes
from medharden.errors import DataError, Problem
from medharden.patients import patient_identity
from medharden.protocol import Columns, Protocol
from medharden.record import Finding

__all__ = ["find_manifest", "list_manifest"]

_ALIASES = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class", "target", "diagnosis"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id"),
    "split": ("split", "fold", "set"),
}
_FINDING_ALIASES = {  # of sets of chest X-rays, beside the above
    "path": ("image index",),
    "label": ("labels", "findings", "finding labels"),
    "patient": ("patient id",),
    "split": (),
}
_PREFERRED = ("manifest.csv", "labels.csv")
_LARGEST_BYTES = 256 * 2**20
_MOST_CLASSES = 20
_LIKE_A_VALUE = re.compile(r"[/\\^]|\.\w{2,5}$|^[\d.,:-]+$|\d{5}|\d{4}-\d\d")

Row = dict[str, str]


def find_manifest(folder: Path, protocol: Protocol) -> Path | None:
    """The folder's manifest: `manifest.csv` or `labels.csv`, else the only CSV with a path and labels.

    Raises:
        DataError: several CSV files could be it.
    """
    tables = sorted(f for f in folder.iterdir() if f.suffix.lower() == ".csv" and f.is_file())
    for preferred in _PREFERRED:
        for table in tables:
            if table.name.lower() == preferred:
                return table
    fitting = []
    for table in tables:
        try:
            header, rows, _ = _read(table)
            _roles(header, rows, protocol)
        except DataError:
            continue
        fitting.append(table)
    if len(fitting) > 1:
        raise DataError(f"{len(fitting)} CSV files have a path and a label column; name the one to use as the data")
    return fitting[0] if fitting else None


def list_manifest(table: Path, protocol: Protocol, name: Callable[[str], str]) -> Listing:
    """The cases that a CSV file lists; paths are relative to the file's folder and stay inside it.

    Raises:
        DataError: the file is no such table, or its columns are ambiguous.
    """
    root = table.parent
    header, rows, problems = _read(table)
    roles = _roles(header, rows, protocol)
    findings = []
    guessed = not protocol.task.multilabel and roles["label"].lower() not in _ALIASES["label"]
    if guessed and protocol.columns.label is None:
        message = f"The class was taken from the manifest's column {roles['label']!r}, the only one that could be it."
        findings.append(Finding("data.label_column", "info", message))
    splits = _splits(rows, roles, protocol.columns)
    reader = FindingReader(protocol.task.classes or ()) if protocol.task.multilabel else None
    taken = {*roles.values(), *(reader.findings if reader is not None and "label" not in roles else ())}
    listed: list[Entry] = []
    for number, row in rows.items():
        text = PurePosixPath(row[roles["path"]].replace("\\", "/")).as_posix()
        label, unlabelled = _label(row, roles, reader)
        reason = _unusable_row(root, text) or unlabelled
        split, known = splits.get(number, ""), None if unlabelled else label
        if not row[roles["path"]]:
            problems.append(Problem(f"row {number}", "has no path", known, split))
        elif reason:
            problems.append(Problem(name(text), reason, known, split))
        else:
            entry = Entry(
                text=text,
                label=label,
                split=split,
                patient=row[roles["patient"]] if "patient" in roles else "",
                attributes={c: v for c, v in row.items() if c not in taken and v},
                path=root / text,
            )
            listed.append(entry)
    entries, repeated = _once(root, listed, name)
    problems += repeated
    findings += _unlisted(root, {entry.text for entry in listed})
    if reader is not None:
        classes, findings = reader.findings, [*findings, *reader.noted()]
    else:
        classes = sorted_classes({row[roles["label"]] for row in rows.values() if row[roles["label"]]})
    return Listing(
        source="manifest",
        classes=classes,
        entries=tuple(sorted(entries, key=lambda e: e.text)),
        read=lambda entry, hold: read_file(entry.path or root, protocol.input.dims, hold),
        problems=tuple(problems),
        findings=tuple(findings),
    )


def _once(root: Path, listed: list[Entry], name: Callable[[str], str]) -> tuple[list[Entry], list[Problem]]:
    """Each file once, under whatever names it is listed: in other capitals where these don't count, or as a link.

    Of rows that say the same of a file, the first is kept that names a patient. Rows that contradict each other are
    all left out: which of them is right can't be told.
    """
    same: dict[object, list[Entry]] = defaultdict(list)
    for entry in listed:
        found = os.stat(root / entry.text)
        same[(found.st_dev, found.st_ino) if found.st_ino else entry.text].append(entry)
    kept, problems = [], []
    for rows in same.values():
        if apart := _contradiction(rows):
            labels, splits = {row.label for row in rows}, {row.split for row in rows}
            said = f"is listed {len(rows)} times, with different {apart}"
            label, split = (rows[0].label if len(labels) == 1 else None), (rows[0].split if len(splits) == 1 else "")
            # one case, under several rows
            problems += [Problem(name(row.text), said, label, split, n > 0) for n, row in enumerate(rows)]
            continue
        chosen = next((row for row in rows if patient_identity(row.patient)), rows[0])
        kept.append(chosen)
        for row in rows:
            if row is not chosen:
                other = f", as {name(chosen.text)} too" if row.text != chosen.text else ""
                problems.append(Problem(name(row.text), f"is listed twice{other}", row.label, row.split, True))
    return kept, problems


def _contradiction(rows: list[Entry]) -> str:
    """What rows of one file say differently of it, or nothing."""
    ways = {
        "labels": len({row.label for row in rows}),
        "patients": len({patient_identity(row.patient) for row in rows} - {""}),
        "splits": len({row.split for row in rows}),
    }
    return " and ".join(what for what, count in ways.items() if count > 1)


def _label(row: Row, roles: dict[str, str], reader: FindingReader | None) -> tuple[str | tuple[str, ...], str]:
    """A case's label, and why it can't be used, or ""."""
    if reader is None:
        label = row[roles["label"]]
        return label, "" if label else "has no label"
    return reader.from_names(row[roles["label"]]) if "label" in roles else reader.from_cells(row)


def _read(table: Path) -> tuple[list[str], dict[int, Row], list[Problem]]:
    """Header, rows by line number, and the rows that have another number of fields."""
    try:
        if table.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"the manifest is larger than {_LARGEST_BYTES} bytes")
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the manifest can't be read as UTF-8 text ({type(error).__name__})") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: dict[int, Row] = {}
    problems = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                reason = f"has {len(cells)} fields, expected {len(header)}"
                problems.append(Problem(f"row {reader.line_num}", reason))
                continue
            rows[reader.line_num] = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error:
        raise DataError(f"the manifest is not readable as CSV near line {reader.line_num}") from None
    if len(set(header)) != len(header):
        raise DataError(f"the manifest names a column twice; {_shown(header)}")
    return header, rows, problems


def _shown(header: list[str]) -> str:
    """The columns, for a message; but not those of a table without headings, whose first line is a patient's."""
    if any(_LIKE_A_VALUE.search(cell) for cell in header):
        return (
            f"the first line must name the columns; some of its {len(header)} fields look like a case's, so they are "
            "not shown here"
        )
    return f"found the columns {header}"


def _roles(header: list[str], rows: dict[int, Row], protocol: Protocol) -> dict[str, str]:
    """Role to column; path is always there, and label unless each finding has a column of its own.

    Raises:
        DataError: a named column is missing, or a role fits no column or several.
    """
    columns, multilabel = protocol.columns, protocol.task.multilabel
    shown = f"{_shown(header)}; name them in the protocol's `columns`"
    in_columns = multilabel and columns.label is None and has_finding_columns(header, protocol.task.classes or ())
    roles: dict[str, str] = {}
    for role, aliases in _ALIASES.items():
        if role == "label" and in_columns:
            continue
        aliases = aliases + _FINDING_ALIASES[role] if multilabel else aliases
        named = getattr(columns, role)
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
    if "label" not in roles and not multilabel:
        rest = [c for c in header if c not in roles.values()]
        likely = [c for c in rest if 2 <= len({r[c] for r in rows.values()}) <= min(_MOST_CLASSES, len(rows) // 2)]
        if len(likely) != 1:
            raise DataError(f"the manifest has no column that is plainly the label of a case; {shown}")
        roles["label"] = likely[0]
    return roles


def _splits(rows: dict[int, Row], roles: dict[str, str], columns: Columns) -> dict[int, str]:
    """Row number to split; a column that names none of the splits (such as numbered folds) is an attribute."""
    if "split" not in roles:
        return {}
    named = {number: SPLIT_NAMES.get(row[roles["split"]].lower(), "") for number, row in rows.items()}
    if any(named.values()):
        unknown = sum(not split for split in named.values())
        if unknown:
            raise DataError(
                f"{unknown} rows of the manifest name no split in {roles['split']!r}; expected train, val or test"
            )
        return named
    if columns.split is not None:
        raise DataError(f"the manifest's column {columns.split!r} holds none of train, val and test")
    del roles["split"]
    return {}


def _unusable_row(root: Path, text: str) -> str:
    place = PurePosixPath(text)
    if place.is_absolute() or ".." in place.parts or PureWindowsPath(text).drive or "\0" in text:
        return "has a path that leaves the manifest's folder"
    try:
        path = root / text
        if outside(root, path):
            return "has a path that leaves the manifest's folder"
        if path.is_dir():
            return "is a folder, expected one file a case"
        if not path.is_file():
            return "is listed, but its file is missing"
    except OSError:
        return "has a path that can't be opened"
    return ""


def _unlisted(root: Path, texts: set[str]) -> list[Finding]:
    listed = {root / text for text in texts}
    count = sum(1 for f in root.rglob("*") if f not in listed and f.is_file() and looks_like_image(f))
    if not count:
        return []
    return [Finding("data.unlisted_files", "info", f"{count} image files are not in the manifest and were left aside.")]
