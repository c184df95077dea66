"""Models that hide from attacks instead of withstanding them: each is found out, and honest ones are not accused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_models import Backward, Convolutional, Linear, Wrapped, answers, threat, uniform
from torch import Tensor, nn

from medharden.attacks import SuiteResult, run_suite
from medharden.attacks.searching import with_surrogate_slopes
from medharden.evaluating.outcomes import findings_of
from medharden.protocol import Attack, parse_protocol
from medharden.record import CaseTable, Identity, SubjectTable

SUITE = (
    Attack(attack="apgd", loss="ce", steps=8),
    Attack(attack="apgd", loss="margin", steps=8),
    Attack(attack="square", steps=80),
)
PGD = Attack(attack="pgd", loss="margin", steps=10)
CASES = 40


def _suite(model: nn.Module, inputs: Tensor, labels: Tensor | None = None, eps: float = 0.05, **changed) -> SuiteResult:
    labels = answers(model, inputs) if labels is None else labels
    settings = {"threat": threat(eps=eps), "suite": SUITE, "seed": 1, "batch_size": 64, **changed}
    return run_suite(model, inputs, labels, **settings)


def _critical(result: SuiteResult) -> set[str]:
    return {f.code for f in result.findings if f.severity == "critical"}


class Distorted(nn.Module):
    """A linear model whose gradients are changed on their way back."""

    def __init__(self, change) -> None:
        super().__init__()
        self.plain, self.change = Linear((1, 6, 6), 3), change

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(Backward.apply(x, self.change))


def test_gradients_turned_downhill_are_misleading() -> None:
    result = _suite(Distorted(lambda g: -g).eval(), uniform(CASES, 1, 6, 6))
    assert "attack.misleading_gradient" in _critical(result)
    (finding,) = [f for f in result.findings if f.code == "attack.misleading_gradient"]
    assert finding.message.startswith(f"For {CASES} of {CASES} rightly answered cases")


def test_one_gradient_whatever_the_case_is_misleading_for_a_class() -> None:
    model = Distorted(torch.ones_like).eval()
    inputs = uniform(120, 1, 6, 6)
    with torch.no_grad():
        model.plain.bias -= model.plain(inputs).mean(0)  # so that each class is answered
    labels = answers(model, inputs)
    spared = int(model.plain.weight.sum(1).argmax())  # a step along that gradient lowers its loss alone
    cases = int((labels == spared).sum())
    assert 8 <= cases < 60
    (finding,) = [f for f in _suite(model, inputs, suite=(PGD,)).findings if f.code == "attack.misleading_gradient"]
    assert finding.severity == "critical"
    assert f"the loss of {cases} of {cases} rightly answered cases" in finding.message


def test_gradients_replaced_by_noise_are_found_out_by_random_search() -> None:
    noise = torch.Generator().manual_seed(0)
    model = Distorted(lambda g: torch.randn(g.shape, generator=noise)).eval()
    result = _suite(model, uniform(CASES, 1, 6, 6, low=0.4, high=0.6), eps=0.3)
    assert result.won_by.count("square-80") >= 3
    assert {"attack.black_box_stronger", "attack.random_gradient"} <= _critical(result)


def test_gradients_that_differ_each_time_are_found_out_where_random_search_wins_nothing() -> None:
    noise = torch.Generator().manual_seed(0)
    model = Distorted(lambda g: g * (0.3 + torch.rand(g.shape, generator=noise))).eval()
    result = _suite(model, uniform(CASES, 1, 6, 6, low=0.4, high=0.6), eps=1e-3, suite=SUITE[:2])
    assert _critical(result) == {"attack.random_gradient"}


def test_a_stair_whose_slope_is_a_tiny_ramp_the_wrong_way_is_found_out() -> None:
    def stairs(z: Tensor) -> Tensor:
        return z.div(0.5).round().mul(0.5).detach() - 1e-4 * z

    model = Wrapped(Linear((1, 6, 6), 3), stairs).eval()
    assert _critical(_suite(model, uniform(CASES, 1, 6, 6, low=0.4, high=0.6), eps=0.3))


@pytest.mark.parametrize(
    "hide",
    [
        lambda z: (z * 1e4).softmax(1),
        lambda z: nn.functional.one_hot(z.argmax(1), 3).float(),
        lambda z: (z * 1e4).sigmoid(),
        lambda z: torch.sign(z - z.mean(1, keepdim=True)),
    ],
    ids=["saturated softmax", "argmax", "saturated sigmoid", "sign"],
)
def test_saturation_and_argmax_are_found_out(hide) -> None:
    model = Wrapped(Linear((1, 6, 6), 3), hide).eval()
    assert "attack.vanishing_gradient" in _critical(_suite(model, uniform(CASES, 1, 6, 6)))


def test_a_model_that_answers_at_random_is_found_out_however_small_its_noise() -> None:
    noise = torch.Generator().manual_seed(0)
    for size in (0.02, 2.0):
        model = Wrapped(Linear((1, 6, 6), 3), lambda z, size=size: z + size * torch.randn(z.shape, generator=noise))
        assert "attack.random_answers" in _critical(_suite(model.eval(), uniform(CASES, 1, 6, 6)))


class Counting(Linear):
    """Counts its forward passes in a buffer, and gets more certain of its first class with each."""

    def __init__(self, *, replaces: bool) -> None:
        super().__init__((1, 6, 6), 2)
        self.replaces = replaces
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.replaces:
            self.seen = self.seen + 1
        else:
            self.seen += 1
        return super().forward(x) + self.seen * torch.tensor([1e-6, 0.0])


@pytest.mark.parametrize("replaces", [False, True])
def test_a_model_that_moves_its_buffers_is_found_out_and_its_buffers_are_put_back(replaces: bool) -> None:
    model, inputs = Counting(replaces=replaces).eval(), uniform(CASES, 1, 6, 6)
    labels = answers(model, inputs)
    before = model.seen.clone()
    result = _suite(model, inputs, labels)
    assert "attack.moving_buffers" in _critical(result)
    assert torch.equal(model.seen, before)


def test_batch_statistics_that_ignore_eval_mode_are_found_out() -> None:
    class Stubborn(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.1)

    model = Convolutional(1, 3).eval()
    model.features[1] = Stubborn(8)
    inputs = uniform(CASES, 1, 9, 9)
    mean = model.features[1].running_mean.clone()
    result = _suite(model, inputs, torch.arange(CASES) % 3)
    assert "attack.moving_buffers" in _critical(result)
    assert torch.equal(mean, model.features[1].running_mean)


def test_probabilities_in_place_of_logits_are_found_out() -> None:
    model = Wrapped(Linear((1, 6, 6), 3), lambda z: (z / 5).softmax(1)).eval()
    assert _critical(_suite(model, uniform(CASES, 1, 6, 6))) == {"attack.probabilities"}
    model = Wrapped(Linear((1, 6, 6), 3), lambda z: (z / 5).log_softmax(1)).eval()
    assert _critical(_suite(model, uniform(CASES, 1, 6, 6))) == set()


def test_an_honest_model_that_withstands_everything_has_no_findings() -> None:
    class Robust(Linear):
        """Answers by the mean of the image alone, which a small budget can't turn."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.flatten(1).mean(1)
            return torch.stack([mean - 0.5, 0.5 - mean], dim=1) * 4

    dark, bright = uniform(20, 1, 6, 6, low=0.0, high=0.4), uniform(20, 1, 6, 6, low=0.6, high=1.0)
    result = _suite(Robust((1, 6, 6), 2).eval(), torch.cat([dark, bright]))
    assert set(result.won_by) == {""}
    assert result.findings == ()


