"""One stored image as the model sees it: its recipe resolved, its model input, and what is kept of it beside that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medharden.data.formats.image import StoredImage, slabs
from medharden.data.formats.window import ChannelWindows, Window
from medharden.data.view.preprocessing import Recipe, preprocess
from medharden.data.view.spatial import spatial
from medharden.errors import DataError
from medharden.protocol import Input, Intensity

__all__ = ["READY", "ReadCase", "case_of", "recipe_for"]

Floats = npt.NDArray[np.float32]
READY = "dataset"
"""Format of what a dataset in Python gives: model input already."""


@dataclass(frozen=True, slots=True)
class ReadCase:
    """What is kept of a case once its input lies in the decoded store.

    Attributes:
        shape: of its model input (C, *spatial), before colour is decided for the cohort.
        native: the stored image's spatial shape.
        low, high: smallest and largest rescaled value.
        flat: whether preprocessing left one value only.
        windows: how many windows its file offers; 0 where it offers none.
        notes: codes of findings about what its reader left aside.
    """

    shape: tuple[int, ...]
    native: tuple[int, ...]
    low: float
    high: float
    flat: bool
    windows: int
    format: str
    pixels: str
    patient: str
    attributes: dict[str, str]
    identifiers: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def recipe_for(image: StoredImage, spec: Input) -> Recipe:
    """The recipe that the protocol and the file ask for, with the window's borders resolved.

    Raises:
        DataError: the file gives no window and the protocol none either, or the percentiles coincide.
    """
    after = spec.intensity.when == "after"
    own = image.values.shape[0]
    channels = own if image.stacked else {"gray": 1, "rgb": 3, "auto": own}[spec.channels]
    inverted = image.inverted and spec.intensity.inverted == "file"
    window = _window(image, spec, after)
    return Recipe(window, inverted, channels, spec.size, spec.fit, spec.spatial, after, image.affine)


def _window(image: StoredImage, spec: Input, after: bool) -> Window | ChannelWindows:
    intensity = spec.intensity
    if intensity.mode == "ready":
        if image.format != READY:
            raise DataError(
                "is a file, and the protocol (input.intensity: mode 'ready') takes what a dataset in Python gives; "
                "state how files become input"
            )
        return Window(0.0, 1.0)
    if intensity.mode == "file":
        if image.stacked and all(image.stacked):
            return ChannelWindows(tuple(window for window in image.stacked if window is not None))
        if image.window is None:
            raise DataError(
                image.window_problem
                or "holds values without a known range and no window of its own; "
                "set input.intensity to mode 'window' or 'percentile', or to 'minmax' or 'max'"
            )
        return image.window
    if intensity.mode == "window":
        return Window(float(intensity.low or 0.0), float(intensity.high or 0.0))
    return _own_range(image, spec, after)


def _own_range(image: StoredImage, spec: Input, after: bool) -> Window | ChannelWindows:
    """The range that a case's own values give: percentiles without what is marked as padding, or their extremes.

    Channels that are images of their own have a range each.
    """
    intensity = spec.intensity
    values = image.values
    if intensity.mode == "percentile" and image.padding is not None:
        values = _without_padding(values, image.padding, mixed=after and bool(spec.spatial))
    if after and spec.spatial:
        with torch.no_grad():
            values = spatial(torch.from_numpy(values), spec.spatial, image.affine).numpy()
    if image.stacked:
        return ChannelWindows(tuple(_range_of(channel, intensity) for channel in values))
    return _range_of(values, intensity)


def _range_of(values: Floats, intensity: Intensity) -> Window:
    if intensity.mode == "percentile":
        low, high = np.percentile(values, [float(intensity.low or 0.0), float(intensity.high or 0.0)])
        if not low < high:
            raise DataError("has the same value at both percentiles of input.intensity")
        return Window(float(low), float(high))
    low, high = float(values.min()), float(values.max())
    if intensity.mode == "max":
        if low < 0:
            raise DataError("has values below 0, which input.intensity mode 'max' can't take; set another mode")
        low = 0.0
    if not low < high:
        raise DataError("has one value only where input.intensity takes the case's own range")
    return Window(low, high)


def _without_padding(values: Floats, padding: npt.NDArray[np.bool_], *, mixed: bool) -> Floats:
    if mixed:
        raise DataError(
            "marks values as padding, which spatial steps mix with others before percentiles are taken; set "
            "input.intensity.when to before"
        )
    shown: Floats = values[:, ~padding]
    if not shown.size:
        raise DataError("is padding alone")
    return shown


def case_of(image: StoredImage, spec: Input) -> tuple[ReadCase, Floats]:
    """One stored image as model input, before colour is decided for the cohort, and what is kept of it.

    Raises:
        DataError: its values are not finite or all equal, or the recipe can't be resolved.
    """
    low, high = _range(image.values)
    with torch.no_grad():
        unit = preprocess(torch.from_numpy(image.values), recipe_for(image, spec)).contiguous().numpy()
    case = ReadCase(
        shape=unit.shape,
        native=image.values.shape[1:],
        low=low,
        high=high,
        flat=bool(unit.min() == unit.max()),
        windows=image.windows,
        format=image.format,
        pixels=image.pixels,
        patient=image.patient,
        attributes=image.attributes,
        identifiers=image.identifiers,
        notes=image.notes,
    )
    return case, unit


def _range(values: Floats) -> tuple[float, float]:
    missing = values.size - sum(int(np.isfinite(v[part]).sum()) for v in values for part in slabs(v.shape))
    if missing:
        raise DataError(f"holds {missing} values that are not finite")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise DataError("is constant: all values are equal")
    return low, high
