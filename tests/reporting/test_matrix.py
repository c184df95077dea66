"""The matrix of threats, mitigations and tests: every cell rests on a record, or is said to be the team's word."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from reporting_records import make_run, rewrite

from medharden.audit import RunFiles
from medharden.errors import ProtocolError
from medharden.protocol import parse_protocol
from medharden.record import AttackOutcome, Endpoint, Evaluation, Finding, GateDecision, HardenRecord, Identity, Verdict
from medharden.reporting import render
from medharden.reporting.matrix import ThreatRow, threat_matrix
from medharden.reporting.numbers import percent
from medharden.reporting.schemas import record_schemas
from medharden.reporting.source import read_run

STATED = [
    {
        "threat": "model_extraction",
        "test": "100,000 queries, agreement 61 %: report SEC-12",
        "tester": {"role": "independent", "name": "Institute X"},
        "residual_risk": "accepted, RMF-31",
    },
    {"threat": "acquisition_chain", "scope": "ruled_out", "reason": "Images come from the archive <b>alone</b>."},
    {"threat": "evasion_white_box", "mitigation": "a closed network", "test": "red team of two days: none won"},
]


def stated_run(run: Path, content: dict[str, Any], **made: Any) -> Path:
    """A run whose protocol states this for its report."""
    make_run(run, **made)
    protocol = yaml.safe_load((run / "protocol.yaml").read_text())
    protocol["report"] = protocol.get("report", {}) | content
    text = yaml.safe_dump(protocol)
    (run / "protocol.yaml").write_text(text)
    digest = parse_protocol(text, "protocol.yaml").digest
    rewrite(run, "gate.json", GateDecision, protocol=digest)
    return run


def rows(run: Path) -> dict[str, ThreatRow]:
    return {row.threat: row for row in threat_matrix(read_run(RunFiles(run)))}


def resolved(run: Path, file: str, pointer: str) -> Any:
    value = json.loads((run / file).read_text())
    for part in pointer.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def with_square(run: Path) -> None:
    """Adds a search by queries to protocol and evaluation."""
    protocol = yaml.safe_load((run / "protocol.yaml").read_text())
    protocol["suite"] = {"attacks": [{"attack": "pgd", "loss": "ce", "steps": 20}, {"attack": "square", "steps": 500}]}
    (run / "protocol.yaml").write_text(yaml.safe_dump(protocol))
    evaluation = read_run_evaluation(run)
    outcome = AttackOutcome("square-500", "by queries", 600, 7, 1.0)
    subjects = [s if s.name != "composite" else rewritten(s, outcome) for s in evaluation.subjects]
    rewrite(run, "evaluation.json", Evaluation, subjects=tuple(subjects))
    rewrite(run, "gate.json", GateDecision, verdict=Verdict.INVALID)


def read_run_evaluation(run: Path) -> Evaluation:
    return RunFiles(run).record("evaluation.json", Evaluation)


def rewritten(subject: Any, outcome: AttackOutcome) -> Any:
    return replace(subject, attacks=(*subject.attacks, outcome))


NUMBER = re.compile(r"(?<![\w.])[\d][\d,]*(?:\.\d+)?(%?)(?![\w-])")


def untraced(row: ThreatRow) -> list[str]:
    """Numbers in a row's cells that no value behind the row gives."""
    values = [
        float(e.value) for e in row.evidence if isinstance(e.value, int | float) and not isinstance(e.value, bool)
    ]
    texts = [e.value for e in row.evidence if isinstance(e.value, str)]
    values += [float(found) for text in texts for found in re.findall(r"\d+(?:\.\d+)?", text)]
    counts = [e.value for e in row.evidence if type(e.value) is int]
    shares = {percent(v) for v in values if 0 <= v <= 1} | {
        percent(a / b) for a in counts for b in counts if b >= a > 0
    }
    lost = []
    for cell in (row.mitigation, row.test, row.result):
        for text in texts:  # a name or a sentence of a record is its own evidence
            cell = cell.replace(text, "")
        for found in NUMBER.finditer(re.sub(r"[\[\]]", " ", cell)):
            said = found[0].replace(",", "")
            digits = len(said.replace(".", "").lstrip("0")) or 1
            fits = (
                f"{said[:-1]}%" in shares
                if found[1]
                else any(f"{v:.{digits}g}" == f"{float(said):.{digits}g}" for v in values)
            )
            # of limits in one pair of brackets only the last has its sign of per cent
            if not fits and f"{said}%" not in shares:
                lost.append(said)
    return lost


