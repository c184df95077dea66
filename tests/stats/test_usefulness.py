"""Predictive values, net benefit and recalibration: published numbers, a second implementation, and their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from medharden.errors import RangeError
from medharden.stats import Estimate, net_benefit_change, predictive_values, recalibration, share_interval


def share(hits: int, cases: int):
    return share_interval(np.arange(cases) < hits)


@pytest.mark.parametrize(
    ("prevalence", "positive", "negative"),
    [(0.75, 0.88, 0.67), (0.25, 0.45, 0.95)],
)
def test_the_liver_scans_of_altman_and_bland_come_out(prevalence: float, positive: float, negative: float) -> None:
    """231 of 258 abnormal and 54 of 86 normal scans (BMJ 1994; 309: 102)."""
    found = predictive_values(share(231, 258), share(54, 86), prevalence)
    assert [round(e.value, 2) for e in found] == [positive, negative]


def test_at_the_test_s_own_prevalence_they_are_shares_of_the_table() -> None:
    positive, negative = predictive_values(share(231, 258), share(54, 86), 258 / 344)
    assert positive.value == pytest.approx(231 / (231 + 32))
    assert negative.value == pytest.approx(54 / (54 + 27))


def test_the_limits_lie_within_those_of_the_corners_and_around_the_estimate() -> None:
    alone, shared = (predictive_values(share(90, 100), share(180, 200), 0.1, shared=s)[0] for s in (False, True))
    assert shared.lower < alone.lower < alone.value == shared.value < alone.upper < shared.upper


def test_limits_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    sensitivity, specificity, prevalence, runs = 0.9, 0.85, 0.05, 1000
    truth = prevalence * sensitivity / (prevalence * sensitivity + (1 - prevalence) * (1 - specificity))
    inside = 0
    for hits, right in zip(rng.binomial(80, sensitivity, runs), rng.binomial(150, specificity, runs), strict=True):
        found = predictive_values(share(hits, 80), share(right, 150), prevalence)[0]
        inside += found.lower <= truth <= found.upper
    assert 0.94 <= inside / runs <= 0.99


@given(st.integers(0, 12), st.integers(0, 12), st.floats(0.001, 0.999), st.booleans())
def test_whatever_the_counts_the_limits_hold_the_value(hits: int, right: int, prevalence: float, shared: bool) -> None:
    for found in predictive_values(share(hits, 12), share(right, 12), prevalence, shared=shared):
        if found is not None:
            assert 0.0 <= found.lower <= found.value <= found.upper <= 1.0


def test_of_an_answer_that_is_never_given_nothing_is_said() -> None:
    positive, negative = predictive_values(share(0, 30), share(40, 40), 0.3)
    assert positive is None
    assert negative.value == pytest.approx(0.7)
    assert predictive_values(share(30, 30), share(0, 40), 0.3)[1] is None


def test_a_perfect_specificity_leaves_a_lower_limit_below_one() -> None:
    positive, _ = predictive_values(share(28, 30), share(40, 40), 0.01)
    assert (positive.value, positive.upper) == (1.0, 1.0)
    assert 0.0 < positive.lower < 0.2


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, math.nan])
def test_a_prevalence_or_threshold_outside_0_to_1_is_refused(prevalence: float) -> None:
    with pytest.raises(RangeError):
        predictive_values(share(1, 2), share(1, 2), prevalence)
    same = Estimate(0.0, -0.1, 0.1)
    with pytest.raises(RangeError):
        net_benefit_change(same, same, prevalence, 0.5)
    with pytest.raises(RangeError):
        net_benefit_change(same, same, 0.5, prevalence)


def test_no_case_of_a_class_is_refused() -> None:
    with pytest.raises(RangeError, match="positive and a negative"):
        predictive_values(share(0, 0), share(1, 2), 0.5)


def test_net_benefit_is_vickers_and_elkin_s_and_its_limits_are_joined() -> None:
    """NB = TP / n - FP / n * t / (1 - t), of both models on one table."""
    n, t, sick = 400, 0.2, 100
    old, new = (80, 60), (84, 75)  # true and false positives
    benefit = [tp / n - fp / n * t / (1 - t) for tp, fp in (old, new)]
    sensitivity = Estimate(0.04, 0.01, 0.08)
    specificity = Estimate(-0.05, -0.08, -0.01)
    found = net_benefit_change(sensitivity, specificity, sick / n, t)
    assert found.value == pytest.approx(benefit[1] - benefit[0])
    below, above = (0.25 * 0.03, 0.75 * 0.25 * 0.03), (0.25 * 0.04, 0.75 * 0.25 * 0.04)
    assert found.lower == pytest.approx(found.value - math.hypot(*below))
    assert found.upper == pytest.approx(found.value + math.hypot(*above))
    together = net_benefit_change(sensitivity, specificity, sick / n, t, shared=True)
    assert (together.lower, together.upper) == pytest.approx((found.value - sum(below), found.value + sum(above)))


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    logit, who = rng.normal(0, 2, 400), rng.integers(0, 90, 400)
    return logit, rng.random(400) < 1 / (1 + np.exp(-(0.3 + 0.7 * logit))), [str(w) for w in who]


def test_recalibration_is_statsmodels_logistic_regression_by_patient() -> None:
    logit, happened, who = example()
    found = recalibration(1 / (1 + np.exp(-logit)), happened, patients=who)
    codes = np.unique(who, return_inverse=True)[1]
    scale = math.sqrt(len(set(who)) / (len(set(who)) - 1))
    by_patient = {"cov_type": "cluster", "cov_kwds": {"groups": codes, "use_correction": False}}
    binomial, ones = sm.families.Binomial(), np.ones((400, 1))
    large = sm.GLM(happened.astype(float), ones, family=binomial, offset=logit).fit(**by_patient)
    slope = sm.GLM(happened.astype(float), np.column_stack([ones, logit]), family=binomial).fit(**by_patient)
    for ours, theirs, k in ((found[0], large, 0), (found[1], slope, 1)):
        assert ours.value == pytest.approx(theirs.params[k], abs=1e-6)
        half = 1.959963984540054 * theirs.bse[k] * scale
        assert (ours.value - ours.lower, ours.upper - ours.value) == pytest.approx((half, half), rel=1e-5)


def test_probabilities_that_are_right_have_0_and_1_within_their_limits() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.05, 0.95, 20_000)
    large, slope = recalibration(p, rng.random(p.size) < p)
    assert large.lower < 0 < large.upper
    assert slope.lower < 1 < slope.upper
    assert large.upper - large.lower < 0.1


def test_where_no_fit_is_best_there_is_none() -> None:
    assert recalibration([0.1, 0.9, 0.2, 0.8], [False, True, False, True]) is None, "parted wholly"
    assert recalibration([0.1, 0.9, 0.2], [True, True, True]) is None
    assert recalibration([0.5] * 40, [True, False] * 20) is None, "one probability alone has no slope"
    assert recalibration([0.2, 0.8], [False, True], patients=["a", "a"]) is None
    mixed = recalibration([0.0, 1.0, 0.3, 0.6, 0.4, 1.0], [False, True, True, False, True, False])
    assert mixed is not None, "0 and 1 have no logit and are taken as near them"


@pytest.mark.parametrize(
    "wrong", [([0.5, 1.2], [True, False]), ([0.5], [True, False]), ([math.nan, 0.1], [True, False])]
)
def test_what_is_no_probability_is_refused(wrong) -> None:
    with pytest.raises(RangeError):
        recalibration(*wrong)
