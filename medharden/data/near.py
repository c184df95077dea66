"""Near-duplicates across splits: another export, crop or contrast of an image that is in another split already.

Each image is reduced to 256 bits, the signs of its lowest spatial frequencies (perceptual hash, 16 x 16, library
`imagehash`); of a volume, the middle slice of the first axis. Two images are near if few of these bits differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from medharden.record import Finding

__all__ = ["NearPair", "near_duplicate_finding", "near_duplicates"]

_SIDE = 16
_BLOCK = 1024
_MOST_LISTED = 10

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NearPair:
    """Two cases of different splits, by row, and how many of 256 bits differ."""

    first: int
    second: int
    bits: int


def near_duplicates(inputs: Floats, splits: Sequence[str], bits: int) -> tuple[NearPair, ...]:
    """Pairs of cases in different splits whose hashes differ by so many bits at most, the nearest first.

    Args:
        inputs: (N, C, *spatial) in [0, 1], two or three spatial dimensions.
        splits: (N,) each case's split.
        bits: largest distance, in [0, 256].
    """
    hashes = [_hash(case) for case in inputs]
    rows = np.array([n for n, found in enumerate(hashes) if found is not None], dtype=np.int64)
    if not rows.size:
        return ()
    signs = np.stack([h for h in hashes if h is not None]).astype(np.float32) * 2.0 - 1.0
    names = np.asarray(splits)[rows]
    pairs = []
    for start in range(0, rows.size, _BLOCK):
        distance = (_SIDE * _SIDE - signs[start : start + _BLOCK] @ signs.T) / 2.0
        near = (distance <= bits) & (names[start : start + _BLOCK, None] != names[None, :])
        for a, b in np.argwhere(near).tolist():
            if start + a < b:
                pairs.append(NearPair(int(rows[start + a]), int(rows[b]), round(float(distance[a, b]))))
    return tuple(sorted(pairs, key=lambda p: (p.bits, p.first, p.second)))


def near_duplicate_finding(pairs: Sequence[NearPair], names: Sequence[str], splits: Sequence[str]) -> list[Finding]:
    """A finding that lists the nearest pairs by pseudonym; none without pairs."""
    if not pairs:
        return []
    listed = [
        f"{names[p.first]} ({splits[p.first]}) and {names[p.second]} ({splits[p.second]}), {p.bits} bits"
        for p in pairs[:_MOST_LISTED]
    ]
    more = f" and {len(pairs) - _MOST_LISTED} more" if len(pairs) > _MOST_LISTED else ""
    message = (
        f"{len(pairs)} pairs of cases in different splits look nearly alike (perceptual hash of {_SIDE * _SIDE} bits): "
        f"{'; '.join(listed)}{more}. If they show the same patient, the splits are not independent."
    )
    return [Finding("data.near_duplicates", "warning", message)]


def _hash(case: Floats) -> npt.NDArray[np.bool_] | None:
    """(256,) bits, or null for a picture of one value, which is like every other such picture."""
    picture = case.mean(axis=0)
    if picture.ndim == 3:
        picture = picture[picture.shape[0] // 2]
    levels = (picture * 255.0).round().clip(0, 255).astype(np.uint8)
    if levels.min() == levels.max():
        return None
    found: npt.NDArray[np.bool_] = imagehash.phash(Image.fromarray(levels), hash_size=_SIDE).hash.ravel()
    return found
