"""Cases listed in a CSV file: which column means what, and which rows can be used."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from medharden.data.formats.channels import read_parts
from medharden.data.formats.files import looks_like_image
from medharden.data.sources.channels import stacked_finding
from medharden.data.sources.columns import (
    GUESSED,
    Row,
    join_tables,
    one_hot_of,
    path_columns,
    read_table,
    roles_of,
    splits_of,
)
from medharden.data.sources.companions import chosen, refuse_companions
from medharden.data.sources.findings import FindingReader, lists_several
from medharden.data.sources.folder import Entry, Listing, sorted_classes, unchosen_files
from medharden.data.sources.labels import NO_LABEL, Classes
from medharden.data.sources.places import LEAVES, MISSING, Places
from medharden.data.sources.row_images import RowImages
from medharden.data.sources.series import SeriesBelow, as_case, found_in_directory, left_aside
from medharden.data.sources.tables import read_split_tables
from medharden.errors import DataError, Problem
from medharden.patients import patient_identity
from medharden.protocol import Cases, Protocol
from medharden.record import Finding

__all__ = ["list_manifest"]


def list_manifest(table: Path, protocol: Protocol, name: Callable[[str], str]) -> Listing:
    """The cases that a CSV file lists, or those in split folders; the files lie in its folder, however far below.

    Raises:
        DataError: the file is no such table, its columns are ambiguous, or not one listed file is there.
    """
    root = table if table.is_dir() else table.parent
    header, rows, problems = read_split_tables(table, protocol) if table.is_dir() else read_table(table)
    header = join_tables(root, header, rows, protocol.columns)
    roles = roles_of(header, rows, protocol)
    labels = _Labels(header, rows, roles, protocol)
    splits = splits_of(rows, roles, protocol.columns)
    paths = path_columns(table, header, roles, protocol.columns)
    taken = {*roles.values(), *labels.columns, *paths}
    places = Places(root)
    places.expect(row[column] for row in rows.values() for column in paths)
    series = SeriesBelow(root, protocol.input) if protocol.input.dims == 3 else None
    images = RowImages(places, series, protocol.input, paths)
    listed: list[Entry] = []
    left_out: list[Problem] = []
    lost = unchosen = leaving = 0
    for number, row in rows.items():
        found = images.of(row)
        label, masked, unlabelled = labels.of(row)
        split, known = splits.get(number, ""), None if unlabelled else label
        lost += found.problem == MISSING
        leaving += found.problem == LEAVES
        if not row[roles["path"]]:
            problems.append(Problem(f"row {number}", "has no path", known, split))
        elif not found.problem and not chosen(found.text, protocol.cases):
            unchosen += 1
        elif reason := found.problem or unlabelled:
            apart = left_out if not found.problem and labels.excludes(reason) else problems
            apart.append(Problem(name(found.text), reason, known, split, masked=masked))
        else:
            entry = Entry(
                text=found.text,
                label=label,
                split=split,
                patient=row[roles["patient"]] if "patient" in roles else "",
                attributes={c: v for c, v in row.items() if c not in taken and v},
                root=root,
                masked=masked,
            )
            if found.channels:
                listed.append(replace(entry, channels=found.channels))
            else:
                listed.append(as_case(entry, found.slices) if found.slices else entry)
    foreign = _foreign(places, leaving, len(rows))
    if foreign and lost + leaving == len(rows):
        raise DataError(foreign[0].message, tuple(problems))
    if lost and lost == len(rows):
        raise DataError(
            f"not one of the {lost} files that the manifest lists is there; below its folder lie {places.images} files "
            "with the ending of an image. Looked for were the paths as written, also without the folders in front, in "
            "folders below, with an ending added and in other capitals: is the manifest in the data's folder, and "
            "columns.path the right column?"
        )
    refuse_companions([(_beside_class(entry), "") for entry in listed], protocol.cases, modalities=False)
    entries, contradicting, repeated = _once(root, listed, name)
    findings = [*labels.noted(), *foreign, *_found_elsewhere(places), *unchosen_files(unchosen), *_repeated(repeated)]
    findings += (*left_aside(series.aside), *found_in_directory(series)) if series is not None else ()
    findings += stacked_finding(entries, images.names)
    findings += _unlisted(root, {path for entry in listed for path in entry.paths}, protocol.cases)
    return Listing(
        source="manifest",
        classes=labels.classes,
        entries=tuple(sorted(entries, key=lambda e: e.text)),
        read=lambda entry, hold: read_parts(entry.parts, protocol.input.at_frame(entry.frame), hold),
        problems=(*problems, *contradicting),
        findings=tuple(findings),
        left_out=(*left_out, *repeated),
    )


class _Labels:
    """What the rows say of their cases: one class, by a word or by a column for each; or findings."""

    def __init__(self, header: list[str], rows: dict[int, Row], roles: dict[str, str], protocol: Protocol) -> None:
        task, self._column = protocol.task, roles.get("label")
        self._reader = FindingReader(task, header) if task.multilabel else None
        self._one_hot: dict[str, str] = {}
        self._words: Classes | None = None
        self._guess: list[Finding] = []
        if self._reader is not None:
            self.classes = self._reader.findings
            self.columns = () if self._column else self._reader.columns
            if self._column:
                self._reader.learn([row[self._column] for row in rows.values()])
        elif self._column is None:
            self.columns = one_hot_of(header, rows, protocol)
            self.classes = task.classes or tuple(sorted(self.columns))
            self._one_hot = dict(zip(self.columns, task.classes or self.columns, strict=True))
        else:
            self._words, self.columns = Classes((row[self._column] for row in rows.values()), task.classes), ()
            self.classes = sorted_classes(self._words.names)
            if joined := lists_several(self.classes, task.classes or ()):
                raise DataError(
                    f"{joined} of the {len(self.classes)} different labels name several of the others at once: where "
                    "a case may have several findings, set task.kind: multilabel and name them in task.classes; where "
                    "such a combination is a class of its own, name it there"
                )
            if self._column.lower() not in GUESSED and protocol.columns.label is None:
                message = (
                    f"The class was taken from the manifest's column {self._column!r}, the only one that could be it."
                )
                self._guess.append(Finding("data.label_column", "info", message))

    def of(self, row: Row) -> tuple[str | tuple[str, ...], tuple[str, ...], str]:
        """A case's label, the findings that are left out of it, and why it can't be used, or ""."""
        if self._reader is not None:
            return self._reader.from_names(row[self._column]) if self._column else self._reader.from_cells(row)
        if self._words is None or self._column is None:
            return next(name for column, name in self._one_hot.items() if float(row[column]) == 1.0), (), ""
        label = self._words.of(row[self._column])
        return label, (), "" if label else NO_LABEL

    def excludes(self, reason: str) -> bool:
        """Whether the protocol leaves cases out for this."""
        return self._reader is not None and self._reader.excludes(reason)

    def noted(self) -> tuple[Finding, ...]:
        """What a reader of the report must know of the labels."""
        if self._reader is not None:
            return self._reader.noted()
        return (*self._guess, *(self._words.noted() if self._words is not None else ()))


def _found_elsewhere(places: Places) -> list[Finding]:
    """That files do not lie where the manifest says, and how they were found."""
    if not places.ways:
        return []
    ways = ", ".join(f"{n} {way}" for way, n in sorted(places.ways.items()))
    return [Finding("data.paths_found", "info", f"Files that do not lie where the manifest says were found: {ways}.")]


def _foreign(places: Places, leaving: int, rows: int) -> list[Finding]:
    """That paths are those of another machine, and not used."""
    if not leaving or not places.foreign.count:
        return []
    return [Finding("data.foreign_paths", "warning", places.foreign.told(leaving, rows))]


def _repeated(rows: list[Problem]) -> list[Finding]:
    if not rows:
        return []
    message = f"{len(rows)} rows of the manifest list a file once more and say the same of it; each file is one case."
    return [Finding("data.repeated_rows", "info", message)]


def _once(
    root: Path, listed: list[Entry], name: Callable[[str], str]
) -> tuple[list[Entry], list[Problem], list[Problem]]:
    """Each file once, under whatever names it is listed: in other capitals where these don't count, or as a link.

    Of rows that say the same of a file, the first is kept that names a patient. Rows that contradict each other are
    all left out: which of them is right can't be told. Given are the entries, the contradicting and the repeated rows.
    """
    same: dict[object, list[Entry]] = defaultdict(list)
    for entry in listed:
        found = os.stat(entry.path or root)
        same[(found.st_dev, found.st_ino) if found.st_ino else entry.text].append(entry)
    kept, problems, repeated = [], [], []
    for rows in same.values():
        if apart := _contradiction(rows):
            labels, splits = {(row.label, row.masked) for row in rows}, {row.split for row in rows}
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
                repeated.append(
                    Problem(name(row.text), f"is listed twice{other}", row.label, row.split, True, row.masked)
                )
    return kept, problems, repeated


def _contradiction(rows: list[Entry]) -> str:
    """What rows of one file say differently of it, or nothing."""
    ways = {
        "labels": len({(row.label, row.masked) for row in rows}),
        "patients": len({patient_identity(row.patient) for row in rows} - {""}),
        "splits": len({row.split for row in rows}),
    }
    return " and ".join(what for what, count in ways.items() if count > 1)


def _beside_class(entry: Entry) -> str:
    """A case's path without the folder that is named as its class."""
    return "/".join(part for part in entry.text.split("/") if part != entry.label)


def _unlisted(root: Path, listed: set[Path], rule: Cases) -> list[Finding]:
    files = (f for f in root.rglob("*") if f not in listed and f.is_file() and looks_like_image(f))
    count = sum(chosen(f.relative_to(root).as_posix(), rule) for f in files)
    if not count:
        return []
    return [Finding("data.unlisted_files", "info", f"{count} image files are not in the manifest and were left aside.")]
