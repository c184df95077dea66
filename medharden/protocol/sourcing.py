"""Which files of the data are cases, and which columns of a manifest mean what."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from medharden.protocol.base import Strict

__all__ = ["PATIENT", "Cases", "Columns", "FilePattern", "Join", "PatientPattern"]

PATIENT = "{patient}"
"""What stands for the patient in `splits.patient_from`."""

_MOST_STARS = 12

FilePattern = Annotated[str, Field(min_length=1, max_length=500)]


class Cases(Strict):
    """Which of the image files are cases; patterns as a shell has them, `*` and `?`, whatever the capitals.

    A pattern without `/` is held against the file's name, one with `/` against its path below the data's root.

    Attributes:
        include: only files that fit one of these are cases; none takes every image file.
        exclude: files that fit one of these are none, such as masks beside the images.
    """

    include: tuple[FilePattern, ...] = ()
    exclude: tuple[FilePattern, ...] = ()


class Join(Strict):
    """A further table beside the manifest, whose columns are added to its rows.

    Attributes:
        table: its file, in the manifest's folder or below.
        on: the columns, of one name in both, that say which rows belong together.
    """

    table: Annotated[str, Field(min_length=1)]
    on: Annotated[tuple[str, ...], Field(min_length=1)]


class Columns(Strict):
    """Which columns of a manifest (CSV) mean what; null finds the column by its usual names.

    Attributes:
        path, label, patient, split: headings as written in the file. Every other column is an attribute. Several for
            the path are one channel of the case each, in this order (or that of `input.channels_from`).
        join: further tables (labels, splits, metadata), joined one after the other.
    """

    path: str | tuple[str, ...] | None = None
    label: str | None = None
    patient: str | None = None
    split: str | None = None
    join: tuple[Join, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The columns that are named for the path: none, one, or one for each channel."""
        return (self.path,) if isinstance(self.path, str) else (self.path or ())


def _patient_pattern(pattern: str) -> str:
    if pattern.count(PATIENT) != 1:
        raise ValueError(f"splits.patient_from must hold {PATIENT} once, such as '**/{PATIENT}/*/*'")
    if pattern.count("*") > _MOST_STARS:
        raise ValueError(f"splits.patient_from: at most {_MOST_STARS} stars")
    return pattern


PatientPattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_patient_pattern)]
