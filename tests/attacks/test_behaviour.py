"""What every attack keeps to: the threat model, the model's own state, each case for itself, and checks at the door."""

from __future__ import annotations

import pytest
import torch
from attack_models import Convolutional, Linear, Wrapped, answers, generator, threat, uniform
from torch import Tensor, nn

from medharden.attacks import apgd, margin, pgd, safe_columns, succeeded
from medharden.attacks.apgd import checkpoints
from medharden.attacks.apgd import climb as climb_apgd
from medharden.attacks.criterion import Criterion
from medharden.attacks.pgd import climb as climb_pgd
from medharden.attacks.projections import project, random_start, steepest
from medharden.attacks.victim import Strongest, Victim, attackable, climb_from
from medharden.errors import RangeError
from medharden.protocol import ThreatModel

ATTACKS = {"pgd": pgd, "apgd": apgd}
CLIMBS = {"pgd": climb_pgd, "apgd": climb_apgd}
both = pytest.mark.parametrize("attack", ["pgd", "apgd"])
norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def _run(attack: str, model: nn.Module, inputs: Tensor, labels: Tensor, limits: ThreatModel, **changed) -> Tensor:
    settings = {"steps": 8, "restarts": 2, "loss": "ce", "generator": generator(), **changed}
    return ATTACKS[attack](model, inputs, labels, threat=limits, **settings)


@both
@norms
@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize(
    ("shape", "classes"),
    [((1, 12, 12), 2), ((3, 9, 14), 3), ((4, 11, 7), 6), ((1, 8, 10, 6), 2), ((2, 7, 7, 9), 5), ((1, 16, 5), 4)],
)
def test_every_point_stays_within_eps_and_bounds(attack: str, norm: str, loss: str, shape, classes: int) -> None:
    model = Convolutional(shape[0], classes, dims=len(shape) - 1, width=4)
    inputs = uniform(5, *shape, seed=classes, low=-0.3, high=1.3).clamp(0, 1)
    labels = torch.arange(5) % classes
    eps = 0.03 if norm == "linf" else 0.7
    found = _run(attack, model, inputs, labels, threat(norm, eps), loss=loss)
    moved = (found - inputs).double().flatten(1)
    size = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert found.shape == inputs.shape
    assert found.dtype == inputs.dtype
    assert (size <= eps + 1e-6).all()
    assert (size > 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


@norms
def test_pgd_goes_on_from_a_given_point_and_brings_one_from_outside_within_the_budget(norm: str) -> None:
    limits = threat(norm, 0.02 if norm == "linf" else 0.2)
    model, inputs = Convolutional(1, 3, width=4).eval(), uniform(20, 1, 8, 8)
    labels = answers(model, inputs)
    once = {"steps": 1, "restarts": 1, "generator": generator()}
    first = _run("pgd", model, inputs, labels, limits, steps=40, restarts=1)
    again, anew = (_run("pgd", model, inputs, labels, limits, **once, start=s) for s in (first, None))
    with torch.no_grad():
        start, reached, lone = (
            torch.nn.functional.cross_entropy(model(points), labels, reduction="none")
            for points in (first, again, anew)
        )
        stood = answers(model, first) == labels
    assert stood.sum() > 5
    assert (reached >= start)[stood].all()
    assert (reached >= lone)[stood].float().mean() > 0.9
    assert (reached > lone)[stood].any()
    far = _run("pgd", model, inputs, labels, limits, **once, start=inputs + 1)
    moved = (far - inputs).flatten(1)
    assert (moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)).max() <= limits.eps + 1e-6


@both
def test_bounds_other_than_zero_to_one_are_kept(attack: str) -> None:
    limits = ThreatModel(norm="linf", eps=20.0, bounds=(-1000.0, 400.0))
    inputs = uniform(4, 1, 6, 6, low=-1000, high=400)
    found = _run(attack, Linear((1, 6, 6), 2), inputs, torch.tensor([0, 1, 0, 1]), limits)
    assert (found - inputs).abs().max() <= 20.0 + 1e-3
    assert found.min() >= -1000
    assert found.max() <= 400


