"""The matrix of threats, mitigations and tests: every cell rests on a record, or is said to be the team's word."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from reporting_records import make_run, rewrite

from medharden.audit import RunFiles
from medharden.errors import ProtocolError
from medharden.protocol import parse_protocol
from medharden.record import AttackOutcome, Endpoint, Evaluation, GateDecision, HardenRecord, Identity, Verdict
from medharden.reporting import render
from medharden.reporting.matrix import ThreatRow, threat_matrix
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
    from dataclasses import replace

    return replace(subject, attacks=(*subject.attacks, outcome))


@pytest.mark.parametrize("fusion", ["mixed", "guarded"])
def test_every_number_of_a_cell_is_in_the_record_that_the_row_names(tmp_path: Path, fusion: str) -> None:
    run = make_run(tmp_path / "run", fusion=fusion)
    with_square(run)
    found = rows(run)
    assert "square-500 won on 7 of 600" in found["evasion_queries"].result
    for row in found.values():
        for e in row.evidence:
            assert resolved(run, e.file, e.field) == e.value, (row.threat, e)
        counts = re.sub(r"\d[\d.,]*%( \[[^]]*\])?", "", row.result)  # a share and its limits follow from the counts
        values = {str(e.value) for e in row.evidence} | {f"{e.value:g}" for e in row.evidence if type(e.value) is float}
        named = {name for value in values for name in re.findall(r"\d[\d.]*", value)} | values
        assert {n.rstrip(".") for n in re.findall(r"\d[\d.]*", counts)} <= named, row.threat


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
