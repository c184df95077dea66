"""What `diff` shows of two runs, and what it keeps to itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from gating_factory import protocol, records
from verifying_runs import make_run

from medharden.audit import read_record
from medharden.errors import RunError
from medharden.record import CohortRecord
from medharden.verifying import compare


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    found = compare(run, run)
    assert found.changes == ()
    assert set(found.files.values()) == {"same"}
    assert found.verdicts == ("PASS", "PASS")


def test_changes_are_named_by_part_and_field_down_to_the_endpoint(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a")
    second = make_run(tmp_path / "b", records(rules=protocol(columns=("sex",)), lost=30))
    (second / "extra.txt").write_text("x")
    found = compare(first, second)
    changes = {(c.part, c.field): (c.first, c.second) for c in found.changes}
    assert found.verdicts == ("PASS", "FAIL")
    assert changes["protocol", "subgroups.columns"] == ([], ["sex"])
    assert changes["gate", "verdict"] == ("PASS", "FAIL")
    assert changes["gate", "accuracy.verdict"] == ("PASS", "FAIL")
    before, after = changes["gate", "accuracy.estimate"]
    assert after < before
    assert (
        changes["evaluation", "composite.clean_correct"][0] - changes["evaluation", "composite.clean_correct"][1] > 20
    )
    assert found.files["extra.txt"] == "only in the second"
    assert found.files["cases.parquet"] == "different"
    assert found.files["card.md"] == "same"


def test_runs_of_versions_with_other_fields_are_compared_too(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    with (second / "protocol.yaml").open("a") as stream:
        stream.write("field_of_another_version: 3\n")
    (change,) = (c for c in compare(first, second).changes if c.part == "protocol")
    assert (change.field, change.first, change.second) == ("field_of_another_version", "absent", 3)


def test_nothing_of_a_case_is_said(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a")
    second = make_run(tmp_path / "b", records(lost=30))
    said = str(compare(first, second))
    for case in read_record(first / "cohort.json", CohortRecord).cases:
        assert case.case not in said
        assert case.patient not in said
        assert case.pixels not in said


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(RunError, match="b is no run directory"):
        compare(run, tmp_path / "b")
