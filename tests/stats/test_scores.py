"""ROC corners and reliability bins against counts done by hand and against another implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve as peer_curve

from medharden.errors import RangeError
from medharden.stats import auroc, calibration_error, reliability, roc_curve


def test_the_corners_are_those_counted_by_hand() -> None:
    x, y = roc_curve([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True, True, False, True, False, False])
    assert x.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1])
    assert y.tolist() == pytest.approx([0, 2 / 3, 2 / 3, 1, 1])


def test_a_score_that_tells_nothing_apart_is_the_diagonal() -> None:
    x, y = roc_curve([0.5] * 6, [True, False] * 3)
    assert (x.tolist(), y.tolist()) == ([0, 1], [0, 1])


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_the_area_under_the_corners_is_the_auroc_and_the_corners_are_the_peers(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([r[0] / 6 for r in rows]), np.array([r[1] for r in rows])
    if positive.all() or not positive.any():
        with pytest.raises(RangeError):
            roc_curve(scores, positive)
        return
    x, y = roc_curve(scores, positive)
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    assert area == pytest.approx(auroc(scores, positive))
    other_x, other_y, _ = peer_curve(positive, scores, drop_intermediate=False)
    theirs = set(zip(other_x.round(9).tolist(), other_y.round(9).tolist(), strict=True))
    assert set(zip(x.round(9).tolist(), y.round(9).tolist(), strict=True)) <= theirs


def test_bins_hold_their_cases_and_the_error_weighs_their_gaps() -> None:
    bins = reliability([0.05, 0.05, 0.95, 1.0], [False, True, True, True])
    assert [(b.lower, b.upper, b.cases, b.happened) for b in bins] == [(0.0, 0.1, 2, 0.5), (0.9, 1.0, 2, 1.0)]
    assert bins[1].probability == pytest.approx(0.975)
    assert bins[0].interval[0] < 0.5 < bins[0].interval[1]
    assert calibration_error(bins) == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)


def test_a_perfect_model_has_an_error_of_calibration_in_few_cases_so_that_none_decides() -> None:
    rng = np.random.default_rng(0)

    def error(cases: int) -> float:
        truth = rng.random((200, cases))
        return float(np.mean([calibration_error(reliability(p, rng.random(cases) < p)) for p in truth]))

    assert error(100) > 0.08
    assert 0.03 < error(500) < 0.06


@pytest.mark.parametrize("values", [[1.2, 0.1], [-0.1, 0.1], [float("nan"), 0.1], [0.1]])
def test_what_is_no_probability_is_refused(values: list[float]) -> None:
    with pytest.raises(RangeError):
        reliability(values, [True, False])
