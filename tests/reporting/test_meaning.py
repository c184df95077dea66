"""What an answer means, in the report: at the test split's prevalence and at the one that the protocol intends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from reporting_records import make_run, rewrite

from medharden.audit import RunFiles
from medharden.errors import ProtocolError
from medharden.protocol import parse_protocol
from medharden.record import GateDecision, Verdict
from medharden.reporting import render
from medharden.reporting.source import read_run
from medharden.reporting.usefulness import useful_rows, usefulness


def intended(run: Path, prevalence: float) -> Path:
    make_run(run)
    protocol = yaml.safe_load((run / "protocol.yaml").read_text())
    text = yaml.safe_dump(protocol | {"report": {"prevalence": prevalence}})
    (run / "protocol.yaml").write_text(text)
    rewrite(run, "gate.json", GateDecision, protocol=parse_protocol(text, "protocol.yaml").digest)
    return run


def test_predictive_values_at_the_test_split_are_shares_of_its_table(tmp_path: Path) -> None:
    records = read_run(RunFiles(make_run(tmp_path / "run")))
    [at] = usefulness(records)
    cases, sick = records.cases, records.cases.label == 1
    for name in ("original", "composite"):
        said = cases.subjects[name].predicted == 1
        assert at.positive[name].value == pytest.approx(sick[said].mean())
        assert at.negative[name].value == pytest.approx((~sick)[~said].mean())
    assert at.prevalence == pytest.approx(sick.mean())
    right = {name: np.mean(sick & (s.predicted == 1)) for name, s in cases.subjects.items()}
    false = {name: np.mean(~sick & (s.predicted == 1)) for name, s in cases.subjects.items()}
    change = (right["composite"] - right["original"]) - (false["composite"] - false["original"])
    assert at.net_benefit.value == pytest.approx(change, abs=2e-3), "at a threshold of one half, their odds are 1"


def test_the_intended_prevalence_has_its_own_rows_and_a_rare_finding_a_low_value(tmp_path: Path) -> None:
    run = intended(tmp_path / "run", 0.01)
    records = read_run(RunFiles(run))
    here, there = usefulness(records)
    assert (here.population, there.population, there.prevalence) == ("test split", "intended use", 0.01)
    assert there.positive["composite"].value < 0.5 < here.positive["composite"].value
    assert [where for where, _, _ in useful_rows((here, there))][-1] == "Intended use, prevalence 1.0%"
    render(run, tmp_path / "out")
    page, machine = (
        (tmp_path / "out" / "report.html").read_text(),
        json.loads((tmp_path / "out" / "report.json").read_text()),
    )
    assert "Intended use, prevalence 1.0%" in page
    assert "is not stated (report.prevalence" not in page
    assert machine["usefulness"][1]["positive"]["composite"]["value"] == there.positive["composite"].value


def test_an_unstated_prevalence_is_said_and_other_tasks_have_no_such_table(tmp_path: Path) -> None:
    render(make_run(tmp_path / "two"), tmp_path / "out")
    assert "is not stated (report.prevalence" in (tmp_path / "out" / "report.html").read_text()
    three = make_run(tmp_path / "three", classes=("a", "b", "c"))
    assert usefulness(read_run(RunFiles(three))) == ()
    render(three, tmp_path / "other")
    assert "What an answer means" not in (tmp_path / "other" / "report.html").read_text()


def test_without_endpoints_net_benefit_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", verdict=Verdict.INVALID, endpoints=False)
    [at] = usefulness(read_run(RunFiles(run)))
    assert at.net_benefit is None
    assert len(useful_rows((at,))) == 2


@pytest.mark.parametrize("task", [{"kind": "multilabel", "classes": ["a", "b"]}, {"classes": ["a", "b"]}])
def test_a_prevalence_of_nothing_is_refused(tmp_path: Path, task: dict[str, object]) -> None:
    make_run(tmp_path / "run")
    protocol = yaml.safe_load((tmp_path / "run" / "protocol.yaml").read_text())
    with pytest.raises(ProtocolError, match=r"report\.prevalence"):
        parse_protocol(yaml.safe_dump(protocol | {"task": task, "report": {"prevalence": 0.1}}), "protocol.yaml")
