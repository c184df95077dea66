"""Newer methods: eps held at 0 before it rises, and a margin for each case."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny import at, tiny_cohort, tiny_model, tiny_protocol

from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.baselines import FreshAdversary
from medharden.hardening.branch import make_branch
from medharden.hardening.margins import MarginAdversary
from medharden.hardening.probe import Probe
from medharden.hardening.schedule import radius_share
from medharden.hardening.training import BranchTraining
from medharden.models import Classifier
from medharden.protocol import Hardening, ThreatModel
from medharden.record import ModelRecord

EPS = 0.1


class Threshold(torch.nn.Module):
    """Class 1 where the mean is above one half: what falls within which margin is known."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(40.0))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        score = (inputs.flatten(1).mean(1) - 0.5) * self.scale
        return torch.stack([-score, score], dim=1)


def threshold() -> Classifier:
    record = ModelRecord("python", "x:Threshold", {}, 2, 1, 2, (0.0,), (1.0,), False, "0" * 64, "0" * 64, 1)
    return Classifier(Threshold(), record)


def visited(adversary: MarginAdversary, inputs: torch.Tensor, labels: torch.Tensor, times: int) -> torch.Tensor:
    rows, generator = torch.arange(len(inputs)), torch.Generator().manual_seed(0)
    for _ in range(times):
        attacked = at(adversary, threshold(), rows, inputs, labels, EPS, generator)
        adversary.update(rows, inputs, attacked, torch.zeros_like(inputs), torch.ones(len(inputs)), EPS)
    return attacked


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_margin_grows_to_where_the_answer_changes_or_to_eps(norm: str) -> None:
    threat = ThreatModel(eps=EPS, norm=norm)
    adversary = MarginAdversary(4, threat, Hardening(method="ima", attack_steps=5, margin_step=0.1))
    # of the mean, one unit of l2 moves 1/4 on 16 pixels; of linf all
    reach = EPS if norm == "linf" else EPS / 4
    far, near, wrong, below = 0.5 + 3 * reach, 0.5 + 0.55 * reach, 0.5 + 0.2 * reach, 0.5 - 0.55 * reach
    inputs = torch.tensor([far, near, wrong, below]).view(-1, 1, 1, 1).expand(4, 1, 4, 4).contiguous()
    labels = torch.tensor([1, 1, 0, 0])
    attacked = visited(adversary, inputs, labels, 30)
    assert adversary.margin[0] == 1.0
    for case in (1, 3):
        assert float(adversary.margin[case]) == pytest.approx(0.55, abs=0.1)
    assert adversary.margin[2] == pytest.approx(0.1)  # answered wrongly: it is not attacked, and its margin stays
    assert torch.equal(attacked[2], inputs[2])
    size = (attacked - inputs).flatten(1)
    length = size.abs().amax(1) if norm == "linf" else size.norm(dim=1)
    assert float(length.max()) <= EPS * (1 + 1e-5)


def test_what_fell_is_trained_on_where_its_answer_changes() -> None:
    adversary = MarginAdversary(1, ThreatModel(eps=EPS), Hardening(method="ima", attack_steps=5))
    adversary.margin[:] = 1.0
    inputs = torch.full((1, 1, 4, 4), 0.5 + 0.2 * EPS)
    attacked = visited(adversary, inputs, torch.tensor([1]), 1)
    distance = float((attacked - inputs).abs().max()) / EPS
    assert 0.2 <= distance <= 0.2 + 2.0**-4  # of the whole way, five halvings
    assert float(adversary.margin) == pytest.approx((1.0 + distance) / 2)


def test_an_attack_that_is_tried_again_moves_a_margin_once() -> None:
    adversary = MarginAdversary(2, ThreatModel(eps=EPS), Hardening(method="ima", attack_steps=2))
    inputs, labels, rows = torch.full((2, 1, 4, 4), 0.9), torch.tensor([1, 1]), torch.arange(2)
    for _ in range(3):  # as after a pass that ran out of memory
        at(adversary, threshold(), rows, inputs, labels, EPS, torch.Generator().manual_seed(0))
    assert adversary.margin.tolist() == pytest.approx([0.1, 0.1])
    adversary.update(rows, inputs, inputs, torch.zeros_like(inputs), torch.ones(2), EPS)
    assert adversary.margin.tolist() == pytest.approx([0.2, 0.2])
    fresh = MarginAdversary(2, ThreatModel(eps=EPS), Hardening(method="ima"))
    fresh.restore(adversary.state())
    assert torch.equal(fresh.margin, adversary.margin)


