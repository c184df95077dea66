"""The validation script itself, on few runs, and its page: error rates stay where the page says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT

from medharden.stats import brier_difference, noninferiority_test

PAGE = ROOT / "docs" / "validation-of-statistics.md"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    folder = str(ROOT / "tests" / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import validate_statistics

        yield validate_statistics
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize(("cases", "discordance", "margin"), [(500, 0.05, 0.02), (200, 0.1, 0.05), (500, 0.2, 0.1)])
def test_the_error_at_the_margin_is_near_its_nominal_value(
    script: ModuleType, cases: int, discordance: float, margin: float
) -> None:
    error = script.paired_error(np.random.default_rng(1), 8000, cases, discordance, margin)
    assert 0.018 <= error <= 0.032


def test_by_patient_no_setting_errs_far_above_the_nominal_value(script: ModuleType) -> None:
    rng = np.random.default_rng(2)
    for patients, each, related, discordance in [(100, 5, 0.3, 0.05), (200, 5, 0.6, 0.1), (50, 10, "mixed", 0.1)]:
        by_patient, by_case, *_ = script.clustered_error(rng, 300, patients, each, related, discordance)
        assert by_patient <= 0.045
        assert by_case > 0.05


@pytest.mark.parametrize(("patients", "each"), [(80, 1), (60, 4)])
def test_the_brier_interval_covers_the_truth_as_often_as_it_says(script: ModuleType, patients: int, each: int) -> None:
    from simulated_cases import brier_draw

    rng = np.random.default_rng(6)
    truth = brier_difference(*brier_draw(rng, 60_000, 4, 0.5)).estimate
    who = script.names(patients, each) if each > 1 else None
    found = [brier_difference(*brier_draw(rng, patients, each, 0.5), patients=who).interval for _ in range(500)]
    assert 0.92 <= np.mean([lower <= truth <= upper for lower, upper in found]) <= 0.98


def test_the_released_test_is_the_remedy_that_the_page_marks_as_used(script: ModuleType) -> None:
    rng = np.random.default_rng(3)
    sizes = np.full(60, 5)
    gained, lost = script.paired_counts(rng, 40, sizes, 0.08, 0.02, 0.3)
    passed = script.remedies(gained, lost, sizes, 0.06)["two patients more (used)"]
    from simulated_cases import clustered_values

    for b, c, expected in zip(gained, lost, passed, strict=True):
        values = clustered_values(b, c, 5)
        found = noninferiority_test(values > 0, values < 0, margin=0.06, alpha=0.025, patients=script.names(60, 5))
        assert found.shown == expected
    assert 0 < passed.sum() < 40


@pytest.mark.parametrize("related", [0.0, 0.4, "mixed"])
def test_simulated_pairs_have_the_difference_they_are_said_to_have(script: ModuleType, related: float | str) -> None:
    sizes = np.array([1, 4, 7] * 20)
    gained, lost = script.paired_counts(np.random.default_rng(5), 4000, sizes, 0.3, 0.1, related)
    assert (gained + lost <= sizes).all()
    assert (lost.sum() / (4000 * sizes.sum()), gained.sum() / (4000 * sizes.sum())) == pytest.approx(
        (0.2, 0.1), abs=0.004
    )


@pytest.mark.parametrize("name", ["auroc", "brier", "balanced", "proportions", "mcnemar", "few"])
def test_every_table_can_be_made(script: ModuleType, name: str) -> None:
    tables = list(script.TABLES[name](np.random.default_rng(4), 0.002))
    for rows in tables:
        assert len(rows) > 3
        assert {len(row) for row in rows} == {len(rows[0])}


def test_every_table_has_its_place_in_the_page(script: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in script.TABLES:
        assert "| --- |" in page.split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0]
        changed = script.replaced(page, name, "| put |")
        assert f"<!-- {name} -->\n\n| put |\n\n<!-- end of {name} -->" in changed
        assert script.replaced(changed, name, "| put |") == changed
