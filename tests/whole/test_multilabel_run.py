"""A multi-label run from files to a verdict and a report: real chest X-rays with real findings."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_networks import TinyNet
from tiny import ARCH, KEY

from medharden.audit import read_cases, verify_log
from medharden.cli.console import out
from medharden.cli.inspection import run_inspection
from medharden.cli.pipeline import Job, run_all
from medharden.data import load_cohort
from medharden.errors import ModelError
from medharden.evaluating import evaluate
from medharden.gating import gate
from medharden.hardening import fine_tune, harden
from medharden.models import load_classifier, load_hardened
from medharden.planning import plan
from medharden.protocol import Hardening, load_protocol, parse_protocol
from medharden.stats import auroc

FINDINGS = ("pneumonia", "bacterial", "viral")
SAID = {"none": "No Finding", "bacteria": "pneumonia|bacterial", "virus": "pneumonia|viral"}
PROTOCOL = """
schema_version: 1
name: chest-findings
title: Findings of chest X-rays
intended_use: Exercise of the pipeline.
task:
  kind: multilabel
  classes: [pneumonia, bacterial, viral]
  threshold: {pneumonia: 0.5, bacterial: 0.4, viral: 0.3}
input: {channels: gray, size: [32, 32]}
threat: {eps: 0.01}
hardening: {branch: full, epochs: 6, min_steps: 1, batch_size: 32, learning_rate: 0.005, probe_cases: 40, METHOD}
fusion: {mode: MODE, referral_budget: 0.3}
suite: {attacks: [{attack: apgd, loss: ce, steps: 5}], cases: 30, sanity_cases: 4, reason: Tests are quick.}
endpoints:
  noninferiority:
    - {metric: accuracy, margin: 0.1}
    - {metric: recall, margin: 0.2, findings: [pneumonia]}
    - {metric: finding_accuracy, margin: 0.1}
    - {metric: auroc, margin: 0.1}
    - {metric: finding_auroc, margin: 0.1}
    - {metric: brier, margin: 0.1}
