"""Where the slices of a DICOM volume lie: their order along the normal, and axes turned as those of NIfTI (RAS+)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation

from medharden.errors import DataError

__all__ = ["Grid", "grid_of"]

Floats = npt.NDArray[np.float64]

_SAME_DIRECTION = 1e-3  # of direction cosines, which files round
_SAME_PLACE = 1e-3  # mm, or of the usual distance, whichever is more
_EVEN = 0.1  # of the usual distance between slices
_DRIFT = 0.05  # of the volume's depth: more is a tilted gantry
_TO_RAS = np.array([-1.0, -1.0, 1.0])  # DICOM's axes run to the left, back and top


@dataclass(frozen=True)
class Grid:
    """How slices become a volume.

    Attributes:
        order: (F,) which slice is first along the normal, which second.
        turn: (3, 2) nibabel's orientation of the axes (slice, row, column).
    """

    order: npt.NDArray[np.intp]
    turn: Floats

    def volume(self, slices: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(F, H, W) slices as they lie in the file to (X, Y, Z): left to right, back to front, bottom to top."""
        turned: npt.NDArray[Any] = np.ascontiguousarray(apply_orientation(slices[self.order], self.turn))
        return turned


def grid_of(positions: Floats, orientations: Floats) -> Grid:
    """The grid that slices lie on (PS3.3 C.7.6.2.1.1).

    Args:
        positions: (F, 3) Image Position (Patient), in mm.
        orientations: (F, 6) or (1, 6) Image Orientation (Patient): direction of a row, direction of a column.

    Raises:
        DataError: slices of several directions, at one place, unevenly spaced, or that do not lie above one another.
    """
    if not (np.isfinite(positions).all() and np.isfinite(orientations).all()):
        raise DataError("has slices without a place or direction")
    row, column = orientations[0, :3], orientations[0, 3:]
    if np.abs(orientations - orientations[0]).max() > _SAME_DIRECTION:
        raise DataError("holds slices of several directions (a localiser, or several stacks), expected one volume")
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 10 * _SAME_DIRECTION:
        raise DataError("has rows and columns that are not at right angles (Image Orientation)")
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    _check_distances(along[order])
    beside = positions - np.outer(along, normal)
    if np.linalg.norm(beside - beside[0], axis=1).max() > max(0.5, _DRIFT * float(np.ptp(along))):
        raise DataError(
            "has slices that do not lie above one another (a tilted gantry?); resample it to a regular grid first"
        )
    axes = np.eye(4)
    axes[:3, :3] = np.stack([normal, column, row], axis=1) * _TO_RAS[:, None]
    return Grid(order, io_orientation(axes))


def _check_distances(along: Floats) -> None:
    steps = np.diff(along)
    usual = float(np.median(steps))
    same = int((steps <= max(_SAME_PLACE, _SAME_PLACE * usual)).sum())
    if same:
        raise DataError(
            f"holds {same} slices at the place of another: several time points, echoes or stacks, or a slice twice; "
            "expected one volume"
        )
    if len(steps) > 1 and np.abs(steps - usual).max() > _EVEN * usual:
        raise DataError(
            f"has slices {steps.min():.4g} to {steps.max():.4g} mm apart, mostly {usual:.4g}: some are missing, or "
            "they are unevenly spaced; resample it to a regular grid first"
        )
