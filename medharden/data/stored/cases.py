"""From a case to its stored values and back to a file: one door for every format that can be written."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from medharden.data.cohort import Case
from medharden.data.formats.files import read_file, sniff
from medharden.data.formats.image import MALFORMED, StoredImage, quiet_readers
from medharden.data.formats.limits import Hold, Room
from medharden.data.pseudonyms import keyed_digest, pseudonym
from medharden.data.sources.folder import Entry, Listing
from medharden.data.sources.listing import list_source
from medharden.data.stored.dicom_writing import Marks, dicom_bytes, dicom_values
from medharden.data.stored.nifti_writing import nifti_bytes, nifti_values
from medharden.data.stored.values import StoredValues, plain_values
from medharden.errors import DataError
from medharden.protocol import Protocol
from medharden.sizes import MAX_DECODED

__all__ = ["StoredCases", "Written", "read_back", "stored_cases"]

_MEMORY_LIMIT = 4 * 2**30
_VALUE_BYTES = 32  # stored as int64, its double in rescaled units, and both once more while they are compared


@dataclass(frozen=True)
class Written:
    """A file as bytes, the ending that its format has, and the texts in its header."""

    data: bytes
    suffix: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredCases:
    """The files behind a cohort's cases, which the cohort itself does not name.

    Attributes:
        listing: what the source holds.
        entries: by case pseudonym.
        dims: spatial dimensions.
        key: secret of the pseudonyms, from which new UIDs are derived.
        room: the memory that taking a file apart may need.
    """

    listing: Listing
    entries: dict[str, Entry] = field(repr=False)
    dims: int
    key: bytes = field(repr=False)
    room: Room = field(default_factory=lambda: Room(value_bytes=_VALUE_BYTES))

    def stored_values(self, case: Case) -> StoredValues:
        """The stored values of a case.

        Raises:
            DataError: the case can't be attacked in stored values and written back, with the reason; or its file is not
                the one that the cohort was read from.
        """
        with quiet_readers(), self.room.file() as hold:
            try:
                stored_values = _stored_values(self.listing, self.entries[case.case], self.dims, hold)
            except KeyError:
                raise DataError("is no case of these data") from None
            except MALFORMED as error:
                raise DataError(f"can't be taken apart: its header is malformed ({type(error).__name__})") from None
        if keyed_digest(self.key, "pixels", stored_values.image.pixels) != case.pixels:
            raise DataError("changed since it was read first")
        return stored_values

    def written(self, case: Case, stored_values: StoredValues, stored: npt.NDArray[np.int64], marks: Marks) -> Written:
        """The case's file with other stored values: DICOM as DICOM, NIfTI as NIfTI, every picture as PNG.

        Args:
            case: which.
            stored_values: what `stored_values` gave for it.
            stored: (C, *spatial) within the range of those.
            marks: what a DICOM file says of itself.

        Raises:
            DataError: the source can't be written back.
        """
        assert stored.min() >= stored_values.lowest, "below what the file holds"  # noqa: S101
        assert stored.max() <= stored_values.highest, "above what the file holds"  # noqa: S101
        path = self.entries[case.case].path
        with quiet_readers(), self.room.file() as hold:
            try:
                if path is not None and stored_values.image.format == "dicom":
                    return Written(*dicom_bytes(path, self.dims, stored, marks, hold))
                if path is not None and stored_values.image.format == "nifti":
                    return Written(nifti_bytes(path, stored, hold), ".nii.gz")
                return Written(_png(stored, stored_values.highest), ".png")
            except MALFORMED as error:
                raise DataError(f"can't be written back: its header is malformed ({type(error).__name__})") from None


def stored_cases(
    source: Path,
    protocol: Protocol,
    *,
    key: bytes,
    memory_limit: int = _MEMORY_LIMIT,
    max_decoded: int = MAX_DECODED,
) -> StoredCases:
    """Finds the files of a cohort again.

    Args:
        source: as `load_cohort` takes it.
        protocol: as `load_cohort` takes it.
        key: the key that made the cohort's pseudonyms.
        memory_limit: as `load_cohort` takes it.
        max_decoded: bytes of memory that taking one file apart may need.

    Raises:
        DataError: as `load_cohort`, where nothing can be listed.
    """
    name = partial(pseudonym, key, "case")
    listing = list_source(source, protocol, name, memory_limit, max_decoded)
    room = Room(max_decoded, value_bytes=_VALUE_BYTES)
    return StoredCases(listing, {name(e.text): e for e in listing.entries}, protocol.input.dims, key, room)


def read_back(path: Path, dims: int, room: Room | None = None) -> StoredImage:
    """A written file through the ordinary loader.

    Raises:
        DataError: with the reason alone.
    """
    with quiet_readers(), (room or Room()).file() as hold:
        return read_file(path, dims, hold)


def _stored_values(listing: Listing, entry: Entry, dims: int, hold: Hold) -> StoredValues:
    if entry.channels:
        raise DataError(
            f"is stacked of {len(entry.channels)} images as channels, which are not written back; attacks in stored "
            "values take cases of one file"
        )
    if len(entry.slices) > 1:
        raise DataError(
            f"is read from {len(entry.slices)} files, which are not written back; give it as one NIfTI file to attack "
            "its stored values"
        )
    if entry.path is None:
        return _picture_values(listing.read(entry, hold))
    kind = sniff(entry.path)
    if entry.frame:
        raise DataError("is one frame of a file of several, which is not written back; give it as a file of its own")
    if kind == "dicom":
        return dicom_values(entry.path, dims, hold)
    if kind == "nifti":
        return nifti_values(entry.path, hold, dims)
    return _picture_values(read_file(entry.path, dims, hold))


def _picture_values(image: StoredImage) -> StoredValues:
    if image.values.ndim != 3:
        raise DataError("is a volume of an archive; give volumes as NIfTI or DICOM files to have them written back")
    top = None if image.window is None else image.window.high
    if image.inverted or top not in (255.0, 65535.0) or (image.values.shape[0] == 3 and top != 255.0):
        raise DataError(
            "has values that PNG can't hold in the same way; expected grey of 8 or 16 bits, or 8-bit colour"
        )
    return plain_values(image, 0, int(top))


def _png(stored: npt.NDArray[np.int64], highest: int) -> bytes:
    array = stored.astype(np.uint8 if highest == 255 else np.uint16)
    picture = Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(np.moveaxis(array, 0, -1)))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
