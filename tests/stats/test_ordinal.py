"""Ordered grades: kappa and its standard error against scikit-learn and statsmodels, differences by patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from medharden.errors import RangeError
from medharden.stats import grade_error_difference, quadratic_kappa, quadratic_kappa_difference


def drawn(n: int, grades: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and the answers of two models that are often right and seldom far off."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, grades, n)
    old, new = (
        np.clip(labels + rng.integers(-1, 2, n) * (rng.random(n) < share), 0, grades - 1) for share in (0.3, 0.5)
    )
    return labels, old, new


@pytest.mark.parametrize(("n", "grades"), [(60, 3), (200, 5), (500, 8)])
def test_kappa_is_scikit_learns_and_its_standard_error_statsmodels(n: int, grades: int) -> None:
    labels, old, _ = drawn(n, grades)
    value, influence = quadratic_kappa(old, labels, grades)
    assert value == pytest.approx(cohen_kappa_score(old, labels, weights="quadratic"), abs=1e-6)
    assert influence.sum() == pytest.approx(0.0, abs=1e-9)
    table = np.zeros((grades, grades))
    np.add.at(table, (old, labels), 1)
    peer = cohens_kappa(table, wt="quadratic")
    assert value == pytest.approx(peer.kappa, abs=1e-6)
    assert np.sqrt((influence**2).mean() / n) == pytest.approx(peer.std_kappa, abs=1e-6)


@given(st.integers(3, 6), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_kappa_by_hand_from_its_table_of_pairs(grades: int, seed: int) -> None:
    labels, old, _ = drawn(40, grades, seed)
    if len(set(labels.tolist())) < 2:
        return
    off = np.mean((old - labels) ** 2)
    chance = np.mean([(x - y) ** 2 for x in old for y in labels])
    assert quadratic_kappa(old, labels, grades)[0] == pytest.approx(1 - off / chance, abs=1e-9)


def test_the_difference_is_that_of_both_and_its_error_that_of_leaving_one_patient_out() -> None:
    labels, old, new = drawn(300, 5)
    owners = [f"p{k // 3}" for k in range(300)]
    found = quadratic_kappa_difference(new, old, labels, 5, patients=owners)
    assert found.estimate == pytest.approx(quadratic_kappa(new, labels, 5)[0] - quadratic_kappa(old, labels, 5)[0])
    left = []
    for patient in sorted(set(owners)):
        kept = np.array([owner != patient for owner in owners])
        parts = [quadratic_kappa(x[kept], labels[kept], 5)[0] for x in (new, old)]
        left.append(parts[0] - parts[1])
    jackknife = np.sqrt((len(left) - 1) ** 2 / len(left) * np.var(left, ddof=1))
    assert found.error == pytest.approx(jackknife, rel=0.02)
    assert found.interval[0] < found.estimate < found.interval[1]


def test_the_error_in_grades_is_a_paired_t_test_of_one_case_a_patient() -> None:
    labels, old, new = drawn(300, 5)
    found = grade_error_difference(new, old, labels, 5)
    peer = ttest_rel(np.abs(new - labels), np.abs(old - labels))
    assert found.estimate == pytest.approx(np.abs(new - labels).mean() - np.abs(old - labels).mean(), abs=1e-12)
    assert (found.statistic, found.p_value) == (
        pytest.approx(peer.statistic, abs=1e-6),
        pytest.approx(peer.pvalue, abs=1e-6),
    )


def test_a_distant_error_costs_more_than_adjacent_ones_that_are_as_many() -> None:
    labels = np.tile(np.arange(5), 40)
    near, far = labels.copy(), labels.copy()
    near[:5], far[:5] = np.clip(labels[:5] + 1, 0, 3), (labels[:5] + 2) % 5
    adjacent, distant = (quadratic_kappa(x, labels, 5)[0] for x in (near, far))
    assert adjacent > distant
    assert grade_error_difference(far, near, labels, 5).estimate > 0


def test_equal_answers_show_what_so_many_patients_can_show_and_no_more() -> None:
    labels, old, _ = drawn(400, 5)
    same = quadratic_kappa_difference(old, old, labels, 5)
    assert same.degenerate
    assert same.estimate == 0.0
    assert -0.08 < same.interval[0] < -0.01
    few = quadratic_kappa_difference(old[:40], old[:40], labels[:40], 5)
    assert few.interval[0] < same.interval[0]
    mirrored = quadratic_kappa_difference(*reversed(drawn(400, 5)[1:]), labels, 5)
    straight = quadratic_kappa_difference(*drawn(400, 5)[1:], labels, 5)
    assert mirrored.interval == pytest.approx(tuple(-x for x in reversed(straight.interval)))


@pytest.mark.parametrize("bad", [np.full(10, 5), np.full(10, 0.5), np.zeros((5, 2), int), np.full(10, -1)])
def test_what_is_no_grade_is_refused(bad: np.ndarray) -> None:
    labels = np.arange(10) % 5
    with pytest.raises(RangeError):
        quadratic_kappa(bad, labels, 5)
    with pytest.raises(RangeError):
        grade_error_difference(bad, labels, labels, 5)


def test_kappa_of_one_grade_alone_is_not_defined() -> None:
    with pytest.raises(RangeError, match="not defined"):
        quadratic_kappa(np.zeros(9, int), np.zeros(9, int), 3)
