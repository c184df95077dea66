"""A series of single-frame DICOM files as a volume: one slice a file, sorted and oriented by their positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.errors import BytesLengthException, InvalidDicomError

from medharden.data.formats.dicom import open_dicom
from medharden.data.formats.dicom_file import read_head
from medharden.data.formats.image import MALFORMED, StoredImage, digest_parts
from medharden.data.formats.limits import Hold, Room
from medharden.data.formats.numbers import text_of
from medharden.data.formats.pictures import collapse
from medharden.data.formats.placing import file_slice
from medharden.data.formats.stack import FRAMES_AS_STORED, Arrangement, Slice, arrange
from medharden.data.formats.window import Window
from medharden.errors import DataError
from medharden.protocol import Volume

__all__ = ["read_series"]

_SLICE_BYTES = 2**24  # what a slice may take while it is read, at least
_TIMES_FILE, _TIMES_VALUES = 8, 64  # and else, of its file's bytes and of its values
_TAGS = (
    *("ImageType", "PatientID", "EchoTime", "EchoNumbers", "DiffusionBValue", "TriggerTime", "FrameReferenceTime"),
    *("TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "AcquisitionNumber", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("Rows", "Columns", "PixelRepresentation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class _Form:
    """What all slices share."""

    rows: int
    columns: int
    channels: int
    photometric: str
    signed: int


def read_series(paths: Sequence[Path], hold: Hold, volume: Volume | None = None) -> StoredImage:
    """Decodes the files of one series as a volume in rescaled units, each slice with its own slope and intercept.

    Slices are sorted by position along the normal of their plane and reoriented to the closest canonical axes (RAS+),
    as `read_dicom` does with the frames of one file.

    Args:
        paths: of the files, in any order.
        hold: the memory that the volume may take.
        volume: which time point, echo ... is meant, where there are several.

    Raises:
        DataError: with the reason alone: a slice that can't be read, is of another form or another patient's, lies
            twice, is missing, or has no position.
    """
    slices, form = _headers(paths)
    arrangement = arrange(slices, volume or Volume())
    if FRAMES_AS_STORED in arrangement.notes:
        raise DataError(f"gives no positions in its {len(paths)} files, so that the order of slices can't be told")
    chosen = [paths[n] for n in arrangement.order]
    pixels = form.rows * form.columns * form.channels
    most = max(path.stat().st_size for path in chosen)
    room = min(hold.limit, max(_SLICE_BYTES, _TIMES_FILE * most + _TIMES_VALUES * pixels))
    hold.take_values((len(chosen), pixels), 2, beside=room + len(chosen) * pixels)
    return _stacked(chosen, form, arrangement, Room(room))


def _headers(paths: Sequence[Path]) -> tuple[list[Slice], _Form]:
    """Where the slices lie, and the form that they share."""
    slices, forms, patients = [], set(), set()
    for path in paths:
        try:
            ds = read_head(path, _TAGS)
            slices.append(file_slice(ds))
            grey = text_of(ds, "PhotometricInterpretation").startswith("MONOCHROME")
            shape = int(ds.Rows), int(ds.Columns), 1 if grey else 3
            forms.add(_Form(*shape, text_of(ds, "PhotometricInterpretation"), int(ds.PixelRepresentation)))
            patients.add(text_of(ds, "PatientID"))
        except DataError as error:
            raise DataError(f"has a slice that {error}") from None
        except (*MALFORMED, InvalidDicomError, BytesLengthException) as error:
            raise DataError(
                f"has a slice that can't be decoded as DICOM: truncated or damaged ({type(error).__name__})"
            ) from None
    if len(patients) > 1:
        raise DataError(f"holds slices of {len(patients)} patients in one series")
    if len(forms) > 1:
        sizes = {(form.rows, form.columns) for form in forms}
        what = f"{len(sizes)} sizes" if len(sizes) > 1 else "several kinds of pixels"
        raise DataError(f"has slices of {what} in one series; take out what does not belong to the volume")
    return slices, forms.pop()


def _stacked(paths: Sequence[Path], form: _Form, arrangement: Arrangement, room: Room) -> StoredImage:
    """The volume of files in order."""
    shape = len(paths), form.rows, form.columns
    planes = [arrangement.room(shape, np.float32) for _ in range(form.channels)]
    mask, masked = arrangement.room(shape, np.bool_)
    masked[...] = False
    seen: list[StoredImage] = []
    first = _slice(paths[0], room)

    def slices() -> Iterator[npt.NDArray[Any]]:
        for number, path in enumerate(paths):
            image, stored = _slice(path, room) if number else first
            if stored.dtype != first[1].dtype:
                raise DataError("has slices that are stored in several ways (bits allocated, sign)")
            for channel, (_, ordered) in enumerate(planes):
                ordered[number] = image.values[min(channel, len(image.values) - 1)]
            if image.padding is not None:
                masked[number] = image.padding
            seen.append(_without_values(image))
            yield stored[None]

    digest = digest_parts(first[1].dtype, (len(paths), *first[1].shape), slices())
    values = np.stack([plane for plane, _ in planes]) if len(planes) > 1 else planes[0][0][None]
    window, windows = _window(seen)
    return StoredImage(
        values=collapse(values),
        window=window,
        format="dicom",
        pixels=digest,
        inverted=seen[0].inverted,
        windows=windows,
        window_problem=next((image.window_problem for image in seen if image.window_problem), ""),
        padding=mask if mask.any() else None,
        patient=seen[0].patient,
        attributes=seen[0].attributes,
        identifiers=tuple(dict.fromkeys(one for image in seen for one in image.identifiers)),
        notes=arrangement.notes,
        affine=arrangement.placed(form.rows, form.columns),
    )


def _slice(path: Path, room: Room) -> tuple[StoredImage, npt.NDArray[Any]]:
    try:
        with room.file() as hold:
            _, image, stored = open_dicom(path, 2, hold)
            return image, stored
    except DataError as error:
        raise DataError(f"has a slice that {error}") from None


def _without_values(image: StoredImage) -> StoredImage:
    """What is said of a slice, without its pixels."""
    return StoredImage(
        values=np.empty((1, 0, 0), np.float32),
        window=image.window,
        format=image.format,
        pixels="",
        inverted=image.inverted,
        windows=image.windows,
        window_problem=image.window_problem,
        patient=image.patient,
        attributes=image.attributes,
        identifiers=image.identifiers,
    )


def _window(slices: Sequence[StoredImage]) -> tuple[Window | None, int]:
    """The first slice's window, and one more than it offers where others differ; else what all slices can hold."""
    first = slices[0]
    if any(image.windows for image in slices):
        apart = any(image.window != first.window for image in slices)
        return first.window, first.windows + int(apart)
    whole = [image.window for image in slices if image.window is not None]
    low, high = min((w.low for w in whole), default=math.nan), max((w.high for w in whole), default=math.nan)
    return Window(low, high), 0
