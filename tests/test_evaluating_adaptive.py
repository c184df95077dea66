"""Attacks on the release as a whole, in every fusion mode: against all that an attacker could do, and by transfer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_models import threat
from torch import Tensor, nn

from medharden.attacks import SuiteResult, run_suite
from medharden.evaluating.attacked import with_transfer
from medharden.evaluating.subjects import subjects_of
from medharden.models import Classifier, HardenedClassifier
from medharden.protocol import Suite
from medharden.record import FusionRecord, ModelRecord

EPS, CASES, GRID = 0.12, 40, 61
SUITE = tuple(a.model_copy(update={"steps": min(a.steps, 40)}) for a in Suite().attacks)


class TwoPixels(nn.Module):
    """A curved classifier of images of two pixels, of which every perturbation can be tried."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, classes))
        with torch.no_grad():
            self.layers[1].weight.mul_(6)
            self.layers[1].bias.copy_(-self.layers[1].weight.sum(1) / 2)
            self.layers[3].weight.mul_(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


def released(mode: str, classes: int) -> HardenedClassifier:
    record = ModelRecord("python", "x:Two", {}, classes, 1, 2, (0.0,), (1.0,), False, "0" * 64, "0" * 64, 34)
    clean = Classifier(TwoPixels(classes, 1), record)
    branch = Classifier(TwoPixels(classes, 1), record)
    with torch.no_grad():  # a neighbour of the clean path: they agree on most images and disagree near the border
        for weight, other in zip(branch.parameters(), TwoPixels(classes, 2).parameters(), strict=True):
            weight.add_(0.35 * other)
    fusion = FusionRecord(mode, 0.6, 1.3, 0.8, 0.6, 0.02)
    return HardenedClassifier(clean, branch, fusion, torch.zeros(classes))


def harmed(model: HardenedClassifier, points: Tensor, labels: Tensor) -> Tensor:
    """(N,) wrong, and nobody is told to look: by what the release itself says."""
    said = model.assess(points)
    return (said.logits.argmax(1) != labels) & ~said.referred


def ways(model: HardenedClassifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """(N,) at how many points of a fine grid over the whole budget each case is harmed."""
    steps = torch.linspace(-EPS, EPS, GRID)
    moves = torch.cartesian_prod(steps, steps).reshape(-1, 1, 1, 2)
    return torch.stack(
        [
            harmed(model, (case + moves).clamp(0, 1), label.expand(len(moves))).sum()
            for case, label in zip(inputs, labels, strict=True)
        ]
    )


def setting(mode: str, classes: int) -> tuple[HardenedClassifier, Tensor, Tensor]:
    """A release, and cases that the clean path answers rightly."""
    model = released(mode, classes)
    inputs = torch.rand((CASES, 1, 1, 2), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model, inputs, model.clean_path(inputs).argmax(1)


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
