"""The published schemas: they are those of the types, every record of a run is valid under them, and others are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator
from reporting_records import make_run

from medharden.audit import RunFiles, canonical_json
from medharden.protocol import load_protocol
from medharden.record import Verdict
from medharden.reporting.machine import machine_report
from medharden.reporting.schemas import record_schemas
from medharden.reporting.source import read_run

PUBLISHED = ROOT / "docs" / "schemas"


def published(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((PUBLISHED / f"{name}.schema.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", list(record_schemas()))
def test_the_published_schema_is_that_of_the_type(name: str) -> None:
    validator = published(name)
    validator.check_schema(validator.schema)
    assert validator.schema == record_schemas()[name], "run: python -m medharden.reporting.schemas docs/schemas"


def test_no_other_schema_is_published() -> None:
    assert {p.name.removesuffix(".schema.json") for p in PUBLISHED.iterdir()} == set(record_schemas())


@pytest.mark.parametrize(("verdict", "fusion"), [(Verdict.PASS, "mixed"), (Verdict.INVALID, "guarded")])
def test_every_record_of_a_run_is_valid(tmp_path: Path, verdict: Verdict, fusion: str) -> None:
    run = make_run(tmp_path, verdict=verdict, endpoints=verdict is Verdict.PASS, fusion=fusion)
    for name in ("cohort", "harden", "evaluation", "gate"):
        published(name).validate(json.loads((run / f"{name}.json").read_bytes()))
    published("report").validate(json.loads(canonical_json(machine_report(read_run(RunFiles(run))))))
    published("protocol").validate(load_protocol(run / "protocol.yaml").model_dump(mode="json"))


def test_a_key_that_no_record_has_and_a_wrong_type_are_refused(tmp_path: Path) -> None:
    report = json.loads(canonical_json(machine_report(read_run(RunFiles(make_run(tmp_path))))))
    for wrong in ({"patient_name": "x"}, {"verdict": "FINE"}, {"seed": "1"}, {"sanity": [{"subject": "original"}]}):
        assert not published("report").is_valid({**report, **wrong})
    assert not published("report").is_valid({k: v for k, v in report.items() if k != "not_tested"})
