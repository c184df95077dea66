"""What n cases can show: the tables of the statistics page, and how the two directions agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medharden.errors import RangeError
from medharden.stats import cases_needed, power_to_show, smallest_margin, tango_interval


@pytest.mark.parametrize(
    ("discordance", "needed"), [(0.01, (390, 223, 114)), (0.05, (1067, 512, 215)), (0.10, (2005, 913, 350))]
)
def test_cases_needed_reproduces_the_table(discordance: float, needed: tuple[int, ...]) -> None:
    assert tuple(cases_needed(discordance, margin, alpha=0.025) for margin in (0.02, 0.03, 0.05)) == needed


@pytest.mark.parametrize(
    ("cases", "margins"),
    [
        (100, (0.046, 0.061, 0.076, 0.100)),
        (200, (0.028, 0.037, 0.051, 0.066)),
        (500, (0.013, 0.021, 0.030, 0.041)),
        (1000, (0.008, 0.014, 0.021, 0.028)),
    ],
)
def test_smallest_margin_reproduces_the_table(cases: int, margins: tuple[float, ...]) -> None:
    found = [smallest_margin(cases, discordance, alpha=0.025) for discordance in (0.005, 0.02, 0.05, 0.10)]
    assert found == pytest.approx(margins, abs=0.00051)


def test_the_smallest_margin_is_shown_with_the_power_it_says() -> None:
    rng = np.random.default_rng(5)
    margin = smallest_margin(150, 0.08, alpha=0.025)
    lowers = np.array([tango_interval(b, c, 150)[0] for b, c, _ in rng.multinomial(150, [0.04, 0.04, 0.92], 1500)])
    assert (lowers > -margin - 1e-6).mean() > 0.77
    assert (lowers > -margin + 1e-6).mean() < 0.83


@pytest.mark.parametrize("discordance", [0.0, 0.01, 0.2, 1.0])
def test_more_cases_show_smaller_margins(discordance: float) -> None:
    margins = [smallest_margin(n, discordance, alpha=0.025) for n in (0, 1, 10, 100, 1000, 5000, 100000)]
    assert margins[0] == 1.0
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(margins))
    assert margins[-1] < 0.01


@pytest.mark.parametrize("discordance", [0.0005, 0.005, 0.1, 0.5, 1.0])
def test_enumeration_and_approximation_meet_where_one_takes_over(discordance: float) -> None:
    exact, approximate = (smallest_margin(n, discordance, alpha=0.025) for n in (5000, 5001))
    assert exact == pytest.approx(approximate, abs=2e-4)


def test_the_needed_cases_show_the_margin_they_were_asked_for() -> None:
    needed = cases_needed(0.05, 0.03, alpha=0.025)
    assert smallest_margin(needed, 0.05, alpha=0.025) <= 0.03
    assert smallest_margin(0.9 * needed, 0.05, alpha=0.025) > 0.03


def test_without_discordance_the_needed_cases_are_those_of_equal_answers() -> None:
    assert cases_needed(0.0, 0.02, alpha=0.025) == 189


def test_a_stricter_alpha_needs_more_cases() -> None:
    assert cases_needed(0.05, 0.02, alpha=0.005) > cases_needed(0.05, 0.02, alpha=0.025)
    assert cases_needed(0.05, 0.02, alpha=0.025, power=0.9) > 1067


def test_power_is_what_simulation_shows() -> None:
    rng = np.random.default_rng(6)
    for cases, discordance, margin in [(120, 0.05, 0.06), (40, 1.0, 0.5), (250, 0.2, 0.07)]:
        half = discordance / 2
        found = rng.multinomial(cases, [half, half, 1 - discordance], 3000)
        lowers = [tango_interval(int(b), int(c), cases)[0] for b, c, _ in found]
        assert power_to_show(cases, discordance, margin, alpha=0.025) == pytest.approx(
            (np.array(lowers) > -margin).mean(), abs=0.03
        )


def test_power_meets_the_approximation_above_what_is_enumerated() -> None:
    below, above = (power_to_show(n, 0.1, 0.011, alpha=0.025) for n in (5000, 5001))
    assert below == pytest.approx(above, abs=0.01)
    assert 0.5 < above < 0.9
    assert power_to_show(0, 0.1, 0.05, alpha=0.025) == 0.0
    assert (power_to_show(6000, 0.0, 0.0006, alpha=0.025), power_to_show(6000, 0.0, 0.0007, alpha=0.025)) == (0.0, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cases_needed(-0.1, 0.02, alpha=0.025),
        lambda: cases_needed(0.1, 0.0, alpha=0.025),
        lambda: cases_needed(0.1, 1.0, alpha=0.025),
        lambda: cases_needed(0.1, 0.02, alpha=0.0),
        lambda: cases_needed(0.1, 0.02, alpha=0.025, power=0.0),
        lambda: power_to_show(10, 0.1, 0.0, alpha=0.025),
        lambda: power_to_show(10, 0.1, 1.0, alpha=0.025),
        lambda: power_to_show(-1, 0.1, 0.1, alpha=0.025),
        lambda: power_to_show(10, 1.1, 0.1, alpha=0.025),
        lambda: cases_needed(0.1, 0.02, alpha=0.5),
        lambda: cases_needed(0.1, 0.02, alpha=0.025, power=1.0),
        lambda: smallest_margin(-1, 0.1, alpha=0.025),
        lambda: smallest_margin(10, 1.1, alpha=0.025),
    ],
)
def test_arguments_out_of_range_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RangeError, match=r"lies in|expected"):
        call()