@both
@norms
def test_the_returned_point_is_no_weaker_than_the_random_start(attack: str, norm: str) -> None:
    model = Convolutional(1, 3).eval()
    inputs, limits = uniform(16, 1, 10, 10), threat(norm, 0.02 if norm == "linf" else 0.3)
    labels = answers(model, inputs)
    found = _run(attack, model, inputs, labels, limits, loss="margin", restarts=1)
    start = random_start(inputs.shape, limits, [generator()], surface=attack == "apgd")
    safe = safe_columns(labels, 3, refers=False)
    at_start = margin(model(project(inputs + start, inputs, limits)), safe)
    at_end = margin(model(found), safe)
    assert (at_end >= at_start).all()
    assert (at_end > at_start)[at_start < 0].all()
    assert (at_start < 0).any()


@both
@norms
def test_a_batch_gives_what_its_cases_give_one_by_one(attack: str, norm: str) -> None:
    model = Convolutional(1, 3).double()
    inputs = uniform(10, 1, 9, 9, seed=2).double()
    labels = answers(model, inputs)
    limits = threat(norm, 0.03 if norm == "linf" else 0.4)
    together = _run(attack, model, inputs, labels, limits, restarts=1, steps=12)
    fell = answers(model, together) != labels
    assert fell.any(), "cases must leave the batch for this test to mean something"
    assert not fell.all()
    noise = random_start(inputs.shape, limits, [generator()], surface=attack == "apgd")
    for case in range(len(inputs)):
        alone = _from_start(attack, model, inputs[case : case + 1], labels[case : case + 1], noise[case], limits)
        torch.testing.assert_close(alone[0], together[case], rtol=0, atol=1e-9)


def _from_start(attack: str, model: nn.Module, inputs: Tensor, labels: Tensor, start: Tensor, limits) -> Tensor:
    with attackable(model):
        victim = Victim(model, Criterion(labels), "ce")
        return climb_from(CLIMBS[attack], victim, inputs, [start[None]], threat=limits, steps=12).points


