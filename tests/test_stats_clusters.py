"""The patient as the unit: a published clustered example, doubled rows, and simulated error rates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from stats_examples import psychiatry
from statsmodels.regression.linear_model import OLS

from medharden.errors import RangeError
from medharden.stats import (
    cluster_standard_error,
    design_effect,
    effective_cases,
    independent_standard_error,
    noninferiority_test,
)


def test_standard_errors_of_the_psychiatry_data() -> None:
    values, patients = psychiatry()
    assert values.mean() == pytest.approx(-0.2148, abs=5e-5)
    assert cluster_standard_error(values, patients) == pytest.approx(0.06729, abs=5e-6)
    assert independent_standard_error(values) == pytest.approx(0.05961, abs=6e-6)


def test_the_standard_error_by_patient_equals_statsmodels() -> None:
    values, patients = psychiatry()
    groups = np.unique(patients, return_inverse=True)[1]
    options = {"groups": groups, "use_correction": False}
    expected = OLS(values, np.ones(135)).fit(cov_type="cluster", cov_kwds=options).bse[0]
    assert cluster_standard_error(values, patients) == pytest.approx(expected * np.sqrt(29 / 28))


def test_the_test_runs_on_effective_cases() -> None:
    values, patients = psychiatry()
    by_patient = noninferiority_test(values > 0, values < 0, margin=0.3, alpha=0.025, patients=patients)
    by_case = noninferiority_test(values > 0, values < 0, margin=0.3, alpha=0.025, patients=None)
    assert by_patient.effective_cases == pytest.approx(135 / design_effect(values, patients))
    assert by_patient.estimate == by_case.estimate
    assert by_patient.interval[0] < by_case.interval[0] < by_case.interval[1] < by_patient.interval[1]
    assert (by_patient.cases, by_patient.patients) == (135, 29)
    assert "effective cases" in by_patient.method
    assert "effective" not in by_case.method


def test_doubling_every_row_adds_no_evidence() -> None:
    rng = np.random.default_rng(1)
    values = rng.choice([-1, 0, 1], size=200, p=[0.05, 0.9, 0.05])
    patients = [f"p{k}" for k in range(200)]
    twice, both = np.concatenate([values, values]), patients + patients
    assert cluster_standard_error(twice, both) == pytest.approx(cluster_standard_error(values, patients), rel=1e-12)
    once = noninferiority_test(values > 0, values < 0, margin=0.05, alpha=0.025, patients=patients)
    doubled = noninferiority_test(twice > 0, twice < 0, margin=0.05, alpha=0.025, patients=both)
    assert doubled.interval == pytest.approx(once.interval, abs=3e-4)
    assert doubled.interval[0] <= once.interval[0]


def test_one_case_a_patient_is_the_plain_test() -> None:
    values = np.array([1, 0, -1, 0, 0, 1])
    assert design_effect(values, list("abcdef")) == 1.0
    assert effective_cases(values, list("abcdef")) == 6.0 == effective_cases(values, None)


def test_the_design_effect_counts_two_patients_more() -> None:
    # With all of the same size the definition can be taken at its word: two patients more, then the plain ratio.
    even = np.repeat([[1, 0, 0], [0, -1, 0], [0, 0, 0], [1, -1, 0]], 5, axis=0)
    names = [f"p{k}" for k in range(20) for _ in range(3)]
    deviations = np.vstack([even, [[1, 1, 1], [-1, -1, -1]]]) - even.mean()
    by_patient = (20 / 19 * (deviations[:20].sum(1) ** 2).sum() + (deviations[20:].sum(1) ** 2).sum()) / (
        deviations**2
    ).sum()
    assert design_effect(even.ravel(), names) == pytest.approx(by_patient)


def test_one_proportion_adds_a_patient_with_none_in_place_of_one_with_all_lost() -> None:
    right = np.repeat([1, 0, 1, 1], 5)
    names = [f"p{k // 5}" for k in range(20)]
    # four whole patients: K / (K - 1) of the size as observed, which is more than with two others
    assert design_effect(right, names, lowest=0.0) == pytest.approx(20 / 3)
    spread = np.tile([1, 1, 1, 0], 4)
    extremes = 0.25**2 + 0.75**2
    pairs = [f"p{k // 4}" for k in range(16)]
    expected = 16 * extremes / (3 + 4 * extremes)
    assert design_effect(spread, pairs, lowest=0.0) == pytest.approx(expected)
    assert effective_cases(spread, pairs, lowest=0.0) == pytest.approx(16 / expected)
    assert design_effect(spread, pairs) > expected > 1.5


def test_where_nothing_differs_each_patient_counts_once() -> None:
    patients = [f"p{k // 10}" for k in range(1000)]
    assert effective_cases(np.zeros(1000), patients) == pytest.approx(100)
    assert effective_cases(np.ones(1000), patients) == pytest.approx(100)
    none = np.zeros(1000, dtype=bool)
    assert not noninferiority_test(none, none, margin=0.02, alpha=0.025, patients=patients).shown


def test_one_large_patient_is_worth_little_more_than_itself() -> None:
    patients = ["large"] * 90 + [f"p{k}" for k in range(10)]
    assert effective_cases(np.zeros(100), patients) == pytest.approx(100**2 / (90**2 + 10))


def test_no_cases_are_worth_none() -> None:
    assert effective_cases([], []) == 0.0 == effective_cases([], None)


@pytest.mark.parametrize(("patients", "each"), [(30, 2), (50, 5), (100, 10), (60, 20)])
def test_a_lost_case_never_helps(patients: int, each: int) -> None:
    names = [f"p{k // each}" for k in range(patients * each)]
    lower = []
    for lost in range(8):
        flags = np.zeros(patients * each, dtype=bool)
        flags[np.arange(lost) * each] = True
        found = noninferiority_test(np.zeros_like(flags), flags, margin=0.1, alpha=0.025, patients=names)
        lower.append(found.interval[0])
    assert all(later < earlier for earlier, later in itertools.pairwise(lower))
    assert lower[1] - lower[0] > -1.5 / patients


def test_one_patient_counts_as_one_case() -> None:
    assert effective_cases([1, 0, 0, -1], list("aaaa")) == 1.0


def test_the_design_effect_is_never_below_one() -> None:
    spread = np.tile([1, -1], 500)
    assert design_effect(spread, [f"p{k // 2}" for k in range(1000)]) == 1.0


def test_the_design_effect_is_never_below_what_was_observed() -> None:
    # one patient of 40 cases and 100 of 1: what was seen in the large one exceeds what two more would show
    values = np.concatenate([np.ones(40), np.zeros(100)])
    patients = ["large"] * 40 + [f"p{k}" for k in range(100)]
    observed = (cluster_standard_error(values, patients) / independent_standard_error(values)) ** 2
    assert design_effect(values, patients) == pytest.approx(observed)
    assert observed > 20


def test_a_standard_error_by_patient_needs_two_patients() -> None:
    with pytest.raises(RangeError, match="two patients"):
        cluster_standard_error([0, 1], ["a", "a"])


def test_single_precision_outcomes_are_read_as_they_are() -> None:
    values, who = np.linspace(0, 1, 30, dtype=np.float32) ** 2, [str(k // 3) for k in range(30)]
    exact = values.astype(np.float64)
    assert independent_standard_error(values) == independent_standard_error(exact)
    assert cluster_standard_error(values, who) == cluster_standard_error(exact, who)
    assert effective_cases(values, who, lowest=0.0) == effective_cases(exact, who, lowest=0.0)
    assert effective_cases(exact, who, lowest=0.0) == 30 / design_effect(exact, who, lowest=0.0)
    assert effective_cases(exact.tolist(), who) == 30 / design_effect(exact, who)


def test_two_patients_have_a_design_effect() -> None:
    values, who = np.array([1, 1, 0, -1, -1, -1]), list("aaabbb")
    squares, mean = 2 * (2 * 2.5**2), -1 / 6
    extremes = (1 - mean) ** 2 + (-1 - mean) ** 2
    spread = float(((values - mean) ** 2).sum())
    expected = max(squares / spread, (squares + 9 * extremes) / (spread + 3 * extremes))
    assert design_effect(values, who) == pytest.approx(expected)


def test_outcomes_are_one_row() -> None:
    with pytest.raises(RangeError, match="one outcome a case"):
        design_effect([[0, 1]], ["a", "a"])


def test_by_patient_the_test_keeps_its_error_where_by_case_it_does_not() -> None:
    rng = np.random.default_rng(3)
    margin, patients, each = 0.05, 80, 5
    names = [f"p{k}" for k in range(patients) for _ in range(each)]
    by_patient, by_case = [], []
    for _ in range(600):
        # Two thirds of patients answer alike for all their cases: the truth is a loss of exactly the margin.
        whole = rng.choice([-1, 0, 1], size=(patients, 1), p=[0.1, 0.85, 0.05])
        single = rng.choice([-1, 0, 1], size=(patients, each), p=[0.1, 0.85, 0.05])
        values = np.where(rng.random((patients, 1)) < 2 / 3, whole, single).ravel()
        for found, unit in ((by_patient, names), (by_case, None)):
            test = noninferiority_test(values > 0, values < 0, margin=margin, alpha=0.025, patients=unit)
            found.append(test.shown)
    assert np.mean(by_patient) <= 0.03
    assert np.mean(by_case) > 0.08
