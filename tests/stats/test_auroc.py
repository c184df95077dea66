"""AUROC differences: pROC's example, an implementation by definition, scikit-learn, and patients as the unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from stats_examples import asah

from medharden.errors import RangeError
from medharden.stats import auroc, auroc_difference, class_patients, macro_auroc_difference, patient_weight


def by_definition(new: np.ndarray, old: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """The change of AUROC and its standard error, from all pairs of a positive and a negative (DeLong 1988)."""
    parts = []
    for scores in (new, old):
        above, below = scores[positive][:, None], scores[~positive][None, :]
        parts.append((above > below) + 0.5 * (above == below))
    change = parts[0] - parts[1]
    of_positives, of_negatives = change.mean(axis=1), change.mean(axis=0)
    variance = of_positives.var(ddof=1) / of_positives.size + of_negatives.var(ddof=1) / of_negatives.size
    return float(change.mean()), math.sqrt(variance)


def clustered(rng: np.random.Generator, patients: int, each: int) -> tuple[np.ndarray, ...]:
    """Two equally good scores, labels alike and noise shared within each patient, and whose each case is."""
    truth = np.repeat(rng.random((patients, 1)) < 0.4, each, axis=1)
    noise = rng.normal(size=(2, patients, 1)) + rng.normal(size=(2, patients, each))
    names = np.repeat([f"p{k}" for k in range(patients)], each)
    return (noise[0] + truth).ravel(), (noise[1] + truth).ravel(), truth.ravel(), names


def test_delong_reproduces_procs_example() -> None:
    found = auroc_difference(*asah())
    assert found.statistic == pytest.approx(2.20898359, abs=5e-9)
    assert found.p_value == pytest.approx(0.02717578, abs=5e-9)
    wald = [found.estimate + side * 1.959963984540054 * found.error for side in (-1, 1)]
    assert wald == pytest.approx((0.01040618, 0.17421442), abs=5e-9)
    assert (found.cases, found.patients, found.level, found.degenerate) == (113, 113, 0.95, False)
    assert found.method == "paired DeLong (DeLong 1988, Sun & Xu 2014); limits corrected for skewness"


def test_limits_are_delongs_corrected_for_skewness_or_what_no_sample_holds() -> None:
    wfns, s100b, poor = asah()
    shares = []
    for scores in (wfns, s100b):
        above, below = scores[poor][:, None], scores[~poor][None, :]
        shares.append((above > below) + 0.5 * (above == below))
    change = shares[0] - shares[1]
    parts = [change.mean(axis=1 - side) - change.mean() for side in (0, 1)]
    for level, z in ((0.95, 1.959963984540054), (0.8, 1.2815515655446004)):
        found = auroc_difference(wfns, s100b, poor, level=level)
        for sign, limit in zip((1.0, -1.0), found.interval, strict=True):
            squares = cubes = 0.0
            for e in parts:
                psi = sign * e / e.size * math.sqrt(e.size / (e.size - 1))
                squares += (psi**2).sum() + psi.min() ** 2
                cubes += (psi**3).sum() + psi.min() ** 3
            reach = math.sqrt(squares) * (z - cubes / squares**1.5 * (2 * z * z + 1) / 6)
            least = (1 + sign * found.estimate) * (1 - ((1 - level) / 2) ** (1 / 41))
            assert limit == pytest.approx(found.estimate - sign * max(reach, least))
        assert reach > least


def test_obuchowski_reproduces_procs_example_with_two_rows_a_patient() -> None:
    wfns, s100b, poor = asah()
    found = auroc_difference(wfns, s100b, poor, patients=[str(row // 2) for row in range(113)])
    assert found.estimate / found.statistic == pytest.approx(0.0465933, abs=5e-8)
    assert found.statistic == pytest.approx(1.98119, abs=5e-6)
    assert (found.cases, found.patients) == (113, 57)
    assert found.method == "paired AUROC by patient (Obuchowski 1997); limits corrected for skewness"


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(6, 60), st.integers(2, 30))
def test_the_fast_form_equals_the_definition_and_scikit_learn(seed: int, cases: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    positive = np.arange(cases) % 3 == 0
    new, old = (rng.integers(0, values, cases) / values for _ in range(2))
    change, error = by_definition(new, old, positive)
    found = auroc_difference(new, old, positive, level=0.9)
    assert auroc(new, positive) == pytest.approx(roc_auc_score(positive, new), abs=1e-12)
    assert found.estimate == pytest.approx(change, abs=1e-12)
    least = 1.0 - 0.05 ** (1.0 / positive.sum())
    assert -1.0 <= found.interval[0] <= change - (1.0 + change) * least + 1e-12
    assert 1.0 >= found.interval[1] >= change + (1.0 - change) * least - 1e-12
    if error > 1e-9:
        assert found.error == pytest.approx(error)
        assert found.statistic == pytest.approx(change / error, abs=1e-6)
    else:
        assert found.degenerate
        assert found.error == 0.0


def test_one_case_a_patient_is_delong() -> None:
    wfns, s100b, poor = asah()
    named = auroc_difference(wfns, s100b, poor, patients=[str(row) for row in range(113)])
    assert named == auroc_difference(wfns, s100b, poor)


def test_doubling_every_row_adds_next_to_no_evidence() -> None:
    wfns, s100b, poor = asah()
    twice = [np.concatenate([v, v]) for v in (wfns, s100b, poor)]
    found = auroc_difference(*twice, patients=[str(row % 113) for row in range(226)])
    assert found.interval == pytest.approx(auroc_difference(wfns, s100b, poor).interval, abs=1e-12)
    assert auroc_difference(*twice).interval[0] > found.interval[0] + 0.01


def test_swapping_the_scores_mirrors_the_interval() -> None:
    wfns, s100b, poor = asah()
    one, other = auroc_difference(wfns, s100b, poor), auroc_difference(s100b, wfns, poor)
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]))
    assert (other.statistic, other.p_value) == pytest.approx((-one.statistic, one.p_value))


def test_by_patient_the_standard_error_is_right_where_by_case_it_is_not() -> None:
    rng = np.random.default_rng(11)
    covered = np.zeros((400, 2))
    for run in covered:
        new, old, truth, names = clustered(rng, 60, 6)
        for k, patients in enumerate((names.tolist(), None)):
            found = auroc_difference(new, old, truth, patients=patients)
            run[k] = abs(found.estimate) <= 1.96 * found.error
    assert 0.92 <= covered[:, 0].mean() <= 0.98
    assert covered[:, 1].mean() < 0.91


@pytest.mark.parametrize("cases", [20, 400])
def test_identical_scores_are_never_an_automatic_pass(cases: int) -> None:
    scores = np.random.default_rng(2).random(cases)
    positive = np.arange(cases) % 4 == 0
    found = auroc_difference(scores, scores, positive)
    assert (found.estimate, found.statistic, found.p_value, found.degenerate) == (0.0, 0.0, 1.0, True)
    limit = 1.0 - 0.025 ** (4 / cases)
    assert found.interval == pytest.approx((-limit, limit))
    assert (found.interval[0] > -0.05) == (cases == 400)
    assert found.method.startswith("paired DeLong")
    assert (found.error, found.least) == (0.0, pytest.approx(limit))
    assert (found.cases, found.patients, found.level) == (cases, cases, 0.95)
    turned = auroc_difference(-scores, -scores, ~positive, level=0.9)
    assert turned.interval[1] == pytest.approx(1.0 - 0.05 ** (4 / cases))


def test_only_the_order_of_scores_matters() -> None:
    scores = np.random.default_rng(3).random(40)
    positive = np.arange(40) % 2 == 0
    assert auroc_difference(np.exp(scores), scores, positive).degenerate


def test_patients_with_both_classes_make_half_as_many_pairs() -> None:
    scores = np.random.default_rng(4).random(40)
    positive = np.arange(40) % 2 == 0
    found = auroc_difference(scores, scores, positive, patients=[str(k // 2) for k in range(40)])
    assert found.interval[1] == pytest.approx(1.0 - 0.025 ** (1 / 10))


@pytest.mark.parametrize("turned", [False, True])
def test_two_perfect_rankings_count_as_unchanged(turned: bool) -> None:
    positive = np.arange(20) % 2 == 0
    new, old = positive + np.linspace(0, 0.5, 20), positive + np.linspace(0.5, 0, 20)
    found = auroc_difference(-new if turned else new, -old if turned else old, positive)
    assert found.degenerate
    assert found.interval[1] == pytest.approx(1.0 - 0.025 ** (1 / 10))


def test_without_variance_a_change_has_the_limits_of_what_no_sample_holds() -> None:
    positive = np.arange(20) % 2 == 0
    found = auroc_difference(positive, ~positive, positive)
    unseen = 1.0 - 0.025 ** (1 / 10)
    assert (found.estimate, found.p_value, found.degenerate) == (1.0, 1.0, True)
    assert found.interval == pytest.approx((1.0 - 2.0 * unseen, 1.0))


def test_the_same_change_in_every_case_is_seen_as_no_variance_in_spite_of_rounding() -> None:
    # three groups of a positive and a negative each, whose order turns within the group only: all components fall alike
    positive = np.array([True, False] * 3)
    old, new = np.array([1.0, 0, 3, 2, 5, 4]), np.array([0.0, 1, 2, 3, 4, 5])
    rotated = auroc_difference([1.0, 4, 3, 0, 5, 2], [1.0, 0, 3, 2, 5, 4], positive)
    found = auroc_difference(new, old, positive)
    assert found.estimate == pytest.approx(-1 / 3)
    unseen = 1.0 - 0.025 ** (1 / 3)
    assert found.interval == pytest.approx((-1 / 3 - 2 / 3 * unseen, -1 / 3 + 4 / 3 * unseen))
    assert found.degenerate
    assert not rotated.degenerate


def test_large_patients_are_worth_fewer_pairs() -> None:
    scores = np.arange(60.0)
    positive = np.arange(60) < 30
    who = ["large" if k < 10 else str(k) for k in range(60)]  # one patient with 10 positives, 20 with one
    found = auroc_difference(scores, scores, positive, patients=who)
    assert found.interval[1] == pytest.approx(0.975 * 10 / 30)  # the large one's, whom no sample may show
    every = [f"p{k // 6}" for k in range(60)]  # as many of each: whole patients
    assert auroc_difference(scores, scores, positive, patients=every).least == pytest.approx(1.0 - 0.025 ** (1 / 5))


def test_changes_that_cancel_within_each_patient_are_no_change_of_patients() -> None:
    positive = np.array([True, True, True, True, False, False])
    new, old = np.array([1.0, 3, 1, 3, 2, 2]), np.array([3.0, 1, 3, 1, 2, 2])
    found = auroc_difference(new, old, positive, patients=list("aabbcd"))
    assert (found.estimate, found.degenerate) == (0.0, True)
    unseen = 1.0 - 0.025 ** (1 / min(2.0, 6 / patient_weight([2, 2, 1, 1]) / 2))
    assert found.interval == pytest.approx((-unseen, unseen))


def test_the_mean_over_one_label_is_delong() -> None:
    wfns, s100b, poor = asah()
    one, plain = macro_auroc_difference(wfns[:, None], s100b[:, None], poor[:, None]), auroc_difference(*asah())
    assert one.estimate == pytest.approx(plain.estimate)
    assert one.interval == pytest.approx(plain.interval)
    assert (one.cases, one.patients) == (113, 113)


def test_repeating_a_label_adds_no_evidence_and_independent_labels_do() -> None:
    wfns, s100b, poor = asah()
    shuffled = np.random.default_rng(5).permutation(113)
    same = macro_auroc_difference(np.c_[wfns, wfns], np.c_[s100b, s100b], np.c_[poor, poor])
    other = macro_auroc_difference(
        np.c_[wfns, wfns[shuffled]], np.c_[s100b, s100b[shuffled]], np.c_[poor, poor[shuffled]]
    )
    plain = auroc_difference(wfns, s100b, poor)
    assert same.interval == pytest.approx(plain.interval)
    assert other.statistic == pytest.approx(plain.statistic * math.sqrt(2), rel=0.15)


def test_the_interval_of_the_mean_over_labels_covers_the_truth() -> None:
    rng = np.random.default_rng(12)
    covered = []
    for _ in range(400):
        truth = np.repeat(rng.random((50, 3)) < [0.3, 0.4, 0.5], 3, axis=0)
        shared = rng.normal(size=(2, 50, 1, 1)) + rng.normal(size=(2, 50, 3, 1)) + rng.normal(size=(2, 50, 3, 3))
        new, old = shared.reshape(2, 150, 3) + truth
        names = [f"p{k // 3}" for k in range(150)]
        found = macro_auroc_difference(new, old, truth, patients=names)
        covered.append(abs(found.estimate) <= 1.96 * found.error)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_identical_scores_of_all_labels_have_the_mean_of_their_limits() -> None:
    rng = np.random.default_rng(6)
    scores = rng.random((100, 2))
    labels = np.c_[np.arange(100) < 50, np.arange(100) < 8]
    found = macro_auroc_difference(scores, scores, labels)
    assert found.degenerate
    limit = 1.0 - (0.025 ** (1 / 50) + 0.025 ** (1 / 8)) / 2
    assert found.interval == pytest.approx((-limit, limit))


def test_a_constant_change_in_one_label_is_no_certainty_of_the_mean() -> None:
    positive = np.arange(20) % 2 == 0
    labels, old = np.c_[positive, positive], np.c_[positive, positive].astype(float)
    found = macro_auroc_difference(np.c_[~positive, positive], old, labels)
    unseen = 1.0 - 0.025 ** (1 / 10)
    assert (found.estimate, found.degenerate) == (-0.5, True)
    assert found.interval == pytest.approx((-0.5 - 0.5 * unseen, -0.5 + 1.5 * unseen))


def test_patients_with_and_without_are_counted_once_each() -> None:
    positive = np.array([True, True, False, False, True])
    assert class_patients(positive, list("aabbb")) == (2, 1)
    assert class_patients(positive) == (3, 2)
    with pytest.raises(RangeError, match="one patient a case"):
        class_patients(positive, ["a"])


@pytest.mark.parametrize(
    "call",
    [
        lambda s, y: auroc(s, y[:-1]),
        lambda s, y: auroc(np.append(s[:-1], np.nan), y),
        lambda s, y: auroc(s, np.ones(8, bool)),
        lambda s, y: auroc(s, np.zeros(8, bool)),
        lambda s, y: auroc(s[:, None], y[:, None]),
        lambda s, y: auroc_difference(s, s[:-1], y),
        lambda s, y: auroc_difference(s, s, np.arange(8) == 0),
        lambda s, y: auroc_difference(s, s, y, patients=["a", "b"] * 4),
        lambda s, y: auroc_difference(s, s, y, patients=["a"] * 7),
        lambda s, y: auroc_difference(s, s, y, level=1.0),
        lambda s, y: macro_auroc_difference(s, s, y),
        lambda s, y: macro_auroc_difference(s[:, None], s[:, None], np.c_[y, y]),
        lambda s, y: macro_auroc_difference(s[:, None], np.c_[s, s], y[:, None]),
        lambda s, y: macro_auroc_difference(np.c_[s, s], s[:, None], y[:, None]),
        lambda s, y: macro_auroc_difference(s[:, None], s[:, None] * np.nan, y[:, None]),
        lambda s, y: macro_auroc_difference(np.empty((0, 2)), np.empty((0, 2)), np.empty((0, 2), bool)),
    ],
)
def test_what_has_no_auroc_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RangeError, match=r"expected|needs|needed|lies in"):
        call(np.arange(8.0), np.arange(8) % 2 == 0)


def test_lists_whole_numbers_and_single_precision_are_read_as_they_are() -> None:
    rng = np.random.default_rng(13)
    scores, labels = rng.random((2, 30, 2)).astype(np.float32), np.c_[np.arange(30) % 2, np.arange(30) % 3 == 0]
    exact = macro_auroc_difference(*scores.astype(np.float64), labels.astype(bool))
    assert macro_auroc_difference(*scores, labels.astype(int)) == exact
    assert macro_auroc_difference(*scores.tolist(), labels.astype(int).tolist()) == exact
    one = auroc_difference(*scores.astype(np.float64)[..., 0], labels[:, 0].astype(bool))
    assert auroc_difference(*scores[..., 0].tolist(), labels[:, 0].astype(int).tolist()) == one
    assert auroc(scores[:, :, 0][0].tolist(), labels[:, 0].astype(int).tolist()) > 0.0


def test_an_error_names_the_label() -> None:
    scores = np.arange(16.0).reshape(8, 2)
    with pytest.raises(RangeError, match="of label 1"):
        macro_auroc_difference(scores, scores, np.c_[np.arange(8) % 2 == 0, np.zeros(8, bool)])
    with pytest.raises(RangeError, match="of label 1"):
        macro_auroc_difference(scores, scores, np.c_[np.arange(8) % 2 == 0, np.arange(8) == 0])
    with pytest.raises(RangeError, match="case, got 0 of 8"):
        auroc(scores[:, 0], np.zeros(8, bool))