"""


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Path:
    """A folder with 130 X-rays, a manifest of their findings, and a network trained on them."""
    folder, source = tmp_path_factory.mktemp("chest"), test_data / "kermany_cxr_224"
    with (source / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))[::14]
    (folder / "data").mkdir()
    with (folder / "data" / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Image Index", "Patient ID", "Finding Labels"])
        for number, row in enumerate(rows):
            (folder / "data" / f"{number}.jpeg").write_bytes((source / row["path"]).read_bytes())
            writer.writerow([f"{number}.jpeg", row["patient"], SAID[row["pathogen"]]])
    write(folder, "mixed")
    torch.manual_seed(0)
    torch.save(TinyNet(3).state_dict(), folder / "model.pt")
    model = load_classifier(folder / "model.pt", arch=ARCH, multilabel=True)
    cohort = load_cohort(folder / "data", load_protocol(folder / "mixed.yaml"), key=KEY)
    fine_tune(model, cohort, Hardening(epochs=15, min_steps=1, batch_size=25, learning_rate=0.01), seed=0)
    torch.save(model.network.state_dict(), folder / "model.pt")
    return folder


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())


def job(folder: Path, mode: str) -> Job:
    files = {"model": folder / "model.pt", "data": folder / "data", "protocol": str(folder / f"{mode}.yaml")}
    return Job(
        **files, run=folder / mode, arch=ARCH, device="cpu", batch_size=64, workers=1, key_file=None, pictures=False
    )


def write(folder: Path, mode: str, method: str = "regulate: true") -> None:
    (folder / f"{mode}.yaml").write_text(PROTOCOL.replace("MODE", mode).replace("METHOD", method))


def test_a_multi_label_run_ends_in_a_verdict_and_a_report(chest: Path) -> None:
    write(chest, "mixed", "teacher: {weight: 0.3}, regulate: true")
    assert run_all(job(chest, "mixed")) in (0, 3, 4)
    run = chest / "mixed"
    assert_findings_are_told(run)
    assert not read_cases(run / "cases.parquet").subjects["composite"].referred.any()
    page = (run / "report.html").read_text()
    assert all(name in page for name in FINDINGS)
    assert "Each finding under attack" in page
    told = {(f["finding"], f["subject"]): f for f in json.loads((run / "report.json").read_text())["by_finding"]}
    assert set(told) == {(name, subject) for name in FINDINGS for subject in ("original", "composite")}


def test_a_guarded_release_of_findings_answers_as_the_original_and_refers(chest: Path) -> None:
    write(chest, "guarded", "method: pgd, attack_steps: 2")
    protocol, run = load_protocol(chest / "guarded.yaml"), chest / "guarded"
    original = load_classifier(chest / "model.pt", arch=ARCH, multilabel=True)
    cohort = load_cohort(chest / "data", protocol, key=KEY)
    harden(original, cohort, protocol, run)
    evaluate(load_hardened(run, arch=ARCH), cohort, protocol, run, original=original)
    assert "referral" in {e.name for e in gate(run).endpoints}
    assert_findings_are_told(run)
    table = read_cases(run / "cases.parquet")
    before, after = (table.subjects[name] for name in ("original", "composite"))
    assert np.array_equal(before.predicted, after.predicted)
    assert after.robust.sum() >= before.robust.sum(), "what fools the original must now fool both paths"


def assert_findings_are_told(run: Path) -> None:
    assert verify_log(run / "audit.jsonl")[0] > 5
    decision, evaluation = (json.loads((run / f"{name}.json").read_text()) for name in ("gate", "evaluation"))
    endpoints = {e["name"]: e for e in decision["endpoints"]}
    assert set(endpoints) >= {
        "accuracy",
        "finding_accuracy",
        "sensitivity:pneumonia",
        "specificity:pneumonia",
        "auroc",
        *(f"auroc:{name}" for name in FINDINGS),
        "brier",
        "robust_floor",
        "robust_gain",
    }
    assert "sensitivity:viral" not in endpoints, "recall was asked of pneumonia alone"
    assert evaluation["decision_threshold"] == "pneumonia 0.5, bacterial 0.4, viral 0.3"
    assert evaluation["identity"]["logits_equal"]
    table = read_cases(run / "cases.parquet")
    assert table.label.shape == (len(table.case), 3)
    for name, subject in table.subjects.items():
        assert subject.findings is not None
        outcome = next(s for s in evaluation["subjects"] if s["name"] == name)
        assert outcome["clean_correct"] == int(table.right(name).sum())
        assert outcome["robust_correct"] <= int((subject.findings.robust.all(1)).sum())
        for k in range(3):
            clean = auroc(subject.probabilities[table.attacked, k], table.label[table.attacked, k] == 1)
            attacked = subject.findings.attacked_probabilities[table.attacked, k]
            assert auroc(attacked, table.label[table.attacked, k] == 1) <= clean + 1e-9, "no attack helps a finding"
    model = load_hardened(run, arch=ARCH)
    assert model.multilabel
    assert model.decision_bias.tolist() == pytest.approx([0.0, np.log(0.6 / 0.4), np.log(0.7 / 0.3)], abs=1e-6)


def test_inspect_counts_each_finding(
    chest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "json", True)
    assert run_inspection(chest / "model.pt", chest / "data", str(chest / "mixed.yaml"), ARCH, 1, 2**30, None) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["task"] == "multilabel"
    cases = shown["cases"]
    for split in ("train", "val", "test"):
        assert cases["pneumonia"][split] == cases["bacterial"][split] + cases["viral"][split] > 0


def test_a_model_of_other_findings_is_refused_before_anything_is_trained(chest: Path) -> None:
    torch.save(TinyNet(2).state_dict(), chest / "other.pt")
    with pytest.raises(ModelError, match="answers 2 findings, the data have 3"):
        run_all(replace(job(chest, "mixed"), model=chest / "other.pt", run=chest / "other"))


def test_a_plan_counts_the_cases_with_and_without_each_finding() -> None:
    text = PROTOCOL.replace("MODE", "mixed").replace("METHOD", "regulate: true").replace(", findings: [pneumonia]", "")
    planned = plan(
        parse_protocol(text, "mine.yaml"), {"pneumonia": 30, "bacterial": 20, "viral": 10}, cases=40, discordance=0.05
    )
    cases = {row.endpoint: row.cases for row in planned.rows}
    assert cases["accuracy"] == 40
    assert (cases["sensitivity viral"], cases["specificity viral"]) == (10, 30)
    assert "finding_auroc" in planned.unplanned
    masked = plan(
        parse_protocol(text, "mine.yaml"),
        {"pneumonia": 30, "bacterial": 20, "viral": 10},
        cases=40,
        discordance=0.05,
        masked={"viral": 7},
    )
    cases = {row.endpoint: row.cases for row in masked.rows}
    assert (cases["sensitivity viral"], cases["specificity viral"], cases["accuracy"]) == (10, 23, 40)
