"""Pillow's resize within a view: its very numbers, a gradient beside them, and the places of torchvision's crops."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from medharden.data.view.pillow import resized_by_pillow
from medharden.data.view.spatial import spatial
from medharden.errors import DataError
from medharden.models import timm_module
from medharden.protocol import PILLOW_MODES, Input, Intensity, Step

timm_module()  # declares what an import of torchvision may lack
transforms = importlib.import_module("torchvision.transforms")

SIZES = [((61, 83), (32, 32)), ((61, 83), (128, 90)), ((40, 40), (40, 17)), ((33, 64), (33, 64)), ((5, 300), (11, 7))]


def picture(shape: tuple[int, int], channels: int = 3, seed: int = 0) -> Image.Image:
    """Noise beside flat black and white, where a bicubic filter overshoots."""
    values = np.random.default_rng(seed).integers(0, 256, (*shape, channels), dtype=np.uint8)
    values[: shape[0] // 3] = 0
    values[shape[0] // 3 : shape[0] // 2, : shape[1] // 2] = 255
    return Image.fromarray(values if channels == 3 else values[..., 0])


def unit(image: Image.Image) -> torch.Tensor:
    return transforms.functional.to_tensor(image)


@pytest.mark.parametrize("mode", PILLOW_MODES)
@pytest.mark.parametrize(("have", "want"), SIZES)
def test_a_resize_gives_pillow_s_values_to_the_bit_with_and_without_a_gradient(
    mode: str, have: tuple[int, int], want: tuple[int, int]
) -> None:
    image = picture(have)
    expected = unit(image.resize(want[::-1], Image.Resampling[mode.upper()]))
    values = unit(image)
    assert torch.equal(resized_by_pillow(values, want, mode), expected)
    assert torch.equal(resized_by_pillow(values.requires_grad_(), want, mode).detach(), expected)


@pytest.mark.parametrize("mode", PILLOW_MODES)
@pytest.mark.parametrize(("have", "want"), SIZES)
def test_the_gradient_is_that_of_pillow_s_filter(mode: str, have: tuple[int, int], want: tuple[int, int]) -> None:
    """A linear filter's gradient against a direction is its answer to that direction: Pillow's own, in real numbers."""
    generator = torch.Generator().manual_seed(1)
    step = torch.randn(1, *have, generator=generator)
    expected = np.asarray(Image.fromarray(step[0].numpy(), mode="F").resize(want[::-1], Image.Resampling[mode.upper()]))
    weight = torch.randn(1, *want, generator=generator)
    values = torch.full((1, *have), 0.5, requires_grad=True)
    (resized_by_pillow(values, want, mode) * weight).sum().backward()
    assert values.grad is not None
    assert float((values.grad * step).sum()) == pytest.approx(
        float((weight[0] * torch.tensor(expected)).sum()), rel=1e-3, abs=1e-2
    )


@pytest.mark.parametrize("shape", [(37, 61), (61, 37), (40, 40), (224, 225), (31, 500)])
@pytest.mark.parametrize("size", [24, 31, 32])
def test_the_shortest_side_and_the_centre_are_torchvision_s(shape: tuple[int, int], size: int) -> None:
    image = picture(shape)
    theirs = transforms.Compose(
        [
            transforms.Resize(size + 5, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
        ]
    )(image)
    steps = (
        Step(step="resize", size=(size + 5, size + 5), mode="bicubic", fit="shortest"),
        Step(step="crop", size=(size, size), place="torchvision"),
    )
    assert torch.equal(spatial(unit(image), steps, None), theirs)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"step": "resize", "size": (8, 8, 8), "mode": "bicubic"}, "is of pictures"),
        ({"step": "crop", "size": (8, 8), "fit": "shortest"}, "fit is of a resize"),
        ({"step": "pad", "size": (8, 8), "place": "torchvision"}, "place is of a crop"),
    ],
)
def test_what_a_step_can_t_take_is_refused(step: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Step.model_validate(step)


def test_pillow_s_modes_come_after_the_intensity() -> None:
    steps = (Step(step="resize", size=(8, 8), mode="lanczos"),)
    with pytest.raises(ValidationError, match="works on"):
        Input(spatial=steps, intensity=Intensity(mode="minmax", when="after"))
    Input(spatial=steps, intensity=Intensity(mode="minmax"))


def test_a_sliver_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(DataError, match="so oblong that it would be 256x25600000"):
        spatial(torch.zeros(1, 1, 100_000), (Step(step="resize", size=(256, 256), mode="box", fit="shortest"),), None)
