"""The steps of a view: one by one, in stored values, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medharden.data.formats.image import StoredImage
from medharden.data.formats.window import Window
from medharden.data.stored.values import input_of, plain_values, to_input
from medharden.data.view.spatial import spatial
from medharden.errors import DataError
from medharden.protocol import Input, Intensity, Step

RESIZED = Step(step="resize", size=(6, 5), mode="linear")
EYE = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))


def picture() -> StoredImage:
    values = np.random.default_rng(0).integers(0, 256, (1, 12, 10)).astype(np.float32)
    values[:, :3] = 0
    return StoredImage(values, Window(0, 255), "png", "")


@pytest.mark.parametrize(
    "intensity",
    [Intensity(mode="max"), Intensity(mode="minmax", when="after"), Intensity(when="after"), Intensity(mode="minmax")],
)
def test_the_way_from_stored_values_gives_the_loader_s_input_and_a_gradient(intensity: Intensity) -> None:
    steps = (Step(step="transpose"), Step(step="foreground"), Step(step="pad", size=(12, 12)), RESIZED)
    spec, image = Input(spatial=steps, intensity=intensity), picture()
    stored = torch.from_numpy(image.values).double().requires_grad_()
    unit = to_input(plain_values(image, 0, 255), spec, 1)(stored)
    assert torch.equal(unit, input_of(image, spec, 1))
    unit.sum().backward()
    assert stored.grad is not None
    assert (stored.grad != 0).any()


def test_a_change_of_spacing_is_refused_where_a_gradient_is_asked_for() -> None:
    step = Step(step="spacing", mm=(2.0, 2.0, 2.0))
    image = StoredImage(np.ones((1, 4, 4, 4), np.float32), Window(0, 255), "nifti", "", affine=EYE)
    stored_values = plain_values(image, 0, 255)
    with pytest.raises(DataError, match="no gradient"):
        to_input(stored_values, Input(dims=3, spatial=(step,)), 1)
    with pytest.raises(DataError, match="no position in space"):
        spatial(torch.ones(1, 4, 4, 4), (step,), None)
    with pytest.raises(DataError, match="voxels at the spacing"):
        spatial(torch.ones(1, 4, 4, 4), (Step(step="spacing", mm=(1e-6, 1.0, 1e-6)),), EYE)


def test_orientation_turns_values_as_monai_does() -> None:
    from monai.data import MetaTensor
    from monai.transforms import Orientation

    values = torch.rand(1, 3, 4, 5)
    for axes in ("LPS", "SAR", "PIR"):
        expected = Orientation(axcodes=axes, labels=None)(MetaTensor(values, affine=torch.eye(4, dtype=torch.float64)))
        assert torch.equal(spatial(values, (Step(step="orientation", axes=axes),), EYE), expected.as_tensor())


def test_negative_values_are_refused_where_zero_must_stay_zero() -> None:
    image = StoredImage(np.array([[[-1.0, 2.0]]], np.float32), None, "nifti", "")
    with pytest.raises(DataError, match="below 0"):
        input_of(image, Input(intensity=Intensity(mode="max")), 1)


@pytest.mark.parametrize(
    "step",
    [
        {"step": "resize", "size": (4, 4)},
        {"step": "transpose", "size": (4, 4)},
        {"step": "orientation", "axes": "RLS"},
        {"step": "foreground", "align_corners": True},
    ],
)
def test_a_step_with_what_it_does_not_take_is_refused(step: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"input\.spatial"):
        Step.model_validate(step)
