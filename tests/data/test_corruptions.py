"""Corruptions against Pillow and closed forms: severity by severity, on small grids as on those they were set for."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn import functional

from medharden.data.view.corruptions import corrupted, draw_of
from medharden.protocol import CORRUPTIONS

FACTORS = {
    "brightness-up": (1.1, 1.2, 1.3, 1.4, 1.5),
    "brightness-down": (0.9, 0.8, 0.7, 0.6, 0.5),
    "contrast-up": (1.1, 1.2, 1.3, 1.4, 1.6),
    "contrast-down": (0.9, 0.8, 0.7, 0.6, 0.4),
}


def picture(channels: int = 1, side: int = 224, seed: int = 0) -> Tensor:
    """(1, C, side, side) of 256 levels, smooth with an edge, so that each corruption changes it."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.random((1, channels, 7, 7), dtype=np.float32))
    image = functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    image[..., side // 3 : side // 2, side // 4 : side // 2] = 0.9
    return (image * 255).round() / 255


def as_bytes(image: Tensor) -> Image.Image:
    planes = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(planes[..., 0] if planes.shape[-1] == 1 else planes)


def off(image: Tensor, other: Image.Image) -> float:
    return float(np.abs(np.asarray(other, dtype=float) / 255 - image[0].permute(1, 2, 0).squeeze(-1).numpy()).max())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FACTORS)
def test_tones_change_as_pillow_changes_them(name: str, channels: int) -> None:
    image, kind = picture(channels), ImageEnhance.Brightness if "bright" in name else ImageEnhance.Contrast
    for severity, factor in enumerate(FACTORS[name], start=1):
        expected = kind(as_bytes(image)).enhance(factor)
        assert off(corrupted(image, name, severity, [0]), expected) < 2 / 255  # Pillow rounds, and its mean too


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_and_resolution_are_pillows_own(channels: int) -> None:
    image = picture(channels)
    for severity, (quality, share) in enumerate(zip((50, 30, 15, 10, 7), (0.8, 0.7, 0.6, 0.5, 0.4), strict=True), 1):
        stream = io.BytesIO()
        as_bytes(image).save(stream, "JPEG", quality=quality)
        assert off(corrupted(image, "jpeg", severity, [0]), Image.open(stream)) < 1e-6
        fewer = int(224 * share), int(224 * share)
        expected = as_bytes(image).resize(fewer, Image.Resampling.BOX).resize((224, 224), Image.Resampling.BOX)
        assert off(corrupted(image, "resolution", severity, [0]), expected) < 2 / 255


def test_blur_is_the_gaussian_of_its_kernel() -> None:
    image = picture()
    for severity, width in enumerate((3, 5, 7, 9, 11), start=1):
        sigma, at = 0.15 * width + 0.35, torch.arange(width) - width // 2
        weights = torch.exp(-(at**2) / (2 * sigma**2))
        kernel = torch.outer(weights, weights) / weights.sum() ** 2
        padded = functional.pad(image, [width // 2] * 4, mode="reflect")
        expected = functional.conv2d(padded, kernel[None, None])
        assert torch.allclose(corrupted(image, "blur", severity, [0]), expected, atol=1e-5)


def test_noise_has_the_deviation_of_its_severity_and_averages_out_on_a_smaller_grid() -> None:
    flat, small = torch.full((1, 1, 224, 224), 0.5), torch.full((1, 1, 56, 56), 0.5)
    for severity, deviation in enumerate((0.04, 0.05, 0.06, 0.07, 0.08), start=1):
        assert float(corrupted(flat, "noise", severity, [1]).std()) == pytest.approx(deviation, rel=0.02)
        assert float(corrupted(small, "noise", severity, [1]).std()) == pytest.approx(deviation / 4, rel=0.05)


def test_gamma_keeps_black_and_white_and_bends_between() -> None:
    ramp = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    for severity, exponent in enumerate((1.1, 1.2, 1.3, 1.4, 1.6), start=1):
        assert torch.allclose(corrupted(ramp, "gamma-up", severity, [0]), ramp**exponent, atol=1e-6)


def test_rotation_is_back_where_it_was_after_the_other_side() -> None:
    image, draws = picture(), [draw_of(1, str(n), "rotation", 5) for n in range(20)]
    turned = corrupted(image.expand(20, -1, -1, -1), "rotation", 5, draws)
    sides = {tuple(each.flatten()[::997].tolist()) for each in turned}
    assert len(sides) == 2  # ten degrees to the one side or to the other
    one, other = (torch.tensor(side) for side in sides)
    assert not torch.allclose(one, other, atol=0.05)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 64, 48), (2, 1, 6, 16, 16)], ids=str)
def test_every_corruption_stays_in_range_and_hurts_more_with_severity(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    coarse = torch.rand(shape[0], shape[1] * (shape[2] if len(shape) == 5 else 1), 5, 5)
    smooth = functional.interpolate(coarse, size=shape[-2:], mode="bilinear").reshape(shape) * 0.8 + 0.1
    distances = []
    for severity in range(1, 6):
        done = corrupted(smooth, name, severity, [3, 4])
        assert done.shape == smooth.shape
        assert done.dtype == torch.float32
        assert float(done.min()) >= 0
        assert float(done.max()) <= 1
        distances.append(float((done - smooth).abs().mean()))
    assert distances[0] > 0
    assert distances[-1] > distances[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_case_is_corrupted_alike_in_any_batch(name: str) -> None:
    images = torch.cat([picture(1, 32, seed) for seed in range(3)])
    draws = [draw_of(7, case, name, 2) for case in "abc"]
    together = corrupted(images, name, 2, draws)
    alone = torch.cat([corrupted(images[n : n + 1], name, 2, draws[n : n + 1]) for n in (2, 0, 1)])
    assert torch.equal(together[[2, 0, 1]], alone)


def test_what_is_drawn_differs_by_seed_case_corruption_and_severity() -> None:
    draws = {draw_of(*said) for said in ((1, "a", "noise", 1), (2, "a", "noise", 1), (1, "b", "noise", 1))}
    draws |= {draw_of(*said) for said in ((1, "a", "rotation", 1), (1, "a", "noise", 2))}
    assert len(draws) == 5


def test_a_slice_of_a_volume_is_corrupted_as_an_image() -> None:
    volume = torch.stack([picture(1, 32, seed)[0] for seed in range(4)], dim=1)[None]
    for name in ("blur", "jpeg", "resolution"):
        done = corrupted(volume, name, 3, [0])
        for n in range(4):
            assert torch.allclose(done[:, :, n], corrupted(volume[:, :, n], name, 3, [0]), atol=1e-6)
