"""The curve over budgets on a linear model, whose margins are known: each case falls at the budget that it falls at."""

from __future__ import annotations

from dataclasses import replace

import gating_factory as factory
import numpy as np
import pytest
import torch
from attack_models import uniform
from torch import Tensor, nn

from medharden.attacks import SuiteResult, run_suite
from medharden.evaluating.curve import withstood
from medharden.evaluating.subjects import Subject
from medharden.models import DecisionView
from medharden.protocol import Protocol, parse_protocol
from medharden.record import CURVE_RATIOS, CurvePoint, Verdict
from medharden.stats import case_areas, mean_area

N = 60


class Line(nn.Module):
    """Two logits, of which the margin falls by exactly eps times the sum of weights' sizes where nothing clips."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 16))

    def forward(self, inputs: Tensor) -> Tensor:
        score = (inputs.flatten(1) - 0.5) @ self.weight
        return torch.stack([-score / 2, score / 2], dim=1)


def rules(norm: str = "linf", steps: int = 10) -> Protocol:
    head = "schema_version: 1\nname: t\ntitle: t\nintended_use: t\n"
    suite = f"suite: {{attacks: [{{attack: apgd, steps: 20}}], curve_steps: {steps}, reason: Tests are quick.}}\n"
    return parse_protocol(head + f"threat: {{norm: {norm}, eps: 0.05}}\n" + suite, "t.yaml")


def measured(protocol: Protocol) -> tuple[Tensor, Tensor, SuiteResult]:
    """What each case withstands, its margin in multiples of the budget (below 0 where wrong), the suite's result."""
    model, inputs = Line().eval(), 0.5 + 0.6 * (uniform(N, 1, 4, 4, seed=3) - 0.5)
    with torch.no_grad():
        scores = model(inputs).diff(dim=1)[:, 0]
        labels = (scores > 0).long()
        labels[:6] = 1 - labels[:6]
    dual = model.weight.abs().sum() if protocol.threat.norm == "linf" else model.weight.norm()
    margins = (scores * (2 * labels - 1) / (dual * protocol.threat.eps)).detach()
    view = DecisionView(model, torch.zeros(2))
    suite = {"threat": protocol.input_threat, "suite": protocol.suite.attacks, "seed": 1, "batch_size": 16}
    result = run_suite(view, inputs, labels, **suite)  # type: ignore[arg-type]
    none = torch.zeros(N, dtype=torch.bool)
    subjects = tuple(Subject(name, view, torch.zeros(2), view(inputs), none) for name in ("original", "composite"))
    found = withstood(subjects, {s.name: result for s in subjects}, inputs, labels, protocol, 16, "cpu")
    assert set(found) == {"original", "composite"}
    return found["composite"], margins, result


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_case_stands_to_the_budget_of_its_margin(norm: str) -> None:
    stands, margins, _ = measured(rules(norm))
    for value, margin in zip(stands.tolist(), margins.tolist(), strict=True):
        if any(abs(margin / ratio - 1) < 0.03 for ratio in CURVE_RATIOS):
            continue  # within what a few steps leave
        expected = -1.0 if margin < 0 else max((r for r in CURVE_RATIOS if r < margin), default=0.0)
        assert value == expected
    assert set(stands.tolist()) == {-1.0, 0.0, *CURVE_RATIOS}


def test_at_the_protocols_budget_the_curve_is_the_suite() -> None:
    stands, _, result = measured(rules())
    assert [s >= 1 for s in stands.tolist()] == [won == "" for won in result.won_by]


def test_no_steps_measure_no_curve() -> None:
    assert withstood((), {}, torch.zeros(0, 1, 4, 4), torch.zeros(0), rules(steps=0), 8, "cpu") == {}


def test_the_area_is_that_under_the_accuracy_of_all_cases() -> None:
    random = np.random.default_rng(0)
    stands = random.choice([-1.0, 0.0, *CURVE_RATIOS], size=200)
    grid = np.array([0.0, *CURVE_RATIOS])
    accuracy = np.array([(stands >= at).mean() for at in grid])
    for upto, points in ((1.0, 4), (2.0, 6)):
        sides = (accuracy[: points - 1] + accuracy[1:points]) / 2 * np.diff(grid[:points])
        assert case_areas(stands, CURVE_RATIOS, upto).mean() == pytest.approx(sides.sum() / upto)
    assert case_areas([2.0, -1.0], CURVE_RATIOS, 2.0).tolist() == [1.0, 0.0]


def test_limits_of_areas_hold_and_widen_where_patients_repeat() -> None:
    random, truth, missed = np.random.default_rng(1), 0.5, 0
    for _ in range(200):
        area = mean_area(random.beta(1, 1, 40), None)
        missed += not area.lower <= truth <= area.upper
    assert missed <= 12  # 10 of 200 are allowed, and these limits are cautious
    values = np.repeat(random.beta(1, 1, 20), 3)
    alone, together = mean_area(values), mean_area(values, [f"p{n // 3}" for n in range(60)])
    assert together.upper - together.lower > alone.upper - alone.lower
    same = mean_area(np.zeros(50), lowest=-1.0)
    assert same.lower < 0 < same.upper  # equal curves of 50 cases show no equality


def curved(made: factory.Records) -> factory.Records:
    """The records with a curve that fits them."""
    subjects, points = dict(made.cases.subjects), []
    for name in ("original", "composite"):
        right, robust = made.cases.right(name), subjects[name].robust
        stands = np.where(made.cases.attacked & right, np.where(robust, 1.5, 0.5), -1.0)
        subjects[name] = replace(subjects[name], withstands=stands)
        held = stands[made.cases.attacked]
        points += [
            CurvePoint(name, ratio, 0.01 * ratio, "pgd", len(held), int((held >= ratio).sum()))
            for ratio in (0.0, *CURVE_RATIOS)
        ]
    cases = replace(made.cases, subjects=subjects)
    return replace(made, cases=cases, evaluation=replace(made.evaluation, curve=tuple(points)))


def test_a_curve_that_fits_decides_nothing_and_one_that_does_not_is_invalid() -> None:
    made = curved(factory.records())
    assert made.decide().verdict is factory.records().decide().verdict is Verdict.PASS
    (first, *others) = made.evaluation.curve
    counted = replace(made, evaluation=replace(made.evaluation, curve=(replace(first, standing=1), *others)))
    stands = made.cases.subjects["composite"].withstands
    assert stands is not None
    better = made.with_subject("composite", withstands=np.full_like(stands, 2.0))
    between = made.with_subject("composite", withstands=np.where(stands == 1.5, 1.2, stands))
    missing = made.with_subject("composite", withstands=None)
    for broken in (counted, better, between, missing):
        assert broken.decide().verdict is Verdict.INVALID
