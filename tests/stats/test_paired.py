"""Paired intervals and the non-inferiority test: published examples, invariants, and patients as the unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medharden.errors import RangeError
from medharden.stats import (
    newcombe_interval,
    noninferiority_test,
    tango_interval,
    tango_statistic,
    wilson_interval,
)

Z = 1.959963984540054


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    cases = draw(st.integers(1, 2000))
    gained = draw(st.integers(0, cases))
    return gained, draw(st.integers(0, cases - gained)), cases


@pytest.mark.parametrize(
    ("table", "level", "lower", "upper", "places"),
    [
        ((59, 6, 16, 80), 0.95, -0.1240, -0.0054, 4),
        ((1, 1, 7, 12), 0.95, -0.517, -0.026, 3),
        ((4, 9, 3, 16), 0.95, -0.027, 0.390, 3),
        ((53, 16, 8, 9), 0.95, -0.020, 0.207, 3),
        ((43, 0, 1, 0), 0.90, -0.096, 0.037, 3),
    ],
)
def test_tango_reproduces_published_intervals(
    table: tuple[int, int, int, int], level: float, lower: float, upper: float, places: int
) -> None:
    _, gained, lost, _ = table
    found = tango_interval(gained, lost, sum(table), level=level)
    assert found == pytest.approx((lower, upper), abs=0.51 * 10**-places)


@pytest.mark.parametrize(("margin", "statistic", "p_value"), [(0.10, 1.2489, 0.1058), (0.15, 2.6679, 0.0038)])
def test_noninferiority_reproduces_tangos_worked_example(margin: float, statistic: float, p_value: float) -> None:
    gained, lost = np.arange(161) < 6, np.arange(161) >= 161 - 16
    found = noninferiority_test(gained, lost, margin=margin, alpha=0.025, patients=None)
    assert found.statistic == pytest.approx(statistic, abs=5e-5)
    assert found.p_value == pytest.approx(p_value, abs=5e-5)
    assert found.shown == (found.p_value < 0.025) == (margin == 0.15)
    assert found.estimate == pytest.approx(-10 / 161)
    assert (found.cases, found.patients, found.effective_cases) == (161, 161, 161.0)


@pytest.mark.parametrize(
    ("table", "lower", "upper"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((27, 0, 0, 27), -0.0351, 0.0351),
    ],
)
def test_newcombe_reproduces_published_intervals(table: tuple[int, int, int, int], lower: float, upper: float) -> None:
    assert newcombe_interval(*table) == pytest.approx((lower, upper), abs=6e-5)


def by_wilson(both: int, gained: int, lost: int, neither: int, level: float) -> tuple[float, float]:
    """Newcombe's method without correlation."""
    n = both + gained + lost + neither
    new, old = wilson_interval(both + gained, n, level=level), wilson_interval(both + lost, n, level=level)
    p, q = (both + gained) / n, (both + lost) / n
    return p - q - math.hypot(p - new[0], old[1] - q), p - q + math.hypot(new[1] - p, q - old[0])