@both
def test_the_same_generator_seed_gives_the_same_points(attack: str) -> None:
    model, inputs, labels = Convolutional(1, 2), uniform(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
    first, again = (_run(attack, model, inputs, labels, threat(), generator=generator(5)) for _ in range(2))
    other = _run(attack, model, inputs, labels, threat(), generator=generator(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@both
def test_the_model_is_given_back_in_every_flag_buffer_and_gradient(attack: str) -> None:
    model = Convolutional(1, 2).train()
    model.features[1].eval()
    model.features[0].weight.requires_grad_(False)
    model.head[3].weight.grad = torch.ones_like(model.head[3].weight)
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    _run(attack, model, uniform(6, 1, 8, 8), torch.arange(6) % 2, threat())
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 7
    assert torch.equal(model.head[3].weight.grad, torch.ones_like(model.head[3].weight))
    assert model.features[0].weight.grad is None
    assert model.head[3].bias.grad is None


@both
def test_flags_are_restored_where_the_attack_stops_on_an_error(attack: str) -> None:
    model = Wrapped(Convolutional(1, 2), lambda logits: logits * torch.nan).train()
    with pytest.raises(RangeError, match="logits must be finite, got NaN or infinity for 2 of 2 cases"):
        _run(attack, model, uniform(2, 1, 8, 8), torch.tensor([0, 1]), threat())
    assert all(m.training for m in model.modules())


@both
def test_attacks_see_eval_mode(attack: str) -> None:
    seen = []
    model = Convolutional(1, 2).train()
    model.head.register_forward_hook(lambda module, *_: seen.append(module.training))
    _run(attack, model, uniform(2, 1, 8, 8), torch.tensor([0, 1]), threat())
    assert seen
    assert not any(seen)


@both
@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_attack(attack: str, off) -> None:
    model, inputs = Convolutional(1, 2), uniform(6, 1, 8, 8)
    labels = answers(model, inputs)
    usual = _run(attack, model, inputs, labels, threat())
    with off():
        again = _run(attack, model, inputs.clone(), labels.clone(), threat())
    assert torch.equal(usual, again)


@both
def test_inputs_that_carry_a_graph_give_points_that_carry_none(attack: str) -> None:
    model, inputs = Convolutional(1, 2), uniform(6, 1, 8, 8)
    labels = answers(model, inputs)
    found = _run(attack, model, inputs.clone().requires_grad_(), labels, threat())
    assert not found.requires_grad
    assert torch.equal(found, _run(attack, model, inputs, labels, threat()))


@both
def test_a_model_that_normalises_in_place_is_attacked_like_any_other(attack: str) -> None:
    class InPlace(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5).div_(0.5))

    class Copied(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - 0.5) / 0.5)

    inputs, labels = uniform(4, 1, 5, 5), torch.tensor([0, 1, 0, 1])
    kept = inputs.clone()
    found = _run(attack, InPlace((1, 5, 5), 2), inputs, labels, threat())
    assert torch.equal(inputs, kept)
    torch.testing.assert_close(found, _run(attack, Copied((1, 5, 5), 2), inputs, labels, threat()))


@both
def test_gradients_that_are_not_finite_do_not_reach_the_points(attack: str) -> None:
    def at_zero(logits: Tensor) -> Tensor:
        return logits + (logits - logits.detach()).abs().sqrt()

    model = Wrapped(Linear((1, 4, 4), 2), at_zero)
    inputs = uniform(4, 1, 4, 4)
    found = _run(attack, model, inputs, answers(model, inputs), threat())
    assert found.isfinite().all()
    assert (found - inputs).abs().max() <= 0.05 + 1e-6


@both
@norms
def test_a_referral_column_protects_unless_it_can_be_evaded(attack: str, norm: str) -> None:
    inputs = uniform(12, 1, 4, 4, low=0.4, high=0.6)
    limits = threat(norm, 0.3 if norm == "linf" else 1.2)
    plain = Linear((1, 4, 4), 2)
    labels = answers(plain, inputs)
    safe = safe_columns(labels, 3, refers=True)

    class Refers(nn.Module):
        refers = True

        def __init__(self, referral) -> None:
            super().__init__()
            self.plain, self.referral = plain, referral

        def forward(self, x: Tensor) -> Tensor:
            logits = self.plain(x)
            return torch.cat([logits, self.referral(x, logits)], 1)

    always = Refers(lambda x, logits: logits.amax(1, keepdim=True) + 1)
    when_close = Refers(lambda x, logits: logits.mean(1, keepdim=True) + 0.1)
    assert (answers(plain, _run(attack, plain, inputs, labels, limits, steps=30)) != labels).all()
    unmoved = _run(attack, always, inputs, labels, limits, steps=30)
    assert not succeeded(always(unmoved), safe).any()
    moved = _run(attack, when_close, inputs, labels, limits, steps=30)
    assert succeeded(when_close(moved), safe).any()


def test_a_success_is_kept_before_a_point_of_higher_loss() -> None:
    strongest = Strongest(torch.zeros(3, 1, 1))
    rows, one = torch.arange(3), torch.ones(3, 1, 1)
    strongest.offer(rows, one, torch.tensor([5.0, 5.0, 5.0]), torch.tensor([False, False, False]))
    strongest.offer(rows, 2 * one, torch.tensor([1.0, 6.0, 1.0]), torch.tensor([True, False, False]))
    assert strongest.points.flatten().tolist() == [2.0, 2.0, 1.0]
    assert strongest.standing.tolist() == [1, 2]


@norms
def test_random_starts_fill_the_ball_evenly(norm: str) -> None:
    shape, limits = (20000, 1, 2, 1), threat(norm, 0.5)
    start = random_start(shape, limits, [generator()], surface=False).flatten(1)
    radius = start.abs().amax(1) if norm == "linf" else start.norm(dim=1)
    assert radius.max() <= 0.5 + 1e-6
    # In two dimensions the share of a uniform ball within a radius r of eps is r squared.
    for share in (0.25, 0.5, 0.75):
        assert (radius <= 0.5 * share).float().mean().item() == pytest.approx(share**2, abs=0.015)
    on_surface = random_start(shape, limits, [generator()], surface=True).flatten(1)
    radius = on_surface.abs().amax(1) if norm == "linf" else on_surface.norm(dim=1)
    torch.testing.assert_close(radius, torch.full_like(radius, 0.5))


def test_tiny_gradients_keep_their_direction() -> None:
    gradient = torch.tensor([[3e-30, 4e-30], [0.0, 0.0], [3e10, -4e10]])
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.6, -0.8]])
    torch.testing.assert_close(steepest(gradient, "l2"), expected)


