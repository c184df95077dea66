"""Which part serves which clause: the documentation says what the report says, and every field named is a record's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from reporting_many import many_endpoints
from reporting_records import make_run

from medharden.audit import RunFiles
from medharden.protocol import Hazard, Statements
from medharden.protocol import Tester as Examiner  # which pytest does not take for a class of tests
from medharden.record import ChangeRow
from medharden.reporting.clauses import CLAUSES, clause_rows
from medharden.reporting.page import html_report
from medharden.reporting.source import RunRecords, read_run

SCHEMAS = {
    "protocol.yaml": "protocol",
    "gate.json": "gate",
    "evaluation.json": "evaluation",
    "cohort.json": "cohort",
    "report.json": "report",
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    return read_run(RunFiles(make_run(tmp_path_factory.mktemp("run"))))


def documented() -> list[tuple[str, str, str]]:
    """The rows of the documentation, without their links."""
    text = (ROOT / "docs/regulation.md").read_text(encoding="utf-8")
    table = text[text.index("| Evidence |") : text.index("## What it does not give")]
    rows = [line.strip().strip("|").split("|") for line in table.splitlines()[2:] if line.startswith("|")]
    return [tuple(re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell).strip() for cell in row) for row in rows]  # type: ignore[misc]


def test_the_documentation_and_the_report_have_the_same_rows() -> None:
    assert documented() == [(c.evidence, c.where, c.serves) for c in CLAUSES]


def named_fields() -> list[tuple[str, str]]:
    """File and field of every field that a row names; a field without a file is of the file before it."""
    found = []
    for clause in CLAUSES:
        file = ""
        for name in re.findall(r"`([^`]+)`", clause.where):
            if name in SCHEMAS:
                file = name
            elif name.startswith("endpoints."):
                found.append(("protocol.yaml", name))
            elif file and "/" not in name and not re.search(r"[.](json|jsonl|parquet)$", name) and "…" not in name:
                found.append((file, name))
    return found


def held(schema: dict[str, Any], node: dict[str, Any], path: list[str]) -> bool:
    """Whether a schema has the field, through references, lists and what may be null."""
    if "$ref" in node:
        return held(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]], path)
    if not path:
        return True
    for part in (*node.get("anyOf", ()), *([node["items"]] if isinstance(node.get("items"), dict) else ())):
        if held(schema, part, path):
            return True
    below = node.get("properties", {})
    return path[0] in below and held(schema, below[path[0]], path[1:])


@pytest.mark.parametrize(("file", "name"), named_fields())
def test_every_field_that_is_named_is_one_of_the_record(file: str, name: str) -> None:
    schema = json.loads((ROOT / f"docs/schemas/{SCHEMAS[file]}.schema.json").read_text(encoding="utf-8"))
    assert held(schema, schema, name.replace("[]", "").split(".")), f"{file} has no {name}"
    assert not held(schema, schema, ["no_such_field"])


def test_fields_are_looked_for_at_all() -> None:
    assert ("gate.json", "worst_case") in named_fields()
    assert ("protocol.yaml", "report.threats[].tester") in named_fields()
    assert len(named_fields()) > 15


def test_every_clause_and_what_the_run_holds_of_it_stands_in_the_report(records: RunRecords) -> None:
    text = re.sub(r"<[^>]+>", "", html_report(records).decode())
    text = " ".join(text.replace("&#39;", "'").split())
    for row in clause_rows(records):
        for cell in (row.evidence[1:], row.where, row.serves, row.here):
            assert cell.replace("`", "") in text


def test_what_a_run_does_not_hold_is_said(records: RunRecords) -> None:
    here = {row.evidence.split(",")[0]: row.here for row in clause_rows(records)}
    assert here["who tested"] == "tester not stated; no independent test"
    assert here["modifications that are foreseen"] == "no plan is stated, and none was held against one"
    assert here["non-inferiority against the last authorised release"] == "no authorised release was compared with"
    assert here["subgroups with their limits; the worst group as an endpoint"] == "no subgroup is declared"
    assert here["missing data by reason"] == "section 2: none is missing"
    assert here["hazards"].startswith("section 6: no hazard stated, overall residual risk not stated")
    assert here["how long records are kept"] == "section 7: not stated"


def test_what_a_run_holds_is_counted(tmp_path: Path) -> None:
    records = read_run(RunFiles(many_endpoints(tmp_path)))
    stated = Statements(
        population="Adults",
        hazards=(Hazard(hazard="Missed"),),
        residual_risk="acceptable",
        retention="10 years",
        tester=Examiner(role="independent", name="A. Example"),
    )
    records = replace(
        records,
        protocol=records.protocol.model_copy(update={"report": stated}),
        decision=replace(records.decision, authorised="ab" * 32, changes=(ChangeRow("data", "what", True, "as"),)),
    )
    here = {row.evidence.split(",")[0]: row.here for row in clause_rows(records)}
    assert here["accuracy and robustness with limits"].endswith(f"{len(records.decision.endpoints)} endpoints")
    assert here["missing data by reason"] == "section 2: 3 cases without an answer that counts"
    assert here["subgroups with their limits; the worst group as an endpoint"] == (
        "section 2: 12 comparisons; 0 worst-group endpoints"
    )
    assert here["hazards"].startswith("section 6: 1 hazard, overall residual risk stated")
    assert here["modifications that are foreseen"].endswith("0 foreseen changes, 1 change against the predecessor")
    assert here["non-inferiority against the last authorised release"] == "section 6: against abababababab"
    assert here["who tested"] == "tester independent (A. Example); no independent test"
    assert here["how long records are kept"] == "section 7: stated"
