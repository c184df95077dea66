"""The frames of DICOM files as cases of their own, where `input.frames` is `all`."""

from __future__ import annotations

from dataclasses import replace

from pydicom.errors import BytesLengthException, InvalidDicomError

from medharden.data.formats.dicom_file import read_head
from medharden.data.formats.files import sniff
from medharden.data.formats.image import MALFORMED, quiet_readers
from medharden.data.formats.placing import number_of_frames
from medharden.data.sources.folder import Entry, Listing, frame_suffix
from medharden.errors import DataError
from medharden.record import Finding

__all__ = ["frames_of_file", "in_frames"]

_MOST_FRAMES = 100_000


def in_frames(listing: Listing) -> Listing:
    """Each file of several frames as so many cases, with the same label, split and patient."""
    entries: list[Entry] = []
    files = 0
    with quiet_readers():
        for entry in listing.entries:
            frames = frames_of_file(entry)
            if frames == 1:
                entries.append(entry)
                continue
            files += 1
            entries += [replace(entry, text=f"{entry.text}{frame_suffix(n)}", frame=n) for n in range(1, frames + 1)]
    if not files:
        return listing
    made = sum(entry.frame > 0 for entry in entries)
    message = (
        f"{files} files of several frames became {made} cases, each frame one of its file's patient (input.frames)."
    )
    return replace(
        listing, entries=tuple(entries), findings=(*listing.findings, Finding("data.frames_as_cases", "info", message))
    )


def frames_of_file(entry: Entry) -> int:
    """How many frames a file says that it has; 1 where it is no DICOM, or says nothing that can be believed."""
    if entry.path is None or len(entry.paths) != 1:
        return 1
    try:
        if sniff(entry.path) != "dicom":
            return 1
        frames = number_of_frames(read_head(entry.path, ("NumberOfFrames",)))
    except (*MALFORMED, DataError, InvalidDicomError, BytesLengthException):
        return 1  # what is wrong is said when it is read
    return frames if 1 <= frames <= min(_MOST_FRAMES, entry.path.stat().st_size) else 1  # a frame takes a byte at least
