"""Choosing the fusion weight and the referral threshold from validation answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_protocol

from medharden.hardening import calibration, choosing
from medharden.models import refers, support
from medharden.record import FrontierPoint, FusionRecord
from medharden.stats import clopper_pearson_interval

CASES = 300
PATIENTS = [str(i) for i in range(CASES)]
FUSION = FusionRecord(
    mode="guarded",
    weight=0.5,
    clean_temperature=1.0,
    robust_temperature=2.0,
    referral_threshold=0.0,
    referral_rate=0.0,
)


def point(weight: float, lost: int, robust: float) -> FrontierPoint:
    return FrontierPoint(
        weight=weight, gained=0, lost=lost, cases=CASES, lower=-1.0, upper=0.0, robust=robust, attacked=100
    )


def right(lost: int) -> np.ndarray:
    answers = np.ones(CASES, dtype=bool)
    answers[:lost] = False
    return answers


def choose(
    lost: dict[float, int], robust: dict[float, float], *, margin: float = 0.001, patients: list[str] | None = None
) -> tuple[float, list[str]]:
    points = tuple(point(weight, lost[weight], robust[weight]) for weight in lost)
    answers = {0.0: right(0)} | {weight: right(count) for weight, count in lost.items()}
    parts = (choosing.Part(np.arange(CASES), margin),)
    weight, findings = choosing.choose(points, answers, parts, np.asarray(patients or PATIENTS), 0.025)
    return weight, [f.code for f in findings]


@pytest.mark.parametrize(("lost", "chosen"), [(1, 0.99), (2, 0.7), (9, 0.7)])
def test_a_case_does_not_outweigh_robustness_and_several_do_where_validation_shows_no_weight(
    lost: int, chosen: float
) -> None:
    weight, findings = choose({0.7: 0, 0.99: lost}, {0.7: 0.70, 0.99: 0.85})
    assert weight == chosen
    assert findings == ["fusion.not_shown_on_validation"]


def test_the_losses_of_one_patient_are_one_standard_error() -> None:
    lost, robust = {0.7: 0, 0.99: 4}, {0.7: 0.70, 0.99: 0.85}
    assert choose(lost, robust, patients=["a"] * 4 + PATIENTS[4:])[0] == 0.99
    assert choose(lost, robust)[0] == 0.7


def test_the_most_robust_weight_that_validation_shows_is_taken_whatever_it_loses() -> None:
    lost = {0.7: 0, 0.8: 5, 0.99: 40}
    assert choose(lost, {0.7: 0.70, 0.8: 0.8, 0.99: 0.85}, margin=0.06) == (0.8, [])


def test_among_equally_robust_weights_the_smallest_is_taken_though_another_answers_a_case_more_rightly() -> None:
    robust = dict.fromkeys((0.7, 0.8, 0.9), 0.85)
    assert choose({0.7: 2, 0.8: 2, 0.9: 3}, robust)[0] == 0.7
    assert choose({0.7: 3, 0.8: 2, 0.9: 2}, robust, margin=0.06)[0] == 0.7


def test_a_smaller_weight_that_keeps_nearly_all_robustness_is_preferred() -> None:
    assert choose({0.7: 2, 0.99: 2}, {0.7: 0.83, 0.99: 0.85})[0] == 0.7
    assert choose({0.7: 2, 0.99: 2}, {0.7: 0.82, 0.99: 0.85})[0] == 0.99


@pytest.mark.parametrize(("attacked", "chosen"), [(100, 0.99), (400, 0.7)])
def test_that_a_smaller_weight_keeps_95_percent_has_to_hold_by_one_standard_error(attacked: int, chosen: float) -> None:
    points = tuple(replace(point(w, 2, r), attacked=attacked) for w, r in ((0.7, 0.82), (0.99, 0.85)))
    parts, answers = (choosing.Part(np.arange(CASES), 0.001),), {0.0: right(0), 0.7: right(2), 0.99: right(2)}
    assert choosing.choose(points, answers, parts, np.asarray(PATIENTS), 0.025)[0] == chosen


def test_no_weight_is_chosen_at_which_a_robust_answer_would_have_to_be_surer_than_robust_answers_are() -> None:
    assert choose({0.5: 0, 0.6: 0, 0.7: 3}, {0.5: 0.99, 0.6: 0.99, 0.7: 0.1})[0] == 0.7


def test_a_weight_that_gains_accuracy_and_loses_a_class_is_not_taken() -> None:
    labels = torch.tensor([0] * 200 + [1] * 100)
    protocol = tiny_protocol()
    before, harmful = np.ones(CASES, dtype=bool), np.ones(CASES, dtype=bool)
    before[:60], harmful[200:250] = False, False
    answers = {0.0: before, 0.7: before, 0.99: harmful}
    points = (point(0.7, 0, 0.70), point(0.99, 50, 0.85))
    parts = choosing.gated_parts(labels, protocol, ("no", "yes"))
    weight, _ = choosing.choose(points, answers, parts, np.asarray(PATIENTS), 0.025)
    assert int(harmful.sum()) > int(before.sum())
    assert weight == 0.7


@pytest.mark.parametrize("classes", [2, 3])
def test_the_referral_threshold_uses_the_budget_that_validation_can_carry(classes: int) -> None:
    draw = torch.Generator().manual_seed(0)
    clean = 3 * torch.randn(400, classes, generator=draw)
    robust, bias = clean + 0.2 * torch.randn(400, classes, generator=draw), torch.zeros(classes)
    rates = []
    for budget in (0.08, 0.16, 0.24):
        protocol = tiny_protocol(f"fusion: {{mode: guarded, referral_budget: {budget}}}\n")
        fusion, findings = calibration._guard(FUSION, clean, robust, bias, protocol)
        referred = refers(clean, robust, bias, fusion)
        count = int(referred.sum())
        assert findings == ()
        assert fusion.referral_rate == pytest.approx(count / 400)
        upper = [clopper_pearson_interval(n, 400, level=0.95)[1] for n in (count, count + 1)]
        assert upper[0] <= budget < upper[1]
        rates.append(fusion.referral_rate)
    assert rates[0] < rates[1] < rates[2]


def test_a_saturated_branch_that_agrees_refers_nothing() -> None:
    logits = torch.tensor([[200.0, -200.0]]).repeat(300, 1)
    fusion, _ = calibration._guard(FUSION, logits, logits, torch.zeros(2), tiny_protocol("fusion: {mode: guarded}\n"))
    assert fusion.referral_rate == 0


def test_support_is_the_calibrated_probability_of_the_class_with_the_decision_threshold_at_one_half() -> None:
    robust, bias = torch.randn(50, 3), torch.tensor([0.0, 0.7, -0.2])
    expected = ((robust + bias) / 2.0).softmax(1)
    torch.testing.assert_close(support(robust, bias, FUSION).sigmoid(), expected)
