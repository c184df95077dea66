"""Slices as a volume: which belong to it, in which order they lie, how its axes run; from positions alone.

Positions and directions are those of DICOM (PS3.3 C.7.6.2): millimetres, x to the left, y to the back, z to the head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import inv_ornt_aff, io_orientation

from medharden.errors import DataError
from medharden.protocol import Volume

__all__ = ["ASSUMED_AXIAL", "FRAMES_AS_STORED", "GANTRY_TILT", "Arrangement", "Slice", "arrange"]

FRAMES_AS_STORED = "data.frames_as_stored"
ASSUMED_AXIAL = "data.assumed_axial"
GANTRY_TILT = "data.gantry_tilt"

_WORDS = {
    "stack": "stacks",
    "time": "time points",
    "echo": "echoes",
    "diffusion": "b-values or directions of diffusion",
    "kind": "kinds of image, such as magnitude and phase",
    "acquisition": "acquisitions",
}
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_SAME_PLACE = 1e-2  # of the distance between slices
_GAP = 1.5  # times the distance between slices: one is missing
_OFF_GRID = 0.1  # of the distance between slices; and what rounding to a tenth of a millimetre makes
_ROUNDED = 0.05
_PARALLEL = 1e-3  # between directions; writers round them
_TILT = 0.5  # degrees between the normal and the way from slice to slice; less is rounding
_MOST_TILT = 45.0
_SAME_PIXELS = 1e-3  # of a pixel's size, which writers round
_TO_RAS = np.array([-1.0, -1.0, 1.0])

Floats = npt.NDArray[np.float64]
Rank = float | str | tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """What a header says of one slice or frame.

    Attributes:
        position: centre of its first pixel, or none.
        orientation: direction of its rows and of its columns, six numbers, or none.
        spacing: millimetres from row to row and from column to column, or none.
        marks: by `stack`, `time`, `echo`, `diffusion`, `kind` and `acquisition`, what tells volumes apart that lie in
            one place; absent where the header does not say.
    """

    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing: tuple[float, ...] = ()
    marks: dict[str, Rank] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Arrangement:
    """How slices become a volume.

    Attributes:
        order: (n,) which slices, from the first along the normal of the plane to the last.
        turns: (3, 2) as `nibabel.orientations` has them, from (slice, row, column) to RAS+; null leaves the axes.
        notes: codes of findings about what was assumed.
        affine: 4 x 4, from (slice, row, column) in order to millimetres, RAS+; null where the headers give no positions
            or no size of pixels. Slices are one mean step apart, along the way that their positions take.
    """

    order: tuple[int, ...]
    turns: npt.NDArray[np.float64] | None
    notes: tuple[str, ...] = ()
    affine: npt.NDArray[np.float64] | None = None

    def placed(self, rows: int, columns: int) -> tuple[tuple[float, ...], ...] | None:
        """The affine of the volume with its axes as they are wanted, as `StoredImage` has it."""
        if self.affine is None or self.turns is None:
            return None
        turned = self.affine @ inv_ornt_aff(self.turns, (len(self.order), rows, columns))
        return tuple(tuple(float(value) for value in row) for row in turned)

    def room(self, shape: Sequence[int], dtype: npt.DTypeLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """An empty volume with its axes as they are wanted, and the same memory as (slice, row, column, ...).

        Args:
            shape: of the slices in order.
            dtype: of the values.

        Returns:
            Axes left to right, back to front and bottom to top where the slices have positions; and the view to fill.
        """
        if self.turns is None:
            plain = np.empty(tuple(shape), dtype=dtype)
            return plain, plain
        axes = [int(axis) for axis in self.turns[:, 0]]
        turned = np.empty([shape[axes.index(k)] for k in range(3)], dtype=dtype)
        falling = {int(axis) for axis, way in self.turns if way < 0}
        flipped = turned[tuple(slice(None, None, -1 if k in falling else 1) for k in range(3))]
        return turned, flipped.transpose(axes)


def arrange(slices: Sequence[Slice], wanted: Volume) -> Arrangement:
    """Sorts slices by position along the normal of their plane, and orients them.

    Args:
        slices: of one series, or the frames of one file.
        wanted: which stack, time point, echo ... is meant, where there are several.

    Raises:
        DataError: several volumes, of which none is named; slices that are missing, lie twice, or in several planes.
    """
    chosen = _chosen(slices, wanted)
    if len(chosen) < 2:
        raise DataError("has a single slice; input.dims is 3")
    placed = [len(slices[n].position) == 3 for n in chosen]
    if not any(placed):
        for name in _WORDS:
            _refuse_several(slices, chosen, name)
        return Arrangement(tuple(chosen), None, (FRAMES_AS_STORED,))
    if not all(placed):
        raise DataError(f"gives no position for {placed.count(False)} of {len(chosen)} slices")
    directions, notes = _directions([slices[n].orientation for n in chosen])
    positions = np.array([slices[n].position for n in chosen], dtype=np.float64)
    if not np.isfinite(positions).all():
        raise DataError("has positions that are no numbers")
    normal = np.cross(*directions)
    along = positions @ normal
    ranked = np.argsort(along, kind="stable")
    _check_spacing(slices, [chosen[n] for n in ranked], along[ranked])
    if not notes and _tilted(positions[ranked], normal):
        notes = (GANTRY_TILT,)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([normal, directions[1], directions[0]]) * _TO_RAS[:, None]
    pixels = _pixels([slices[n].spacing for n in chosen])
    lying = None if pixels is None else _placed(positions[ranked], directions, pixels)
    return Arrangement(tuple(chosen[n] for n in ranked), io_orientation(affine), notes, lying)


def _chosen(slices: Sequence[Slice], wanted: Volume) -> list[int]:
    """The slices that the protocol names; all where it names none."""
    chosen = list(range(len(slices)))
    for name, number in wanted.named().items():
        ranks = _ranks(slices, chosen, name)
        if number > len(ranks):
            raise DataError(f"has {len(ranks)} {_WORDS[name]}; the protocol's input.volume.{name} is {number}")
        chosen = [n for n in chosen if slices[n].marks.get(name) == ranks[number - 1]] if ranks else chosen
    if wanted.stack is None:
        _refuse_several(slices, chosen, "stack")
    return chosen


def _ranks(slices: Sequence[Slice], chosen: Sequence[int], name: str) -> list[Rank]:
    """What the slices say of themselves, in rising order: numbers before words."""
    said = {slices[n].marks[name] for n in chosen if name in slices[n].marks}
    return sorted(said, key=lambda mark: (0, mark, "") if isinstance(mark, float) else (1, 0.0, str(mark)))


def _refuse_several(slices: Sequence[Slice], chosen: Sequence[int], name: str) -> None:
    count = len(_ranks(slices, chosen, name))
    if count > 1:
        raise DataError(f"holds {count} {_WORDS[name]}; {_name_one(name, count)}")


def _name_one(name: str, count: int) -> str:
    return f"name the one that is meant, from 1 to {count} in rising order, as input.volume.{name} in the protocol"


def _directions(given: Sequence[tuple[float, ...]]) -> tuple[Floats, tuple[str, ...]]:
    """(2, 3) unit vectors along rows and columns, which all slices must share."""
    if not any(given):
        return np.array(_AXIAL).reshape(2, 3), (ASSUMED_AXIAL,)
    if any(len(one) != 6 for one in given):
        raise DataError(f"gives no orientation for {sum(len(one) != 6 for one in given)} of {len(given)} slices")
    every = np.array(given, dtype=np.float64).reshape(len(given), 2, 3)
    if not np.isfinite(every).all() or (abs(np.linalg.norm(every, axis=2) - 1) > 0.01).any():
        raise DataError("has orientations that are no directions (ImageOrientationPatient)")
    if (abs((every[:, 0] * every[:, 1]).sum(axis=1)) > 0.01).any():
        raise DataError("has rows and columns that are not at right angles (ImageOrientationPatient)")
    apart = abs(every - every[0]).max(axis=(1, 2)) > _PARALLEL
    if apart.any():
        raise DataError(
            f"lies in several planes: {int(apart.sum())} of {len(given)} slices are turned against the first, as in a "
            "localiser or a radial series; these are no volume"
        )
    return every[0] / np.linalg.norm(every[0], axis=1, keepdims=True), ()


def _pixels(given: Sequence[tuple[float, ...]]) -> Floats | None:
    """(2,) millimetres from row to row and from column to column, which all slices must share; null where unsaid.

    Raises:
        DataError: slices differ, or the sizes are none.
    """
    if not any(given):
        return None
    if any(len(one) != 2 for one in given):
        raise DataError(f"gives no size of pixels (PixelSpacing) for {sum(len(one) != 2 for one in given)} slices")
    every = np.array(given, dtype=np.float64)
    if not np.isfinite(every).all() or (every <= 0).any():
        raise DataError("has sizes of pixels that are none (PixelSpacing)")
    if (abs(every / every[0] - 1) > _SAME_PIXELS).any():
        raise DataError("has slices whose pixels are of several sizes (PixelSpacing); they are no volume")
    first: Floats = every[0]
    return first


def _placed(positions: Floats, directions: Floats, pixels: Floats) -> Floats:
    """The affine of slices in order, RAS+."""
    affine = np.eye(4)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine[:3, :3] = np.column_stack([step, directions[1] * pixels[0], directions[0] * pixels[1]])
    affine[:3, 3] = positions[0]
    affine[:3] *= _TO_RAS[:, None]
    return affine


def _check_spacing(slices: Sequence[Slice], ranked: Sequence[int], along: Floats) -> None:
    """Refuses slices that lie twice, are missing or are unevenly spaced.

    Raises:
        DataError: with what was found.
    """
    steps = np.diff(along)
    apart = steps[steps > _SAME_PLACE * max(float(steps.max()), 1e-6)]
    usual = float(np.median(apart)) if apart.size else 0.0
    twice = int((steps <= _SAME_PLACE * usual).sum())
    if twice or not usual:
        raise DataError(_doubled(slices, ranked, along, usual))
    gaps = int((steps > _GAP * usual).sum())
    if gaps:
        lacking = int(np.maximum(np.round(steps / usual) - 1, 0).sum())
        raise DataError(
            f"lacks slices: {gaps} gaps among {len(ranked)} slices that lie {usual:.3g} mm apart, where about "
            f"{lacking} are missing"
        )
    grid = np.linspace(along[0], along[-1], len(along))
    off = float(abs(along - grid).max())
    if off > _OFF_GRID * usual + _ROUNDED:
        raise DataError(
            f"has slices at uneven distances, from {steps.min():.3g} to {steps.max():.3g} mm; resample them to a "
            "regular grid first"
        )


def _doubled(slices: Sequence[Slice], ranked: Sequence[int], along: Floats, usual: float) -> str:
    """Why several slices lie in one place, as far as the headers tell."""
    groups: list[list[int]] = [[ranked[0]]]
    for number, step in zip(ranked[1:], np.diff(along), strict=True):
        if step <= _SAME_PLACE * usual or not usual:
            groups[-1].append(number)
        else:
            groups.append([number])
    repeated = [group for group in groups if len(group) > 1]
    most = Counter(len(group) for group in repeated).most_common(1)[0][0]
    head = f"has several slices in one place, at {len(repeated)} of {len(groups)} places"
    for name, what in _WORDS.items():
        if all(len(_ranks(slices, group, name)) == len(group) for group in repeated):
            count = len(_ranks(slices, ranked, name))
            if name == "time" and count > most:  # times that each slice has for itself
                continue
            return f"{head}: {count} {what}; {_name_one(name, count)}"
    for name, what in _WORDS.items():
        if any(len(_ranks(slices, group, name)) > 1 for group in repeated):
            count = len(_ranks(slices, ranked, name))
            return f"{head}: {count} {what}, and more than that; {_name_one(name, count)}, and so for the others"
    return f"{head}, and nothing in the headers tells them apart: copies of the same slices, or two series in one"


def _tilted(positions: Floats, normal: Floats) -> bool:
    """Whether the slices are offset against each other, as by a tilted gantry.

    Raises:
        DataError: they are so by more than any gantry tilts.
    """
    way = positions[-1] - positions[0]
    angle = float(np.degrees(np.arccos(np.clip(way @ normal / np.linalg.norm(way), -1.0, 1.0))))
    if angle > _MOST_TILT:
        raise DataError(f"has slices that lie side by side ({angle:.0f} degrees off their normal), and are no volume")
    return angle > _TILT
