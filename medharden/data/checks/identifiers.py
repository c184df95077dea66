"""What the data say of who the patients are, gathered for the check of every output; it enters no record."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from medharden.data.sources.folder import Entry, Listing, split_of
from medharden.data.view.case import ReadCase
from medharden.patients import patient_identity
from medharden.protocol import Protocol

__all__ = ["Identifiers", "gather_identifiers", "may_name_people"]

Identifiers = Mapping[str, tuple[str, ...]]
"""Kind, such as `name` or `file name`, to the values that occur in the data, each once, sorted."""

_TELLING = re.compile(
    r"(^|[^a-z])(name|id|ids|mrn|birth\w*|dob|accession\w*|phone|telephone|address|e?mail|uid|ssn|nhs)([^a-z]|$)"
    r"|(patient|study|series|subject|case|instance)_?(name|id|uid)$|birthdate",
    re.IGNORECASE,
)
_MOST_VALUES = 32


def gather_identifiers(
    source: Path | None, listing: Listing, results: Sequence[ReadCase | str], protocol: Protocol
) -> Identifiers:
    """Every value by kind: from headers, patient columns, paths, and columns of the manifest that may name people.

    Columns that the protocol declares for subgroups are not among these.
    """
    found: dict[str, set[str]] = defaultdict(set)
    if source is not None and listing.source != "npz":
        found["folder"].add(str(source.resolve()))
        for entry in listing.entries:
            for kind, value in _names_in_path(entry, set(listing.classes)):
                found[kind].add(value)
    for entry in listing.entries:
        if entry.patient:
            found["identifier"].add(entry.patient)
    for result in results:
        if isinstance(result, ReadCase):
            for kind, value in result.identifiers:
                found[kind].add(value)
    found["identifier"] |= {patient_identity(value) for value in found["identifier"]} - {""}
    for column, values in _telling_columns(listing.entries, protocol).items():
        found[f"column {column}"] |= values
    return {kind: tuple(sorted(values)) for kind, values in sorted(found.items()) if values}


def _names_in_path(entry: Entry, classes: set[str]) -> Iterator[tuple[str, str]]:
    path = PurePosixPath(entry.text)
    yield "file name", path.name
    yield "file name", path.name.split(".")[0]
    for folder in path.parts[:-1]:
        if folder not in classes and not split_of(folder):
            yield "folder", folder


def _telling_columns(entries: Sequence[Entry], protocol: Protocol) -> dict[str, set[str]]:
    declared = {column.lower() for column in protocol.subgroups.columns}
    columns: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for column, value in entry.attributes.items():
            if column.lower() not in declared:
                columns[column].add(value)
    return {column: values for column, values in columns.items() if may_name_people(column, len(values))}


def may_name_people(column: str, values: int) -> bool:
    """Whether the heading of a column says that it names people, or it has more than 32 different values."""
    return values > _MOST_VALUES or _TELLING.search(column) is not None
