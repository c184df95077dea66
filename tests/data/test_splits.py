"""Splits by patient: disjoint, stratified, independent of order; leakage is found."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from medharden.data.checks.splits import Member, contradictions, leaks, make_splits, shared_pixels

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}

members_lists = st.lists(
    st.builds(
        Member,
        patient=st.integers(0, 30).map(lambda n: f"p{n}"),
        label=st.integers(0, 2),
        pixels=st.integers(0, 60).map(str),
        split=st.just(""),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(members_lists, st.integers(0, 5))
def test_made_splits_never_share_a_patient_or_an_image(members, seed):
    splits = make_splits(members, SHARES, seed)
    placed = [Member(m.patient, m.label, m.pixels, s) for m, s in zip(members, splits, strict=True)]
    assert not list(leaks(placed, grouped=True))


@settings(max_examples=50, deadline=None)
@given(members_lists, st.randoms(use_true_random=False))
def test_made_splits_do_not_depend_on_the_order_of_the_files(members, shuffler):
    tagged = list(enumerate(members))
    before = make_splits(members, SHARES, 3)
    shuffler.shuffle(tagged)
    after = make_splits([m for _, m in tagged], SHARES, 3)
    assert all(after[place] == before[n] for place, (n, _) in enumerate(tagged))


def many(patients: int, images: int) -> list[Member]:
    return [
        Member(f"p{p}", int(p % 4 == 0), f"{p}-{i}", "") for p in range(patients) for i in range(1 + (p * 7) % images)
    ]


def test_each_class_is_shared_out_as_the_protocol_says():
    members = many(300, 4)
    splits = make_splits(members, SHARES, 1)
    counts = Counter((m.label, s) for m, s in zip(members, splits, strict=True))
    for label in (0, 1):
        total = sum(counts[label, s] for s in SHARES)
        for split, share in SHARES.items():
            assert abs(counts[label, split] / total - share) < 0.02


def test_another_seed_gives_other_splits_and_the_same_seed_the_same():
    members = many(60, 3)
    first = make_splits(members, SHARES, 1)
    assert first == make_splits(members, SHARES, 1)
    assert first != make_splits(members, SHARES, 2)


def test_a_rare_class_of_three_patients_reaches_every_split():
    members = [Member(f"p{n}", int(n < 3), str(n), "") for n in range(40)]
    for seed in range(20):
        splits = make_splits(members, SHARES, seed)
        assert set(splits[:3]) == {"train", "val", "test"}


def test_a_patient_with_several_labels_stays_whole():
    members = [Member(f"p{n // 4}", n % 3, str(n), "") for n in range(120)]
    splits = make_splits(members, SHARES, 0)
    assert all(len({splits[4 * p + k] for k in range(4)}) == 1 for p in range(30))


def test_patients_are_joined_through_a_chain_of_shared_images():
    chain = [Member("a", 0, "1", ""), Member("b", 0, "1", ""), Member("b", 0, "2", ""), Member("c", 0, "2", "")]
    others = [Member(f"p{n}", 0, f"x{n}", "") for n in range(20)]
    for seed in range(10):
        members = chain + others
        random.Random(seed).shuffle(members)
        placed = dict(zip(members, make_splits(members, SHARES, seed), strict=True))
        assert len({placed[m] for m in chain}) == 1


def test_leaks_are_found_by_patient_and_by_pixels():
    members = [
        Member("a", 0, "1", "train"),
        Member("a", 0, "2", "test"),
        Member("b", 0, "1", "val"),
        Member("c", 0, "3", "train"),
    ]
    assert list(leaks(members, grouped=True)) == [(0, 1, "the same patient"), (0, 2, "identical pixels")]
    assert list(leaks(members, grouped=False)) == [(0, 2, "identical pixels")]


def test_the_same_image_under_two_labels_is_a_contradiction():
    members = [Member("a", 0, "1", ""), Member("b", 1, "1", ""), Member("c", 0, "2", ""), Member("d", 0, "2", "")]
    assert list(contradictions(members)) == [(0, 1), (1, 0)]
    assert shared_pixels(members) == [[0, 1], [2, 3]]
