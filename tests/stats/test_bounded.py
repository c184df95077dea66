"""Exact limits by patient: Clopper and Pearson's and McNemar's in their own cases, and error at most alpha in all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import betainc
from scipy.stats import binom, multinomial

from medharden.errors import RangeError
from medharden.stats import (
    clopper_pearson_interval,
    exact_p_value,
    gain_test,
    noninferiority_test,
    patient_weight,
    share_interval,
)
from medharden.stats.numerics import gamma_sum_tail, rising_root


def outcomes(gained: int, lost: int, cases: int) -> np.ndarray:
    return np.r_[np.ones(gained), -np.ones(lost), np.zeros(cases - gained - lost)]


# --- the tail of a sum of gamma variables ------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 5000), (4, 1), (2.5, 7000.3), (25000, 1.1), (900, 1100)])
def test_two_gamma_variables_make_a_beta_one(one: float, other: float) -> None:
    for share in (1e-4, 0.01, one / (one + other), 0.5, 0.9999):
        terms, shapes = np.array([1 - share, -share]), np.array([one, other])
        assert float(gamma_sum_tail(terms, shapes)) == pytest.approx(1 - betainc(one, other, share), abs=1e-10)


def test_a_sum_of_many_terms_is_as_simulated() -> None:
    rng = np.random.default_rng(1)
    terms, shapes = np.array([0.3, -0.1, 0.02, -1.0, 0.0]), np.array([7.0, 4.0, 30.0, 2.0, 5.0])
    drawn = rng.gamma(shapes, size=(200_000, 5)) @ terms
    assert float(gamma_sum_tail(terms, shapes)) == pytest.approx((drawn >= 0).mean(), abs=0.004)


def test_terms_of_one_sign_leave_no_doubt() -> None:
    one = np.ones(2)
    assert gamma_sum_tail(np.array([1.0, 0.0]), one) == 1.0
    assert gamma_sum_tail(np.array([-1.0, 0.0]), one) == 0.0
    assert gamma_sum_tail(np.array([0.0, 0.0]), one) == 1.0
    assert gamma_sum_tail(np.array([1.0, -1.0]), np.array([0.0, 2.0])) == 0.0
    absent = gamma_sum_tail(np.array([2.0, 1.0, -1.0]), np.array([0.0, 1.0, 2.0]))  # a singularity that is none
    assert absent == pytest.approx(gamma_sum_tail(np.array([1.0, -1.0]), np.array([1.0, 2.0])))


def test_rows_of_shapes_are_taken_at_once() -> None:
    terms, shapes = np.array([0.5, -0.2, -1.0]), np.array([[3.0, 5.0, 1.0], [9.0, 0.0, 1.0], [1.0, 8.0, 4.0]])
    together = gamma_sum_tail(terms, shapes)
    assert together == pytest.approx([float(gamma_sum_tail(terms, row)) for row in shapes], abs=1e-12)


# --- shares ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.8, 0.95, 0.995])
@pytest.mark.parametrize(("count", "cases"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 60), (37, 200), (4999, 5000)])
def test_one_case_a_patient_has_clopper_and_pearsons_limits(count: int, cases: int, level: float) -> None:
    found = share_interval(np.arange(cases) < count, level=level)
    assert found.interval == pytest.approx(clopper_pearson_interval(count, cases, level=level), abs=1e-9)
    assert (found.count, found.cases, found.patients, found.level) == (count, cases, cases, level)
    assert found.estimate == count / cases
    assert found.method == "Clopper and Pearson 1934"


def test_whole_patients_count_once() -> None:
    whole = share_interval(np.repeat(np.arange(40) < 30, 3), np.repeat(np.arange(40), 3).astype(str).tolist())
    assert whole.interval == pytest.approx(clopper_pearson_interval(30, 40), abs=1e-9)
    assert (whole.count, whole.cases, whole.patients) == (90, 120, 40)
    assert whole.method == "Gaffke 2005 (Clopper and Pearson's limits, by patient)"


def test_a_share_by_patient_is_the_quantile_of_randomly_weighted_patients() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 6, 30)
    who = np.repeat(np.arange(30), sizes)
    hits = rng.random(who.size) < 0.7
    found = share_interval(hits, who.astype(str).tolist(), level=0.9)
    sums, weight = np.bincount(who, hits, 30), patient_weight(sizes, level=0.9)
    w = rng.exponential(size=(100_000, 31))
    for limit, more, tail in ((found.lower, 0.0, 0.05), (found.upper, weight, 0.95)):
        mean = (w[:, :30] @ sums + w[:, 30] * more) / (w[:, :30] @ sizes + w[:, 30] * weight)
        assert limit == pytest.approx(np.quantile(mean, tail), abs=0.003)


def test_no_case_has_no_share() -> None:
    none = share_interval([])
    assert (none.interval, none.estimate, none.patients) == ((0.0, 1.0), 0.0, 0)


@pytest.mark.parametrize("floor", [0.01, 0.017, 0.02, 0.05, 0.3, 0.5, 0.7, 0.95, 0.99])
@pytest.mark.parametrize("cases", [60, 100, 200])
def test_a_share_at_the_floor_reaches_it_with_a_chance_of_alpha_at_most(cases: int, floor: float) -> None:
    reaching = [x for x in range(cases + 1) if exact_p_value(outcomes(x, 0, cases), None, floor, lowest=0.0) <= 0.025]
    assert binom.sf(min(reaching, default=cases + 1) - 1, cases, floor) <= 0.025


# --- gains -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gained", "lost"), [(4, 0), (5, 0), (6, 0), (9, 1), (30, 15), (2, 9), (0, 0), (0, 3)])
def test_against_no_gain_it_is_the_exact_one_sided_mcnemar_test(gained: int, lost: int) -> None:
    x = outcomes(gained, lost, 1000)
    found = gain_test(x > 0, x < 0, alpha=0.025, patients=None)
    expected = binom.sf(gained - 1, gained + lost, 0.5) if gained else 1.0
    assert found.p_value == pytest.approx(expected, abs=1e-10)
    assert found.shown == (expected < 0.025) == (found.interval[0] > 0.0)
    assert (found.margin, found.level, found.exact, found.estimate) == (0.0, 0.95, True, (gained - lost) / 1000)


def test_four_gained_and_none_lost_show_nothing() -> None:
    x = outcomes(4, 0, 1000)
    assert gain_test(x > 0, x < 0, alpha=0.025, patients=None).p_value == pytest.approx(0.0625)
    assert noninferiority_test(x > 0, x < 0, margin=0.0, alpha=0.025, patients=None).shown  # what Tango's method says
    who = np.repeat(np.arange(500), 2).astype(str).tolist()
    assert not gain_test(x > 0, x < 0, alpha=0.025, patients=who).shown
    pairs = np.repeat(outcomes(8, 0, 500), 2)
    assert gain_test(pairs > 0, pairs < 0, alpha=0.025, patients=who).p_value == pytest.approx(0.5**8)


def test_a_least_gain_is_asked_for_by_the_same_limit() -> None:
    x = outcomes(40, 5, 200)
    lower = gain_test(x > 0, x < 0, alpha=0.025, patients=None).interval[0]
    for least, shown in ((lower - 1e-6, True), (lower + 1e-6, False)):
        found = gain_test(x > 0, x < 0, alpha=0.025, patients=None, least=least)
        assert found.shown == shown == (found.p_value < 0.025)
        assert found.margin == -least


@pytest.mark.parametrize("cases", [8, 20, 40])
@pytest.mark.parametrize("difference", [-0.1, 0.0, 0.05, 0.3])
def test_three_outcomes_err_at_most_as_often_as_they_may(cases: int, difference: float) -> None:
    tables = [(b, c) for b in range(cases + 1) for c in range(cases + 1 - b)]
    shown = [t for t in tables if exact_p_value(outcomes(*t, cases), None, difference) < 0.025]
    for share in np.linspace(abs(difference) + 1e-6, 1.0, 12):
        chances = [(share + difference) / 2, (share - difference) / 2, 1 - share]
        error = sum(multinomial.pmf([b, c, cases - b - c], cases, chances) for b, c in shown)
        assert error <= 0.025


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_swapping_the_models_mirrors_the_exact_limits(seed: int, each: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.choice([-1, 0, 0, 1], 12 * each)
    who = np.repeat(np.arange(12), each).astype(str).tolist()
    one = gain_test(x > 0, x < 0, alpha=0.025, patients=who).interval
    other = gain_test(x < 0, x > 0, alpha=0.025, patients=who).interval
    assert other == pytest.approx((-one[1], -one[0]), abs=1e-8)
    assert one[0] <= x.mean() <= one[1]


def test_nobody_gains_nothing() -> None:
    none = np.zeros(0, bool)
    found = gain_test(none, none, alpha=0.025, patients=[])
    assert (found.interval, found.p_value, found.shown, found.estimate) == ((-1.0, 1.0), 1.0, False, 0.0)
    every = np.ones(5, bool)
    assert gain_test(every, ~every, alpha=0.025, patients=None).interval[1] == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: share_interval([True], ["a", "b"]),
        lambda: share_interval([True], level=1.0),
        lambda: gain_test([True], [True], alpha=0.025, patients=None),
        lambda: gain_test([True], [False], alpha=0.5, patients=None),
        lambda: gain_test([True], [False], alpha=0.0, patients=None),
        lambda: gain_test([True], [False], alpha=0.025, patients=None, least=1.0),
        lambda: gain_test([True], [False], alpha=0.025, patients=None, least=-0.1),
    ],
)
def test_what_has_no_exact_limits_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RangeError, match=r"expected|lies in"):
        call()


@pytest.mark.parametrize("steepness", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("root", [-0.999, -1e-9, 0.3, 0.999])
def test_roots_agree_with_scipys(steepness: float, root: float) -> None:
    for rising in (
        lambda x: math.tanh(steepness * (x - root)),
        lambda x: math.copysign(abs(x - root) ** (1 / 3), x - root),
        lambda x: math.exp(min(steepness, 50.0) * x) - math.exp(min(steepness, 50.0) * root),
    ):
        theirs = brentq(rising, -1.0, 1.0, xtol=1e-12)
        assert rising_root(rising, -1.0, 1.0, 1e-10) == pytest.approx(theirs, abs=2e-10)
    assert rising_root(lambda x: x + 2.0, -1.0, 1.0, 1e-10) == -1.0
    assert rising_root(lambda x: x - 2.0, -1.0, 1.0, 1e-10) == 1.0
