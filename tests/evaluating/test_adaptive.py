"""Attacks on the release as a whole, in every fusion mode: against all that an attacker could do, and by transfer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_models import threat
from two_pixels import CASES, EPS, harmed, setting, ways

from medharden.attacks import SuiteResult, run_suite
from medharden.evaluating.attacked import with_transfer
from medharden.evaluating.subjects import subjects_of
from medharden.protocol import Suite

SUITE = tuple(a.model_copy(update={"steps": min(a.steps, 40)}) for a in Suite().attacks)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("mode", ["clean", "robust", "mixed", "guarded"])
def test_the_suite_does_what_can_be_done_to_a_release_and_nothing_that_a_reader_is_told_of(
    mode: str, classes: int
) -> None:
    model, inputs, labels = setting(mode, classes)
    with torch.no_grad():
        possible = ways(model, inputs, labels)
    result = run_suite(
        model.decision_view(), inputs, labels, threat=threat(eps=EPS), suite=SUITE, seed=0, batch_size=CASES
    )
    won = torch.tensor([name != "" for name in result.won_by])
    assert (result.adversarial - inputs).abs().max() <= EPS + 1e-6
    assert torch.equal(harmed(model, result.adversarial, labels), won)
    assert won[possible >= 5].all(), "what a thousandth of the budget does must be found"
    assert 3 < int(won.sum()) < CASES
    assert not [f for f in result.findings if f.severity == "critical"]


def test_guarded_protects_some_answers_that_fall_without_it_and_not_by_hiding_them() -> None:
    (guarded, inputs, labels), (clean, _, _) = setting("guarded", 2), setting("clean", 2)
    with torch.no_grad():
        alone, both = ways(clean, inputs, labels) > 0, ways(guarded, inputs, labels) > 0
    assert int((alone & ~both).sum()) > 0
    assert not (both & ~alone).any()


def test_a_case_is_robust_only_if_what_beats_either_path_does_not_beat_the_release() -> None:
    model, inputs, labels = setting("mixed", 2)
    subjects = subjects_of(model.clean_path, model, inputs, CASES)
    suites = {
        s.name: run_suite(s.view, inputs, labels, threat=threat(eps=EPS), suite=SUITE, seed=0, batch_size=CASES)
        for s in subjects
    }
    blind: SuiteResult = replace(suites["composite"], adversarial=inputs, won_by=("",) * CASES, outcomes=())
    half = suites["original"].adversarial.clone()
    half[::2] = inputs[::2]
    suites.update(composite=blind, original=replace(suites["original"], adversarial=half))
    result = with_transfer(subjects[-1], suites, inputs, labels, CASES)
    beaten = [harmed(model, suites[name].adversarial, labels) for name in ("original", "robust_branch")]
    expected = [
        "transfer-original" if a else "transfer-robust_branch" if b else "" for a, b in zip(*beaten, strict=True)
    ]
    assert list(result.won_by) == expected
    assert set(expected) == {"transfer-original", "transfer-robust_branch", ""}
    won = torch.tensor([name != "" for name in expected])
    assert harmed(model, result.adversarial[won], labels[won]).all()
    assert [(o.name, o.cases, o.wins) for o in result.outcomes] == [
        ("transfer-original", CASES, expected.count("transfer-original")),
        (
            "transfer-robust_branch",
            CASES - expected.count("transfer-original"),
            expected.count("transfer-robust_branch"),
        ),
    ]
