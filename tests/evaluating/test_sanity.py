"""Sanity curves: what a sound attack shows, and what an unsound one is caught at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.evaluating.sanity import few_cases, sanity_curves, sanity_findings
from medharden.evaluating.subjects import Subject
from medharden.protocol import Protocol, parse_protocol
from medharden.record import AttackOutcome, SanityPoint, SubjectOutcome


def protocol(eps: float = 0.05, cases: int = 12) -> Protocol:
    text = f"""
schema_version: 1
name: sanity
title: t
intended_use: u
threat: {{eps: {eps}}}
suite: {{sanity_cases: {cases}}}
"""
    return parse_protocol(text, "test")


class Brightness(nn.Module):
    """Answers class 1 where the mean exceeds one half; `steep` hides the gradient behind a step."""

    def __init__(self, steep: bool = False) -> None:
        super().__init__()
        self.steep = steep

    def forward(self, inputs: Tensor) -> Tensor:
        z = inputs.flatten(1).mean(1) - 0.5
        z = torch.sign(z) if self.steep else z
        return torch.stack([-z, z], 1)


def subject(model: nn.Module, inputs: Tensor, name: str = "composite") -> Subject:
    bias, none = torch.zeros(2), torch.zeros(len(inputs), dtype=torch.bool)
    return Subject(name, model, bias, model(inputs), none)


def cases(n: int = 24) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 2
    level = torch.where(labels == 1, 0.62, 0.38)
    return level[:, None, None, None].expand(n, 1, 4, 4).clone(), labels


def test_a_sound_attack_reaches_zero_with_the_whole_range_and_no_curve_rises() -> None:
    inputs, labels = cases()
    points = sanity_curves((subject(Brightness(), inputs),), inputs, labels, protocol(), 8, "cpu")
    by_eps = {p.ratio: p.robust for p in points if p.sweep == "eps"}
    # the margin is 0.12 for every case, so a budget below it wins nowhere and one above it everywhere
    assert by_eps == {0.5: 12, 1.0: 12, 2.0: 12, 4.0: 0, 20.0: 0}
    assert [p.steps for p in points if p.sweep == "steps"] == [1, 5, 20, 50]
    assert {p.cases for p in points} == {12}
    assert sanity_findings(points, ()) == ()


def test_a_model_whose_gradient_is_hidden_is_caught_at_the_whole_range() -> None:
    inputs, labels = cases()
    points = sanity_curves((subject(Brightness(steep=True), inputs),), inputs, labels, protocol(0.01), 8, "cpu")
    assert "sanity.whole_range_survived" in {f.code for f in sanity_findings(points, ())}


class Trap(nn.Module):
    """`Brightness` with a hollow between the clean cases and the boundary: one long step leaps it, short ones stay."""

    def forward(self, inputs: Tensor) -> Tensor:
        off = inputs.flatten(1).mean(1) - 0.5
        held = torch.where(off.abs() < 0.085, -1.0, 1 + 400 * (off.abs() - 0.115).square())
        z = off.sign() * held
        return torch.stack([-z, z], 1)


def test_a_model_that_withstands_more_steps_better_than_fewer_is_caught() -> None:
    inputs, labels = cases()
    points = sanity_curves((subject(Trap(), inputs),), inputs, labels, protocol(), 8, "cpu")
    (finding,) = (f for f in sanity_findings(points, ()) if f.code == "sanity.accuracy_rises")
    assert finding.severity == "critical"
    assert "more steps" in finding.message


def test_a_curve_that_rises_is_named_with_what_was_raised() -> None:
    falling = (("eps", 1.0, 20, 20), ("eps", 20.0, 20, 0))
    rising = (("steps", 1.0, 1, 10), ("steps", 1.0, 50, 18))
    points = tuple(SanityPoint("composite", s, r, 0.05 * r, n, 32, left) for s, r, n, left in (*falling, *rising))
    (finding,) = sanity_findings(points, ())
    assert finding.code == "sanity.accuracy_rises"
    assert "more steps leaves 8 cases more standing, of 32" in finding.message


def test_doubt_about_the_release_is_critical_and_about_the_original_a_warning() -> None:
    for name, severity in (("composite", "critical"), ("original", "warning")):
        points = tuple(SanityPoint(name, "eps", r, 0.05 * r, 20, 32, 20) for r in (1.0, 20.0))
        points += (SanityPoint(name, "steps", 1.0, 0.05, 20, 32, 20),)
        assert [(f.code, f.severity) for f in sanity_findings(points, ())] == [
            ("sanity.whole_range_survived", severity)
        ]


def test_transferred_perturbations_that_beat_the_suite_are_named() -> None:
    attacks = (AttackOutcome("pgd", "r", 100, 10, 1.0), AttackOutcome("transfer-original", "r", 90, 30, 0.0))
    (finding,) = sanity_findings((), (SubjectOutcome("composite", 100, 100, 100, 60, 0, attacks),))
    assert finding.code == "sanity.transfer_beats_white_box"


def test_no_sanity_cases_measure_nothing() -> None:
    inputs, labels = cases()
    assert sanity_curves((subject(Brightness(), inputs),), inputs, labels, protocol(cases=0), 8, "cpu") == ()


def test_the_curves_take_a_tenth_of_the_suite_at_most_and_say_where_that_leaves_fewer_cases() -> None:
    inputs, labels = cases()
    few = sanity_curves((subject(Brightness(), inputs),), inputs, labels, protocol(cases=20), 8, "cpu", suite_work=0)
    assert {p.cases for p in few} == {16}
    (finding,) = few_cases(few, protocol(cases=20), len(inputs))
    assert (finding.code, finding.severity) == ("sanity.few_cases", "info")
    whole = sanity_curves((subject(Brightness(), inputs),), inputs, labels, protocol(), 8, "cpu", suite_work=10**9)
    assert few_cases(whole, protocol(), len(inputs)) == ()


def test_the_bar_of_the_curves_ends_at_its_total() -> None:
    inputs, labels = cases()
    seen: list[tuple[int, int]] = []
    one = (subject(Brightness(), inputs),)
    sanity_curves(one, inputs, labels, protocol(), 8, "cpu", lambda _, done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
