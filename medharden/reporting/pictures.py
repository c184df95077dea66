"""Example pictures as PNG inside the page: clean, perturbation, attacked. Present only where they were allowed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from medharden.reporting.source import Examples

__all__ = ["ExampleRow", "Gallery", "gallery"]

_MOST = 6
_LARGEST = 320


@dataclass(frozen=True)
class ExampleRow:
    """One example: three pictures as data URIs, the true class and both models' answers."""

    clean: str
    perturbation: str
    attacked: str
    truth: str
    original_clean: str
    original_attacked: str
    composite_clean: str
    composite_attacked: str
    original_fooled: bool
    composite_fooled: bool


@dataclass(frozen=True)
class Gallery:
    """The examples, and by how much their perturbations are magnified around mid-grey."""

    rows: tuple[ExampleRow, ...]
    factor: int
    slices: bool
    of: int


def gallery(examples: Examples, classes: tuple[str, ...]) -> Gallery:
    """At most six examples; the middle slice of volumes.

    Args:
        examples: pictures in [0, 1] and answers as class indices.
        classes: names by index.
    """
    volumes = examples.clean.ndim == 5
    middle = examples.clean.shape[2] // 2 if volumes else 0
    clean = examples.clean[:_MOST, :, middle] if volumes else examples.clean[:_MOST]
    attacked = examples.attacked[:_MOST, :, middle] if volumes else examples.attacked[:_MOST]
    moved = attacked - clean
    largest = float(np.abs(moved).max(initial=0.0))
    factor = max(1, int(0.5 / largest)) if largest > 0 else 1
    rows = tuple(
        ExampleRow(
            clean=_png(clean[i]),
            perturbation=_png(0.5 + factor * moved[i]),
            attacked=_png(attacked[i]),
            truth=classes[int(examples.label[i])],
            original_clean=classes[int(examples.original_clean[i])],
            original_attacked=classes[int(examples.original_attacked[i])],
            composite_clean=classes[int(examples.composite_clean[i])],
            composite_attacked=classes[int(examples.composite_attacked[i])],
            original_fooled=bool(examples.original_attacked[i] != examples.label[i]),
            composite_fooled=bool(examples.composite_attacked[i] != examples.label[i]),
        )
        for i in range(len(clean))
    )
    return Gallery(rows, factor, volumes, len(examples.clean))


def _png(picture: npt.NDArray[np.float32]) -> str:
    """A (C, H, W) picture in [0, 1] as a data URI; grey unless it has three channels. No metadata is written."""
    grey = np.clip(np.rint(255 * picture), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.moveaxis(grey, 0, -1) if len(grey) == 3 else grey[0])
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
