"""The validation script itself, on few runs: limits err as often as its page says, and every table has its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT

from medharden.stats import (
    auroc_difference,
    balanced_accuracy_difference,
    brier_difference,
    exact_p_value,
    noninferiority_test,
)

PAGE = ROOT / "docs" / "validation-of-statistics.md"


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    place = str(ROOT / "tests" / "benchmarks")
    sys.path.insert(0, place)
    yield
    sys.path.remove(place)


@pytest.fixture(scope="module")
def errors() -> ModuleType:
    import validation_errors

    return validation_errors


@pytest.fixture(scope="module")
def script() -> ModuleType:
    import validate_statistics

    return validate_statistics


# --- errors near what they are said to be -----------------------------------------------------------------------


@pytest.mark.parametrize(("cases", "margin"), [(60, 0.1), (200, 0.05), (200, 0.1)])
def test_a_loss_of_the_margin_is_shown_in_no_more_than_one_run_in_forty_but_for_rounding(
    errors: ModuleType, cases: int, margin: float
) -> None:
    found = np.array(errors.paired_error(cases, np.linspace(margin, 0.9, 12).tolist(), margin))
    assert found.max() <= 0.028
    assert found[4:].min() >= 0.02


@pytest.mark.parametrize(
    ("patients", "each", "discordance", "related"),
    [(100, 5, 0.1, 0.3), (200, 5, 0.1, 0.6), (500, 2, 0.4, "mixed"), (100, 20, 0.1, "mixed")],
)
def test_by_patient_a_loss_of_the_margin_is_shown_no_more_often_either(
    errors: ModuleType, patients: int, each: int, discordance: float, related: float | str
) -> None:
    rng, sizes = np.random.default_rng(2), np.full(patients, each)
    found = dict(
        zip(errors.REMEDIES, errors.remedy_rates(rng, 6000, sizes, discordance, 0.1, related, 0.1), strict=True)
    )
    assert found[errors.USED] <= 0.032
    assert found["all cases as independent"] > 0.05


def test_a_gain_where_as_much_is_lost_is_shown_no_more_often_than_alpha(errors: ModuleType) -> None:
    exact, score = np.array([errors.gain_error(n, psi) for n in (60, 200) for psi in (0.02, 0.1, 0.6)]).T
    assert exact.max() <= 0.025
    assert score.max() > 0.025
    rng = np.random.default_rng(3)
    for settings in ((200, 5, 0.4, 0.6), (500, 2, 0.1, "mixed")):
        assert 0.01 <= errors.gain_by_patient(rng, 3000, *settings)[0] <= 0.027


@pytest.mark.parametrize("cases", [60, 100, 200])
def test_a_share_at_the_floor_reaches_it_no_more_often_than_alpha(errors: ModuleType, cases: int) -> None:
    wilson, exact = np.array([errors.share_rates(cases, p, p) for p in (0.01, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9)]).T
    assert 0.01 <= exact.max() <= 0.025 < wilson.max()
    by_patient = errors.share_by_patient(np.random.default_rng(4), 3000, cases, 4, 0.3, 0.5, 0.3)
    assert 0.01 <= by_patient[0] <= 0.027


@pytest.mark.parametrize(
    ("positive", "negative", "quality", "options"),
    [
        (30, 30, (0.97, 0.99), {"alike": 0.5}),
        (100, 100, (0.75, 0.8), {"alike": 0.5}),
        (100, 100, (0.95, 0.95), {"alike": 0.9, "dropped": 0.02}),
        (150, 150, (0.899, 0.999), {"alike": 0.9}),
    ],
)
def test_a_fall_of_the_auroc_by_the_margin_is_shown_no_more_often_than_alpha(
    errors: ModuleType, positive: int, negative: int, quality: tuple[float, float], options: dict[str, float]
) -> None:
    truth = np.arange(positive + negative)[:, None] < positive
    found = errors.auroc_rates(np.random.default_rng(5), 3000, truth, quality, **options)
    by_method = dict(zip(errors.AUROC_METHODS, found, strict=True))
    assert by_method["used"] <= 0.031
    assert by_method["DeLong"] > by_method["used"]
    assert quality[1] - quality[0] < 0.05 or by_method["used"] >= 0.01


def test_a_rise_of_the_brier_score_by_the_margin_is_shown_no_more_often_than_alpha(errors: ModuleType) -> None:
    rng = np.random.default_rng(6)
    [truth] = errors.brier_truth(rng, "noise", 1.5)
    for patients, each, least in ((200, 1, 0.012), (100, 2, 0.012), (40, 5, 0.0)):
        found = errors.brier_rates(rng, 3000, patients, each, "noise", 1.5, truth, truth)
        student, _, used = found[:3]
        assert least <= used <= 0.031
        assert student > used


@pytest.mark.parametrize(("classes", "each"), [((100, 100), 1), ((200, 800), 1), ((500, 500), 5)])
def test_a_loss_of_the_margin_in_both_classes_is_shown_no_more_often_than_alpha(
    errors: ModuleType, classes: tuple[int, int], each: int
) -> None:
    rng = np.random.default_rng(7)
    [found] = errors.balanced_error(rng, 3000, classes, each, 0.5, 0.1, 0.3 * (each > 1), 0.1)
    assert 0.012 <= found <= 0.032


# --- what is simulated is what is released -----------------------------------------------------------------------


def test_the_simulated_answers_are_judged_as_the_released_tests_judge_them() -> None:
    from many_runs import balanced_lower, exact_p, released
    from simulated_cases import clustered_values, names, paired_counts

    sizes, who = np.full(60, 5), names(60, 5)
    gained, lost = paired_counts(np.random.default_rng(3), 40, sizes, 0.12, 0.0, 0.3)
    shown = released(gained, lost, sizes, 0.06)
    p = exact_p((gained - lost).astype(int), 5, -0.06, -1)
    halves = [(gained[:, k], lost[:, k], sizes[k]) for k in (slice(0, 20), slice(20, 60))]
    balanced = balanced_lower(halves)
    labels = np.repeat([0, 1], [100, 200])
    for row, (b, c) in enumerate(zip(gained, lost, strict=True)):
        values = clustered_values(b, c, 5)
        found = noninferiority_test(values > 0, values < 0, margin=0.06, alpha=0.025, patients=who)
        assert found.shown == shown[row]
        assert exact_p_value(values, who, -0.06) == pytest.approx(p[row], abs=1e-9)
        limits = balanced_accuracy_difference(values > 0, values < 0, labels, patients=who).interval
        assert limits[0] == pytest.approx(balanced[row], abs=1e-8)
    assert 0 < shown.sum() < 40


def test_the_simulated_scores_have_the_limits_of_the_released_intervals() -> None:
    from many_runs import auroc_lower, mean_limits
    from simulated_cases import names, score_draw

    rng, who = np.random.default_rng(8), names(50, 3)
    truth = rng.random((50, 3)) < 0.4
    drawn = score_draw(rng, 20, truth, (0.9, 0.95), related=0.5)
    found = auroc_lower(drawn, truth)["used"]
    for k in range(20):
        new, old = drawn[:, k].reshape(2, -1)
        limits = auroc_difference(new, old, truth.ravel(), patients=who).interval
        assert limits[0] == pytest.approx(found[k], abs=1e-9)
    p = rng.random((2, 150))
    happened = (rng.random(150) < 0.5).astype(int)
    change = 2 * ((p[0] - happened) ** 2 - (p[1] - happened) ** 2)
    both = [np.c_[1 - v, v] for v in p]
    lower, upper = mean_limits(change.reshape(1, 50, 3), 2.0)["used"]
    assert (lower[0], upper[0]) == pytest.approx(brier_difference(*both, happened, patients=who).interval, abs=1e-9)


@pytest.mark.parametrize("related", [0.0, 0.4, "mixed"])
def test_simulated_pairs_have_the_difference_they_are_said_to_have(related: float | str) -> None:
    from simulated_cases import paired_counts

    sizes = np.array([1, 4, 7] * 20)
    gained, lost = paired_counts(np.random.default_rng(5), 4000, sizes, 0.3, 0.1, related)
    assert (gained + lost <= sizes).all()
    assert (lost.sum() / (4000 * sizes.sum()), gained.sum() / (4000 * sizes.sum())) == pytest.approx(
        (0.2, 0.1), abs=0.004
    )


def test_the_influences_of_resampled_patients_are_those_of_the_statistics() -> None:
    from graded_remedies import _influences, _kappa, _sums, rare_draw

    from medharden.stats import quadratic_kappa

    rng = np.random.default_rng(2)
    _, new, labels = rare_draw(rng, 40, 3, 0.3, 0.75, 0.05)
    weights = np.stack([np.ones(40), rng.multinomial(40, np.full(40, 1 / 40))]).astype(float)
    for row in weights:
        drawn = np.repeat(np.arange(40), row.astype(int))
        kappa, influences = quadratic_kappa(new[drawn].ravel(), labels[drawn].ravel(), 5)
        assert float(_kappa(row @ _sums(new, labels))) == pytest.approx(kappa, abs=1e-12)
        found = _influences(_sums(new, labels), row[None])[0][drawn]
        assert found == pytest.approx(influences.reshape(-1, 3).sum(1) / (3 * len(drawn)), abs=1e-12)


def test_rows_of_the_summary_that_were_not_made_now_stay_as_they_are(script: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    head = ["endpoint", "settings", "largest error", "where", ".015 to .030", "below .015"]
    rows = script.kept_rows(page, [head, ["worst group", "9", ".099", "here", "0%", "0%"]])
    changed = script.replaced(page, "summary", script.markdown(rows))
    lines, were = changed.splitlines(), page.splitlines()
    assert [new for new, old in zip(lines, were, strict=True) if new != old] == [
        "| worst group | 9 | .099 | here | 0% | 0% |"
    ]


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(script: ModuleType) -> tuple[dict[str, list[list[list[str]]]], dict[str, dict[str, float]]]:
    """All tables on a few runs a cell, and the errors that they noted."""
    cells = script.Store(None)
    return {name: list(make(cells, 0.0005)) for name, make in script.TABLES.items()}, cells.noted


def test_every_table_can_be_made_and_has_its_place_in_the_page(script: ModuleType, made: tuple) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, tables in {**made[0], "summary": [script.summary(made[1])]}.items():
        in_page = page.split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0].strip().split("\n\n")
        for rows, printed in zip(tables, in_page, strict=True):
            lines = script.markdown(rows).splitlines()
            assert printed.splitlines()[0] == lines[0]
            assert [line.split(" | ")[0] for line in printed.splitlines()] == [line.split(" | ")[0] for line in lines]
            assert {len(row) for row in rows} == {len(rows[0])}
        changed = script.replaced(page, name, "| put |")
        assert f"<!-- {name} -->\n\n| put |\n\n<!-- end of {name} -->" in changed
        assert script.replaced(changed, name, "| put |") == changed


def test_the_page_names_no_setting_in_which_a_limit_errs_above_three_in_a_hundred() -> None:
    summary = PAGE.read_text(encoding="utf-8").split("<!-- summary -->\n")[1].split("<!-- end of summary -->")[0]
    rows = [line.strip("| ").split(" | ") for line in summary.strip().splitlines()[2:]]
    assert len(rows) >= 10
    assert all(float(row[2]) <= 0.03 for row in rows)


def test_a_cell_is_simulated_once_and_anew_where_the_code_changed(
    script: ModuleType, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, drawn = tmp_path / "cells.jsonl", []  # type: ignore[operator]

    def compute(rng: np.random.Generator) -> list[float]:
        drawn.append(rng.random())
        return [drawn[-1]]

    first = script.Store(store)("a cell", compute)
    assert script.Store(store)("a cell", compute) == first
    assert len(drawn) == 1
    monkeypatch.setattr(script, "code_digest", lambda: "other code")
    assert script.Store(store)("a cell", compute) == first
    assert drawn == [first[0]] * 2
