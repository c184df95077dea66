"""Intervals of one proportion: worked examples, and equality with statsmodels."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from medharden.errors import RangeError
from medharden.stats import clopper_pearson_interval, mid_p_interval, wilson_interval


def test_worked_examples() -> None:
    assert wilson_interval(37, 200) == pytest.approx((0.1373, 0.2446), abs=5e-5)
    assert clopper_pearson_interval(37, 200) == pytest.approx((0.1337, 0.2459), abs=5e-5)
    assert clopper_pearson_interval(0, 200) == pytest.approx((0.0, 0.0183), abs=5e-5)


@pytest.mark.parametrize(
    ("successes", "cases", "limits"),
    [(81, 263, (0.2544, 0.3658)), (15, 148, (0.0601, 0.1581)), (0, 20, (0.0, 0.1391)), (1, 29, (0.0017, 0.1585))],
)
def test_mid_p_limits_are_newcombes(successes: int, cases: int, limits: tuple[float, float]) -> None:
    """Newcombe, Stat Med 1998; 17: 857-872, table I."""
    assert mid_p_interval(successes, cases) == pytest.approx(limits, abs=5e-5)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "cases"), [(0, 1), (1, 1), (1, 50), (49, 50), (333, 1000)])
def test_at_a_mid_p_limit_half_of_what_was_seen_and_all_beyond_has_the_tails_chance(
    successes: int, cases: int, level: float
) -> None:
    lower, upper = mid_p_interval(successes, cases, level=level)
    tail = (1 - level) / 2
    if successes:
        beyond = binom.sf(successes, cases, lower) + binom.pmf(successes, cases, lower) / 2
        assert beyond == pytest.approx(tail, abs=1e-6)
    if successes < cases:
        below = binom.cdf(successes, cases, upper) - binom.pmf(successes, cases, upper) / 2
        assert below == pytest.approx(tail, abs=1e-6)
    exact = clopper_pearson_interval(successes, cases, level=level)
    assert exact[0] <= lower <= successes / cases <= upper <= exact[1]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "cases"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 50), (49, 50), (333, 1000)])
def test_intervals_equal_those_of_statsmodels(successes: int, cases: int, level: float) -> None:
    wilson = proportion_confint(successes, cases, alpha=1 - level, method="wilson")
    exact = proportion_confint(successes, cases, alpha=1 - level, method="beta")
    assert wilson_interval(successes, cases, level=level) == pytest.approx(wilson, abs=1e-12)
    assert clopper_pearson_interval(successes, cases, level=level) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("cases", [1, 3, 7, 66.6, 200, 12345])
def test_limits_stay_in_range_and_around_the_estimate(cases: float) -> None:
    assert wilson_interval(0, cases)[0] == 0.0
    assert wilson_interval(cases, cases)[1] == 1.0
    lower, upper = wilson_interval(cases / 3, cases)
    assert 0 < lower < 1 / 3 < upper < 1


def test_successes_above_the_cases_by_rounding_are_all_cases() -> None:
    assert wilson_interval(10 * (1 + 5e-10), 10) == wilson_interval(10, 10)
    assert wilson_interval(1e5 * (1 + 9e-10), 1e5)[1] == 1.0


def test_no_cases_tell_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0) == clopper_pearson_interval(0, 0) == mid_p_interval(0, 0)


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval, mid_p_interval])
@pytest.mark.parametrize(("successes", "cases", "level"), [(-1, 10, 0.95), (11, 10, 0.95), (5, 10, 0.0)])
def test_counts_and_levels_that_cannot_be_are_refused(interval, successes, cases, level) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RangeError, match=r"expected between|lies in"):
        interval(successes, cases, level=level)


def test_importing_stats_stays_light() -> None:
    code = "import sys, medharden.stats; print(sorted({'scipy', 'statsmodels', 'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
