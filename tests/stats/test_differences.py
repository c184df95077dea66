"""Differences of Brier scores, balanced accuracies and proportions by patient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference
from sklearn.metrics import brier_score_loss
from stats_examples import psychiatry
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from medharden.errors import RangeError
from medharden.stats import (
    balanced_accuracy_difference,
    brier_difference,
    cluster_t_difference,
    clustered_mcnemar,
    effective_cases,
    finding_brier_difference,
    holm,
    mcnemar,
    tango_interval,
)


def probabilities(rng: np.random.Generator, cases: int, classes: int = 2) -> np.ndarray:
    return rng.dirichlet(np.ones(classes), size=cases)


def by_johnson(change: np.ndarray, t: float, bound: float, alpha: float) -> tuple[float, float]:
    """Limits of a mean, corrected for skewness with one case more, or by what no sample holds; the definition."""
    n, mean, limits = change.size, change.mean(), []
    for sign in (1.0, -1.0):
        e = sign * (change - mean) / n * math.sqrt(n / (n - 1))
        squares, cubes = (e**2).sum() + e.min() ** 2, (e**3).sum() + e.min() ** 3
        reach = math.sqrt(squares) * (t - cubes / squares**1.5 * (2 * t * t + 1) / 6)
        limits.append(mean - sign * max(reach, (bound + sign * mean) * (1 - alpha ** (1 / n))))
    return limits[0], limits[1]


# --- Brier -------------------------------------------------------------------------------------------------------


def test_with_one_case_a_patient_the_brier_test_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    new, old, labels = probabilities(rng, 60, 3), probabilities(rng, 60, 3), rng.integers(0, 3, 60)
    found = brier_difference(new, old, labels, level=0.9)
    right = np.eye(3)[labels]
    change = ((new - right) ** 2).sum(1) - ((old - right) ** 2).sum(1)
    expected = reference.ttest_1samp(change, 0.0)
    assert found.interval == pytest.approx(by_johnson(change, reference.t.ppf(0.95, 59), 2.0, 0.05))
    assert found.error == pytest.approx(reference.sem(change))
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.cases, found.patients, found.degenerate) == (60, 60, False)
    assert found.method == "paired t; limits corrected for skewness"
    assert found.least == pytest.approx(2 * (1 - 0.05 ** (1 / 60)))


def test_the_brier_score_of_two_classes_is_twice_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    new, old, labels = probabilities(rng, 50), probabilities(rng, 50), rng.integers(0, 2, 50)
    expected = brier_score_loss(labels, new[:, 1]) - brier_score_loss(labels, old[:, 1])
    assert brier_difference(new, old, labels).estimate == pytest.approx(2 * expected)


def test_worse_calibration_has_a_higher_brier_score() -> None:
    rng = np.random.default_rng(3)
    calibrated = probabilities(rng, 400)
    labels = (rng.random(400) < calibrated[:, 1]).astype(int)
    sharp = np.clip((calibrated - 0.5) * 3 + 0.5, 0.0, 1.0)
    found = brier_difference(sharp, calibrated, labels)
    assert found.interval[0] > 0.0
    assert found.p_value < 0.01


def test_doubling_every_row_adds_no_evidence_on_the_brier_score() -> None:
    rng = np.random.default_rng(4)
    new, old, labels = probabilities(rng, 80), probabilities(rng, 80), rng.integers(0, 2, 80)
    once = brier_difference(new, old, labels)
    names = [str(k) for k in range(80)] * 2
    twice = brier_difference(np.r_[new, new], np.r_[old, old], np.r_[labels, labels], patients=names)
    assert twice.interval == pytest.approx(once.interval)
    assert "by patient" in twice.method


@pytest.mark.parametrize(("cases", "limit"), [(20, 2 * (1 - 0.025 ** (1 / 20))), (500, 2 * (1 - 0.025 ** (1 / 500)))])
def test_identical_probabilities_are_never_an_automatic_pass(cases: int, limit: float) -> None:
    rng = np.random.default_rng(5)
    new, labels = probabilities(rng, cases), rng.integers(0, 2, cases)
    for noise in (0.0, 1e-8):
        found = brier_difference(new + noise, new, labels)
        assert found.degenerate
        assert found.interval == pytest.approx((-limit, limit), abs=1e-6)
        assert (found.statistic, found.p_value, found.level) == (0.0, 1.0, 0.95)
        assert (found.cases, found.patients) == (cases, cases)


def test_the_same_change_in_every_case_has_the_limits_of_what_no_sample_holds() -> None:
    new, old = np.tile([0.4, 0.6], (30, 1)), np.tile([0.3, 0.7], (30, 1))
    found = brier_difference(new, old, np.ones(30, int))
    unseen = 1 - 0.025 ** (1 / 30)
    assert found.estimate == pytest.approx(0.14)
    assert found.interval == pytest.approx((0.14 - 2.14 * unseen, 0.14 + 1.86 * unseen))
    assert (found.p_value, found.degenerate) == (1.0, True)


def test_a_change_too_small_to_matter_still_widens_what_is_said() -> None:
    old = np.tile([0.5, 0.5], (40, 1))
    found = brier_difference(old - np.array([4e-7, -4e-7]), old, np.ones(40, int))
    assert found.degenerate
    unseen = 1 - 0.025 ** (1 / 40)
    assert found.interval[1] == pytest.approx(found.estimate + (2 - found.estimate) * unseen, abs=1e-12)
    assert found.estimate == pytest.approx(-8e-7, abs=1e-9)


def test_single_precision_probabilities_are_read_as_they_are() -> None:
    rng = np.random.default_rng(8)
    new, old = (probabilities(rng, 30).astype(np.float32) for _ in range(2))
    labels = rng.integers(0, 2, 30)
    exact = brier_difference(new.astype(np.float64), old.astype(np.float64), labels)
    assert brier_difference(new, old, labels) == exact
    assert brier_difference(new.tolist(), old.tolist(), labels.tolist()) == exact


def test_a_brier_interval_stays_within_what_can_be() -> None:
    new, old = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert brier_difference(new, old, [0, 0]).interval == (-2.0, 2.0)
    assert brier_difference(new, old, [0, 0], level=0.05).interval[1] < 2.0


def test_with_one_case_a_patient_the_brier_test_of_findings_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(9)
    new, old, truth = rng.random((60, 4)), rng.random((60, 4)), rng.random((60, 4)) < 0.3
    found = finding_brier_difference(new, old, truth, level=0.9)
    change = ((new - truth) ** 2).mean(1) - ((old - truth) ** 2).mean(1)
    expected = reference.ttest_1samp(change, 0.0)
    assert found.interval == pytest.approx(by_johnson(change, reference.t.ppf(0.95, 59), 1.0, 0.05))
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.cases, found.patients, found.level) == (60, 60, 0.9)
    assert finding_brier_difference(new.tolist(), old.tolist(), truth.astype(int).tolist(), level=0.9) == found
    single = [a.astype(np.float32) for a in (new, old)]
    exact = finding_brier_difference(*(a.astype(np.float64) for a in single), truth)
    assert finding_brier_difference(*single, truth) == exact


def test_the_brier_score_of_findings_has_its_borders_in_0_and_1() -> None:
    truth = np.array([[True], [False]])
    found = finding_brier_difference(~truth, truth, truth)
    assert (found.estimate, found.degenerate) == (1.0, True)
    assert found.interval == pytest.approx((1 - 2 * (1 - 0.025**0.5), 1.0))
    part = finding_brier_difference([[0.0], [0.0]], [[1.0], [0.0]], truth)
    assert part.interval == (-1.0, 1.0)
    assert not part.degenerate
    same = finding_brier_difference(np.full((30, 2), 0.4), np.full((30, 2), 0.4), np.tile([[True, False]], (30, 1)))
    assert same.interval == pytest.approx((-(1 - 0.025 ** (1 / 30)), 1 - 0.025 ** (1 / 30)))


@pytest.mark.parametrize(
    "call",
    [
        lambda p, y: brier_difference(p, p[:-1], y),
        lambda p, y: brier_difference(p[:, 0], p[:, 0], y),
        lambda p, y: brier_difference(p, p, y[:-1]),
        lambda p, y: brier_difference(p * 1.1, p, y),
        lambda p, y: brier_difference(p, p * np.nan, y),
        lambda p, y: brier_difference(p - np.array([1, -1]), p, y),
        lambda p, y: brier_difference(p, p, y - 1),
        lambda p, y: brier_difference(p, p, y + 1),
        lambda p, y: brier_difference(p, p, y.astype(float)),
        lambda p, y: brier_difference(p, p, y, patients=list("aaaa")),
        lambda p, y: brier_difference(p[:0], p[:0], y[:0]),
        lambda p, y: brier_difference(p, p, y, patients=list("ab")),
        lambda p, y: finding_brier_difference(p, p[:-1], p > 0.5),
        lambda p, y: finding_brier_difference(p[:-1], p, p > 0.5),
        lambda p, y: finding_brier_difference(p, p, p[:-1] > 0.5),
        lambda p, y: finding_brier_difference(y, y, y),
        lambda p, y: finding_brier_difference(p + 0.3, p, p > 0.5),
        lambda p, y: finding_brier_difference(p, p - 0.3, p > 0.5),
        lambda p, y: finding_brier_difference(p, p * np.nan, p > 0.5),
        lambda p, y: finding_brier_difference(p, p, p > 0.5, patients=list("aaaa")),
        lambda p, y: cluster_t_difference(y, y),
        lambda p, y: cluster_t_difference([True], [False]),
        lambda p, y: balanced_accuracy_difference(y, 1 - y, [0] * 4),
        lambda p, y: balanced_accuracy_difference(y, 1 - y, [0, 1]),
        lambda p, y: balanced_accuracy_difference(y, y, y),
        lambda p, y: balanced_accuracy_difference(y, 1 - y, y, level=0.0),
        lambda p, y: clustered_mcnemar(y, y, None),
        lambda p, y: mcnemar(-1, 0),
        lambda p, y: mcnemar(0.5, 1),
        lambda p, y: mcnemar(1, 0.5),
        lambda p, y: holm([0.1, 1.1]),
        lambda p, y: holm([-0.1]),
        lambda p, y: holm([math.nan]),
        lambda p, y: holm([[0.1]]),
    ],
)
def test_what_cannot_be_compared_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RangeError, match=r"expected|needs|lies in"):
        call(np.tile([0.25, 0.75], (4, 1)), np.array([0, 1, 1, 0]))


# --- proportions by patient --------------------------------------------------------------------------------------


def test_cluster_t_of_the_psychiatry_data() -> None:
    values, patients = psychiatry()
    found = cluster_t_difference(values > 0, values < 0, patients=patients)
    assert found.estimate == pytest.approx(-0.2148, abs=5e-5)
    assert found.estimate / found.statistic == pytest.approx(0.06729, abs=5e-6)
    half = reference.t.ppf(0.975, 28) * found.error
    assert found.interval[0] == pytest.approx(found.estimate - half, abs=0.01)
    least = found.estimate + (1 - found.estimate) * found.least
    assert found.estimate + half < least == pytest.approx(found.interval[1])
    assert found.p_value == pytest.approx(2 * reference.t.sf(abs(found.statistic), 28))
    assert (found.cases, found.patients, found.level) == (135, 29, 0.95)
    assert found.method == "cluster-robust t by patient (Obuchowski 1998); limits corrected for skewness"


def test_cluster_t_and_tango_agree_on_many_cases() -> None:
    rng = np.random.default_rng(6)
    values = rng.choice([-1, 0, 1], size=4000, p=[0.06, 0.9, 0.04])
    found = cluster_t_difference(values > 0, values < 0)
    assert found.interval == pytest.approx(tango_interval((values > 0).sum(), (values < 0).sum(), 4000), abs=3e-4)


def test_cluster_t_without_discordance_rests_on_the_patients() -> None:
    none = np.zeros(60, bool)
    found = cluster_t_difference(none, none, patients=[str(k // 3) for k in range(60)])
    assert found.degenerate
    assert found.interval[1] == pytest.approx(1 - 0.025 ** (1 / 20)) == -found.interval[0]


def test_answers_that_cancel_within_each_patient_are_no_change_of_patients() -> None:
    found = cluster_t_difference([1, 0, 1, 0], [0, 1, 0, 1], patients=list("aabb"))
    assert found.interval == pytest.approx((-(1 - 0.025**0.5), 1 - 0.025**0.5))
    assert found.degenerate


# --- balanced accuracy -------------------------------------------------------------------------------------------


def two_classes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.array([0] * 40 + [1] * 160)
    gained, lost = np.zeros(200, bool), np.zeros(200, bool)
    gained[:2], lost[2:6], gained[40:45], lost[45:48] = True, True, True, True
    return gained, lost, labels


def test_balanced_accuracy_reproduces_the_worked_example() -> None:
    found = balanced_accuracy_difference(*two_classes())
    assert found.estimate == pytest.approx(-0.01875)
    assert found.interval == pytest.approx((-0.09255, 0.05228), abs=5e-6)
    assert (found.cases, found.patients, found.degenerate) == (200, 200, False)


@pytest.mark.parametrize("swapped", [False, True])
def test_at_the_p_values_own_level_the_interval_touches_no_difference(swapped: bool) -> None:
    gained, lost, labels = two_classes()
    one, other = (lost, gained) if swapped else (gained, lost)
    p_value = balanced_accuracy_difference(one, other, labels).p_value
    found = balanced_accuracy_difference(one, other, labels, level=1 - p_value)
    assert found.interval[0 if swapped else 1] == pytest.approx(0.0, abs=1e-7)
    assert math.copysign(1, found.statistic) == (1 if swapped else -1)
    assert 0.3 < p_value < 0.8


def test_without_any_difference_the_balanced_interval_rests_on_the_counts() -> None:
    none, labels = np.zeros(60, bool), np.array([0] * 20 + [1] * 40)
    found = balanced_accuracy_difference(none, none, labels)
    limits = [tango_interval(0, 0, n)[1] for n in (20, 40)]
    assert found.interval[1] == pytest.approx(math.hypot(*limits) / 2) == -found.interval[0]
    assert (found.statistic, found.p_value, found.degenerate) == (0.0, 1.0, True)


def test_balanced_accuracy_is_by_patient_and_joins_classes_of_the_same_patients() -> None:
    rng = np.random.default_rng(7)
    whole = rng.choice([-1, 0, 1], size=(50, 1), p=[0.1, 0.8, 0.1]).repeat(4, axis=1)
    values, labels = whole.ravel(), np.tile([0, 0, 1, 1], 50)
    together = [f"p{k // 4}" for k in range(200)]
    apart = [f"p{k // 2}" for k in range(200)]
    shared = balanced_accuracy_difference(values > 0, values < 0, labels, patients=together)
    split = balanced_accuracy_difference(values > 0, values < 0, labels, patients=apart)
    plain = balanced_accuracy_difference(values > 0, values < 0, labels)
    widths = [np.ptp(d.interval) for d in (shared, split, plain)]
    # both classes answer alike in each patient: full correlation, so sqrt(2) wider
    assert widths[0] == pytest.approx(widths[1] * math.sqrt(2), rel=1e-6)
    assert widths[1] > widths[2] * 1.3
    own = [p for p, k in zip(together, labels, strict=True) if k == 0]
    for side, sign in enumerate((1, -1)):
        effective = effective_cases(sign * values[labels == 0], own)
        counts = [(values[labels == 0] == way).mean() * effective for way in (1, -1)]
        assert shared.interval[side] == pytest.approx(tango_interval(*counts, effective)[side])
    assert (shared.patients, split.patients) == (50, 100)
    assert "by patient" in shared.method
    assert "by patient" not in plain.method


@pytest.mark.parametrize("seed", range(3))
def test_classes_of_shared_patients_are_joined_by_how_far_they_share_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((40, 1)) < 0.5, rng.choice([-1, 0], (40, 1)), rng.choice([-1, 0, 1], (40, 6))).ravel()
    labels, who = np.tile([3, 3, 5, 5, 5, 7], 40), np.repeat([f"p{k}" for k in range(40)], 6)
    who[labels == 7] = np.where(np.arange(40) < 10, who[labels == 7], "px")
    shares, low, high, owned = [], [], [], []
    for k in (3, 5, 7):
        of_class, people = values[labels == k], who[labels == k].tolist()
        shares.append(of_class.mean())
        for side, sign in ((low, 1), (high, -1)):
            n = effective_cases(sign * of_class, people, level=0.9)
            counts = [(of_class * sign == way).mean() * n for way in (1, -1)]
            side.append(sign * of_class.mean() - tango_interval(*counts, n, level=0.9)[0])
        owned.append(np.array([people.count(f"p{p}") for p in range(40)] + [people.count("px")], float))
    related = np.array([[one @ other / math.sqrt(one @ one * (other @ other)) for one in owned] for other in owned])
    assert related[0, 1] == pytest.approx(1.0)
    assert 0.0 < related[0, 2] < 0.3
    reach = [math.sqrt(np.array(side) @ related @ np.array(side)) / 3 for side in (low, high)]
    found = balanced_accuracy_difference(values > 0, values < 0, labels, patients=who.tolist(), level=0.9)
    assert found.interval == pytest.approx((np.mean(shares) - reach[0], np.mean(shares) + reach[1]))
    assert (found.estimate, found.level) == (pytest.approx(np.mean(shares)), 0.9)


def test_balanced_limits_stay_within_what_can_be() -> None:
    every, labels, who = np.ones(4, bool), np.array([0, 1] * 2), list("aabb")
    assert balanced_accuracy_difference(~every, every, labels, patients=who, level=0.9999).interval[0] >= -1.0
    assert balanced_accuracy_difference(every, ~every, labels, patients=who, level=0.9999).interval[1] <= 1.0


def test_unvaried_classes_of_the_same_patients_are_taken_as_fully_related() -> None:
    none, labels = np.zeros(80, bool), np.tile([0, 1], 40)
    shared = balanced_accuracy_difference(none, none, labels, patients=[str(k // 2) for k in range(80)])
    assert shared.interval[1] == pytest.approx(tango_interval(0, 0, 40)[1])


def test_a_complete_loss_has_the_smallest_p() -> None:
    every, labels = np.ones(40, bool), np.array([0, 1] * 20)
    found = balanced_accuracy_difference(~every, every, labels)
    assert found.estimate == -1.0 == found.interval[0]
    assert found.p_value < 1e-4


# --- McNemar and Holm --------------------------------------------------------------------------------------------


def test_mcnemar_reproduces_the_published_example() -> None:
    assert mcnemar(6, 16) == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar(6, 16, exact=False) == pytest.approx(0.033006, abs=5e-7)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (1, 0), (5, 5), (2, 9), (30, 12), (700, 640)])
def test_mcnemar_equals_statsmodels(gained: int, lost: int) -> None:
    table = [[10, gained], [lost, 10]]
    assert mcnemar(gained, lost) == pytest.approx(reference_mcnemar(table, exact=True).pvalue, rel=1e-9)
    if gained + lost:
        expected = reference_mcnemar(table, exact=False, correction=False).pvalue
        assert mcnemar(gained, lost, exact=False) == pytest.approx(expected, rel=1e-9)


def test_tests_of_the_psychiatry_data() -> None:
    values, patients = psychiatry()
    gained, lost = values > 0, values < 0
    obuchowski, p_value = clustered_mcnemar(gained, lost, patients)
    assert (gained.sum() - lost.sum()) ** 2 / (gained.sum() + lost.sum()) == pytest.approx(11.85, abs=5e-3)
    assert obuchowski == pytest.approx(7.19, abs=5e-3)
    assert p_value == pytest.approx(reference.chi2.sf(obuchowski, 1))
    assert clustered_mcnemar(gained, lost, patients, variance="mean")[0] == pytest.approx(8.43, abs=5e-3)


def test_one_case_a_patient_is_nearly_mcnemars_test() -> None:
    gained, lost = np.arange(161) < 6, np.arange(161) >= 161 - 16
    assert clustered_mcnemar(gained, lost, None)[0] == pytest.approx(100 / 22 * 160 / 161)


def test_nothing_gained_or_lost_is_no_difference() -> None:
    none = np.zeros(4, bool)
    assert clustered_mcnemar(none, none, list("aabb")) == (0.0, 1.0)


@pytest.mark.parametrize(
    "p_values", [[0.01, 0.02, 0.03, 0.04], [0.5, 0.001, 0.04, 0.04, 1.0], [0.2], [], [0.6, 0.7], [0.0, 0.5]]
)
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(expected)


def test_holm_reproduces_the_worked_example() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
