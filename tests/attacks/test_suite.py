"""The attack suite: who wins, what is counted, what is found, and independence of the batch size."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from attack_models import Convolutional, Linear, Wrapped, answers, threat, uniform
from torch import Tensor, nn

from medharden.attacks import SuiteResult, run_suite
from medharden.errors import RangeError
from medharden.protocol import Attack, Precision, Suite, ThreatModel
from medharden.record import Finding

CE = Attack(attack="apgd", loss="ce", steps=10)
MARGIN = Attack(attack="apgd", loss="margin", steps=10)
PGD = Attack(attack="pgd", loss="ce", steps=10, restarts=2)
SUITE = (CE, MARGIN, PGD)


def _suite(model: nn.Module, inputs: Tensor, labels: Tensor, **changed) -> SuiteResult:
    settings = {"threat": threat(eps=0.03), "suite": SUITE, "seed": 3, "batch_size": 8, **changed}
    return run_suite(model, inputs, labels, **settings)


def _mixed_cases(classes: int = 3, cases: int = 30) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, and cases of which some are wrong from the start, some fall and some stand."""
    model, inputs = Convolutional(1, classes).eval(), uniform(cases, 1, 9, 9, seed=2)
    with torch.no_grad():
        model.head[3].bias -= model(inputs).mean(0)
    labels = answers(model, inputs)
    labels[::7] = (labels[::7] + 1) % classes
    return model, inputs, labels


def _codes(result: SuiteResult) -> list[str]:
    return [finding.code for finding in result.findings]


def _finding(result: SuiteResult, code: str) -> Finding:
    return next(finding for finding in result.findings if finding.code == code)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_win_is_a_wrong_answer_and_every_other_case_stands(classes: int, norm: str) -> None:
    model, inputs, labels = _mixed_cases(classes)
    limits = threat(norm, 0.02 if norm == "linf" else 0.15)
    result = _suite(model, inputs, labels, threat=limits)
    clean_right = answers(model, inputs) == labels
    right = answers(model, result.adversarial) == labels
    won = torch.tensor([name != "" for name in result.won_by])
    assert torch.equal(right, ~won)
    assert [name == "clean" for name in result.won_by] == (~clean_right).tolist()
    assert torch.equal(result.adversarial[~clean_right], inputs[~clean_right])
    assert (result.adversarial[clean_right] != inputs[clean_right]).flatten(1).any(1).all()
    assert "" in result.won_by, "some case must stand"
    assert CE.name in result.won_by, "some case must fall"
    assert result.findings == ()


def test_counts_of_the_attacks_reconcile_with_who_won() -> None:
    model, inputs, labels = _mixed_cases()
    result = _suite(model, inputs, labels)
    assert [outcome.name for outcome in result.outcomes] == ["apgd-ce-10", "apgd-margin-10", "pgd-ce-10x2"]
    standing = sum(name != "clean" for name in result.won_by)
    for outcome in result.outcomes:
        assert outcome.cases == standing
        assert outcome.wins == result.won_by.count(outcome.name)
        assert outcome.seconds > 0
        standing -= outcome.wins
    assert standing == result.won_by.count("")


