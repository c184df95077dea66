"""One file as the input that a model was gated on, by the same readers and view as a cohort's cases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medharden.data.formats.channels import read_parts
from medharden.data.formats.image import MALFORMED, quiet_readers
from medharden.data.formats.limits import room_for
from medharden.data.sources.given import Given
from medharden.data.view.case import case_of
from medharden.errors import DataError
from medharden.protocol import Input
from medharden.sizes import MAX_DECODED

__all__ = ["SingleCase", "read_single"]

_NOTES = {
    "data.transparency": "its transparency was left aside",
}


@dataclass(frozen=True, eq=False)
class SingleCase:
    """A file as model input.

    Attributes:
        input: (C, *spatial) float32 in [0, 1].
        format: `dicom`, `nifti`, `png`, `jpeg` or `tiff`.
        notes: what a reader must know of how it was read.
    """

    input: Tensor
    format: str
    notes: tuple[str, ...]


def read_single(case: Given, spec: Input, shape: tuple[int, ...], *, max_decoded: int = MAX_DECODED) -> SingleCase:
    """Reads a case through a view: a DICOM, NIfTI or picture file, a series of slices, or several images as channels.

    Args:
        case: of `given_cases`.
        spec: the view.
        shape: (C, *spatial) that the view gave of the cohort's cases; another is refused.
        max_decoded: bytes of memory that reading may take.

    Raises:
        DataError: the view doesn't take the file; with the reason, and no text from the file's header.
    """
    if case.problem:
        raise DataError(case.problem)
    try:
        with quiet_readers(), room_for(max_decoded, spec).file() as hold:
            image = read_parts(case.parts, spec.at_frame(case.frame), hold)
            read, unit = case_of(image, spec)
    except MALFORMED as error:
        raise DataError(f"can't be read ({type(error).__name__})") from None
    if unit.shape[1:] != shape[1:]:
        raise DataError(
            f"is {_times(unit.shape[1:])}, the model was gated on {_times(shape[1:])}; its view (input.size is null) "
            "resamples nothing"
        )
    if unit.shape[0] > shape[0]:
        raise DataError("is in colour, the model was gated on grey images (input.channels was auto, and none had any)")
    whole = torch.from_numpy(unit).expand(shape).contiguous()
    notes = [_NOTES.get(note, note) for note in read.notes]
    if read.windows > 1 and spec.intensity.mode == "file":
        notes.append(f"it offers {read.windows} windows; its first was used")
    if read.flat:
        notes.append("the view left one value of it only")
    return SingleCase(whole, read.format, tuple(notes))


def _times(spatial: tuple[int, ...]) -> str:
    return "x".join(map(str, spatial))
