"""The integers of one image file and how they become model input: what a stored-unit attack may move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden.data.formats.image import StoredImage
from medharden.data.view.case import recipe_for
from medharden.data.view.preprocessing import preprocess
from medharden.errors import DataError
from medharden.protocol import Input, ThreatModel

__all__ = ["StoredValues", "budget_in_counts", "input_of", "movable_values", "plain_values", "to_input"]

_ROUNDING = 1e-9  # 0.3 / 0.1 is 2.9999999999999996 in floating point, and means 3


@dataclass(frozen=True, eq=False)
class StoredValues:
    """One image as its file's integers.

    Attributes:
        stored: (C, *spatial) int64, axes as the model input has them; C is 3 only where the channels differ.
        lowest, highest: what the file's bits can hold.
        slope, intercept: rescaled units = slope * stored + intercept.
        padding: (C, *spatial) bool, values that the file marks as no part of the image; they are never moved.
        image: the same image as the loader reads it.
    """

    stored: npt.NDArray[np.int64]
    lowest: int
    highest: int
    slope: float
    intercept: float
    padding: npt.NDArray[np.bool_]
    image: StoredImage

    def __post_init__(self) -> None:
        again = rescaled(torch.from_numpy(self.stored), self).numpy()
        assert np.array_equal(again, self.image.values), "the integers do not give the image"  # noqa: S101


def plain_values(image: StoredImage, lowest: int, highest: int) -> StoredValues:
    """The values of an image whose stored values are its rescaled ones, such as a picture.

    Raises:
        DataError: the values are no integers of that range.
    """
    stored = image.values.astype(np.int64)
    if not np.array_equal(stored, image.values) or stored.min() < lowest or stored.max() > highest:
        raise DataError(f"holds values that are no integers from {lowest} to {highest}")
    return StoredValues(stored, lowest, highest, 1.0, 0.0, np.zeros(stored.shape, dtype=np.bool_), image)


def rescaled(stored: Tensor, stored_values: StoredValues) -> Tensor:
    """Stored values to rescaled units, in the reader's own precision: float64, then float32."""
    return (stored.double() * stored_values.slope + stored_values.intercept).float()


def input_of(image: StoredImage, spec: Input, channels: int) -> Tensor:
    """(channels, *size) float32 in [0, 1]: the image as the loader feeds it to a model."""
    unit = preprocess(torch.from_numpy(image.values), recipe_for(image, spec)).contiguous()
    return unit.expand(channels, *unit.shape[1:])


def to_input(stored_values: StoredValues, spec: Input, channels: int) -> Callable[[Tensor], Tensor]:
    """The differentiable way from stored values to model input, with the very values that `input_of` gives.

    Where a linear window clips, the gradient passes as if it did not: a value outside the window but within the
    attacker's reach of it would otherwise never be pulled in. Percentiles are taken anew from the values given, as
    the loader takes them, and count as constant for the gradient.

    Args:
        stored_values: the case.
        spec: the protocol's input.
        channels: of the cohort's inputs.

    Raises:
        DataError: the view has a step through which no gradient is taken.

    Returns:
        From (C, *spatial) stored values, float64, to (channels, *size) float32 in [0, 1].
    """
    if any(step.step == "spacing" for step in spec.spatial):
        raise DataError("is resampled to another spacing (input.spatial), through which no gradient is taken")
    fixed = None if spec.intensity.of_case else recipe_for(stored_values.image, spec)

    def apply(stored: Tensor) -> Tensor:
        values = rescaled(stored, stored_values)
        recipe = fixed or recipe_for(_with_values(stored_values.image, values), spec)
        window = recipe.one_window
        if window.kind == "linear" and window.high > window.low and not recipe.after:
            values = values.detach().clamp(window.low, window.high) + (values - values.detach())
        unit = preprocess(values, recipe)
        return unit.expand(channels, *unit.shape[1:])

    return apply


def _with_values(image: StoredImage, values: Tensor) -> StoredImage:
    return StoredImage(
        values=values.detach().cpu().numpy(),
        window=image.window,
        format=image.format,
        pixels="",
        inverted=image.inverted,
        padding=image.padding,
    )


def budget_in_counts(stored_values: StoredValues, threat: ThreatModel, spec: Input) -> int:
    """How many stored counts a value may move: the budget rounded down to the file's lattice.

    In HU, floor(eps / |slope|). A budget in units of the input is that share of the width of the case's window.

    Raises:
        DataError: the budget has no fixed size in counts here, or is smaller than one.
    """
    if threat.unit == "counts":
        counts = threat.eps
    elif threat.unit == "HU":
        counts = threat.eps / abs(stored_values.slope)
    else:
        window = recipe_for(stored_values.image, spec).one_window
        if window.kind != "linear" or window.high <= window.low:
            raise DataError("has a window that is not linear, so a budget in input units has no fixed size in counts")
        share = threat.eps / 255 if threat.unit == "1/255" else threat.eps
        counts = share * (window.high - window.low) / abs(stored_values.slope)
    whole = math.floor(counts + _ROUNDING)
    if whole < 1:
        raise DataError(f"stores steps larger than the budget: eps is {counts:.3g} of one stored count")
    return whole


def movable_values(stored_values: StoredValues, counts: int, spec: Input) -> npt.NDArray[np.bool_]:
    """(C, *spatial) bool: values that are image and whose move by the budget a model could see through the window."""
    movable: npt.NDArray[np.bool_] = ~stored_values.padding
    if spec.intensity.of_case or spec.intensity.when == "after":
        return movable
    window = recipe_for(stored_values.image, spec).one_window
    if window.kind == "sigmoid":
        return movable
    reach = counts * abs(stored_values.slope)
    values: npt.NDArray[Any] = stored_values.image.values
    movable &= (values + reach > window.low) & (values - reach < window.high)
    return movable
