"""Ordinal tasks: endpoints on grades, attacks that must move an answer by one grade or by two, the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gating_factory as factory
import numpy as np
import pytest
import torch
from gating_factory import Records, records
from torch import nn

from medharden.attacks import Criterion, run_suite
from medharden.errors import ProtocolError, RangeError
from medharden.gating import gate
from medharden.protocol import Attack, Protocol, ThreatModel, parse_protocol
from medharden.record import Endpoint, Verdict
from medharden.reporting import render
from medharden.stats import quadratic_kappa

GRADES = ("none", "mild", "moderate", "severe")
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def rules(moved: int = 1, **more: float) -> Protocol:
    content = factory.protocol(positive=None, margins=(0.15, 0.19), classes=GRADES).model_dump(mode="python")
    content["task"] |= {"kind": "ordinal", "classes": GRADES}
    content["suite"]["moved_grades"] = moved
    margins = {"quadratic_kappa": 0.1, "grade_error": 0.15, "within_one_grade": 0.05} | more
    content["endpoints"]["noninferiority"] = (
        *content["endpoints"]["noninferiority"],
        *({"metric": metric, "margin": margin} for metric, margin in margins.items()),
    )
    return Protocol.model_validate(content)


def graded(lost: int, by: int, n: int = 2000) -> Records:
    """So many cases that the release alone answers this many grades off."""
    made = records(n, rules=rules(), classes=GRADES)
    released = made.cases.subjects["composite"]
    rows = np.flatnonzero(made.cases.right("composite") & ~released.robust)[:lost]
    label = made.cases.label[rows]
    predicted, p = released.predicted.copy(), released.probabilities.copy()
    predicted[rows] = np.where(label + by < len(GRADES), label + by, label - by)
    p[rows], p[rows, predicted[rows]] = 0.2 / 3, 0.8
    won = np.array(released.won_by, dtype=object)
    won[rows] = "clean"
    moved = replace(released, predicted=predicted, probabilities=p, won_by=tuple(won.tolist()))
    table = replace(made.cases, subjects=made.cases.subjects | {"composite": moved})
    return replace(made, cases=table, evaluation=factory.evaluation(made.protocol, table, GRADES))


def named(made: Records) -> dict[str, Endpoint]:
    return {e.name: e for e in made.decide().endpoints}


def test_adjacent_errors_are_told_from_distant_ones_that_are_as_many() -> None:
    near, far = named(graded(160, 1)), named(graded(160, 2))
    assert near["accuracy"].table == far["accuracy"].table
    assert (near["within_one_grade"].verdict, far["within_one_grade"].verdict) == (PASS, FAIL)
    assert near["grade_error"].estimate == pytest.approx(160 / 2000)
    assert far["grade_error"].estimate == pytest.approx(2 * 160 / 2000)
    assert (near["grade_error"].verdict, far["grade_error"].verdict) == (PASS, FAIL)
    assert near["quadratic_kappa"].estimate > far["quadratic_kappa"].estimate
    assert (near["quadratic_kappa"].verdict, far["quadratic_kappa"].verdict) == (PASS, FAIL)


def test_kappa_is_of_the_answers_as_given() -> None:
    made = graded(30, 1)
    values = [
        quadratic_kappa(made.cases.subjects[s].predicted, made.cases.label, 4)[0] for s in ("original", "composite")
    ]
    assert named(made)["quadratic_kappa"].estimate == pytest.approx(values[1] - values[0])
    assert named(graded(0, 1))["quadratic_kappa"].verdict is PASS
    assert named(graded(0, 1, n=60))["quadratic_kappa"].verdict is INCONCLUSIVE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: {kind: ordinal}", "three grades or more"),
        ("task: {kind: ordinal, classes: [a, b]}", "three grades or more"),
        ("task: {classes: [a, b, c, d]}\nsuite: {name: standard, moved_grades: 2}", "suite.moved_grades 2"),
        ("task: {kind: ordinal, classes: [a, b, c]}\nsuite: {name: standard, moved_grades: 2}", "4 grades or more"),
        (
            "endpoints: {noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.1}, "
            "{metric: quadratic_kappa, margin: 0.1}]}",
            "quadratic_kappa is not for task.kind multiclass",
        ),
    ],
)
def test_what_is_of_grades_alone_is_refused_elsewhere(text: str, said: str) -> None:
    head = "schema_version: 1\nname: a\ntitle: A\nintended_use: T.\nthreat: {eps: 0.1}\n"
    with pytest.raises(ProtocolError, match=said):
        parse_protocol(head + text + "\n", "a.yaml")


# --- attacks ----------------------------------------------------------------------------------------------------------


class Banded(nn.Module):
    """One pixel in [0, 1] as a grade of four: logits fall with the distance from the middle of each band."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("middles", torch.tensor([0.125, 0.375, 0.625, 0.875]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return -((inputs.flatten(1).mean(1, keepdim=True) - self.get_buffer("middles")) ** 2) * 60


INPUTS = torch.tensor([0.2, 0.3, 0.3, 0.6])[:, None, None, None].expand(4, 1, 2, 2).contiguous()
LABELS = torch.tensor([0, 1, 2, 2])
SUITE = (Attack(attack="pgd", loss="margin", steps=20), Attack(attack="apgd", loss="ce", steps=20))


@pytest.mark.parametrize(("eps", "near", "far"), [(0.04, 0, 0), (0.12, 3, 0), (0.32, 3, 1)])
def test_an_attack_wins_by_the_grades_that_it_must_move_and_a_wrong_clean_answer_stands_under_none(
    eps: float, near: int, far: int
) -> None:
    # to the next band it is .05, .05 and .1; to the second next .3 for the first case, .4 and more for the others
    for reach, wins in ((1, near), (2, far)):
        result = run_suite(
            Banded(), INPUTS, LABELS, threat=ThreatModel(eps=eps), suite=SUITE, seed=1, batch_size=4, reach=reach
        )
        assert result.won_by[2] == "clean"
        assert sum(name not in ("", "clean") for name in result.won_by) == wins


def test_the_criterion_counts_distance_and_its_margin_changes_sign_where_it_wins() -> None:
    labels, logits = torch.tensor([0, 0, 0, 3]), torch.eye(4)[[0, 1, 2, 1]] * 5
    two = Criterion(labels, reach=2)
    assert two.won(logits).tolist() == [False, False, True, True]
    assert two.exact.won(logits).tolist() == [False, True, True, True]
    assert ((two.margin(logits) > 0) == two.won(logits)).all()
    assert torch.isfinite(two.cross_entropy(logits)).all()
    assert two.rivals(logits, 9).shape[1] == 2
    with pytest.raises(RangeError, match="takes 4"):
        Criterion(torch.tensor([1]), reach=2).won(torch.zeros(1, 3))


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_has_the_distances_and_kappa(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    factory.write_run(run, graded(40, 2))
    gate(run)
    render(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "2 grades off" in page
    assert "Quadratic kappa" in page
    assert "Mean absolute error in grades" in page
