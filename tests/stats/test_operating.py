"""Thresholds from validation: enough of the fixed side come out right, and no threshold that asks less does that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from medharden.errors import RangeError
from medharden.stats import threshold_at

SCORES = st.lists(st.integers(0, 12), min_size=2, max_size=40)


@given(SCORES, st.floats(0.05, 0.95), st.sampled_from(["specificity", "sensitivity"]), st.integers(0, 2**31))
@settings(deadline=None, max_examples=150)
def test_the_fixed_side_is_reached_at_the_best_such_threshold_of_sklearns_roc(
    scores: list[int], at: float, fixed: str, seed: int
) -> None:
    values, truth = np.array(scores) / 12, np.random.default_rng(seed).random(len(scores)) < 0.5
    truth[:2] = True, False
    found = threshold_at(values, truth, fixed=fixed, at=at)
    called = values >= found
    sensitivity, specificity = called[truth].mean(), 1.0 - called[~truth].mean()
    false, true, _ = roc_curve(truth, values, drop_intermediate=False)
    if fixed == "specificity":
        assert specificity >= at - 1e-9
        assert sensitivity == pytest.approx(true[1.0 - false >= at - 1e-9].max(), abs=1e-6)
    else:
        assert sensitivity >= at - 1e-9
        assert specificity == pytest.approx((1.0 - false)[true >= at - 1e-9].max(), abs=1e-6)


def test_a_threshold_lies_between_scores_so_that_rounding_moves_no_case() -> None:
    scores, truth = np.array([0.1, 0.2, 0.3, 0.4, 0.7, 0.9]), np.array([0, 0, 0, 0, 1, 1], dtype=bool)
    assert threshold_at(scores, truth, fixed="specificity", at=0.75) == pytest.approx(0.35)
    assert threshold_at(scores, truth, fixed="sensitivity", at=0.9) == pytest.approx(0.55)
    assert threshold_at(scores, truth, fixed="specificity", at=0.9) == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("scores", "truth", "at"),
    [([0.1, 0.2], [1, 1], 0.5), ([0.1, np.nan], [0, 1], 0.5), ([0.1], [1, 0], 0.5), ([0.1, 0.2], [0, 1], 1.0)],
)
def test_what_has_no_threshold_is_refused(scores: list[float], truth: list[int], at: float) -> None:
    with pytest.raises(RangeError):
        threshold_at(np.array(scores), np.array(truth, dtype=bool), fixed="specificity", at=at)