def test_the_recipe_names_everything_needed_to_repeat_the_attack() -> None:
    model, inputs, labels = _mixed_cases()
    recipe = _suite(model, inputs, labels).outcomes[2].recipe
    assert recipe == (
        "PGD (Madry et al. 2018) on the cross-entropy, 10 steps, 2 random starts, linf eps 0.03 within [0, 1], seed 3"
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_results_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    model, inputs, labels = _mixed_cases()
    model, inputs = model.double(), inputs.double()
    usual = _suite(model, inputs, labels)
    other = _suite(model, inputs, labels, batch_size=batch_size)
    assert other.won_by == usual.won_by
    torch.testing.assert_close(other.adversarial, usual.adversarial, rtol=0, atol=1e-9)


def test_results_of_a_case_do_not_depend_on_which_others_stand() -> None:
    model, inputs, labels = _mixed_cases()
    model, inputs = model.double(), inputs.double()
    usual = _suite(model, inputs, labels, suite=(PGD,))
    others_wrong = (labels + 1) % 3
    others_wrong[10:14] = labels[10:14]
    alone = _suite(model, inputs, others_wrong, suite=(PGD,))
    torch.testing.assert_close(alone.adversarial[10:14], usual.adversarial[10:14], rtol=0, atol=1e-9)


def test_the_seed_decides_the_starts_and_equal_seeds_repeat() -> None:
    model, inputs, labels = _mixed_cases()
    first, again, other = (_suite(model, inputs, labels, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.adversarial, again.adversarial)
    assert first.won_by == again.won_by
    assert not torch.equal(first.adversarial, other.adversarial)


def test_more_budget_wins_more_until_nothing_stands() -> None:
    model, inputs, labels = _mixed_cases()
    standing = [_suite(model, inputs, labels, threat=threat(eps=eps)).won_by.count("") for eps in (0.005, 0.03, 0.9)]
    assert standing[0] > standing[1] > standing[2] == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_channel_volumes_are_attacked(test_data: Path, norm: str) -> None:
    with np.load(test_data / "adrenalmnist3d_64" / "adrenalmnist3d_64.npz") as data:
        volumes = torch.from_numpy(data["val_images"][:4, ::4, ::4, 8:56:4]).unsqueeze(1) / 255
    model = Convolutional(1, 2, dims=3)
    labels = answers(model, volumes)
    limits = threat(norm, 0.03 if norm == "linf" else 1.0)
    result = _suite(model.eval(), volumes, labels, threat=limits, suite=(CE, PGD))
    assert result.adversarial.shape == (4, 1, 16, 16, 12)
    assert (answers(model, result.adversarial) != labels).tolist() == [name != "" for name in result.won_by]
    moved = (result.adversarial - volumes).flatten(1).norm(dim=1, p=torch.inf if norm == "linf" else 2)
    assert (moved <= limits.eps + 1e-6).all()
    assert result.findings == ()


def test_the_standard_suite_runs_on_two_classes() -> None:
    model, inputs, labels = _mixed_cases(classes=2, cases=6)
    result = _suite(model, inputs, labels, suite=Suite().attacks)
    assert [outcome.name for outcome in result.outcomes] == [attack.name for attack in Suite().attacks]


@pytest.mark.parametrize(
    "hide",
    [
        lambda z: torch.round(z * 4) / 4,
        lambda z: nn.functional.one_hot(z.argmax(1), z.shape[1]),
        lambda z: (z * 1e4).softmax(1),
        lambda z: z + (z - z.detach()).abs().sqrt(),
    ],
    ids=["rounded", "one-hot", "saturated", "nan"],
)
def test_a_model_that_hides_its_gradient_is_found_out(hide) -> None:
    inputs = uniform(40, 1, 5, 5)
    model = Wrapped(Linear((1, 5, 5), 3), hide).eval()
    result = _suite(model, inputs, answers(model, inputs), suite=(CE, MARGIN))
    finding = _finding(result, "attack.vanishing_gradient")
    assert finding.severity == "critical"
    assert "of 40 rightly answered cases" in finding.message


def test_a_confident_model_is_not_taken_for_one_that_hides_its_gradient() -> None:
    inputs = uniform(20, 1, 5, 5)
    model = Wrapped(Linear((1, 5, 5), 3), lambda z: z * 1000).eval()
    result = _suite(model, inputs, answers(model, inputs), suite=(CE, MARGIN), threat=threat(eps=0.3))
    assert result.won_by.count(CE.name) > 0
    assert result.findings == ()


def test_a_few_cases_without_gradient_are_no_finding() -> None:
    def flat_for_first(z: Tensor) -> Tensor:
        return torch.where(z[:, :1] > first, z.detach(), z)

    inputs = uniform(100, 1, 5, 5)
    linear = Linear((1, 5, 5), 3).eval()
    first = linear(inputs)[:, 0].sort().values[-4].item()
    model = Wrapped(linear, flat_for_first).eval()
    assert _codes(_suite(model, inputs, answers(model, inputs))) == []


def test_gradients_that_are_not_finite_are_a_finding() -> None:
    inputs = uniform(10, 1, 4, 4)
    model = Wrapped(Linear((1, 4, 4), 2), lambda z: z + (z - z.detach()).abs().sqrt()).eval()
    finding = _finding(_suite(model, inputs, answers(model, inputs)), "attack.nonfinite_gradient")
    assert finding.severity == "warning"


def test_a_win_that_a_fresh_forward_does_not_confirm_is_not_counted() -> None:
    noise, forwards = torch.Generator().manual_seed(0), [0]

    def right_at_first_then_random(z: Tensor) -> Tensor:
        forwards[0] += 1
        if forwards[0] <= 3:
            return z * 0 + torch.tensor([[1.0, 0.0]])
        return z * 1e-3 + torch.rand(z.shape, generator=noise)

    inputs, cases = uniform(60, 1, 4, 4), 60
    model = Wrapped(Linear((1, 4, 4), 2), right_at_first_then_random).eval()
    result = _suite(model, inputs, torch.zeros(cases, dtype=torch.long), suite=(CE,), batch_size=cases)
    wins = result.outcomes[0].wins
    assert 0 < wins < cases
    assert wins == result.won_by.count(CE.name)
    finding = _finding(result, "attack.unconfirmed_success")
    assert finding.message.startswith(f"{cases - wins} successes were not confirmed")


def test_a_model_in_training_mode_is_attacked_in_eval_mode_and_said_to_have_been() -> None:
    model, inputs, labels = _mixed_cases()
    usual = _suite(model, inputs, labels)
    model.train()
    model.features[1].eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    result = _suite(model, inputs, labels)
    assert torch.equal(result.adversarial, usual.adversarial)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [(f.code, f.severity) for f in result.findings] == [("attack.training_mode", "info")]


def test_wrong_answers_that_are_always_referred_cannot_be_won() -> None:
    class Guarded(Linear):
        refers = True

        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return torch.cat([logits, logits[:, 1:] + 1], 1)

    inputs = uniform(20, 1, 5, 5)
    model = Guarded((1, 5, 5), 2).eval()
    result = _suite(model, inputs, torch.zeros(20, dtype=torch.long), threat=threat(eps=0.5))
    assert set(result.won_by) == {""}
    assert (answers(model, result.adversarial) == 2).any(), "some attack must have ended in a referral"


@pytest.mark.parametrize("eps", [0.03, 0.9])
def test_progress_ends_once_and_never_falls_back(eps: float) -> None:
    model, inputs, labels = _mixed_cases()
    calls: list[tuple[str, int, int]] = []
    _suite(model, inputs, labels, threat=threat(eps=eps), progress=lambda *call: calls.append(call), stage="original")
    assert {stage for stage, _, _ in calls} == {"original"}
    done, total = [call[1] for call in calls], [call[2] for call in calls]
    assert done == sorted(done)
    assert total == sorted(total, reverse=True)
    assert [d == t for d, t in zip(done, total, strict=True)] == [False] * (len(calls) - 1) + [True]


@pytest.mark.parametrize(("classes", "eps"), [(2, 0.1), (12, 0.02)])
def test_the_time_left_that_progress_tells_of_a_suite_is_about_right(classes: int, eps: float) -> None:
    """Elsewhere each attack counts alike: five queries in a hundred would be thought half of a suite."""

    class Counting(Linear):
        seconds = 0.0

        def forward(self, x: Tensor) -> Tensor:
            Counting.seconds += len(x) * (2 if torch.is_grad_enabled() and x.requires_grad else 1)
            return super().forward(x)

    inputs = uniform(40, 1, 5, 5)
    model = Counting((1, 5, 5), classes)
    labels, told = answers(model, inputs), []
    attacks = (
        Attack(attack="apgd", loss="ce", steps=10),
        Attack(attack="apgd-t", loss="dlr", steps=8, targets=9),
        Attack(attack="fab", steps=12, targets=3),
        Attack(attack="square", steps=200),
    )

    def progress(stage: str, done: int, total: int) -> None:
        told.append((Counting.seconds, done, total))

    result = _suite(model, inputs, labels, suite=attacks, threat=threat(eps=eps), batch_size=10, progress=progress)
    assert 10 < result.won_by.count("") < 35
    (start, first, _), end = told[0], told[-1][0]
    for now, done, total in told[1:-1]:
        left = (now - start) / (done - first) * (total - done)
        assert 0.6 < left / (end - now) < 1.6


def test_an_interrupt_passes_through_and_leaves_the_model_as_it_came() -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    model, inputs, labels = _mixed_cases()
    model.train()
    with pytest.raises(KeyboardInterrupt):
        _suite(model, inputs, labels, progress=stop)
    assert all(m.training for m in model.modules())


def test_a_suite_in_which_every_clean_answer_is_wrong_attacks_nothing() -> None:
    model, inputs, _ = _mixed_cases()
    result = _suite(model, inputs, (answers(model, inputs) + 1) % 3)
    assert set(result.won_by) == {"clean"}
    assert [outcome.cases for outcome in result.outcomes] == [0, 0, 0]
    assert torch.equal(result.adversarial, inputs)
    assert result.findings == ()


def test_what_the_suite_cannot_use_is_refused() -> None:
    model, inputs, labels = _mixed_cases()
    with pytest.raises(RangeError, match=r"inputs must lie in \[0, 1\], got \[-0.5, "):
        _suite(model, inputs.index_fill(0, torch.tensor([3]), -0.5), labels)
    with pytest.raises(RangeError, match="same length, got 30 and 29"):
        _suite(model, inputs, labels[1:])
    with pytest.raises(RangeError, match=r"labels must lie in 0\.\.2"):
        _suite(model, inputs, labels + 1)
    with pytest.raises(RangeError, match="batch_size must be at least 1, got 0"):
        _suite(model, inputs, labels, batch_size=0)
    with pytest.raises(RangeError, match="input units"):
        _suite(model, inputs, labels, threat=ThreatModel(eps=2, unit="1/255"))
    with pytest.raises(RangeError, match="logits must be finite"):
        _suite(Wrapped(model, lambda z: z / 0), inputs, labels)


def test_a_success_that_only_the_faster_copy_s_rounding_gives_does_not_count() -> None:
    """A copy that answers otherwise than its model is caught: what it lets fall is sought on the model itself."""

    class Copied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)
            self.real = True

        def __deepcopy__(self, memory: dict[int, object]) -> Copied:
            twin = Copied()
            twin.real = False
            return twin

        def forward(self, inputs: Tensor) -> Tensor:
            level = inputs.flatten(1).mean(1)
            line = 0.5 if self.real else 10.0
            return torch.stack([torch.zeros_like(level), level - line], dim=1)

    inputs, labels = torch.full((3, 1, 4, 4), 0.6), torch.ones(3, dtype=torch.long)
    run = {"suite": (Attack(attack="pgd", loss="margin", steps=10),), "seed": 0, "batch_size": 3}
    near = run_suite(Copied().eval(), inputs, labels, threat=ThreatModel(eps=0.2), **run)
    assert near.won_by == ("pgd-margin-10",) * 3
    far = run_suite(Copied().eval(), inputs, labels, threat=ThreatModel(eps=0.05), **run)
    assert far.won_by == ("",) * 3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_search_on_a_faster_copy_finds_what_a_search_on_the_model_finds(precision: Precision) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    ).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = torch.rand(40, 1, 8, 8)
    labels = model(inputs).argmax(1)
    run = {"threat": ThreatModel(eps=0.05), "suite": (Attack(attack="apgd", loss="margin", steps=20),), "seed": 1}
    fast = run_suite(model, inputs, labels, **run, batch_size=40, precision=precision)
    with torch.no_grad():
        wrong = (model(fast.adversarial).argmax(1) != labels).tolist()
    assert wrong == [won != "" for won in fast.won_by]
    with patch("medharden.attacks.suite.searched", lambda model, dims, precision: model):
        slow = run_suite(model, inputs, labels, **run, batch_size=40)
    fallen = [sum(won != "" for won in result.won_by) for result in (fast, slow)]
    assert 5 < fallen[1] < 40
    assert abs(fallen[0] - fallen[1]) <= (0 if precision == "float32" else 1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model[0].weight.is_contiguous()
