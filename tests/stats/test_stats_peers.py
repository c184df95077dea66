"""Tango, DeLong, Brier and Holm against medagentrx, which was written apart from this package."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medharden.stats import (
    auroc_difference,
    brier_difference,
    finding_brier_difference,
    holm,
    tango_interval,
    tango_statistic,
)

peer_auroc = pytest.importorskip("medagentrx.stats.delong", reason="medagentrx is not installed")
peer_holm = pytest.importorskip("medagentrx.stats.multiplicity", reason="medagentrx is not installed")
peer_scores = pytest.importorskip("medagentrx.stats.metrics", reason="medagentrx is not installed")
peer_tango = pytest.importorskip("medagentrx.stats.proportions", reason="medagentrx is not installed")


def tables(seed: int, runs: int) -> list[tuple[int, int, int]]:
    """Counts gained, lost and cases; every fifth without a discordant case."""
    rng = np.random.default_rng(seed)
    found = []
    for run in range(runs):
        cases = int(rng.integers(1, 2000))
        discordant = 0 if run % 5 == 0 else int(rng.integers(0, cases + 1))
        gained = int(rng.integers(0, discordant + 1))
        found.append((gained, discordant - gained, cases))
    return found


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95, 0.99])
def test_tangos_limits_and_statistic_equal_medagentrxs(level: float) -> None:
    for gained, lost, cases in tables(1, 150):
        expected = peer_tango.tango_interval(gained, lost, cases, level)
        assert tango_interval(gained, lost, cases, level=level) == pytest.approx(expected, abs=1e-11)
        for difference in (-0.3, -0.02, 0.0, 0.05):
            found = tango_statistic(gained, lost, cases, difference)
            score = peer_tango.tango_score(gained, lost, cases, difference)
            assert found == pytest.approx(score, rel=1e-9, abs=1e-9)


def test_changes_of_auroc_and_their_errors_equal_medagentrxs() -> None:
    rng = np.random.default_rng(2)
    for _ in range(80):
        cases, values = int(rng.integers(12, 200)), int(rng.integers(3, 40))
        positive = np.arange(cases) % int(rng.integers(2, 5)) == 0
        new, old = (rng.integers(0, values, cases) / values for _ in range(2))
        expected = peer_auroc.delong(positive.astype(int), new, old)
        error = math.sqrt(expected.cov[0, 0] + expected.cov[1, 1] - 2.0 * expected.cov[0, 1])
        found = auroc_difference(new, old, positive)
        assert found.estimate == pytest.approx(expected.auc[0] - expected.auc[1], abs=1e-12)
        assert found.degenerate == (error < 1e-9)
        if not found.degenerate:
            assert found.estimate / found.statistic == pytest.approx(error, rel=1e-9)


def test_changes_of_the_brier_score_equal_medagentrxs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        cases = int(rng.integers(5, 200))
        new, old, truth = rng.random(cases), rng.random(cases), rng.integers(0, 2, cases)
        expected = peer_scores.brier_score(truth, new) - peer_scores.brier_score(truth, old)
        pair = (np.stack([1.0 - new, new], 1), np.stack([1.0 - old, old], 1))
        assert brier_difference(*pair, truth).estimate == pytest.approx(2.0 * expected, abs=1e-12)
        one = finding_brier_difference(new[:, None], old[:, None], truth[:, None] == 1)
        assert one.estimate == pytest.approx(expected, abs=1e-12)


def test_holms_adjusted_p_values_equal_medagentrxs() -> None:
    rng = np.random.default_rng(4)
    for _ in range(100):
        p_values = (rng.random(int(rng.integers(1, 9))) ** 3).tolist()
        expected = peer_holm.holm(p_values, 0.025)
        assert holm(p_values) == pytest.approx(expected.adjusted_p)
        assert ((holm(p_values) <= 0.025) == np.array(expected.rejected)).all()
