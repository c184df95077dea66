"""One case decoded: its model input as the store keeps it, and what is known of it beside that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from blake3 import blake3

from medharden.data.checks.near import picture_hash
from medharden.data.formats.image import StoredImage
from medharden.data.view.case import ReadCase, case_of
from medharden.protocol import Input

__all__ = ["Made", "Stamp", "made_of", "single_threaded", "stamp_of", "threads_of_readers"]

Floats = npt.NDArray[np.float32]
Stamp = tuple[int, int, int, int]
"""What tells that a file was written to: device, inode, size and time of change."""


@dataclass(frozen=True, eq=False)
class Made:
    """A case on its way into a store.

    Attributes:
        case: what is kept beside its input.
        planes: (1 or C, *spatial) float32 in [0, 1]; one plane where all C are equal.
        digest: BLAKE3 of the planes' bytes, little-endian.
        hash: perceptual hash of the input in 32 bytes; empty for a picture of one value.
    """

    case: ReadCase
    planes: Floats
    digest: bytes
    hash: bytes


def made_of(image: StoredImage, spec: Input) -> Made:
    """A stored image as the store keeps it.

    Raises:
        DataError: it can't be model input, with the reason alone.
    """
    case, unit = case_of(image, spec)
    found = picture_hash(unit)
    alike = len(unit) == 3 and np.array_equal(unit[0], unit[1]) and np.array_equal(unit[0], unit[2])
    planes = np.ascontiguousarray(unit[:1] if alike else unit, dtype="<f4")
    return Made(
        case,
        planes,
        blake3(planes.reshape(-1).view(np.uint8).data).digest(),
        b"" if found is None else np.packbits(found).tobytes(),
    )


def stamp_of(path: os.PathLike[str] | str) -> Stamp:
    """Raises: OSError where there is no such file."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def single_threaded() -> None:
    """Has the thread that calls compute by itself: several readers share the cores."""
    torch.set_num_threads(1)


@contextmanager
def threads_of_readers() -> Iterator[None]:
    """Puts back, for the threads that come after, how many torch computes with, which readers have set to one.

    On a busy machine each of torch's small parallel loops may wait for a thread that has no core.
    """
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
