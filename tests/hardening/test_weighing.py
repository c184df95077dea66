"""What each fusion weight keeps of the branch's robustness, against all that an attacker could do."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny import tiny_protocol
from two_pixels import CASES, EPS, setting, ways

from medharden.hardening.allotting import LEAST, Account
from medharden.hardening.weighing import _Search, weigh
from medharden.models import HardenedClassifier, mix, mix_findings
from medharden.protocol import Protocol


def protocol(steps: int = 20, cases: int = CASES) -> Protocol:
    fields = tiny_protocol().model_dump()
    fields["threat"]["eps"] = EPS
    fields["hardening"] |= {"probe_steps": steps, "probe_cases": cases, "batch_size": 16}
    return Protocol.model_validate(fields)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_weight_s_robustness_is_what_is_left_after_all_that_can_be_done_to_the_release(classes: int) -> None:
    model, inputs, _ = setting("mixed", classes)
    moved = copy.deepcopy(model.clean_path)
    first, last = moved.network.layers[1], moved.network.layers[3]
    with torch.no_grad():  # a clean path that is sure of itself and easily moved
        for values in (first.weight, first.bias, last.weight):
            values.mul_(3)
        fusion = replace(model.fusion, robust_temperature=2.0)
        model = HardenedClassifier(moved, model.robust_branch, fusion, model.decision_bias)
        clean, robust = model.clean_path(inputs), model.robust_branch(inputs)
        labels = robust.argmax(1)
        points, answered = weigh(
            model, inputs, labels, clean, robust, [str(n) for n in range(CASES)], protocol(), Account(10**6), None
        )
        for point in points:
            model.fusion = replace(model.fusion, weight=point.weight)
            possible = ways(model, inputs, labels)
            assert int((possible == 0).sum()) <= round(point.robust * CASES) <= int((possible < 5).sum())
            assert point.attacked == CASES
            assert torch.equal(torch.as_tensor(answered[point.weight]), model(inputs).argmax(1) == labels)
    assert len({point.robust for point in points}) > 2


def test_weights_that_are_drawn_and_not_chosen_cost_fewer_cases() -> None:
    model, inputs, labels = setting("mixed", 2)
    with torch.no_grad():
        clean, robust = model.clean_path(inputs), model.robust_branch(inputs)
    patients = [str(n) for n in range(CASES)]
    seen: list[tuple[str, int, int]] = []
    settings, account = protocol(cases=10), Account(10**6)
    points, _ = weigh(model, inputs, labels, clean, robust, patients, settings, account, lambda *now: seen.append(now))
    assert seen == [("calibrate", n, 41) for n in (0, 16, 32, 40, 41)], "three batches, and the weights drawn alone"
    assert {p.weight: p.attacked for p in points if p.weight > 0.65} == dict.fromkeys((0.7, 0.8, 0.9, 0.99), CASES)
    assert {p.attacked for p in points if p.weight < 0.65} == {10}


@pytest.mark.parametrize("paid", [0, 900, 2500])
def test_all_weights_that_may_be_chosen_are_held_against_the_same_cases_and_no_more_than_are_paid_for(
    paid: int,
) -> None:
    model, inputs, labels = setting("mixed", 2)
    with torch.no_grad():
        clean, robust = model.clean_path(inputs), model.robust_branch(inputs)
    patients, account = [str(n) for n in range(CASES)], Account(paid)
    points, answered = weigh(model, inputs, labels, clean, robust, patients, protocol(5, 20), account, None)
    (attacked,) = {p.attacked for p in points if p.weight > 0.65}
    assert attacked == LEAST if paid == 0 else LEAST < attacked <= CASES
    assert paid == 0 or account.spent <= paid
    assert all(p.attacked <= attacked for p in points)
    assert len(answered) == 9, "clean answers cost nothing more"


@pytest.mark.parametrize("weight", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("multilabel", [False, True])
def test_a_case_is_carried_by_the_branch_exactly_where_no_answer_of_the_clean_path_changes_it(
    multilabel: bool, weight: float
) -> None:
    model, inputs, labels = setting("mixed", 3)
    model.decision_bias = torch.tensor([0.4, -0.3, 0.1])
    model.multilabel, model.fusion = multilabel, replace(model.fusion, weight=weight)
    search = _Search(model, inputs, labels, protocol(steps=1), Account(0))
    draw = torch.Generator().manual_seed(0)
    search._reached = 4 * torch.randn((CASES, 3), generator=draw)
    if multilabel:
        search.labels = torch.randint(2, (CASES, 3), generator=draw).float()
    carried = search._carried(weight, torch.arange(CASES))
    said = torch.cat([600 * (2 * torch.rand((4000, 3), generator=draw) - 1), 600 * torch.eye(3)])
    for case in range(CASES):
        robust = search._reached[case].expand_as(said)
        if multilabel:
            answers = mix_findings(said, robust, model.fusion, model.decision_bias) + model.decision_bias > 0
            always = bool((answers == (search.labels[case] > 0)).all())
        else:
            answers = mix(said, robust, model.fusion, model.decision_bias) + model.decision_bias
            always = bool((answers.argmax(1) == labels[case]).all())
        assert bool(carried[case]) == always
    assert weight < 0.5 or 0 < int(carried.sum()) < CASES
