"""Ordinary changes of image quality, in the severities that MedMNIST-C publishes for chest X-rays.

Di Salvo, Doerrich, Ledig, "MedMNIST-C: Comprehensive benchmark and improved classifier robustness by simulating
realistic image corruptions", arXiv:2406.17536; parameters of `pneumoniamnist` in the package `medmnistc` 0.1.0. Its
lengths are pixels of images of 224 by 224: an image whose shorter side is less is corrupted on a grid that is finer by
a whole factor and averaged back, so that a blur of so many pixels, or noise of so much a pixel, does what it would have
done before the image was made small. Resolution keeps its share of the grid as it is: of pixels that are gone
already, none can be lost again. Rotation is not among them; its angles are ours.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy
import torch
from PIL import Image
from torch import Tensor

from medharden.protocol import Corruption

__all__ = ["corrupted", "draw_of"]

Plane = npt.NDArray[np.float32]

_SIDE = 224
_LADDERS: dict[Corruption, tuple[float, float, float, float, float]] = {
    "blur": (3, 5, 7, 9, 11),  # width of the Gaussian's kernel in pixels
    "noise": (0.04, 0.05, 0.06, 0.07, 0.08),  # standard deviation, of the range
    "brightness-up": (1.1, 1.2, 1.3, 1.4, 1.5),  # factor
    "brightness-down": (0.9, 0.8, 0.7, 0.6, 0.5),
    "contrast-up": (1.1, 1.2, 1.3, 1.4, 1.6),  # factor about the mean grey
    "contrast-down": (0.9, 0.8, 0.7, 0.6, 0.4),
    "gamma-up": (1.1, 1.2, 1.3, 1.4, 1.6),  # exponent
    "gamma-down": (0.9, 0.8, 0.7, 0.6, 0.4),
    "jpeg": (50, 30, 15, 10, 7),  # quality
    "resolution": (0.8, 0.7, 0.6, 0.5, 0.4),  # share of the pixels a side that is kept
    "rotation": (2, 4, 6, 8, 10),  # degrees, to either side
}
_LUMA = (0.299, 0.587, 0.114)


def draw_of(seed: int, case: str, corruption: str, severity: int) -> int:
    """The seed of one case's draws: the same whenever, in whatever order and by whatever process it is corrupted.

    Args:
        seed: the protocol's.
        case: what tells the case apart, such as the digest of its pixels.
        corruption: by name.
        severity: from 1 to 5.
    """
    said = f"{seed}\n{case}\n{corruption}\n{severity}".encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "little")


def corrupted(inputs: Tensor, corruption: Corruption, severity: int, draws: Sequence[int]) -> Tensor:
    """(n, C, *spatial) each case under one corruption; a volume's slices, along its first axis, are images.

    Args:
        inputs: (n, C, *spatial) float32 in [0, 1], on any device; two spatial axes or three.
        corruption: by name.
        severity: from 1 to 5.
        draws: (n,) of `draw_of`.

    Returns:
        Of the same shape, type and device, in [0, 1].
    """
    amount = _LADDERS[corruption][severity - 1]
    change = _CHANGES[corruption.partition("-")[0]]
    cases = [
        change(case.numpy(), amount, np.random.default_rng(draw))
        for case, draw in zip(inputs.detach().cpu(), draws, strict=True)
    ]
    return torch.from_numpy(np.stack(cases).clip(0, 1).astype(np.float32)).to(inputs.device)


Change = Callable[[Plane, float, np.random.Generator], Plane]


def _on_planes(change: Change, side: int) -> Change:
    """Applies a change to each slice on a grid whose shorter side has so many pixels at least, and averages it back."""

    def applied(case: Plane, amount: float, random: np.random.Generator) -> Plane:
        planes = case[:, None] if case.ndim == 3 else case
        done = np.empty_like(planes)
        times = -(-side // min(planes.shape[-2:]))
        for n in range(planes.shape[1]):
            fine = planes[:, n].repeat(times, axis=1).repeat(times, axis=2)
            changed = change(fine, amount, random).clip(0, 1)
            channels, height, width = changed.shape
            blocks = changed.reshape(channels, height // times, times, width // times, times)
            done[:, n] = blocks.mean(axis=(2, 4))
        return done.reshape(case.shape)

    return applied


def _blur(plane: Plane, kernel: float, random: np.random.Generator) -> Plane:
    scale = min(plane.shape[1:]) / _SIDE
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8  # what a kernel of this width stands for in OpenCV and torchvision
    radius = max(1, round(scale * (kernel - 1) / 2))
    blurred: Plane = scipy.ndimage.gaussian_filter(plane, scale * sigma, mode="mirror", radius=radius, axes=(1, 2))
    return blurred


def _noise(plane: Plane, deviation: float, random: np.random.Generator) -> Plane:
    return plane + np.float32(deviation) * random.standard_normal(plane.shape, dtype=np.float32)


def _brightness(case: Plane, factor: float, random: np.random.Generator) -> Plane:
    return case * np.float32(factor)


def _contrast(case: Plane, factor: float, random: np.random.Generator) -> Plane:
    """About the mean grey, as `PIL.ImageEnhance.Contrast`, without its rounding to 8 bits."""
    channels = case.mean(axis=tuple(range(1, case.ndim)))
    grey = np.float32(channels @ _LUMA if len(channels) == 3 else channels.mean())
    return grey + np.float32(factor) * (case - grey)


def _gamma(case: Plane, exponent: float, random: np.random.Generator) -> Plane:
    return case ** np.float32(exponent)


def _jpeg(plane: Plane, quality: float, random: np.random.Generator) -> Plane:
    bytes_ = (plane * 255).round().astype(np.uint8)
    images = [bytes_.transpose(1, 2, 0)] if len(bytes_) == 3 else list(bytes_)
    done = [_through_jpeg(image, int(quality)) for image in images]
    return done[0].transpose(2, 0, 1) if len(bytes_) == 3 else np.stack(done)


def _through_jpeg(image: npt.NDArray[np.uint8], quality: int) -> Plane:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as read:
        return np.asarray(read, dtype=np.float32) / np.float32(255)


def _resolution(plane: Plane, share: float, random: np.random.Generator) -> Plane:
    """Fewer pixels and back, each time by the average over a pixel's area."""
    height, width = plane.shape[1:]
    fewer = max(1, int(width * share)), max(1, int(height * share))
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(p).resize(fewer, box).resize((width, height), box)) for p in plane])


def _rotation(case: Plane, degrees: float, random: np.random.Generator) -> Plane:
    """To one side or the other, about the centre of each slice; what comes in from outside is the nearest border."""
    angle = degrees if random.random() < 0.5 else -degrees
    turned: Plane = scipy.ndimage.rotate(case, angle, axes=(-1, -2), reshape=False, order=1, mode="nearest")
    return turned


_CHANGES: dict[str, Change] = {
    "blur": _on_planes(_blur, _SIDE),
    "noise": _on_planes(_noise, _SIDE),
    "brightness": _brightness,
    "contrast": _contrast,
    "gamma": _gamma,
    "jpeg": _on_planes(_jpeg, _SIDE),
    "resolution": _on_planes(_resolution, 1),
    "rotation": _rotation,
}
