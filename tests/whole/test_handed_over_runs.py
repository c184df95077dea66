"""Runs from what hospitals and challenges hand over to a verdict and a report that verify: tiny, end to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_networks import TinyNet
from PIL import Image
from tiny import ARCH, KEY

from medharden.audit import read_cases
from medharden.cli.pipeline import Job, run_all
from medharden.verifying import verify

REST = """
threat: {eps: 0.05}
hardening: {branch: full, epochs: 2, min_steps: 1, batch_size: 20, learning_rate: 0.01, probe_cases: 12, probe_steps: 2}
suite: {attacks: [{attack: apgd, loss: ce, steps: 3}], cases: 16, sanity_cases: 4, reason: Tests are quick.}
"""
HEAD = "schema_version: 1\nname: handed-over\ntitle: Handed over\nintended_use: Exercise of the pipeline.\n"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())


def run(folder: Path, data: Path, protocol: str, network: torch.nn.Module, arch: str = ARCH) -> Path:
    """Hardens, gates and reports; whatever the verdict, the run must verify."""
    (folder / "protocol.yaml").write_text(HEAD + protocol + REST)
    torch.save(network.state_dict(), folder / "model.pt")
    files = {"model": folder / "model.pt", "data": data, "protocol": str(folder / "protocol.yaml")}
    job = Job(**files, run=folder / "run", arch=arch, device="cpu", batch_size=32, workers=1, key_file=None, pictures=False)
    assert run_all(job) in (0, 3, 4)
    outcome = verify(folder / "run")
    assert not outcome.faults, outcome.faults
    return folder / "run"


def test_a_chexpert_table_with_blanks_and_minus_one_under_mask(tmp_path: Path) -> None:
    """Two findings, each a bright quarter; a third of the labels is -1 or blank."""
    random, rows = np.random.default_rng(0), []
    for n in range(140):
        said = random.random(2) < 0.5
        image = random.normal(90, 10, (16, 16))
        image[:8, :8] += 90 * said[0]
        image[8:, 8:] += 90 * said[1]
        where = Path(f"train/patient{n:05d}/study1/view1_frontal.jpg")
        (tmp_path / "data" / where).parent.mkdir(parents=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / "data" / where, quality=95)
        cells = [f"{float(one):.1f}" for one in said]
        if n % 3 == 0:
            cells[n % 2] = ["-1.0", ""][n % 4 // 2]
        rows.append([f"CheXpert-v1.0-small/{where}", "Female" if n % 2 else "Male", *cells])
    with (tmp_path / "data" / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["Path", "Sex", "Edema", "Pleural Effusion"], *rows])
    done = run(
        tmp_path,
        tmp_path / "data" / "train.csv",
        """
task: {kind: multilabel, classes: [Edema, Pleural Effusion], uncertain: mask, missing: mask}
splits: {patient_from: "**/{patient}/study*/*", near_duplicate_bits: null, similar_bits: null}
input: {channels: gray}
endpoints:
  noninferiority:
    - {metric: accuracy, margin: 0.1}
    - {metric: recall, margin: 0.2}
    - {metric: finding_accuracy, margin: 0.1}
    - {metric: auroc, margin: 0.1}
    - {metric: brier, margin: 0.1}
""",
        TinyNet(2),
    )
    cohort, gate, report = (json.loads((done / f"{name}.json").read_text()) for name in ("cohort", "gate", "report"))
    assert len(cohort["cases"]) == 140, "no case is lost"
    masked = [c for c in cohort["cases"] if c["masked"]]
    assert len(masked) == len(range(0, 140, 3))
    told = {f["code"]: f["message"] for f in cohort["findings"]}
    assert "of 140 cases in all: Edema of" in told["data.masked_findings"]
    table = read_cases(done / "cases.parquet")
    assert (table.label == -1).sum() == sum(c["split"] == "test" for c in masked) > 0
    endpoints = {e["name"]: e for e in gate["endpoints"]}
    for k, name in enumerate(("Edema", "Pleural Effusion")):
        for side, state in (("sensitivity", 1), ("specificity", 0)):
            assert endpoints[f"{side}:{name}"]["n"] == (table.label[:, k] == state).sum()
    assert endpoints["finding_accuracy"]["n"] == (table.label != -1).sum()
    counts = report["cohort"]["counts"]
    assert sum(row["masked"] for row in counts) == len(masked)
    assert "not known, left out" in (done / "report.html").read_text()
