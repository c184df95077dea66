"""Near-duplicates: another export, crop or contrast of an image that is there already, in another split or the same.

Each image is reduced to 256 bits, the signs of its lowest spatial frequencies (perceptual hash, 16 x 16, library
`imagehash`); of a volume, the middle slice of the first axis. Two images are near if few of these bits differ.

All pairs are compared, block by block, as products of matrices: time grows with the square of the images, memory with
their number, at 1.5 KiB an image. An index over parts of the hashes would grow so too: within 40 of 256 bits, one of 16
parts differs by 2 bits at most, as in one of thirty pairs of random hashes, and these would be looked up one by one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from medharden.protocol import Splits
from medharden.record import Finding

__all__ = [
    "ByRow",
    "Hashes",
    "NearPair",
    "copy_links",
    "input_links",
    "near_duplicate_findings",
    "near_duplicates",
    "near_pairs",
    "nearest_pairs",
    "picture_hash",
    "picture_hashes",
]

_SIDE = 16
_BITS = _SIDE * _SIDE
_BLOCK = 512  # rows compared at once with all others, in two bytes a pair
_COLUMNS = 8192  # of these others at a time
_MOST_LISTED = 10

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
Hashes = Sequence[npt.NDArray[np.bool_] | None]


class ByRow(Protocol):
    """What gives a case's (C, *spatial) input by its row: an array, or one that lies in a file."""

    def __getitem__(self, row: int, /) -> Any: ...


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


def picture_hashes(inputs: Iterable[Floats]) -> Hashes:
    """The hash of each case, (256,) bits, or null for a picture of one value, which is like every other such picture.

    Args:
        inputs: (N, C, *spatial) in [0, 1], two or three spatial dimensions.
    """
    return [picture_hash(case) for case in inputs]


def near_pairs(hashes: Hashes, groups: Sequence[str], bits: int) -> tuple[NearPair, ...]:
    """Pairs of cases of different groups whose hashes differ by so many bits at most, the nearest first.

    Args:
        hashes: (N,) of `picture_hashes`.
        groups: (N,) what a pair must differ in: patients, or splits.
        bits: largest distance, in [0, 256].
    """
    return nearest_pairs(hashes, groups, bits, most=None)[0]


def nearest_pairs(
    hashes: Hashes, groups: Sequence[str], bits: int, *, most: int | None
) -> tuple[tuple[NearPair, ...], int]:
    """As `near_pairs`, but the nearest `most` alone, and how many there are in all.

    Args:
        hashes: (N,) of `picture_hashes`.
        groups: (N,) what a pair must differ in.
        bits: largest distance, in [0, 256].
        most: how many are kept; null keeps all, which may be as many as N (N - 1) / 2.
    """
    rows, packed = _packed(hashes)
    _, codes = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    codes = codes[rows]
    kept: list[tuple[int, int, int]] = []
    total, farthest = 0, bits
    for row, others, distances in _near(packed, bits):
        apart = codes[others] != codes[row]
        total += int(apart.sum())
        wanted = np.flatnonzero(apart & (distances <= farthest))
        wanted = wanted[np.argsort(distances[wanted], kind="stable")[:most]]
        found = zip(distances[wanted].tolist(), rows[others[wanted]].tolist(), strict=True)
        kept += [(distance, int(rows[row]), other) for distance, other in found]
        if most is not None and len(kept) >= 2 * most:
            kept = sorted(kept)[:most]
            farthest = kept[-1][0] - 1  # rows come in order: of pairs as far, those that are kept come first
    kept = sorted(kept)[:most]
    return tuple(NearPair(first, second, distance) for distance, first, second in kept), total


def copy_links(
    hashes: Hashes, groups: Sequence[str], bits: int, apart: Iterable[tuple[int, int]] = ()
) -> tuple[NearPair, ...]:
    """Pairs that join what looks like copies of one image: of each set of copies, as few as hold it together.

    Looking alike does not carry over: A may look like B, and B like C, but not A like C. All three are one set.

    Args:
        hashes: (N,) of `picture_hashes`.
        groups: (N,) what belongs together already, such as patients: no pair is needed within one.
        bits: largest distance of a pair, in [0, 256].
        apart: pairs of rows that are no copies, however alike they look.

    Returns:
        At most N - 1 pairs.
    """
    rows, packed = _packed(hashes)
    _, sets = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    strangers: dict[int, list[int]] = defaultdict(list)
    for one, other in apart:
        strangers[one].append(other)
        strangers[other].append(one)
    links: list[NearPair] = []

    def join(row: int, others: Rows, distances: Rows) -> None:
        new = sets[others] != sets[row]
        if row in strangers:
            new &= ~np.isin(others, strangers[row])
        for other, distance in zip(others[new].tolist(), distances[new].tolist(), strict=True):
            if sets[other] != sets[row]:
                links.append(NearPair(min(row, other), max(row, other), int(distance)))
                sets[sets == sets[other]] = sets[row]

    # Equal hashes first, and then one of each: a thousand copies are a thousand pairs, not half a million.
    alone = np.isin(rows, list(strangers))
    _, firsts, which = np.unique(packed[~alone], axis=0, return_index=True, return_inverse=True)
    common = rows[~alone]
    for place, members in enumerate(_members(which.reshape(-1), len(firsts))):
        if len(members) > 1:
            first = int(common[firsts[place]])
            join(first, common[members], np.zeros(len(members), dtype=np.int64))
    chosen = np.sort(np.concatenate([np.flatnonzero(~alone)[firsts], np.flatnonzero(alone)]))
    for row, others, distances in _near(packed[chosen], bits):
        join(int(rows[chosen[row]]), rows[chosen[others]], distances)
    return tuple(links)


