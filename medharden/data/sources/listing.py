"""What a source of any kind holds, and where a pseudonym's case lies in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from medharden.data.formats.dicomdir import DICOMDIR
from medharden.data.pseudonyms import pseudonym
from medharden.data.sources.archive import list_archive
from medharden.data.sources.channels import ChannelPatterns, in_channels
from medharden.data.sources.companions import CompanionsError
from medharden.data.sources.folder import Listing, list_folder
from medharden.data.sources.frames import in_frames
from medharden.data.sources.manifest import list_manifest
from medharden.data.sources.patient_paths import named_by_path
from medharden.data.sources.series import in_series
from medharden.data.sources.tables import find_manifest, tables_of_splits, why_no_manifest
from medharden.errors import DataError
from medharden.links import followed, leaves
from medharden.protocol import Protocol
from medharden.record import Finding
from medharden.sizes import MAX_DECODED

__all__ = ["REMOTE", "list_source", "locate_case", "require_source"]

REMOTE = "dicomweb+"
"""What the address of a server begins with where it stands in the place of a path."""


def locate_case(
    source: Path,
    protocol: Protocol,
    *,
    key: bytes,
    case: str,
    memory_limit: int = 4 * 2**30,
    max_decoded: int = MAX_DECODED,
) -> str:
    """Where a pseudonym's case lies, for whoever holds data and key; the answer is patient data.

    Args:
        source: as `load_cohort` takes it.
        protocol: as `load_cohort` takes it.
        key: the key that made the pseudonym.
        case: the pseudonym.
        memory_limit: as `load_cohort` takes it.
        max_decoded: as `load_cohort` takes it.

    Returns:
        The path below the data's root, or the split and row of an archive.

    Raises:
        DataError: no case has this pseudonym under this key.
    """
    known: dict[str, str] = {}

    def name(text: str) -> str:
        alias = pseudonym(key, "case", text)
        known[alias] = text
        return alias

    for entry in list_source(source, protocol, name, memory_limit, max_decoded).entries:
        name(entry.text)
    if case not in known:
        raise DataError("no case of these data has that pseudonym under this key; were key and data the same then?")
    return known[case]


def require_source(source: Path) -> None:
    """Checks that there is something at a path given as data.

    Raises:
        DataError: there is nothing; or it is a server's address, which those commands take that retrieve first.
    """
    if str(source).lower().startswith(REMOTE):
        raise DataError(
            "--data is a DICOMweb server's address, from which inspect, harden and evaluate retrieve; this reads local "
            "files alone: give it an export"
        )
    if not source.exists():
        raise DataError("there is nothing at the path given as data; expected a folder, a CSV, .json or .npz file")


def list_source(
    source: Path,
    protocol: Protocol,
    name: Callable[[str], str],
    memory_limit: int,
    max_decoded: int = MAX_DECODED,
) -> Listing:
    """What a source of any kind holds, before anything is read; `name` gives a case's pseudonym.

    Raises:
        DataError: there is nothing, or nothing that could be cases.
    """
    try:
        require_source(source)
        if source.is_dir():
            table = find_manifest(source, protocol) or (source if tables_of_splits(source, protocol) else None)
            listing = list_manifest(table, protocol, name) if table else _list_folder(source, protocol, name)
        elif not source.is_file():
            raise DataError("expected a folder, a CSV, .json or .npz file as data, found something else")
        elif source.name.upper() == DICOMDIR:
            raise DataError(
                "a DICOMDIR has no labels: give a CSV in its folder as data, with a row a series (a column with the "
                "SeriesInstanceUID, named in columns.path, and one with the label); its records then say which files"
            )
        elif source.suffix.lower() == ".npz":
            listing = list_archive(source, protocol, name, memory_limit, max_decoded)
        elif source.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"):
            listing = list_manifest(source, protocol, name)
        else:
            sheet = source.suffix.lower() in (".xlsx", ".xls", ".ods")
            raise DataError(
                f"expected a folder, a CSV, .json or .npz file as data, found a {source.suffix or 'plain'} file"
                + ("; save the sheet as CSV in UTF-8" if sheet else "")
            )
    except OSError as error:
        raise DataError(f"the data can't be read: {error.strerror}") from None
    if not listing.entries and not listing.problems and listing.left_out:
        raise DataError(
            f"all {len(listing.left_out)} cases are left out by the protocol (task.uncertain, task.missing)"
        )
    if not listing.entries and not listing.problems:
        raise DataError("found no DICOM, NIfTI, PNG, JPEG or TIFF file in the data")
    listing = replace(listing, findings=(*listing.findings, *_behind_links(source, listing)))
    if protocol.input.frames == "all":
        listing = in_frames(listing)
    if protocol.splits.patient_from is not None and listing.source != "npz":
        listing = replace(listing, entries=tuple(named_by_path(listing.entries, protocol.splits.patient_from)))
    return listing


def _behind_links(source: Path, listing: Listing) -> tuple[Finding, ...]:
    """That files lie outside the folder of the data, which happens where links are followed alone."""
    root = source if source.is_dir() else source.parent
    count = followed() and sum(leaves(root, path) for entry in listing.entries for path in entry.paths)
    if not count:
        return ()
    message = f"{count} files lie behind links that leave the folder of the data; they were followed (--follow-links)."
    return (Finding("data.links_followed", "warning", message),)


def _list_folder(source: Path, protocol: Protocol, name: Callable[[str], str]) -> Listing:
    """Class folders; where there are none, the error says of each CSV file why it is no manifest."""
    try:
        listing = list_folder(source, protocol, name)
    except CompanionsError:
        raise
    except DataError as error:
        reasons = why_no_manifest(source, protocol)
        raise DataError(f"{error}; {reasons}" if reasons else str(error)) from None
    if len(listing.classes) == 1 and (reasons := why_no_manifest(source, protocol)):
        raise DataError(f"expected two classes or more, found one folder and no table that fits; {reasons}")
    listing = in_series(listing, source, protocol.input, name)
    if protocol.input.channels_from and not protocol.input.patterned:
        raise DataError(
            "input.channels_from gives no patterns, which folders need to tell the channels apart, such as "
            "{t1: '*_t1.nii.gz'}; without them channels are taken as a manifest or datalist lists them"
        )
    if protocol.input.channels_from:
        listing = in_channels(listing, ChannelPatterns(protocol.input.channels_from), name)
    return replace(listing, entries=tuple(sorted(listing.entries, key=lambda e: e.text)))