def test_step_sizes_are_reconsidered_where_the_paper_says() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert max(checkpoints(1)) == 1


@both
@pytest.mark.parametrize(
    ("inputs", "labels", "said"),
    [
        (torch.tensor([[[[-0.3, 1.0]]]]), torch.tensor([0]), r"inputs must lie in \[0, 1\], got \[-0.3, 1.0\]"),
        (torch.tensor([[[[0.0, torch.nan]]]]), torch.tensor([0]), r"inputs must lie in \[0, 1\], got \[nan, nan\]"),
        (torch.zeros(2, 1, 1, 2, dtype=torch.uint8), torch.tensor([0, 1]), "floating point.*uint8"),
        (torch.zeros(0, 1, 1, 2), torch.zeros(0, dtype=torch.long), "N >= 1"),
        (torch.zeros(3, 1, 1, 2), torch.tensor([0, 1]), "same length, got 3 and 2"),
        (torch.zeros(2, 1, 1, 2), torch.tensor([0, 2]), r"labels must lie in 0\.\.1.* got 0\.\.2"),
        (torch.zeros(2, 1, 1, 2), torch.tensor([[0, 1], [1, 1]]), r"labels must be \(N,\) class indices, got \(2, 2\)"),
        (torch.zeros(2, 1, 1, 2), torch.tensor([0.0, 1.0]), "class indices.*float32"),
    ],
)
def test_cases_that_cannot_be_attacked_are_refused(attack: str, inputs: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(RangeError, match=said):
        _run(attack, Linear((1, 1, 2), 2), inputs, labels, threat())


@both
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda z: z[:, :1], "at least 2 logits, got 1"),
        (lambda z: z[:, 0], r"logits \(3, K\) for 3 inputs, got \(3,\)"),
        (lambda z: z[:2], r"logits \(3, K\) for 3 inputs, got \(2, 2\)"),
        (lambda z: (z, z), "one tensor of logits.*got a tuple"),
        (lambda z: {"logits": z}, "one tensor of logits.*got a dict"),
        (lambda z: z / 0, "logits must be finite"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(attack: str, change, said: str) -> None:
    with pytest.raises(RangeError, match=said):
        _run(attack, Wrapped(Linear((1, 1, 2), 2), change), uniform(3, 1, 1, 2), torch.tensor([0, 1, 0]), threat())


@both
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"loss": "hinge"}, "loss must be one of"),
        ({"steps": 0}, "at least 1, got 0 and 2"),
        ({"restarts": 0}, "8 and 0"),
    ],
)
def test_settings_that_name_no_attack_are_refused(attack: str, changed, said: str) -> None:
    with pytest.raises(RangeError, match=said):
        _run(attack, Linear((1, 1, 2), 2), uniform(2, 1, 1, 2), torch.tensor([0, 1]), threat(), **changed)


@both
def test_a_budget_in_other_units_is_refused_and_not_taken_for_input_units(attack: str) -> None:
    with pytest.raises(RangeError, match="input units, got '1/255'"):
        _run(attack, Linear((1, 1, 2), 2), uniform(2, 1, 1, 2), torch.tensor([0, 1]), ThreatModel(eps=2, unit="1/255"))
