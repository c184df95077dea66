"""What the picture readers hand on, and how a picture is turned upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TRANSPARENCY", "Picture", "upright"]

TRANSPARENCY = "data.transparency"
"""The note of a picture some of whose pixels its alpha channel hides or dims."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture, at the depth that the file stores.

    Attributes:
        array: (H, W) grey or (H, W, 3) colour.
        top: the largest value that the bit depth holds; None where the range is not known.
        inverted: 0 is white.
        orientation: as EXIF numbers it; 1 is upright.
        notes: codes of findings about what was left aside.
    """

    array: npt.NDArray[Any]
    top: float | None
    inverted: bool = False
    orientation: int = 1
    notes: tuple[str, ...] = ()


def upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """(H, W, ...) turned and mirrored as EXIF's orientation 2 to 8 asks for; any other number changes nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
