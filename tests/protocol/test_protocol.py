"""Protocols: strict, frozen, with a digest of what was decided."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from medharden.errors import ProtocolError
from medharden.protocol import Protocol, load_protocol, parse_protocol, shipped_protocols

MINIMAL = "schema_version: 1\nname: tiny\ntitle: Tiny\nintended_use: None\nthreat: {eps: 2, unit: 1/255}\n"


def test_the_shipped_protocols_are_the_documented_ones_and_all_valid() -> None:
    assert sorted(shipped_protocols()) == [
        "chest-xray-binary",
        "chest-xray-multilabel",
        "ct-slice-hu",
        "default",
        "demo",
        "volume-3d",
    ]
    for name in shipped_protocols():
        assert load_protocol(name).name == name


def test_the_default_protocol_is_marked_as_having_no_justified_margin() -> None:
    assert not load_protocol("default").margins_justified


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("thread: {}\n", "did you mean 'threat'"),
        ("hardening: {epoch: 3}\n", "hardening.epoch: unknown key (did you mean 'epochs'?)"),
        ("suite: {attacks: [{attack: apgd, los: ce, steps: 3}]}\n", "did you mean 'loss'"),
        ("hardening: {batch_size: 1}\n", "greater than or equal to 2, found 1"),
        ("hardening: {learning_rate: .nan}\n", "finite number"),
        ("hardening: {epochs: '12'}\n", "expected a whole number, without quotes, found '12'"),
        ("splits: {train: 0.9, val: 0.2, test: 0.2}\n", "must add up to 1"),
        ("splits: {patients: {unit: each_case}}\n", "unit each_case needs its reason"),
        ("splits: {patients: {unit: each_case, reason: ' '}}\n", "splits.patients.reason"),
        ("splits: {patients: {reason: They said so.}}\n", "the reason is for unit each_case"),
        ("splits: {patients: each_case}\n", "splits.patients"),
        ("endpoints: {noninferiority: [{metric: accuracy, margin: 0.02}]}\n", "must hold accuracy and recall"),
        ("input: {size: [64]}\n", "input.size has 1 numbers"),
        ("input: {intensity: {mode: window, low: 5}}\n", "needs low < high"),
        ("task: {classes: [a, b], positive: c}\n", "is not among task.classes"),
        ("task: {threshold: 0.3}\n", "needs task.positive"),
    ],
)
def test_a_wrong_field_is_named_with_the_nearest_known_key(edit: str, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_protocol(MINIMAL + edit, "mine.yaml")
    assert expected in str(caught.value)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ProtocolError, match="'seed' is given twice"):
        parse_protocol(MINIMAL + "seed: 1\nseed: 2\n", "mine.yaml")


def test_text_that_is_no_yaml_names_the_line() -> None:
    with pytest.raises(ProtocolError, match="line 2"):
        parse_protocol("a: 1\nb: [", "mine.yaml")


def test_a_python_tag_in_a_protocol_is_not_executed(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        parse_protocol(f"a: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']", "mine.yaml")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_name_suggests_the_nearest_protocol() -> None:
    with pytest.raises(ProtocolError, match="did you mean 'chest-xray-binary'"):
        load_protocol("chest-xray")


def test_the_digest_covers_defaults_and_survives_a_round_trip_through_yaml() -> None:
    protocol = parse_protocol(MINIMAL, "mine.yaml")
    spelt_out = yaml.safe_dump(protocol.model_dump(mode="json"))
    assert parse_protocol(spelt_out, "mine.yaml").digest == protocol.digest
    assert parse_protocol(MINIMAL + "seed: 7\n", "mine.yaml").digest != protocol.digest


def test_a_protocol_can_not_be_changed_once_read() -> None:
    protocol = load_protocol("default")
    with pytest.raises(ValidationError, match="frozen"):
        protocol.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("threat", "intensity", "expected"),
    [
        ("{eps: 2, unit: 1/255}", "{mode: file}", 2 / 255),
        ("{eps: 0.01}", "{mode: file}", 0.01),
        ("{eps: 4, unit: HU}", "{mode: window, low: -160, high: 240}", 0.01),
    ],
)
def test_eps_is_translated_into_the_input_range(threat: str, intensity: str, expected: float) -> None:
    text = MINIMAL.replace("{eps: 2, unit: 1/255}", threat) + f"input: {{intensity: {intensity}}}\n"
    assert parse_protocol(text, "mine.yaml").input_threat.eps == pytest.approx(expected)


def test_hounsfield_units_need_a_window() -> None:
    with pytest.raises(ProtocolError, match="HU needs"):
        parse_protocol(MINIMAL.replace("1/255", "HU"), "mine.yaml")


def test_margins_count_as_justified_only_when_each_has_its_reason() -> None:
    protocol = load_protocol("demo")
    assert protocol.margins_justified
    fields = protocol.model_dump()
    fields["endpoints"]["robustness"]["justification"] = None
    assert not Protocol.model_validate(fields).margins_justified


def test_a_branch_form_that_is_a_list_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match=r"hardening\.branch"):
        parse_protocol(MINIMAL + "hardening: {branch: [norm]}\n", "mine.yaml")