def test_a_network_that_falls_has_no_findings() -> None:
    model, inputs = Convolutional(1, 3).eval(), uniform(CASES, 1, 9, 9)
    with torch.no_grad():
        model.head[3].bias -= model(inputs).mean(0)
    assert _suite(model, inputs, eps=0.02).findings == ()


# --- what the gate gets to see ----------------------------------------------------------------------------------


def _findings(results: dict[str, SuiteResult], predicted: list[int]) -> set[tuple[str, str]]:
    protocol = parse_protocol("schema_version: 1\nname: t\ntitle: t\nintended_use: t\nthreat: {eps: 0.05}\n", "t.yaml")
    answer = np.array(predicted)
    subject = SubjectTable(
        predicted=answer,
        probabilities=np.eye(3)[answer],
        robust=np.ones(len(answer), dtype=bool),
        won_by=("",) * len(answer),
        referred=np.zeros(len(answer), dtype=bool),
    )
    names = tuple(str(i) for i in range(len(answer)))
    table = CaseTable(names, names, answer, np.ones(len(answer), dtype=bool), dict.fromkeys(results, subject))
    identity = Identity("file", True, True, 0.0, len(answer))
    return {(f.code, f.severity) for f in findings_of(identity, results, table, protocol)}


def test_what_hides_in_the_original_alone_is_a_warning_and_in_branch_or_release_critical() -> None:
    inputs = uniform(CASES, 1, 6, 6)
    hidden = Wrapped(Linear((1, 6, 6), 3), lambda z: (z * 1e4).sigmoid()).eval()
    masked, sound = _suite(hidden, inputs), _suite(Linear((1, 6, 6), 3).eval(), inputs)
    sound_all = {"original": sound, "robust_branch": sound, "composite": sound}
    code = "attack.vanishing_gradient"
    assert _findings(sound_all, [0, 1, 2]) == set()
    assert _findings({**sound_all, "original": masked}, [0, 1, 2]) == {(code, "warning")}
    for name in ("robust_branch", "composite"):
        assert (code, "critical") in _findings({**sound_all, name: masked}, [0, 1, 2])


