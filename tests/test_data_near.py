"""Near-duplicates across splits: planted ones are found by pseudonym, ordinary patients are not flagged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medharden.data import load_cohort
from medharden.data.near import NearPair, near_duplicate_finding, near_duplicates
from medharden.protocol import Protocol, parse_protocol

KEY = b"a key for tests, sixteen bytes or more"
HEAD = "schema_version: 1\nname: near\ntitle: Near\nintended_use: Tests.\nthreat: {eps: 0.01}\n"


def pictures(count: int, size: int = 96, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, (N, 1, size, size) in [0, 1]."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.normal(size=(size, size)), 1.5) for _ in range(count)])
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return ((smooth - low) / (high - low))[:, None].astype(np.float32)


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray((picture[0] * 255).astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream), dtype=np.float32)[None] / 255


def test_a_compressed_copy_in_another_split_is_found_and_one_in_the_same_split_is_none_of_ours() -> None:
    inputs = pictures(20)
    splits = ["train"] * 10 + ["test"] * 10
    inputs[15] = compressed(inputs[3], 40)
    inputs[17] = compressed(inputs[16], 40)
    [pair] = near_duplicates(inputs, splits, 16)
    assert (pair.first, pair.second) == (3, 15)
    assert 0 < pair.bits <= 16
    assert near_duplicates(inputs, splits, pair.bits) == (pair,)
    assert near_duplicates(inputs, splits, pair.bits - 1) == ()


def test_pairs_are_found_across_blocks_and_the_nearest_comes_first() -> None:
    few = pictures(30, size=48)
    inputs = np.concatenate([few, np.repeat(pictures(1, 48, seed=1), 1010, axis=0), few[:2]])
    splits = ["train"] * 1040 + ["test"] * 2
    inputs[1041] = compressed(inputs[1041], 30)
    pairs = near_duplicates(inputs, splits, 16)
    assert [(p.first, p.second) for p in pairs] == [(0, 1040), (1, 1041)]
    assert pairs[0].bits == 0 < pairs[1].bits


def test_volumes_are_compared_by_their_middle_slice_and_colour_by_its_mean() -> None:
    volumes = np.repeat(pictures(6)[:, :, None], 3, axis=2)
    volumes[5, :, 1] = volumes[0, :, 1]
    volumes[5, :, 0] = 0
    assert [(p.first, p.second) for p in near_duplicates(volumes, ["train"] * 3 + ["val"] * 3, 8)] == [(0, 5)]
    colour = np.repeat(pictures(4), 3, axis=1)
    colour[3] = colour[1][::-1]
    assert [(p.first, p.second) for p in near_duplicates(colour, ["train"] * 2 + ["val"] * 2, 8)] == [(1, 3)]


def test_pictures_of_one_value_are_no_duplicates_of_each_other() -> None:
    assert near_duplicates(np.zeros((4, 1, 8, 8), dtype=np.float32), ["train", "train", "test", "test"], 16) == ()


def test_the_finding_lists_ten_pairs_and_counts_all() -> None:
    pairs = [NearPair(n, n + 20, n) for n in range(12)]
    names, splits = [f"case-{n}" for n in range(40)], ["train"] * 20 + ["test"] * 20
    [finding] = near_duplicate_finding(pairs, names, splits)
    assert finding.severity == "warning"
    assert finding.message.startswith("12 pairs of cases")
    assert "case-0 (train) and case-20 (test), 0 bits" in finding.message
    assert "case-9 (train)" in finding.message
    assert "case-10 (train)" not in finding.message
    assert "and 2 more" in finding.message
    assert near_duplicate_finding([], names, splits) == []
    assert "more" not in near_duplicate_finding(pairs[:10], names, splits)[0].message


def protocol(more: str = "") -> Protocol:
    return parse_protocol(HEAD + more, "near.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three given splits; one test image is a compressed copy of a training image."""
    inputs = pictures(24)
    inputs[20] = compressed(inputs[2], 50)
    for n, picture in enumerate(inputs):
        split = ("train", "val", "test")[n // 8]
        path = tmp_path / split / ("ill" if n % 2 else "healthy") / f"Jane_{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture[0] * 255).astype(np.uint8)).save(path)
    return tmp_path


def test_a_cohort_reports_near_duplicates_by_pseudonym(folder: Path) -> None:
    cohort = load_cohort(folder, protocol(), key=KEY)
    [finding] = [f for f in cohort.record.findings if f.code == "data.near_duplicates"]
    assert finding.message.startswith("1 pairs")
    named = [c for c in cohort.cases if c.case in finding.message]
    assert sorted(c.split for c in named) == ["test", "train"]
    assert "Jane" not in finding.message


def test_a_protocol_may_look_for_none(folder: Path) -> None:
    cohort = load_cohort(folder, protocol("splits: {near_duplicate_bits: null}\n"), key=KEY)
    assert not [f for f in cohort.record.findings if f.code == "data.near_duplicates"]


def test_ordinary_chest_x_rays_of_different_patients_are_not_flagged(test_data: Path) -> None:
    source = test_data / "kermany_cxr_224"
    names = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[::6]
    assert len(names) > 200
    inputs = np.stack([np.asarray(Image.open(p).convert("L"), dtype=np.float32)[None] / 255 for p in names])
    splits = [("train", "val", "test")[n % 3] for n in range(len(names))]
    near = near_duplicates(inputs, splits, 16)
    stems = {p: names[p].stem.split("_")[0] for pair in near for p in (pair.first, pair.second)}
    assert all(stems[p.first] == stems[p.second] for p in near), "different patients were flagged"
    inputs[1] = compressed(inputs[0], 30)
    assert (0, 1) in {(p.first, p.second) for p in near_duplicates(inputs, splits, 16)}
