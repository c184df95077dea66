"""One frame of a multi-frame DICOM file as a data set of its own, so that all else reads it as a single image."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from medharden.data.formats.dicom_pixels import check_length
from medharden.data.formats.fragments import frames_of
from medharden.data.formats.placing import number_of_frames
from medharden.errors import DataError
from medharden.protocol import Frames

__all__ = ["frame_number", "reduce_to_frame"]

_PER_FRAME = "PerFrameFunctionalGroupsSequence"
_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def frame_number(wanted: Frames, frames: int) -> int:
    """Which of so many frames is meant, from 1, in the order in which they are stored.

    Args:
        wanted: the protocol's `input.frames`.
        frames: how many there are.

    Raises:
        DataError: there are several and none is named, or there is no such frame.
    """
    if wanted in ("one", "all") and frames != 1:
        raise DataError(
            f"has {frames} frames, expected one (input.frames says which are cases; volumes need input.dims: 3)"
        )
    if isinstance(wanted, int) and wanted > frames:
        raise DataError(f"has {frames} frames, and input.frames asks for number {wanted}")
    return wanted if isinstance(wanted, int) else 1 + frames // 2 if wanted == "middle" else 1


def reduce_to_frame(ds: Dataset, number: int) -> None:
    """Takes all frames but one out of a data set: its pixels, and what its functional groups say.

    Args:
        ds: with pixels; changed in place.
        number: of the frame, from 1.

    Raises:
        DataError: fewer or more bytes or frames than the header says.
    """
    frames = number_of_frames(ds)
    if frames == 1:
        return
    groups = ds.get(_PER_FRAME)
    if groups:
        if len(groups) != frames:
            raise DataError("describes some of its frames only")
        setattr(ds, _PER_FRAME, [groups[number - 1]])
    if UID(ds.file_meta.TransferSyntaxUID).is_encapsulated:
        ds.PixelData = encapsulate([frames_of(ds, frames)[number - 1]])
    else:
        check_length(ds)
        length = int(ds.Rows) * int(ds.Columns) * int(ds.SamplesPerPixel) * int(ds.BitsAllocated) // 8
        own = ds.PixelData[(number - 1) * length : number * length]
        ds.PixelData = own + b"\0" * (len(own) % 2)
    for name in _TABLES:
        if name in ds:
            delattr(ds, name)
    ds.NumberOfFrames = 1