def test_a_release_of_one_answer_is_critical_however_robust() -> None:
    constant = Wrapped(Linear((1, 6, 6), 3), lambda z: z * 1e-3 + torch.tensor([5.0, 0.0, 0.0])).eval()
    result = _suite(constant, uniform(CASES, 1, 6, 6))
    assert set(result.won_by) == {""}
    assert ("evaluation.constant_answer", "critical") in _findings({"original": result, "composite": result}, [0, 0, 0])


class Saturated(nn.Module):
    """Right until the mean rises above 0.65, where a unit that was saturated wakes; flat before."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        unit = self.activation(50 * (inputs.flatten(1).mean(1) - 0.65))
        return torch.stack([torch.zeros_like(unit), 1.5 - 4 * unit], dim=1)


class Clamped(nn.Module):
    """ReLU6, and no module that says so."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.clamp(0, 6)


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardtanh(0, 6), nn.Hardsigmoid()])
def test_a_saturated_layer_does_not_hide_the_way_out(activation: nn.Module) -> None:
    model, inputs, labels = (
        Saturated(activation).eval(),
        torch.full((6, 1, 4, 4), 0.55),
        torch.ones(6, dtype=torch.long),
    )
    result = _suite(model, inputs, labels, eps=0.2, suite=(PGD,))
    assert result.won_by == (PGD.name,) * 6
    (found,) = result.findings
    assert (found.code, found.severity) == ("attack.surrogate_gradient", "warning")
    assert "6 of 6" in found.message


def test_flatness_that_no_surrogate_explains_stays_critical() -> None:
    inputs, labels = torch.full((6, 1, 4, 4), 0.55), torch.ones(6, dtype=torch.long)
    result = _suite(Saturated(Clamped()).eval(), inputs, labels, eps=0.2, suite=(PGD,))
    assert [(f.code, f.severity) for f in result.findings] == [("attack.vanishing_gradient", "critical")]


def test_surrogate_slopes_leave_every_answer_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU6(inplace=True), nn.Hardswish(), nn.Flatten(), nn.ReLU()).eval()
    sloped = with_surrogate_slopes(model)
    inputs = uniform(5, 1, 6, 6, seed=1) * 20 - 10
    assert sloped is not None
    assert torch.equal(sloped(inputs), model(inputs))
    assert with_surrogate_slopes(nn.Sequential(nn.Flatten(), nn.Linear(36, 2))) is None
