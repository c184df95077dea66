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

from medharden.protocol import Splits
from medharden.record import Finding

__all__ = ["Hashes", "NearPair", "near_duplicate_findings", "near_duplicates", "near_pairs", "picture_hashes"]

_SIDE = 16
_BLOCK = 1024
_MOST_LISTED = 10

Floats = npt.NDArray[np.float32]
Hashes = Sequence[npt.NDArray[np.bool_] | None]


@dataclass(frozen=True)
class NearPair:
    """Two cases of different groups, by row, and how many of 256 bits differ."""

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
    return near_pairs(picture_hashes(inputs), splits, bits)


def picture_hashes(inputs: Floats) -> Hashes:
    """The hash of each case, (256,) bits, or null for a picture of one value, which is like every other such picture.

    Args:
        inputs: (N, C, *spatial) in [0, 1], two or three spatial dimensions.
    """
    return [_hash(case) for case in inputs]


def near_pairs(hashes: Hashes, groups: Sequence[str], bits: int) -> tuple[NearPair, ...]:
    """Pairs of cases of different groups whose hashes differ by so many bits at most, the nearest first.

    Args:
        hashes: (N,) of `picture_hashes`.
        groups: (N,) what a pair must differ in: patients, or splits.
        bits: largest distance, in [0, 256].
    """
    rows = np.array([n for n, found in enumerate(hashes) if found is not None], dtype=np.int64)
    if not rows.size:
        return ()
    signs = np.stack([h for h in hashes if h is not None]).astype(np.float32) * 2.0 - 1.0
    names = np.asarray(groups, dtype=np.str_)[rows]
    pairs = []
    for start in range(0, rows.size, _BLOCK):
        distance = (_SIDE * _SIDE - signs[start : start + _BLOCK] @ signs.T) / 2.0
        near = (distance <= bits) & (names[start : start + _BLOCK, None] != names[None, :])
        for a, b in np.argwhere(near).tolist():
            if start + a < b:
                pairs.append(NearPair(int(rows[start + a]), int(rows[b]), round(float(distance[a, b]))))
    return tuple(sorted(pairs, key=lambda p: (p.bits, p.first, p.second)))


def near_duplicate_findings(
    pairs: Sequence[NearPair], names: Sequence[str], splits: Sequence[str], limits: Splits
) -> list[Finding]:
    """What was looked for and found: pairs that look alike, the nearest by pseudonym, and those that were reviewed."""
    found = []
    reviewed = [p for p in pairs if limits.near_duplicate_bits is not None and p.bits <= limits.near_duplicate_bits]
    others = [p for p in pairs if p not in reviewed]
    if others:
        message = (
            f"{len(others)} pairs of cases in different splits look nearly alike (perceptual hash of {_SIDE * _SIDE} "
            f"bits): {_listed(others, names, splits)}. If they show the same patient, the splits are not independent."
        )
        found.append(Finding("data.near_duplicates", "warning", message))
    if reviewed:
        message = (
            f"{len(reviewed)} pairs of cases in different splits look like copies of one image; the protocol's "
            f"splits.reviewed says that they are none: {_listed(reviewed, names, splits)}."
        )
        found.append(Finding("data.near_duplicates_reviewed", "warning", message))
    if limits.near_duplicate_bits is None:
        message = "Copies of one image in different splits were not looked for: splits.near_duplicate_bits is null."
        found.append(Finding("data.near_duplicates_unchecked", "info", message))
    return found


def _listed(pairs: Sequence[NearPair], names: Sequence[str], splits: Sequence[str]) -> str:
    shown = [
        f"{names[p.first]} ({splits[p.first]}) and {names[p.second]} ({splits[p.second]}), {p.bits} bits"
        for p in pairs[:_MOST_LISTED]
    ]
    return "; ".join(shown) + (f" and {len(pairs) - _MOST_LISTED} more" if len(pairs) > _MOST_LISTED else "")


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