def test_eps_is_held_at_nothing_and_then_rises_to_the_whole() -> None:
    settings = Hardening(method="eps-scheduling")
    assert (settings.hold, settings.ramp) == (0.25, 0.5)
    shares = [radius_share(settings, done) for done in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)]
    assert shares == pytest.approx([0, 0, 0, 0.5, 1, 1])
    assert Hardening(method="eps-scheduling", hold=0.1).hold == 0.1
    assert Hardening().hold == 0.0
    assert radius_share(Hardening(hold=0.5, ramp=0.0), 0.5) == 0.0
    assert radius_share(Hardening(hold=0.5, ramp=0.0), 0.51) == 1.0


def test_a_schedule_that_never_reaches_eps_is_refused() -> None:
    with pytest.raises(ValidationError, match="more than the whole schedule"):
        Hardening(hold=0.6, ramp=0.5)


def test_no_gradient_is_taken_while_eps_is_held_at_nothing() -> None:
    class Untouched(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the branch was asked")

    adversary = FreshAdversary(ThreatModel(eps=EPS), Hardening(method="eps-scheduling", attack_steps=3))
    assert adversary.passes == 4
    inputs = torch.rand(2, 1, 4, 4)
    held = at(adversary, Untouched(), torch.arange(2), inputs, torch.zeros(2, dtype=torch.long), 0.0, torch.Generator())
    assert torch.equal(held, inputs)


def test_a_case_is_first_visited_when_it_is_first_attacked() -> None:
    adversary = CarriedAdversary((2, 1, 4, 4), threat=ThreatModel(eps=EPS), step=1.0, regulate=True, held=True)
    inputs, rows = torch.full((2, 1, 4, 4), 0.5), torch.arange(2)
    for _ in range(5):
        adversary.update(rows, inputs, inputs, torch.ones_like(inputs), torch.full((2,), 0.1), 0.0)
    assert not adversary.visited.any()
    assert adversary.share.tolist() == [1.0, 1.0]  # what is not attacked says nothing of its radius
    noise = adversary.noise(rows, inputs, torch.Generator().manual_seed(0))
    assert noise is not None
    assert float((adversary.attacked(threshold(), rows, inputs, rows, EPS, noise) - inputs).abs().max()) > 0


@pytest.mark.parametrize("method", ["ima", "eps-scheduling"])
def test_a_newer_method_trains_a_branch_that_withstands_more(method: str, tmp_path: Path) -> None:
    fields = tiny_protocol().model_dump()
    fields["hardening"] |= {"method": method, "attack_steps": 3, "epochs": 12}
    if method == "eps-scheduling":
        fields["hardening"]["hold"] = 0.25
    protocol = type(tiny_protocol()).model_validate(fields)
    cohort = tiny_cohort(tmp_path, protocol)
    original = tiny_model(tmp_path, cohort=cohort)
    probe = Probe(original, cohort, protocol, torch.zeros(2), "cpu")
    branch = make_branch(original, "full", rank=4, seed=0)
    trained = BranchTraining(original, branch, cohort, protocol, probe, "cpu")
    while trained.state.epoch < trained.epochs:
        trained.run_epoch(None)
    history = trained.state.history
    assert trained.adversary.passes == {"ima": 5, "eps-scheduling": 4}[method]
    before = Probe(original, cohort, protocol, torch.zeros(2), "cpu").measure(original)
    assert history[-1].val_robust > before.robust + 0.2, (history[-1].val_robust, before.robust)
    if method == "eps-scheduling":
        assert [epoch.radius for epoch in history[:3]] == [0, 0, 0]
    else:
        assert float(trained.adversary.margin.mean()) > 0.5