@pytest.mark.parametrize("table", [(10, 5, 0, 0), (0, 0, 5, 10), (10, 10, 10, 11), (10, 10, 10, 10), (11, 10, 10, 10)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_newcombe_without_correlation_joins_the_wilson_limits(table: tuple[int, int, int, int], level: float) -> None:
    assert newcombe_interval(*table, level=level) == pytest.approx(by_wilson(*table, level))


def test_newcombe_widens_where_the_models_fail_on_different_cases() -> None:
    apart, unrelated = newcombe_interval(1, 20, 19, 1), newcombe_interval(10, 11, 10, 10)
    assert apart[0] < unrelated[0] < 1 / 41 < unrelated[1] < apart[1]


@pytest.mark.parametrize("cases", [1, 20, 100, 188, 189, 5000, 66.5])
def test_equal_answers_on_few_cases_show_little(cases: float) -> None:
    limit = Z**2 / (cases + Z**2)
    assert tango_interval(0, 0, cases) == pytest.approx((-limit, limit), rel=1e-9)


def test_a_margin_of_two_points_needs_189_equal_answers() -> None:
    none = np.zeros(189, dtype=bool)
    assert noninferiority_test(none, none, margin=0.02, alpha=0.025, patients=None).shown
    assert not noninferiority_test(none[1:], none[1:], margin=0.02, alpha=0.025, patients=None).shown


@pytest.mark.parametrize("alpha", [0.005, 0.05])
def test_alpha_sets_the_level_and_a_margin_of_nothing_asks_for_superiority(alpha: float) -> None:
    gained, lost = np.arange(161) < 16, np.arange(161) >= 161 - 6
    found = noninferiority_test(gained, lost, margin=0.0, alpha=alpha, patients=None)
    assert found.level == pytest.approx(1 - 2 * alpha)
    assert found.interval == pytest.approx(tango_interval(16, 6, 161, level=1 - 2 * alpha))
    assert found.shown == (found.p_value < alpha) == (alpha == 0.05)
    assert found.method == "Tango score interval (Tango 1998)"
    twice = [str(k // 2) for k in range(161)]
    by_patient = noninferiority_test(gained, lost, margin=0.0, alpha=alpha, patients=twice)
    assert by_patient.method.startswith("Tango score interval (Tango 1998) on ")


def test_no_cases_tell_nothing() -> None:
    none = np.zeros(0, dtype=bool)
    found = noninferiority_test(none, none, margin=0.02, alpha=0.025, patients=[])
    assert tango_statistic(0, 0, 0, -0.1) == 0.0
    assert (found.interval, found.estimate, found.p_value, found.shown) == ((-1.0, 1.0), 0.0, 0.5, False)


def test_a_vanishing_difference_is_no_difference() -> None:
    assert tango_statistic(0, 0, 1, -1e-286) == 0.0
    assert tango_statistic(2, 1, 9, 1e-286) == tango_statistic(2, 1, 9, 0.0)


def test_impossible_hypotheses_have_an_infinite_statistic() -> None:
    assert tango_statistic(1, 0, 10, -1.0) == math.inf
    assert tango_statistic(0, 1, 10, 1.0) == -math.inf
    assert tango_interval(0, 5, 5)[0] == pytest.approx(-1.0, abs=1e-12)
    assert tango_interval(5, 0, 5)[1] == pytest.approx(1.0, abs=1e-12)


@settings(deadline=None)
@given(tables())
def test_the_interval_holds_the_estimate_and_lies_in_range(table: tuple[int, int, int]) -> None:
    gained, lost, cases = table
    lower, upper = tango_interval(gained, lost, cases)
    assert -1.0 <= lower <= (gained - lost) / cases <= upper <= 1.0


@settings(deadline=None)
@given(tables(), st.floats(0.5, 0.98))
def test_a_higher_level_widens_the_interval(table: tuple[int, int, int], level: float) -> None:
    inner, outer = tango_interval(*table, level=level), tango_interval(*table, level=level + 0.015)
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]


@settings(deadline=None)
@given(tables(), st.floats(-1.0, 1.0))
def test_swapping_the_models_mirrors_statistic_and_interval(table: tuple[int, int, int], difference: float) -> None:
    gained, lost, cases = table
    lower, upper = tango_interval(gained, lost, cases)
    assert tango_interval(lost, gained, cases) == (-upper, -lower)
    assert tango_statistic(lost, gained, cases, -difference) == -tango_statistic(gained, lost, cases, difference)


@settings(deadline=None)
@given(tables())
def test_the_statistic_at_the_limits_is_z(table: tuple[int, int, int]) -> None:
    gained, lost, cases = table
    lower, upper = tango_interval(gained, lost, cases)
    if lost < cases:
        assert tango_statistic(gained, lost, cases, lower) == pytest.approx(Z, abs=1e-5)
    if gained < cases:
        assert tango_statistic(gained, lost, cases, upper) == pytest.approx(-Z, abs=1e-5)


@settings(deadline=None)
@given(tables(), st.floats(-0.999, 0.9), st.floats(0.001, 0.09))
def test_the_statistic_falls_as_the_hypothesis_rises(
    table: tuple[int, int, int], difference: float, step: float
) -> None:
    assert tango_statistic(*table, difference) >= tango_statistic(*table, difference + step) - 1e-9


def test_tango_and_newcombe_agree_on_many_cases() -> None:
    assert tango_interval(40, 60, 2000) == pytest.approx(newcombe_interval(1500, 40, 60, 400), abs=5e-4)


def test_the_statistic_without_a_margin_is_mcnemars() -> None:
    assert tango_statistic(6, 16, 161, 0.0) == pytest.approx(-10 / math.sqrt(22))


@pytest.mark.parametrize(
    "call",
    [
        lambda: tango_interval(-1, 0, 10),
        lambda: tango_interval(6, 5, 10),
        lambda: tango_interval(0, 0, 10, level=1.0),
        lambda: tango_statistic(0, 0, 10, -1.1),
        lambda: newcombe_interval(0, 0, 0, 0),
        lambda: newcombe_interval(5, -1, 0, 0),
        lambda: newcombe_interval(-1, 5, 0, 0),
        lambda: newcombe_interval(0, 5, -1, 0),
        lambda: newcombe_interval(0, 5, 0, -1),
        lambda: noninferiority_test([True], [True], margin=0.02, alpha=0.025, patients=None),
        lambda: noninferiority_test([True], [False, False], margin=0.02, alpha=0.025, patients=None),
        lambda: noninferiority_test([True], [False], margin=1.0, alpha=0.025, patients=None),
        lambda: noninferiority_test([True], [False], margin=0.02, alpha=0.5, patients=None),
        lambda: noninferiority_test([True], [False], margin=0.02, alpha=0.0, patients=None),
        lambda: noninferiority_test([True], [False], margin=0.02, alpha=0.6, patients=None),
        lambda: noninferiority_test([True], [False], margin=0.02, alpha=0.025, patients=["a", "b"]),
    ],
)
def test_counts_that_cannot_be_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RangeError, match=r"expected|lies in"):
        call()


def test_the_test_errs_at_most_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    margin, discordance, cases = 0.05, 0.15, 300
    shares = [(discordance - margin) / 2, (discordance + margin) / 2, 1 - discordance]
    shown = [
        tango_statistic(gained, lost, cases, -margin) > Z for gained, lost, _ in rng.multinomial(cases, shares, 4000)
    ]
    assert 0.015 < np.mean(shown) < 0.034


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    covered = []
    for gained, lost, _ in rng.multinomial(120, [0.04, 0.09, 0.87], 1500):
        lower, upper = tango_interval(gained, lost, 120)
        covered.append(lower <= -0.05 <= upper)
    assert 0.935 < np.mean(covered) < 0.975
