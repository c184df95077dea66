"""An evaluation that was interrupted goes on where it stopped, to the same result, and only if nothing has changed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from attack_models import Convolutional, Linear, answers, uniform
from torch import Tensor, nn

from medharden.attacks import SuiteState, run_suite
from medharden.errors import RangeError
from medharden.evaluating.attacked import attack_all
from medharden.evaluating.resuming import clear
from medharden.evaluating.subjects import Subject
from medharden.models import DecisionView
from medharden.protocol import Protocol, parse_protocol

CASES = 12
SEAL = b"made of the pseudonym key, 32 by"


def _protocol(steps: int = 6, eps: float = 0.01, seed: int = 1) -> Protocol:
    attacks = f"[{{attack: pgd, loss: ce, steps: {steps}}}, {{attack: apgd, steps: 5}}, {{attack: square, steps: 8}}]"
    head = f"schema_version: 1\nname: t\ntitle: t\nintended_use: t\nseed: {seed}\nthreat: {{eps: {eps}}}\n"
    return parse_protocol(head + f"suite: {{attacks: {attacks}, reason: Tests are quick.}}\n", "t.yaml")


def _setting() -> tuple[nn.Module, Tensor, Tensor]:
    model, inputs = Convolutional(1, 3).eval(), uniform(CASES, 1, 9, 9, seed=2)
    with torch.no_grad():
        model.head[3].bias -= model(inputs).mean(0)
    return model, inputs, answers(model, inputs)


class Count:
    """One count of a model and of its copies."""

    asked = 0

    def __deepcopy__(self, memo: object) -> Count:
        return self


class Passes(nn.Module):
    """Counts what is asked of a model, outside its state, and may stop at some point as Ctrl-C would."""

    def __init__(self, model: nn.Module, stop: int = 0) -> None:
        super().__init__()
        self.model, self.count, self.stop = model, Count(), stop

    def __repr__(self) -> str:
        return "Passes"

    @property
    def asked(self) -> int:
        return self.count.asked

    def forward(self, x: Tensor) -> Tensor:
        self.count.asked += 1
        if self.asked == self.stop:
            raise KeyboardInterrupt
        return self.model(x)


def _attack(model: nn.Module, inputs: Tensor, labels: Tensor, run: Path | None, seal: bytes = SEAL, **changed: float):
    none = torch.zeros(len(inputs), dtype=torch.bool)
    subject = Subject(
        "original", DecisionView(model, torch.zeros(3)), torch.zeros(3), torch.zeros(len(inputs), 3), none
    )
    return attack_all((subject,), inputs, labels, _protocol(**changed), 5, "cpu", None, run, seal)["original"]


def test_an_interrupted_evaluation_goes_on_to_the_same_result_without_repeating_itself(tmp_path: Path) -> None:
    network, inputs, labels = _setting()
    whole = Passes(network)
    expected = _attack(whole, inputs, labels, None)
    for stop in (whole.asked // 3, whole.asked // 2, whole.asked - 6):
        first = Passes(network, stop)
        with pytest.raises(KeyboardInterrupt):
            _attack(first, inputs, labels, tmp_path)
        assert list(tmp_path.glob("evaluate.original.partial"))
        second = Passes(network)
        result = _attack(second, inputs, labels, tmp_path)
        assert result.won_by == expected.won_by
        assert torch.equal(result.adversarial, expected.adversarial)
        assert [(o.name, o.cases, o.wins) for o in result.outcomes] == [
            (o.name, o.cases, o.wins) for o in expected.outcomes
        ]
        assert result.findings == expected.findings
        # One batch is repeated, and the first answers are asked for twice more.
        assert second.asked < whole.asked - stop + 25
        clear(tmp_path)
        assert not list(tmp_path.iterdir())


def test_what_was_done_under_another_threat_seed_suite_model_or_data_is_not_gone_on_with(tmp_path: Path) -> None:
    network, inputs, labels = _setting()
    whole = Passes(network)
    _attack(whole, inputs, labels, tmp_path)
    again = Passes(network)
    _attack(again, inputs, labels, tmp_path)
    assert again.asked < whole.asked / 4
    changes = ({"steps": 7}, {"eps": 0.011}, {"seed": 2}, "model", "data", "labels")
    for change in changes:
        anew = Passes(network)
        other, moved = inputs.clone(), labels.clone()
        protocol = change if isinstance(change, dict) else {}
        if change == "model":
            with torch.no_grad():
                network.head[3].bias[0] += 1e-3
        if change == "data":
            other[0, 0, 0, 0] = 0.123
        if change == "labels":
            moved[0] = (moved[0] + 1) % 3
        _attack(anew, other, moved, tmp_path, **protocol)
        assert anew.asked > whole.asked / 2, change


@pytest.mark.parametrize("form", ["no safetensors", "one byte changed", "another key", "no seal", "cut"])
def test_what_is_not_sealed_under_the_key_is_as_good_as_none_and_said_to_be_so(tmp_path: Path, form: str) -> None:
    network, inputs, labels = _setting()
    whole, expected = Passes(network), _attack(network, inputs, labels, None)
    _attack(whole, inputs, labels, tmp_path)
    path = tmp_path / "evaluate.original.partial"
    data = path.read_bytes()
    if form == "another key":
        _attack(network, inputs, labels, tmp_path, seal=b"of another hospital")
        path.write_bytes(path.read_bytes() if path.read_bytes() != data else b"")
    else:
        path.write_bytes(
            {
                "no safetensors": b"no safetensors",
                "one byte changed": data[:999] + bytes([data[999] ^ 1]) + data[1000:],
                "no seal": data[:-32],
                "cut": data[: len(data) // 2],
            }[form]
        )
    anew = Passes(network)
    result = _attack(anew, inputs, labels, tmp_path)
    assert anew.asked == whole.asked
    assert result.won_by == expected.won_by
    assert "evaluation.begun_anew" in {f.code for f in result.findings}
    assert "evaluation.begun_anew" not in {f.code for f in expected.findings}


def test_without_a_key_nothing_is_left_to_go_on_from(tmp_path: Path) -> None:
    network, inputs, labels = _setting()
    _attack(network, inputs, labels, tmp_path, seal=b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("claim", ["a right answer as won", "a point outside the threat"])
def test_a_success_that_is_none_is_found_by_a_fresh_forward_and_all_attacks_run_anew(claim: str) -> None:
    model, inputs, labels = _setting()
    expected = _suite(model, inputs, labels)
    kept: list[SuiteState] = []
    _suite(model, inputs, labels, keep=lambda state: kept.append(copy.deepcopy(state)))
    state = kept[-1]
    row = state.standing[0]
    state.won_by[row] = "apgd-ce-5"
    if claim == "a point outside the threat":
        state.adversarial[row] = 1 - inputs[row]
    result = _suite(model, inputs, labels, saved=state)
    assert result.won_by == expected.won_by
    assert [f.code for f in result.findings if f not in expected.findings] == ["attack.begun_anew"]


def _suite(model: nn.Module, inputs: Tensor, labels: Tensor, **more):
    rules = _protocol()
    return run_suite(
        model, inputs, labels, threat=rules.input_threat, suite=rules.suite.attacks, seed=1, batch_size=5, **more
    )


def test_what_is_left_behind_holds_no_image(tmp_path: Path) -> None:
    network, inputs, labels = _setting()
    _attack(network, inputs, labels, tmp_path)
    data = (tmp_path / "evaluate.original.partial").read_bytes()
    for case in inputs:
        assert case.numpy().tobytes() not in data
        assert case[0, 0].numpy().tobytes() not in data


def test_a_state_of_other_cases_is_refused() -> None:
    model, inputs = Linear((1, 4, 4), 2), uniform(6, 1, 4, 4)
    with pytest.raises(RangeError, match=r"can't go on from a state of \(5, 1, 4, 4\) inputs"):
        run_suite(
            model, inputs, answers(model, inputs), threat=_protocol().threat, suite=_protocol().suite.attacks, seed=0,
            batch_size=4, saved=SuiteState.at_the_start(inputs[:5]),
        )  # fmt: skip