@pytest.mark.parametrize("fusion", ["mixed", "guarded"])
def test_every_number_of_a_cell_is_in_the_record_that_the_row_names(tmp_path: Path, fusion: str) -> None:
    run = make_run(tmp_path / "run", fusion=fusion)
    with_square(run)
    found = rows(run)
    assert "square-500 won on 7 of 600" in found["evasion_queries"].result
    for row in found.values():
        for e in row.evidence:
            assert resolved(run, e.file, e.field) == e.value, (row.threat, e)
        assert untraced(row) == [], row.threat
    white = found["evasion_white_box"]
    for cell, made_up in (("result", "77 of 600"), ("result", "12.3%"), ("test", "eps 9"), ("mitigation", "4 layers")):
        assert untraced(replace(white, **{cell: f"{getattr(white, cell)} {made_up}"})), made_up


def leaves(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a record that is no record itself, with the way to it."""
    if is_dataclass(record) and not isinstance(record, type):
        for field in fields(record):
            yield from leaves(getattr(record, field.name), (*path, field.name))
    elif isinstance(record, tuple):
        for k, part in enumerate(record):
            yield from leaves(part, (*path, k))
    else:
        yield path, record


def put(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The record with another value there."""
    if not path:
        return value
    first, *rest = path
    if isinstance(first, int):
        return (*record[:first], put(record[first], tuple(rest), value), *record[first + 1 :])
    return replace(record, **{first: put(getattr(record, first), tuple(rest), value)})


def another(value: Any) -> Any:
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Verdict):
        return Verdict.FAIL if value is not Verdict.FAIL else Verdict.PASS
    if isinstance(value, str):
        return f"{value} of another kind"
    return value + 1 if isinstance(value, int) else value / 2 + 0.001


@pytest.mark.parametrize("fusion", ["mixed", "guarded"])
def test_no_cell_rests_on_a_value_that_its_row_does_not_name(tmp_path: Path, fusion: str) -> None:
    """Whatever value of a record is changed: a row that says something else then names a value that changed too."""
    run = make_run(tmp_path / "run", fusion=fusion)
    with_square(run)
    finding = Finding("attack.masked", "warning", "Gradients may be masked.")
    rewrite(run, "evaluation.json", Evaluation, findings=(finding,))
    rewrite(run, "gate.json", GateDecision, verdict=Verdict.INVALID)
    records = read_run(RunFiles(run))
    before, moved = {row.threat: row for row in threat_matrix(records)}, set()
    for name in ("evaluation", "harden", "decision"):
        for path, value in leaves(getattr(records, name)):
            if not isinstance(value, bool | int | float | str):
                continue
            if path[-1] == "name" and path[0] == "subjects" and len(path) == 3:
                continue  # what rows are looked up by
            changed = replace(records, **{name: put(getattr(records, name), path, another(value))})
            for row in threat_matrix(changed):
                old = before.get(row.threat)
                if old is None or old.evidence == row.evidence:
                    assert old is None or row == old, (row.threat, name, path)
                elif row != replace(old, evidence=row.evidence):
                    moved.add(row.threat)
    assert {"evasion_white_box", "evasion_queries", "masked_gradients", "tampering"} <= moved


