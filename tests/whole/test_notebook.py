"""The tutorial for notebooks, run as it is written: every block in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from medharden.audit import read_record
from medharden.record import CohortRecord, HardenRecord

PAGE = (ROOT / "docs" / "tutorial-notebook.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("notebook")
    names: dict[str, Any] = {"__name__": "notebook"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MEDHARDEN_PSEUDONYM_KEY", "a key for tests, sixteen bytes or more")
        for title, block in re.findall(r'```yaml title="([^"]+)"\n(.*?)```', PAGE, re.S):
            (folder / title).write_text(block, encoding="utf-8")
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
            exec(compile(block, "a block of the tutorial", "exec"), names)  # the page is this project's own
    return folder / "run", names


def test_the_blocks_run_in_order_to_a_report(notebook: tuple[Path, dict[str, Any]]) -> None:
    run, names = notebook
    assert (run / "report.html").is_file()
    assert names["evaluation"].identity.against == "module"
    assert names["evaluation"].identity.logits_equal
    assert "INVALID" not in names["decision"].verdict
    assert names["answer"].logits.shape == (1, 2)


def test_the_module_in_the_notebook_is_not_changed_and_the_release_answers_for_it(
    notebook: tuple[Path, dict[str, Any]],
) -> None:
    _, names = notebook
    assert all(p.requires_grad for p in names["net"].parameters())
    inputs = names["example"]
    with torch.no_grad():
        assert torch.equal(names["model"].clean_path(inputs), names["net"]((inputs - 0.5) / 0.25))


def test_records_name_no_patient_and_say_where_the_data_and_the_model_came_from(
    notebook: tuple[Path, dict[str, Any]],
) -> None:
    run, _ = notebook
    cohort = read_record(run / "cohort.json", CohortRecord)
    assert (cohort.source, cohort.grouped_by) == ("dataset", "patient")
    assert len({case.patient for case in cohort.cases}) == 400
    findings = {f.code: f for f in read_record(run / "harden.json", HardenRecord).findings}
    assert "no: python:notebook:Net" in findings["model.given_as_module"].message
    for path in run.iterdir():
        assert b"patient 17" not in path.read_bytes(), path.name


def test_the_page_is_short() -> None:
    assert len(PAGE.split()) < 900