def input_links(inputs: ByRow, hashes: Hashes, rows: Iterable[int]) -> tuple[NearPair, ...]:
    """Pairs that join those of some cases that have no hash, since they show one value, and the same input.

    Args:
        inputs: (N, C, *spatial) in [0, 1].
        hashes: (N,) of `picture_hashes`.
        rows: the cases to look at.
    """
    first: dict[bytes, int] = {}
    links = []
    for row in rows:
        if hashes[row] is None:
            same = first.setdefault(hashlib.sha256(np.ascontiguousarray(inputs[row]).tobytes()).digest(), row)
            links += [NearPair(same, row, 0)] if same != row else []
    return tuple(links)


def _packed(hashes: Hashes) -> tuple[Rows, Bits]:
    """The rows that have a hash, and their bits, eight in a byte."""
    rows = np.array([n for n, found in enumerate(hashes) if found is not None], dtype=np.int64)
    packed = np.empty((len(rows), _BITS // 8), dtype=np.uint8)
    for place, row in enumerate(rows.tolist()):
        packed[place] = np.packbits(hashes[row])
    return rows, packed


def _signs(packed: Bits) -> Floats:
    """The bits as -1 and 1: the product of two hashes is then 256 less twice their distance, exactly."""
    signs: Floats = np.unpackbits(packed, axis=1).astype(np.float32) * np.float32(2) - np.float32(1)
    return signs


def _near(packed: Bits, bits: int) -> Iterator[tuple[int, Rows, Rows]]:
    """Each row that has near ones after it, with these and their distances."""
    for start in range(0, len(packed), _BLOCK):
        rows = _signs(packed[start : start + _BLOCK])
        product = np.empty((len(rows), len(packed) - start), dtype=np.int16)
        for at in range(0, product.shape[1], _COLUMNS):
            product[:, at : at + _COLUMNS] = rows @ _signs(packed[start + at : start + at + _COLUMNS]).T
        near = product >= _BITS - 2 * bits
        for place in np.flatnonzero(np.count_nonzero(near, axis=1) > 1).tolist():
            others = np.flatnonzero(near[place, place + 1 :]) + place + 1
            if others.size:
                yield start + place, others + start, (_BITS - product[place, others].astype(np.int64)) // 2


def _members(which: Rows, count: int) -> list[Rows]:
    """Which places hold each of `count` values."""
    order = np.argsort(which, kind="stable")
    return np.split(order, np.cumsum(np.bincount(which, minlength=count))[:-1]) if count else []


def near_duplicate_findings(
    pairs: Sequence[NearPair], names: Sequence[str], splits: Sequence[str], limits: Splits, *, total: int | None = None
) -> list[Finding]:
    """What was looked for and found: pairs that look alike, the nearest by pseudonym, and those that were reviewed.

    Args:
        pairs: in different splits, the nearest first.
        names: (N,) pseudonyms.
        splits: (N,) of the cases.
        limits: the protocol's.
        total: how many pairs there are, where `pairs` are not all.
    """
    found = []
    reviewed = [p for p in pairs if limits.near_duplicate_bits is not None and p.bits <= limits.near_duplicate_bits]
    others = [p for p in pairs if p not in reviewed]
    beyond = 0 if total is None else total - len(pairs)
    if others:
        message = (
            f"{len(others) + beyond} pairs of cases in different splits look nearly alike (perceptual hash of {_BITS} "
            f"bits): {_listed(others, names, splits, beyond)}. If they show the same patient, the splits are not "
            "independent."
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


def _listed(pairs: Sequence[NearPair], names: Sequence[str], splits: Sequence[str], beyond: int = 0) -> str:
    shown = [
        f"{names[p.first]} ({splits[p.first]}) and {names[p.second]} ({splits[p.second]}), {p.bits} bits"
        for p in pairs[:_MOST_LISTED]
    ]
    more = len(pairs) + beyond - len(shown)
    return "; ".join(shown) + (f" and {more} more" if more else "")


def picture_hash(case: Floats) -> npt.NDArray[np.bool_] | None:
    """(256,) bits, or null for a picture of one value, which is like every other such picture.

    Args:
        case: (C, *spatial) in [0, 1], two or three spatial dimensions.
    """
    middle = case if case.ndim == 3 else case[:, case.shape[1] // 2]
    picture = middle[0] if len(middle) == 1 else middle.mean(axis=0)
    levels = np.multiply(picture, 255.0, dtype=np.float32)
    levels = np.clip(np.rint(levels, out=levels), 0, 255, out=levels).astype(np.uint8)
    if levels.min() == levels.max():
        return None
    found: npt.NDArray[np.bool_] = imagehash.phash(Image.fromarray(levels), hash_size=_SIDE).hash.ravel()
    return found
