"""Several images of one examination as the channels of one case: of one grid, or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.errors import BytesLengthException, InvalidDicomError

from medharden.data.formats.dicom_file import read_head
from medharden.data.formats.files import read_case
from medharden.data.formats.image import MALFORMED, StoredImage
from medharden.data.formats.limits import Hold, MoreNeededError, Share
from medharden.data.formats.placing import file_slice, frame_slices, number_of_frames
from medharden.errors import DataError
from medharden.patients import patient_identity
from medharden.protocol import Input

__all__ = ["read_parts"]

_SAME_GRID = 1e-3  # millimetres, of any number of an affine; MONAI's own tolerance where it stacks files
_GEOMETRY = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "NumberOfFrames"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)

Placed = npt.NDArray[np.float64]


def read_parts(parts: Sequence[Sequence[Path]], spec: Input, hold: Hold) -> StoredImage:
    """Decodes a case: one image, or several stacked as channels.

    Args:
        parts: the files of each channel, as `read_case` takes them, in the channels' order.
        spec: the protocol's input.
        hold: the memory that the whole case may take.

    Returns:
        The image; of several (C, *spatial) with C their number, and a window for each.

    Raises:
        DataError: with the reason alone: a channel that can't be read or is in colour, channels of several grids,
            formats or patients.
    """
    if len(parts) == 1:
        return read_case(parts[0], spec, hold)
    try:
        images = _read(parts, spec, Share(hold, len(parts)))
    except MoreNeededError:
        hold._give_back()
        images = _read(parts, spec, Share(hold, len(parts), everything=True))
    _check_places(parts, images, spec)
    digest = hashlib.sha256("\n".join(image.pixels for image in images).encode()).hexdigest()
    paddings = [image.padding for image in images if image.padding is not None]
    first = images[0]
    return StoredImage(
        values=np.concatenate([image.values for image in images]),
        window=None,
        format=first.format,
        pixels=digest,
        inverted=first.inverted,
        windows=max(image.windows for image in images) if all(image.windows for image in images) else 0,
        patient=next((image.patient for image in images if image.patient), ""),
        attributes={name: value for image in reversed(images) for name, value in image.attributes.items()},
        identifiers=tuple(dict.fromkeys(one for image in images for one in image.identifiers)),
        padding=np.logical_or.reduce(paddings) if paddings else None,
        window_problem=next((image.window_problem for image in images if image.window_problem), ""),
        notes=tuple(dict.fromkeys(note for image in images for note in image.notes)),
        affine=first.affine,
        stacked=tuple(image.window for image in images),
    )


def _read(parts: Sequence[Sequence[Path]], spec: Input, share: Share) -> list[StoredImage]:
    images: list[StoredImage] = []
    for number, files in enumerate(parts):
        name = _name(number, spec)
        try:
            images.append(read_case(files, spec, share))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        _check(images[0], images[-1], name, _name(0, spec))
    return images


def _name(number: int, spec: Input) -> str:
    names = spec.channels_from
    return f"its channel {names[number].name!r}" if number < len(names) else f"its channel {number + 1}"


def _check(first: StoredImage, image: StoredImage, name: str, other: str) -> None:
    """Whether an image can be a channel beside the first one."""
    if len(image.values) != 1:
        raise DataError(f"{name} is in colour; each channel is one grey image")
    if image.format != first.format:
        raise DataError(f"{name} is {image.format}, {other} is {first.format}; expected one format for all")
    if image.values.shape != first.values.shape:
        shapes = ["x".join(map(str, i.values.shape[1:])) for i in (image, first)]
        raise DataError(f"{name} is {shapes[0]}, {other} is {shapes[1]}; {_ADVICE}")
    patients = {patient_identity(i.patient) for i in (first, image)} - {""}
    if len(patients) > 1:
        raise DataError(f"{name} is of another patient than {other}, by their headers")
    if image.inverted != first.inverted:
        raise DataError(f"{name} is inverted (MONOCHROME1) and {other} is not, or the other way round")
    if image.affine is not None and first.affine is not None and image.format != "dicom":  # whose places are compared
        off = float(np.abs(np.array(image.affine) - np.array(first.affine)).max())
        if off > _SAME_GRID:
            raise DataError(f"{name} lies elsewhere than {other}: their affines differ by up to {off:.4g}; {_ADVICE}")


_ADVICE = "channels must be of one grid: resample them to one before, as registered studies are"


def _check_places(parts: Sequence[Sequence[Path]], images: Sequence[StoredImage], spec: Input) -> None:
    """Whether DICOM slices lie in the same places in each channel; other formats say so by their affine."""
    if images[0].format != "dicom":
        return
    first = _places(parts[0])
    for number, files in enumerate(parts[1:], 1):
        found = _places(files)
        if found.shape != first.shape or float(np.abs(found - first).max(initial=0.0)) > _SAME_GRID:
            raise DataError(f"{_name(number, spec)} has slices elsewhere than {_name(0, spec)}; {_ADVICE}")


def _places(files: Sequence[Path]) -> Placed:
    """(n, 11) position, orientation and pixel spacing of every place that the files have a slice in, sorted; 0 unsaid.

    Raises:
        DataError: a header that can't be read, or describes some of its frames only.
    """
    rows = []
    for path in files:
        try:
            ds = read_head(path, _GEOMETRY)
            slices = frame_slices(ds) if number_of_frames(ds) > 1 else [file_slice(ds)]
            for one in slices:
                said = (one.position, 3), (one.orientation, 6), (one.spacing, 2)
                rows.append([x for given, n in said for x in (given or (0.0,) * n)])
        except (*MALFORMED, InvalidDicomError, BytesLengthException) as error:
            raise DataError(f"can't be decoded as DICOM: truncated or damaged ({type(error).__name__})") from None
    return np.unique(np.array(rows, dtype=np.float64), axis=0)
