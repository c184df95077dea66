"""Suites by name or by list: what a protocol may say, and that both say the same to the digest."""

from __future__ import annotations

import pytest

from medharden.errors import ProtocolError
from medharden.protocol import Attack, Protocol, Suite, parse_protocol

BASE = "schema_version: 1\nname: t\ntitle: t\nintended_use: t\nthreat: {eps: 0.05}\n"


def _protocol(suite: str = "") -> Protocol:
    return parse_protocol(BASE + suite, "t.yaml")


def test_no_suite_is_the_standard_one_and_its_name_changes_nothing() -> None:
    assert _protocol().suite == Suite()
    assert _protocol("suite: {name: standard}\n").digest == _protocol().digest


@pytest.mark.parametrize("name", ["fast", "standard", "thorough"])
def test_a_name_brings_attacks_of_its_own_and_keeps_the_other_fields(name: str) -> None:
    suite = _protocol(f"suite: {{name: {name}, cases: 150}}\n").suite
    assert suite.cases == 150
    assert len({attack.name for attack in suite.attacks}) == len(suite.attacks) >= 2
    others = [_protocol(f"suite: {{name: {n}}}\n").suite.attacks for n in ("fast", "standard", "thorough") if n != name]
    assert suite.attacks not in others


def test_the_standard_suite_holds_every_kind_of_attack_and_ends_without_gradients() -> None:
    kinds = [(a.attack, a.loss) for a in Suite().attacks]
    assert kinds == [("apgd", "ce"), ("apgd", "dlr"), ("apgd-t", "dlr"), ("fab", "margin"), ("square", "margin")]


def test_listed_attacks_are_a_custom_suite() -> None:
    suite = _protocol(
        "suite: {attacks: [{attack: fab, steps: 5, targets: 1}, {attack: pgd, loss: ce, steps: 3}], reason: Quick.}\n"
    ).suite
    assert suite.name == "custom"
    assert [a.name for a in suite.attacks] == ["fab-5to1", "pgd-ce-3"]


@pytest.mark.parametrize(
    "suite", ["", "suite: {name: fast}\n", "suite: {attacks: [{attack: square, steps: 9}], reason: Tests are quick.}\n"]
)
def test_a_suite_written_out_in_full_is_the_same_suite(suite: str) -> None:
    protocol = _protocol(suite)
    again = Protocol.model_validate_json(protocol.model_dump_json())
    assert again.digest == protocol.digest


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        (
            "suite: {name: fast, attacks: [{attack: pgd, loss: ce, steps: 3}]}\n",
            "names other attacks than suite.attacks",
        ),
        ("suite: {name: custom}\n", "custom needs suite.attacks"),
        ("suite: {name: quick}\n", "quick"),
        ("suite: {attacks: [{attack: fab, loss: ce, steps: 3}]}\n", "fab has no loss but the margin, got 'ce'"),
        ("suite: {attacks: []}\n", "attacks"),
        ("suite: {attacks: [{attack: apgd-t, steps: 3, targets: 0}]}\n", "targets"),
    ],
)
def test_a_suite_that_makes_no_sense_is_refused(suite: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        _protocol(suite)


def test_names_of_attacks_tell_them_apart() -> None:
    kinds = {"attack": "apgd-t", "loss": "dlr", "steps": 20}
    names = [Attack(**kinds, **extra).name for extra in ({}, {"targets": 4}, {"restarts": 3})]
    assert names == ["apgd-t-dlr-20", "apgd-t-dlr-20to4", "apgd-t-dlr-20x3"]
    assert Attack(attack="square", steps=500).name == "square-500"
