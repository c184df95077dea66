"""The patient as the unit: a published clustered example, doubled rows, and simulated error rates."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

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
    patient_weight,
)
from medharden.stats.clusters import design_effects


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
    mirrored = noninferiority_test(values < 0, values > 0, margin=0.3, alpha=0.025, patients=patients)
    assert mirrored.interval == (-by_patient.interval[1], -by_patient.interval[0])
    assert (by_patient.cases, by_patient.patients) == (135, 29)
    assert "effective cases" in by_patient.method
    assert "effective" not in by_case.method


def test_doubling_every_row_adds_next_to_no_evidence() -> None:
    rng = np.random.default_rng(1)
    values = rng.choice([-1, 0, 1], size=200, p=[0.05, 0.9, 0.05])
    patients = [f"p{k}" for k in range(200)]
    twice, both = np.concatenate([values, values]), patients + patients
    assert cluster_standard_error(twice, both) == pytest.approx(cluster_standard_error(values, patients), rel=1e-12)
    once = noninferiority_test(values > 0, values < 0, margin=0.05, alpha=0.025, patients=patients)
    doubled = noninferiority_test(twice > 0, twice < 0, margin=0.05, alpha=0.025, patients=both)
    assert doubled.interval == pytest.approx(once.interval, abs=1e-12)
    assert doubled.effective_cases == pytest.approx(200)
    few = np.where(np.arange(200) < 2, 1, 0)  # gains that are capped, for no loss stands beside them
    single = noninferiority_test(few > 0, few < 0, margin=0.05, alpha=0.025, patients=patients)
    pairs = np.concatenate([few, few])
    capped = noninferiority_test(pairs > 0, pairs < 0, margin=0.05, alpha=0.025, patients=both)
    assert single.interval[0] < capped.interval[0] < single.interval[0] + 2e-3


def test_one_case_a_patient_is_the_plain_test() -> None:
    values = np.array([1, 0, -1, 0, 0, 1])
    assert design_effect(values, list("abcdef")) == 1.0
    assert effective_cases(values, list("abcdef")) == 6.0 == effective_cases(values, None)


def weight_of(sizes: list[int], alpha: float) -> float:
    """A patient's weight: cases for each of as many equal patients as could hide as much."""
    largest, hidden, held = sorted(sizes, reverse=True), 0.0, 0
    for t, n in enumerate(largest, start=1):
        held += n
        hidden = max(hidden, held / sum(sizes) * (1 - alpha ** (1 / t)))
    return sum(sizes) / (math.log(alpha) / math.log(1 - hidden))


def by_hand(values: np.ndarray, codes: np.ndarray, z: float) -> float:
    """The design effect's definition, patient by patient."""
    sizes = [int((codes == k).sum()) for k in range(codes.max() + 1)]
    mean, weight = values.mean(), weight_of(sizes, NormalDist().cdf(-z))
    excess = [values[codes == k].sum() - n * mean for k, n in enumerate(sizes)]
    losses = sum(min(e, 0.0) ** 2 for e in excess)
    cap = np.sqrt((0.65 * weight) ** 2 + losses / (2 * z) ** 2)
    squares = sum(e * e if e <= cap else 2 * cap * e - cap * cap for e in excess)
    more = z * z / 2 * (1 + mean**2)
    found = (squares + more * weight**2) / (((values - mean) ** 2).sum() + more * weight)
    return max(1.0, float(found))


@pytest.mark.parametrize(("level", "z"), [(0.95, 1.959963984540054), (0.8, 1.2815515655446004)])
@pytest.mark.parametrize("seed", range(6))
def test_the_design_effect_is_as_defined(seed: int, level: float, z: float) -> None:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(25), rng.integers(1, 6, 25))
    values = np.where(rng.random(25) < 0.5, rng.choice([-1, 0, 0, 1], 25), 0)[codes]
    values[rng.random(codes.size) < 0.1] = 1
    found = design_effect(values, codes.astype(str).tolist(), level=level)
    assert found == pytest.approx(by_hand(values, codes, z))
    assert found > 1.0
    assert effective_cases(values, codes.astype(str).tolist(), level=level) == codes.size / found


def test_many_samples_of_the_same_patients_are_taken_at_once() -> None:
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 6, 30)
    codes = np.repeat(np.arange(30), sizes)
    values = rng.choice([-1, 0, 0, 0, 1], (5, codes.size))
    sums = np.stack([np.bincount(codes, weights=v, minlength=30) for v in values])
    found = design_effects(sums, (values**2).sum(axis=1), sizes, 1.959963984540054)
    assert found == pytest.approx([design_effect(v, codes.astype(str).tolist()) for v in values])


def test_where_nothing_differs_each_patient_counts_once() -> None:
    patients = [f"p{k // 10}" for k in range(1000)]
    assert effective_cases(np.zeros(1000), patients) == pytest.approx(100)
    assert effective_cases(np.ones(1000), patients) == pytest.approx(100)
    none = np.zeros(1000, dtype=bool)
    assert not noninferiority_test(none, none, margin=0.02, alpha=0.025, patients=patients).shown


def test_patients_with_equally_many_cases_weigh_as_many() -> None:
    assert patient_weight([4] * 7) == 4 == patient_weight([4])
    assert patient_weight([1] * 7, level=0.8) == 1


def test_a_large_patient_makes_all_cases_worth_less() -> None:
    patients = ["large"] * 90 + [f"p{k}" for k in range(10)]
    weight = patient_weight([1] * 10 + [90])
    assert weight == pytest.approx(100 * math.log(1 - 0.975 * 0.9) / math.log(0.025))  # the large one, unseen
    assert effective_cases(np.zeros(100), patients) == pytest.approx(100 / weight)
    assert patient_weight([90] + [1] * 10, level=0.8) == pytest.approx(weight_of([90] + [1] * 10, 0.1))


def test_what_the_patients_with_many_cases_may_all_lose_is_not_shown_to_be_less() -> None:
    sizes = [5] * 30 + [2] * 100 + [1] * 300  # where none of 30 lost, 11.6 % of such may: of 150 of 650 cases, .0267
    who = [f"p{k}" for k, n in enumerate(sizes) for _ in range(n)]
    none = np.zeros(650, dtype=bool)
    may = 150 / 650 * (1 - 0.025 ** (1 / 30))
    lower = noninferiority_test(none, none, margin=0.1, alpha=0.025, patients=who).interval[0]
    assert -may - 0.003 < lower < -may


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


def test_a_large_patient_who_lost_all_counts_as_observed() -> None:
    values = np.array([-1.0] * 40 + [0.0] * 100)
    patients = ["large"] * 40 + [f"p{k}" for k in range(100)]
    observed = (cluster_standard_error(values, patients) / independent_standard_error(values)) ** 2
    assert patient_weight([40] + [1] * 100) < design_effect(values, patients) < observed


def test_a_standard_error_by_patient_needs_two_patients() -> None:
    with pytest.raises(RangeError, match="two patients"):
        cluster_standard_error([0, 1], ["a", "a"])


def test_single_precision_outcomes_are_read_as_they_are() -> None:
    values, who = np.linspace(0, 1, 30, dtype=np.float32) ** 2, [str(k // 3) for k in range(30)]
    exact = values.astype(np.float64)
    assert independent_standard_error(values) == independent_standard_error(exact)
    assert cluster_standard_error(values, who) == cluster_standard_error(exact, who)
    assert effective_cases(values, who) == effective_cases(exact, who)
    assert effective_cases(exact.tolist(), who) == 30 / design_effect(exact, who)


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