def test_a_changed_record_changes_its_cell(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "they are equal, on 600 cases" in rows(run)["tampering"].result
    identity = Identity("file", state_equal=False, logits_equal=True, max_abs_difference=0.0, cases=600)
    rewrite(run, "evaluation.json", Evaluation, identity=identity)
    rewrite(run, "gate.json", GateDecision, verdict=Verdict.INVALID)
    assert "they differ" in rows(run)["tampering"].result
    identity = Identity("none", state_equal=False, logits_equal=False, max_abs_difference=0.0, cases=0)
    rewrite(run, "evaluation.json", Evaluation, identity=identity)
    assert (rows(run)["tampering"].test, rows(run)["tampering"].tester) == ("not tested", "nobody")


def test_what_was_not_tested_is_a_row_that_says_so_and_claims_nothing(tmp_path: Path) -> None:
    found = rows(make_run(tmp_path / "run"))
    for threat in ("evasion_queries", "data_poisoning", "model_poisoning", "membership_inference", "model_extraction"):
        assert (found[threat].test, found[threat].tester) == ("not tested", "nobody"), threat
        assert found[threat].residual_risk == "not stated"
    assert "referral_flood" not in found


def test_forced_referrals_are_a_row_of_a_release_that_refers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", fusion="guarded")
    assert "no limit" in rows(run)["referral_flood"].result
    decision = RunFiles(run).record("gate.json", GateDecision)
    limit = Endpoint("referral_attacked", "referral", Verdict.FAIL, 0.4, 0.3, 0.5, 0.95, 0.2, 600, 600, (), None, None,
                     "exact", "", "referral_attacked: 0.400 exceeds 0.200")  # fmt: skip
    rewrite(run, "gate.json", GateDecision, endpoints=(*decision.endpoints, limit))
    row = rows(run)["referral_flood"]
    assert row.result == "40.0% referred, FAIL against 20.0%"
    assert all(resolved(run, e.file, e.field) == e.value for e in row.evidence)


def test_what_the_team_states_is_shown_as_its_word_and_escaped(tmp_path: Path) -> None:
    run = stated_run(tmp_path / "run", {"threats": STATED, "tester": {"role": "developer"}})
    found = rows(run)
    extraction = found["model_extraction"]
    assert extraction.test == "stated: 100,000 queries, agreement 61 %: report SEC-12"
    assert (extraction.result, extraction.tester) == ("as stated", "independent (Institute X)")
    assert extraction.residual_risk == "accepted, RMF-31"
    assert found["acquisition_chain"].scope.startswith("ruled out: Images come")
    white = found["evasion_white_box"]
    assert white.mitigation.endswith("Stated: a closed network")
    assert white.tester == "developer; of the stated test: not stated"
    assert "stand against all attacks" in white.result, "a stated test never takes the place of a measured one"
    render(run, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>alone" not in page
    assert "&lt;b&gt;alone" in page
    machine = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["threat"] for row in machine["threats"]] == list(found)


def test_the_original_is_shown_beside_and_the_gate_s_verdicts_gravest_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    evaluation = read_run_evaluation(run)
    row = rows(run)["evasion_white_box"]
    released, original = evaluation.subject("composite"), evaluation.subject("original")
    assert row.result.startswith(f"{released.robust_correct} of {released.attacked} attacked cases stand")
    assert f"of the original {original.robust_correct}." in row.result
    assert RunFiles(run).record("harden.json", HardenRecord).fusion.mode in row.mitigation


@pytest.mark.parametrize(
    ("threats", "said"),
    [
        ([{"threat": "tampering", "scope": "ruled_out"}], "needs its reason"),
        ([{"threat": "tampering", "reason": "a reason alone"}], "needs its reason"),
        ([{"threat": "evasion_white_box", "scope": "ruled_out", "reason": "no"}], "can't be ruled out"),
        ([{"threat": "tampering", "tester": {"role": "developer"}}], "state the test"),
        ([{"threat": "tampering"}, {"threat": "tampering"}], "twice"),
        ([{"threat": "magic"}], "magic|threat"),
        ([{"threat": "tampering", "tester": {"role": "friend"}, "test": "x"}], "role"),
    ],
)
def test_a_statement_that_can_t_be_is_refused(tmp_path: Path, threats: list[dict[str, Any]], said: str) -> None:
    make_run(tmp_path / "run")
    protocol = yaml.safe_load((tmp_path / "run" / "protocol.yaml").read_text())
    with pytest.raises(ProtocolError, match=said):
        parse_protocol(yaml.safe_dump(protocol | {"report": {"threats": threats}}), "protocol.yaml")


# --- the page of regulation -------------------------------------------------------------------------------------------

ROWS = (ROOT / "docs" / "regulation.md").read_text(encoding="utf-8").split("## What it does not give")[0]
NAMED = re.findall(r"`(\w+)\.(?:json|yaml)`((?: `[^`]+`,?| and)+)", ROWS)
PLACES = sorted({(file, place) for file, places in NAMED for place in re.findall(r"`([^`]+)`", places)})


def known(schema: dict[str, Any], place: str) -> bool:
    """Whether a record's schema has a field at such a place as `endpoints[].tester`."""
    here = schema
    for part in place.removesuffix("[]").split("."):
        options = [here, *here.get("anyOf", ())]
        found = [o["properties"][part.removesuffix("[]")] for o in map(follow(schema), options)
                 if part.removesuffix("[]") in o.get("properties", {})]  # fmt: skip
        if not found:
            return False
        here = follow(schema)(found[0])
        if part.endswith("[]"):
            here = follow(schema)(here.get("items", here))
    return True


def follow(schema: dict[str, Any]) -> Any:
    def followed(part: dict[str, Any]) -> dict[str, Any]:
        return schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part

    return followed


def test_every_field_that_the_page_maps_to_a_clause_is_one_of_its_record() -> None:
    schemas = record_schemas()
    assert {("gate", "independent"), ("gate", "changes"), ("gate", "missing")} <= set(PLACES)
    assert ("protocol", "change_control") in PLACES
    fields = [(file, place) for file, place in PLACES if not re.search(r"[…:/]|\.(json|parquet|yaml)$", place)]
    assert len(fields) > 12
    assert not known(schemas["gate"], "endpoints[].nothing")
    assert [(file, place) for file, place in fields if not known(schemas[file], place)] == []
