"""Scores over findings of which some are masked: as if each were taken on the cases that know it."""

from __future__ import annotations

import numpy as np
import pytest

from medharden.errors import RangeError
from medharden.stats import auroc, auroc_difference, finding_brier_difference, macro_auroc_difference
from medharden.stats.sampling import stratified_sample

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.random((120, 3)) < 0.4
OLD = np.clip(0.3 * TRUTH + 0.7 * RANDOM.random((120, 3)), 0, 1)
NEW = np.clip(OLD + 0.1 * RANDOM.standard_normal((120, 3)), 0, 1)
KNOWN = RANDOM.random((120, 3)) < 0.7
KNOWN[:, 0] |= ~KNOWN.any(axis=1)
PATIENTS = [f"p{n // 2}" for n in range(120)]


def test_a_mean_auroc_is_the_mean_over_findings_of_that_on_their_known_cases() -> None:
    found = macro_auroc_difference(NEW, OLD, TRUTH, known=KNOWN, patients=PATIENTS)
    columns = [
        auroc(NEW[rows, k], TRUTH[rows, k]) - auroc(OLD[rows, k], TRUTH[rows, k]) for k, rows in enumerate(KNOWN.T)
    ]
    assert found.estimate == pytest.approx(np.mean(columns))
    assert found.interval[0] < found.estimate < found.interval[1]


def test_one_masked_column_has_the_limits_of_the_column_on_its_known_cases() -> None:
    rows = KNOWN[:, 1]
    one = macro_auroc_difference(NEW[:, 1:2], OLD[:, 1:2], TRUTH[:, 1:2], known=rows[:, None])
    alone = auroc_difference(NEW[rows, 1], OLD[rows, 1], TRUTH[rows, 1])
    assert one.estimate == pytest.approx(alone.estimate)
    assert one.error == pytest.approx(alone.error, rel=0.02)


def test_what_stands_where_a_label_is_masked_changes_nothing() -> None:
    for score in (macro_auroc_difference, finding_brier_difference):
        given = score(NEW, OLD, TRUTH, known=KNOWN, patients=PATIENTS)
        other = score(
            np.where(KNOWN, NEW, 1 - NEW), np.where(KNOWN, OLD, 0.0), TRUTH ^ ~KNOWN, known=KNOWN, patients=PATIENTS
        )
        assert given == other
        everything = score(NEW, OLD, TRUTH, known=np.ones_like(TRUTH), patients=PATIENTS)
        assert everything == score(NEW, OLD, TRUTH, patients=PATIENTS)


def test_the_brier_score_of_a_case_is_the_mean_over_its_known_findings() -> None:
    found = finding_brier_difference(NEW, OLD, TRUTH, known=KNOWN)
    change = (NEW - TRUTH) ** 2 - (OLD - TRUTH) ** 2
    by_hand = np.mean([change[n, KNOWN[n]].mean() for n in range(len(change))])
    assert found.estimate == pytest.approx(by_hand)
    with pytest.raises(RangeError, match="each case needs a label that counts"):
        finding_brier_difference(NEW, OLD, TRUTH, known=KNOWN & (np.arange(120) > 0)[:, None])
    with pytest.raises(RangeError, match="a flag for each label"):
        macro_auroc_difference(NEW, OLD, TRUTH, known=KNOWN[:, :1])


def test_a_sample_is_drawn_alike_from_labels_with_nan_and_from_those_of_a_table() -> None:
    states = np.where(KNOWN, TRUTH.astype(np.int64), -1)
    labels = np.where(KNOWN, TRUTH.astype(np.float32), np.nan)
    assert stratified_sample(labels, 40, 3).tolist() == stratified_sample(states, 40, 3).tolist()
    masked = (~KNOWN).any(1).mean()
    assert (~KNOWN)[stratified_sample(labels, 60, 3)].any(1).mean() == pytest.approx(masked, abs=0.1)
