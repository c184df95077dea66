"""Protocols that mean harm or that a slip made: each is refused with its place, at once, in little memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hostile_files import HEAD, PROTOCOLS, protocol
from hostile_outcomes import Outcomes, assert_refused, outcomes
from hypothesis import given, settings
from hypothesis import strategies as st

from medharden import plain_yaml
from medharden.errors import ProtocolError
from medharden.plain_yaml import parse_yaml, yaml_text
from medharden.protocol import (
    ModelSpec,
    Protocol,
    ThreatModel,
    content_digest,
    load_protocol,
    parse_protocol,
    protocol_yaml,
    read_content,
)

SAID = {
    "alias bomb": r"line 6: an anchor \('&a'\); write out each value",
    "anchor": "line 6: an anchor",
    "alias": r"line 6: an alias \('\*a'\)",
    "self-reference": "line 6: an anchor",
    "self-reference as key": "line 6: an anchor",
    "merge": "line 6: a merge key",
    "merge list": "line 6: a merge key",
    "list key": "line 6: a key that is a list",
    "mapping key": "line 6: a key that is a list or has keys itself",
    "empty key": "'': unknown key",
    "number key": "1: unknown key",
    "key twice": "line 7: 'seed' is given twice",
    "impossible date": "line 6: '2020-13-45' reads as a date; put it in quotes",
    "impossible time": "line 6: .* reads as a date",
    "date": "line 6: .* reads as a date",
    "set": r"line 6: a tag \('!!set'\)",
    "binary": r"line 6: a tag \('!!binary'\)",
    "omap": r"line 6: a tag \('!!omap'\)",
    "pairs": r"line 6: a tag \('!!pairs'\)",
    "python": r"line 6: a tag \('!!python/object/apply:os.mkdir'\)",
    "python name": r"line 6: a tag \('!!python/name:os.system'\)",
    "text tag": "line 6: a tag",
    "bare tag": "line 6: a tag",
    "long tag": "line 6: a tag",
    "tag line": "line 1: a %TAG line",
    "other version": "line 1: found incompatible",
    "deep flow": "line 6: (exceeded maximum nesting depth|more than 64 levels)",
    "deep flow closed": "line 6: (exceeded maximum nesting depth|more than 64 levels)",
    "deep mappings": "line 6: (exceeded maximum nesting depth|more than 64 levels)",
    "deep block": "line 70: more than 64 levels",
    "deep dashes": "line 7: more than 64 levels",
    "deep questions": "line 6: a key that is a list or has keys itself",
    "infinity": "line 6: '.inf' is no finite number",
    "not a number": "line 6: '.NaN' is no finite number",
    "overflow": r"line 6: '1.0e\+400' is no finite number",
    "400 digits": "line 6: a number of 401 characters",
    "a million digits": "line 6: a number of 990000 characters",
    "a million decimals": "line 6: a number of 990002 characters",
    "beyond a record": "line 6: '9007199254740992' is too large",
    "hexadecimal": "line 6: '0x10' reads as a number that is not decimal",
    "long hexadecimal": "line 6: a number of 990002 characters",
    "octal": "line 6: '0017' reads as a number that is not decimal",
    "binary digits": "line 6: '0b11' reads as a number that is not decimal",
    "minutes": "line 6: '1:30' reads as a number that is not decimal",
    "minutes with a point": "line 6: '1:30.5' reads as a number of minutes",
    "many minutes": "line 6: a number of 900001 characters",
    "null byte": r"line 6: a control character or change of direction \(U\+0000\)",
    "escape": r"line 6: .*\(U\+001B\)",
    "escaped escape": r"line 6: .*\(U\+001B\)",
    "direction": r"line 6: .*\(U\+202E\)",
    "escaped direction": r"line 6: .*\(U\+202E\)",
    "next line": r"line 6: .*\(U\+0085\)",
    "surrogate": "line 6: ",
    "not UTF-8": "line 6: no UTF-8 text",
    "UTF-16": "line 1: no UTF-8 text",
    "two documents": "line 6: a second document",
    "many documents": "line 2: a second document",
    "empty": "expected keys and values, found nothing",
    "comment": "expected keys and values, found nothing",
    "a list": "expected keys and values, found list",
    "a text": "expected keys and values, found str",
    "too long": "larger than 1000000 bytes",
    "flat": "more than 20000 keys and values",
    "many keys": "key19: unknown key.*and 9580 more",
    "many wrong values": "model.arguments.a.*and .* more",
    "many wrong attacks": "suite.attacks.0.attack: missing.*and 31981 more",
    "many findings": "must name every finding of task.classes",
    "long key": r"xxx\.\.\.: unknown key",
    "long value": r"seed: .* found 'x*\.\.\.",
    "unclosed": "line 7: found unexpected end of stream",
    "tab": "line 6: found character that cannot start any token",
}


@pytest.fixture(scope="module")
def read() -> Outcomes:
    return outcomes("protocols")


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_hostile_protocol_is_refused_with_its_place_within_a_second(read: Outcomes, name: str) -> None:
    outcome = read["protocols", name]
    assert_refused(outcome, "ProtocolError", seconds=2, mebibytes=300)
    assert re.search(SAID[name], outcome["message"], re.DOTALL), outcome["message"][:500]


def test_without_the_fast_parser_the_same_protocols_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_yaml, "_LOADER", yaml.SafeLoader)
    small = {name: make() for name, make in PROTOCOLS.items() if len(make()) < 2000}
    assert len(small) > 40
    for name, data in small.items():
        with pytest.raises(ProtocolError):
            parse_protocol(data, name)


@pytest.mark.parametrize("name", ["alias bomb", "self-reference", "impossible date", "deep flow", "python", "octal"])
def test_a_run_directory_s_protocol_is_refused_by_the_same_rules(tmp_path: Path, name: str) -> None:
    (tmp_path / "protocol.yaml").write_bytes(PROTOCOLS[name]())
    with pytest.raises(ProtocolError, match=r"protocol\.yaml is not readable as YAML: line 6"):
        read_content(tmp_path / "protocol.yaml")


@pytest.mark.parametrize("name", ["x" * 300, "x\x00y", "x\x1b[31m", "."])
def test_a_name_that_no_file_can_have_is_a_protocol_error(name: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        load_protocol(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("more", "seed"),
    [("seed: 7", 7), ("seed: +7", 7), ("seed: 1_000", 1000), ("'seed': 7", 7), ('"seed": 7 # a note', 7)],
)
def test_plain_spellings_are_read_as_before(more: str, seed: int) -> None:
    assert parse_protocol(protocol(more), "p").seed == seed
    assert parse_protocol(b"\xef\xbb\xbf" + protocol(more), "p").seed == seed, "a mark of the byte order is skipped"
    assert parse_protocol(b"%YAML 1.1\n---\n" + protocol(more) + b"...\n", "p").seed == seed


def test_keys_are_texts_whatever_else_they_would_be() -> None:
    text = protocol("task: {kind: multilabel, classes: ['yes', '1'], threshold: {yes: 0.3, 1: 0.4}}").decode()
    text += "endpoints: {noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.1}]}\n"
    assert parse_protocol(text, "p").task.threshold == {"yes": 0.3, "1": 0.4}


def test_a_threat_that_its_window_makes_nothing_of_is_refused() -> None:
    text = HEAD.replace(b"{eps: 0.1}", b"{eps: 1, unit: HU}")
    for low, high in (("-1.0e+308", "1.0e+308"), ("0.0", "5.0e-324")):
        window = f"input: {{intensity: {{mode: window, low: {low}, high: {high}}}}}\n"
        with pytest.raises(ProtocolError, match="no finite share above 0 of the window"):
            parse_protocol(text + window.encode(), "p")


def test_what_two_places_share_is_written_out_in_both() -> None:
    shared = [1, 2]
    spec = ModelSpec(arguments={"a": shared, "b": shared})
    made = Protocol(schema_version=1, name="a", title="t", intended_use="x", threat=ThreatModel(eps=0.1), model=spec)
    assert parse_protocol(protocol_yaml(made), "p").digest == made.digest
    assert "&" not in yaml_text({"a": shared, "b": shared, "c": {"d": shared}})
    assert "&id001" in yaml.safe_dump({"a": shared, "b": shared}), "which the ordinary dumper would not"


_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t").filter(
        lambda c: not "\u202a" <= c <= "\u202e" and not "\u2066" <= c <= "\u2069" and c not in "\ufffe\uffff"
    )
)
_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_PLAIN = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT | st.sampled_from(["<<", "1:30", "0x1", "2020-01-01", "~", "no", "="]),
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT | st.sampled_from(["<<", "1", "yes", "~"]), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(_PLAIN, st.sampled_from([80, 100]))
def test_plain_data_are_the_same_after_yaml(value: object, width: int) -> None:
    assert parse_yaml(yaml_text(value, width=width).encode()) == value


def test_a_digest_is_that_of_the_content_however_it_is_spelt(tmp_path: Path) -> None:
    made = parse_protocol(HEAD, "p")
    (tmp_path / "protocol.yaml").write_text(protocol_yaml(made), encoding="utf-8")
    assert content_digest(read_content(tmp_path / "protocol.yaml")) == made.digest
