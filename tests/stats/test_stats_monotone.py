"""What holds of every limit: a case made worse never helps, a worse model never beats the identical one, mirrors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medharden.stats import (
    auroc_difference,
    balanced_accuracy_difference,
    brier_difference,
    finding_brier_difference,
    gain_test,
    macro_auroc_difference,
    noninferiority_test,
    share_interval,
)
from medharden.stats.clusters import patient_weight

ROUNDING = 1e-9
NEAR = 0.1  # of no difference; the default margin of Brier's score is .02
Paired = Callable[[np.ndarray, np.ndarray, list[str], float], tuple[float, float]]

PAIRED: dict[str, Paired] = {
    "noninferiority": lambda x, y, who, level: (
        noninferiority_test(x > 0, x < 0, margin=0.1, alpha=(1 - level) / 2, patients=who).interval
    ),
    "gain": lambda x, y, who, level: gain_test(x > 0, x < 0, alpha=(1 - level) / 2, patients=who).interval,
    "share": lambda x, y, who, level: share_interval(x > 0, who, level=level).interval,
    "balanced": lambda x, y, who, level: (
        balanced_accuracy_difference(x > 0, x < 0, y, level=level, patients=who).interval
    ),
}


def owners(rng: np.random.Generator, patients: int) -> np.ndarray:
    """Whose each case is: one case each, as many each, of geometric sizes, or one large patient."""
    sizes = [
        np.ones(patients, int),
        np.full(patients, rng.integers(2, 6)),
        rng.geometric(0.4, patients),
        np.r_[rng.integers(4, 15), np.ones(patients - 1, int)],
    ][rng.integers(4)]
    return np.repeat(np.arange(patients), sizes)


def answers(rng: np.random.Generator, who: np.ndarray) -> np.ndarray:
    """1, -1 or 0: case by case, patients as a whole, or some of each."""
    single = rng.choice([-1, 0, 1], who.size, p=[0.1, 0.8, 0.1])
    whole = rng.choice([-1, 0, 1], who.max() + 1, p=[0.1, 0.8, 0.1])[who]
    return np.where(rng.random(who.max() + 1)[who] < rng.choice([0.0, 0.5, 1.0]), whole, single)


@pytest.mark.parametrize("name", PAIRED)
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_an_answer_that_gets_worse_never_raises_a_limit(name: str, seed: int, patients: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    who = owners(rng, patients)
    x, labels = answers(rng, who), rng.permutation(np.arange(who.size) % 2)
    worse, case = x.copy(), rng.choice(np.flatnonzero(x > -1)) if (x > -1).any() else 0
    worse[case] = max(-1, worse[case] - rng.integers(1, 3))
    of = PAIRED[name]
    before, after = (of(v, labels, who.astype(str).tolist(), level) for v in (x, worse))
    assert after[0] <= before[0] + ROUNDING
    assert after[1] <= before[1] + ROUNDING


@pytest.mark.parametrize("name", ["noninferiority", "gain", "balanced"])
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_swapping_the_arms_mirrors_every_paired_limit(name: str, seed: int, patients: int) -> None:
    rng = np.random.default_rng(seed)
    who = owners(rng, patients)
    x, labels = answers(rng, who), rng.permutation(np.arange(who.size) % 2)
    one, other = (PAIRED[name](v, labels, who.astype(str).tolist(), 0.95) for v in (x, -x))
    assert other == pytest.approx((-one[1], -one[0]), abs=1e-8)


def scores(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """New scores, old ones, what is positive, and whose each case is; some alike, some with outliers or ties."""
    who = owners(rng, patients)
    of_patient = (np.arange(patients) < patients // 2)[who]
    positive = of_patient if rng.random() < 0.5 else np.arange(who.size) % 2 == 0
    old = rng.normal(size=who.size) + positive * rng.choice([0.5, 2.0, 4.0])
    new = old + rng.normal(size=who.size) * rng.choice([0.0, 0.01, 0.3, 1.0])
    if rng.random() < 0.4:
        new[rng.integers(who.size)] = rng.choice([-10.0, 10.0])
    if rng.random() < 0.3:
        new, old = np.round(new), np.round(old)
    return new, old, positive, who


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(40, 80), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_score_that_gets_worse_never_raises_the_limits_of_auroc(seed: int, patients: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    new, old, positive, who = scores(rng, patients)
    names = who.astype(str).tolist()
    worse, case = new.copy(), rng.integers(new.size)
    worse[case] -= np.where(positive[case], 1.0, -1.0) * rng.choice([0.1, 1.0, 20.0])
    before, after = (auroc_difference(v, old, positive, level=level, patients=names).interval for v in (new, worse))
    assert after[0] <= before[0] + ROUNDING
    assert after[1] <= before[1] + ROUNDING


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(20, 60), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_probability_that_gets_worse_never_lowers_the_limits_of_brier_where_a_margin_may_be(
    seed: int, patients: int, level: float
) -> None:
    rng = np.random.default_rng(seed)
    who = owners(rng, patients)
    happened = rng.integers(0, 2, who.size)
    old = rng.choice([0.001, 0.1, 0.5, 0.9, 0.999], who.size) if rng.random() < 0.5 else rng.random(who.size)
    new = np.where(rng.random(who.size) < rng.choice([0.0, 0.3]), rng.random(who.size), old)
    case = rng.integers(who.size)
    worse = new.copy()
    worse[case] += (1 - happened[case] - worse[case]) * rng.choice([1e-6, 0.01, 0.3, 1.0])
    before, after = (
        brier_difference(
            np.c_[1 - p, p], np.c_[1 - old, old], happened, level=level, patients=who.astype(str).tolist()
        ).interval
        for p in (new, worse)
    )
    few = who.size / patient_weight(np.bincount(who), level=level) < 30
    for was, now in zip(before, after, strict=True):
        far = min(abs(was), abs(now)) > NEAR
        assert now >= was - ROUNDING or (few and far), "some sets worth few patients do fall, far from any margin"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-7, 1e-4, 0.01, 0.5]), st.integers(1, 30))
def test_a_model_that_is_worse_anywhere_never_has_better_limits_than_the_identical_one(
    seed: int, step: float, cases: int
) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    positive = np.arange(n) % 2 == 0
    old = np.clip(0.5 + rng.normal(size=n) * 0.2 + np.where(positive, 0.2, -0.2), 0.01, 0.99)
    new = old.copy()
    moved = rng.choice(n, cases, replace=False)
    new[moved] += np.where(positive[moved], -1, 1) * step * np.minimum(old, 1 - old)[moved]
    same, worse = (auroc_difference(v, old, positive).interval[0] for v in (old, new))
    assert same == pytest.approx(-(1 - 0.025 ** (1 / 200)))
    assert worse <= same + ROUNDING
    of = [
        lambda v: brier_difference(np.c_[1 - v, v], np.c_[1 - old, old], positive.astype(int)).interval[1],
        lambda v: finding_brier_difference(v[:, None], old[:, None], positive[:, None]).interval[1],
        lambda v: (
            -macro_auroc_difference(np.c_[v, old], np.c_[old, old], np.c_[positive, np.arange(n) % 4 == 0]).interval[0]
        ),
    ]
    for upper in of:
        assert upper(new) >= upper(old) - ROUNDING


def test_the_limits_of_equal_scores_are_the_start_of_those_of_nearly_equal_ones() -> None:
    rng = np.random.default_rng(3)
    positive = np.arange(400) % 2 == 0
    old = rng.random(400)
    nearly = old.copy()
    nearly[0] -= 1e-9
    pairs = [np.c_[1 - v, v] for v in (nearly, old)]
    same = brier_difference(pairs[1], pairs[1], positive.astype(int)).interval
    assert brier_difference(*pairs, positive.astype(int)).interval == pytest.approx(same, abs=1e-8)
    swapped = np.argsort(np.argsort(old)).astype(float)  # ranks: then one positive falls behind one negative
    first = next(k for k in np.argsort(swapped)[1:] if positive[k] and not positive[swapped == swapped[k] - 1][0])
    turned = swapped.copy()
    turned[first] -= 1.5
    equal = auroc_difference(swapped, swapped, positive).interval
    assert auroc_difference(turned, swapped, positive).interval == pytest.approx(equal, abs=2 / 200**2)
