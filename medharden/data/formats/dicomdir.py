"""A DICOMDIR (PS3.3 F, PS3.10 8): which files are the images of which series, without opening any of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from medharden.data.formats.dicom_file import open_data_set
from medharden.data.formats.image import MALFORMED, quiet_readers
from medharden.data.formats.limits import Hold, Room
from medharden.data.formats.numbers import text_of
from medharden.errors import DataError

__all__ = ["DICOMDIR", "dicomdir_of", "series_of_dicomdir"]

DICOMDIR = "DICOMDIR"

_LOWER, _NEXT = "OffsetOfReferencedLowerLevelDirectoryEntity", "OffsetOfTheNextDirectoryRecord"
_SERIES, _ABOVE = "SERIES", ("PATIENT", "STUDY")


def dicomdir_of(folder: Path) -> Path | None:
    """The directory of the media that a folder is, or none."""
    return next((path for name in (DICOMDIR, DICOMDIR.lower()) if (path := folder / name).is_file()), None)


def series_of_dicomdir(path: Path) -> dict[str, tuple[Path, ...]]:
    """SeriesInstanceUID to the files that the directory's records name, in their order.

    Args:
        path: of the directory; the files lie in its folder or below.

    Raises:
        DataError: it is no such directory, or names a file outside its folder, or one that is not there.
    """
    try:
        with quiet_readers(), Room().file() as hold:
            records = _records(path, hold)
            found = {uid: tuple(_files(path.parent, images)) for uid, images in _by_series(records).items()}
    except (*MALFORMED, InvalidDicomError, BytesLengthException) as error:
        raise DataError(f"the DICOMDIR can't be decoded: truncated or damaged ({type(error).__name__})") from None
    if not found:
        raise DataError("the DICOMDIR has no record of a series")
    return found


def _records(path: Path, hold: Hold) -> list[Dataset]:
    try:
        return list(open_data_set(path, hold)[0].get("DirectoryRecordSequence") or [])
    except DataError as error:
        raise DataError(f"the DICOMDIR {error}") from None


def _by_series(records: Sequence[Dataset]) -> dict[str, list[Dataset]]:
    """The records below each series: by their offsets, or, where these lead nowhere, by their order."""
    at = {int(record.seq_item_tell): record for record in records}
    below: dict[str, list[Dataset]] = defaultdict(list)
    series = [record for record in records if _kind(record) == _SERIES]
    for record in series:
        below[text_of(record, "SeriesInstanceUID")] += _siblings(at, _offset(record, _LOWER))
    if any(below.values()) or not series:
        return below
    uid = ""
    for record in records:
        if _kind(record) == _SERIES:
            uid = text_of(record, "SeriesInstanceUID")
        elif _kind(record) in _ABOVE:
            uid = ""
        elif uid:
            below[uid].append(record)
    return below


def _siblings(at: dict[int, Dataset], offset: int) -> Iterator[Dataset]:
    """A chain of records; one that runs in a circle ends where it began."""
    seen: set[int] = set()
    while offset in at and offset not in seen:
        seen.add(offset)
        yield at[offset]
        offset = _offset(at[offset], _NEXT)


def _files(root: Path, records: Sequence[Dataset]) -> Iterator[Path]:
    """The files that records name; a record without one, as of a report within the directory, names none."""
    for record in records:
        named = record.get("ReferencedFileID")
        if not named:
            continue
        parts = [named] if isinstance(named, str) else [str(part) for part in named]
        path = root.joinpath(*parts)
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts) or not _inside(root, path):
            raise DataError("the DICOMDIR names a file outside its folder")
        there = next((p for p in (path, root.joinpath(*map(str.lower, parts))) if p.is_file()), None)
        if there is None:
            raise DataError(
                "the DICOMDIR names a file that is not there; copy the media whole, or take the DICOMDIR out"
            )
        yield there


def _inside(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # links in a circle
        return False


def _kind(record: Dataset) -> str:
    return text_of(record, "DirectoryRecordType").upper()


def _offset(record: Dataset, name: str) -> int:
    return int(record.get(name) or 0)
