"""Near-duplicates across splits: planted ones are found by pseudonym, ordinary patients are not flagged."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medharden.data import load_cohort, pseudonym
from medharden.data.checks import near
from medharden.data.checks.near import (
    NearPair,
    copy_links,
    input_links,
    near_duplicate_findings,
    near_duplicates,
    near_pairs,
    nearest_pairs,
)
from medharden.errors import DataError
from medharden.protocol import Protocol, Splits, parse_protocol
from medharden.record import clusters_of, joined

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


@pytest.mark.parametrize(("block", "columns"), [(7, 5), (16, 1000), (1000, 3), (512, 8192)])
@pytest.mark.parametrize("bits", [0, 16, 40, 64])
def test_pairs_are_those_of_comparing_each_two_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int, columns: int, bits: int
) -> None:
    monkeypatch.setattr(near, "_BLOCK", block)
    monkeypatch.setattr(near, "_COLUMNS", columns)
    random = np.random.default_rng(bits)
    first = random.random((40, 256)) < 0.5
    flips = random.random((60, 256)) < np.linspace(0, 0.3, 60)[:, None]
    hashes: list = [*first, *(first[random.integers(0, 40, 60)] ^ flips)]
    hashes[13] = hashes[77] = None
    groups = [str(n % 7) for n in range(100)]
    each = [
        (int((hashes[a] != hashes[b]).sum()), a, b)
        for a in range(100)
        for b in range(a + 1, 100)
        if hashes[a] is not None and hashes[b] is not None and groups[a] != groups[b]
    ]
    expected = sorted(pair for pair in each if pair[0] <= bits)
    assert [(p.bits, p.first, p.second) for p in near_pairs(hashes, groups, bits)] == expected


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
    pairs = [NearPair(n, n + 20, n + 17) for n in range(12)]
    names, splits, limits = [f"case-{n}" for n in range(40)], ["train"] * 20 + ["test"] * 20, Splits()
    [finding] = near_duplicate_findings(pairs, names, splits, limits)
    assert (finding.code, finding.severity) == ("data.near_duplicates", "warning")
    assert finding.message.startswith("12 pairs of cases")
    assert "case-0 (train) and case-20 (test), 17 bits" in finding.message
    assert "case-9 (train)" in finding.message
    assert "case-10 (train)" not in finding.message
    assert "and 2 more" in finding.message
    assert near_duplicate_findings([], names, splits, limits) == []
    assert "more" not in near_duplicate_findings(pairs[:10], names, splits, limits)[0].message


def test_reviewed_pairs_are_listed_apart_and_a_check_that_was_not_made_is_said() -> None:
    names, splits = ["a", "b", "c", "d"], ["train", "test"] * 2
    pairs = [NearPair(0, 1, 16), NearPair(2, 3, 17)]
    similar, reviewed = near_duplicate_findings(pairs, names, splits, Splits())
    assert (similar.code, reviewed.code) == ("data.near_duplicates", "data.near_duplicates_reviewed")
    assert "c (train) and d (test), 17 bits" in similar.message
    assert "a (train) and b (test), 16 bits." in reviewed.message
    found = near_duplicate_findings(pairs, names, splits, Splits(near_duplicate_bits=None))
    assert [(f.code, f.severity) for f in found] == [
        ("data.near_duplicates", "warning"),
        ("data.near_duplicates_unchecked", "info"),
    ]


def scattered(n: int, seed: int) -> list[np.ndarray | None]:
    """Hashes in loose heaps, so that near ones chain; some equal, some absent."""
    rng = np.random.default_rng(seed)
    heaps = rng.random((12, 256)) < 0.5
    hashes: list[np.ndarray | None] = []
    for _ in range(n):
        found = heaps[rng.integers(12)].copy()
        found[rng.integers(0, 256, rng.integers(0, 14))] ^= True
        hashes.append(found)
    hashes[1], hashes[2], hashes[5] = hashes[0], hashes[0], None
    return hashes


def sets_of(n: int, pairs: list[tuple[int, int]], patients: list[str]) -> list[int]:
    first = {p: patients.index(p) for p in patients}
    return joined(n, [*pairs, *((first[p], k) for k, p in enumerate(patients))])


@pytest.mark.parametrize("seed", range(6))
def test_links_hold_together_what_all_pairs_would_with_as_few_as_can_be(seed: int) -> None:
    hashes = scattered(300, seed)
    patients = [f"p{k // 3}" for k in range(300)]
    pairs = [(p.first, p.second) for p in near_pairs(hashes, patients, 12)]
    apart = [*pairs[::3], (0, 1), (7, 9)]
    left = [p for p in pairs if p not in apart]
    for strangers, wanted in (([], pairs), (apart, left), ([(b, a) for a, b in apart], left)):
        links = copy_links(hashes, patients, 12, strangers)
        assert not {(p.first, p.second) for p in links} & set(strangers)
        assert {(p.first, p.second) for p in links} <= set(wanted)
        assert all(p.bits == int((hashes[p.first] != hashes[p.second]).sum()) <= 12 for p in links)
        found = sets_of(300, [(p.first, p.second) for p in links], patients)
        assert found == sets_of(300, wanted, patients)
        assert len(links) == len(set(patients)) - len(set(found))


@pytest.mark.parametrize("most", [1, 7, 100])
def test_of_very_many_pairs_the_nearest_are_kept_and_all_are_counted(most: int) -> None:
    hashes = scattered(400, 3)
    splits = [("train", "val", "test")[k % 3] for k in range(400)]
    every = near_pairs(hashes, splits, 20)
    assert nearest_pairs(hashes, splits, 20, most=most) == (every[:most], len(every))
    names = [str(k) for k in range(400)]
    [finding] = near_duplicate_findings(
        every[:most], names, splits, Splits(near_duplicate_bits=None), total=len(every)
    )[:1]
    assert finding.message.startswith(f"{len(every)} pairs")
    assert f"and {len(every) - min(most, 10)} more" in finding.message


def test_copies_of_one_image_by_the_thousand_are_one_set_without_a_pair_for_each_two() -> None:
    hashes = [scattered(6, 0)[0]] * 5000
    links = copy_links(hashes, [str(k) for k in range(5000)], 16)
    assert len(links) == 4999
    assert nearest_pairs(hashes, ["train", "test"] * 2500, 16, most=10)[1] == 2500**2


def test_blank_inputs_are_one_only_where_they_are_equal() -> None:
    inputs = np.zeros((5, 1, 8, 8), dtype=np.float32)
    inputs[3] = 1.0
    assert [(p.first, p.second) for p in input_links(inputs, [None] * 5, [0, 2, 3, 4])] == [(0, 2), (0, 4)]
    assert input_links(inputs, [np.zeros(256, dtype=bool)] * 5, range(5)) == ()


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


def test_given_splits_that_part_a_copy_from_its_image_are_refused_by_pseudonym(folder: Path) -> None:
    with pytest.raises(DataError, match=r"1 pairs of cases lie in two splits(.|\n)*looks like a copy of") as caught:
        load_cohort(folder, protocol(), key=KEY)
    [problem] = caught.value.problems
    assert "Jane" not in str(caught.value)
    assert "splits.reviewed" in str(caught.value)
    assert re.fullmatch(
        r"in (train|test) looks like a copy of \w+ in (train|test): \d+ of 256 bits of their perceptual hashes differ",
        problem.reason,
    )


def test_a_pair_that_a_person_reviewed_is_accepted_on_record(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_cohort(folder, protocol(), key=KEY)
    [problem] = caught.value.problems
    other = problem.reason.split()[7]
    reviewed = f'splits: {{reviewed: [{{cases: ["{other}", "{problem.case}"], justification: "Sisters."}}]}}\n'
    record = load_cohort(folder, protocol(reviewed), key=KEY).record
    [pair] = record.alike
    assert {pair.case, pair.other} == {problem.case, other}
    assert pair.bits <= 16
    assert "data.near_duplicates_reviewed" in [f.code for f in record.findings]
    with pytest.raises(DataError):
        load_cohort(folder, protocol(reviewed.replace(other, "someone")), key=KEY)


def test_made_splits_keep_a_copy_with_its_image(folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for path in folder.rglob("*.png"):
        if "flat" not in path.parts:
            (flat / path.parent.name).mkdir(parents=True, exist_ok=True)
            (flat / path.parent.name / path.name).write_bytes(path.read_bytes())
    for seed in range(6):
        cohort = load_cohort(flat, protocol(f"seed: {seed}\n"), key=KEY)
        assert cohort.record.splits_from == "made"
        assert cohort.record.alike == ()


def chain(folder: Path) -> Path:
    """Three given splits; three test images of which the first looks like the second, and the second like the third."""
    inputs = pictures(24)
    inputs[17] = compressed(inputs[16], 40)
    inputs[18] = compressed(np.clip(inputs[17] * 1.15, 0, 1), 30)
    for n, picture in enumerate(inputs):
        path = folder / ("train", "val", "test")[n // 8] / ("ill" if n % 2 else "healthy") / f"Jane_{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture[0] * 255).astype(np.uint8)).save(path)
    return folder


def name(n: int) -> str:
    return pseudonym(KEY, "case", f"test/{'ill' if n % 2 else 'healthy'}/Jane_{n}.png")


def test_copies_within_the_test_split_are_on_record_and_count_once(tmp_path: Path) -> None:
    record = load_cohort(chain(tmp_path), protocol(), key=KEY).record
    assert {c for p in record.copies for c in (p.case, p.other)} == {name(16), name(17), name(18)}
    assert len(record.copies) == 2
    clusters = clusters_of(record, Splits().is_copy)
    assert (clusters.count, clusters.largest) == (6, 3)
    assert [set(s) for s in clusters.copies] == [{name(16), name(17), name(18)}]


def test_test_images_that_a_person_found_different_are_no_copies(tmp_path: Path) -> None:
    chain(tmp_path)
    pairs = ((16, 17), (17, 18), (16, 18))
    for reviewed, left in ((pairs, 0), (pairs[:1], 2), (pairs[1:], 1)):
        listed = ", ".join(f'{{cases: ["{name(b)}", "{name(a)}"], justification: Sisters.}}' for a, b in reviewed)
        rules = protocol(f"splits: {{near_duplicate_bits: 30, reviewed: [{listed}]}}\n")
        record = load_cohort(tmp_path, rules, key=KEY).record
        assert len(record.copies) == left
        assert clusters_of(record, rules.splits.is_copy).count == 8 - left


def test_pictures_that_all_look_alike_are_kept_in_one_split_and_told(tmp_path: Path) -> None:
    inputs = pictures(60)
    for n in range(1, 6):
        inputs[n] = compressed(inputs[0], 90 - 10 * n)
    for n, picture in enumerate(inputs):
        path = tmp_path / ("ill" if n % 2 else "healthy") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture[0] * 255).astype(np.uint8)).save(path)
    record = load_cohort(tmp_path, protocol(), key=KEY).record
    [finding] = [f for f in record.findings if f.code == "data.many_copies"]
    assert finding.message.startswith("6 of 60 cases look like copies of one another")


def test_a_protocol_may_look_for_none(folder: Path) -> None:
    none = "splits: {near_duplicate_bits: null, similar_bits: null}\n"
    record = load_cohort(folder, protocol(none), key=KEY).record
    assert record.alike == ()
    assert [f.code for f in record.findings if "near" in f.code] == ["data.near_duplicates_unchecked"]
    warned = load_cohort(folder, protocol("splits: {near_duplicate_bits: null}\n"), key=KEY).record
    assert len(warned.alike) == 1
    assert "data.near_duplicates" in [f.code for f in warned.findings]


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
