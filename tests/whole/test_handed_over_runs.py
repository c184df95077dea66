"""Runs from what hospitals and challenges hand over to a verdict and a report that verify: tiny, end to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_volumes import positions, series
from foreign_networks import TinyNet, TinyVolumes
from PIL import Image
from tiny import ARCH, KEY

from medharden.audit import read_cases
from medharden.cli.pipeline import Job, run_all
from medharden.data import load_cohort, pseudonym
from medharden.models import load_hardened
from medharden.predicting import predict, read_case
from medharden.protocol import load_protocol
from medharden.verifying import verify

VOLUMES = "python:foreign_networks:TinyVolumes"
REST = """
threat: {eps: 0.05}
hardening: {branch: full, epochs: 2, min_steps: 1, batch_size: 20, learning_rate: 1.0e-3, probe_cases: 12}
suite: {attacks: [{attack: apgd, loss: ce, steps: 3}], cases: 16, sanity_cases: 4, reason: Tests are quick.}
"""
HEAD = "schema_version: 1\nname: handed-over\ntitle: Handed over\nintended_use: Exercise of the pipeline.\n"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())
    torch.manual_seed(0)  # of networks that are drawn


def run(folder: Path, data: Path, protocol: str, network: torch.nn.Module, arch: str = ARCH) -> Path:
    """Hardens, gates and reports; whatever the verdict, the run must verify."""
    (folder / "protocol.yaml").write_text(HEAD + protocol + REST)
    torch.save(network.state_dict(), folder / "model.pt")
    files = {"model": folder / "model.pt", "data": data, "protocol": str(folder / "protocol.yaml")}
    job = Job(
        **files, run=folder / "run", arch=arch, device="cpu", batch_size=32, workers=1, key_file=None, pictures=False
    )
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


def assert_predicted_as_gated(done: Path, data: Path, paths: list[Path], text: str) -> None:
    """What `predict` reads of a case is the input that the cohort has of it, and it answers."""
    model = load_hardened(done, arch=VOLUMES)
    cohort = load_cohort(data, load_protocol(done / "protocol.yaml"), key=KEY)
    row = next(n for n, c in enumerate(cohort.cases) if c.case == pseudonym(KEY, "case", text))
    assert torch.equal(read_case(paths, model)[0], cohort.batch([row])[0][0])
    [answer] = predict(model, paths)
    assert not answer.refused
    assert answer.answer[0] in cohort.classes


def test_a_folder_of_ct_series_as_volumes(tmp_path: Path) -> None:
    """A file a slice, without endings, in shuffled order; a bright block is what the class is told by."""
    for n in range(60):
        random = np.random.default_rng(n)
        frames = random.normal(40, 30, (5, 8, 8)).clip(-100, 300)
        frames[1:4, 2:6, 2:6] += 120 * (n % 2)
        names = [f"IM{k:04d}" for k in random.permutation(5)]
        series(
            tmp_path / "data" / ("none", "haemorrhage")[n % 2] / f"PA{n:03d}" / "SE01",
            (frames + 1024).astype(np.int16),
            positions(5),
            uid=f"1.2.840.1.{n}",
            names=names,
            PatientID=f"P{n:03d}",
            RescaleIntercept=-1024,
            RescaleSlope=1,
        )
    done = run(
        tmp_path,
        tmp_path / "data",
        """
task: {positive: haemorrhage}
input: {dims: 3, size: [8, 8, 8], intensity: {mode: window, low: -100, high: 300}}
splits: {near_duplicate_bits: null, similar_bits: null}
""",
        TinyVolumes(),
        VOLUMES,
    )
    cohort = json.loads((done / "cohort.json").read_text())
    assert len(cohort["cases"]) == 60
    assert cohort["shape"] == [1, 8, 8, 8]
    assert cohort["formats"] == {"dicom": 60}
    assert cohort["grouped_by"] == "patient"
    assert any(f["code"] == "data.series" and f["message"].startswith("300 files") for f in cohort["findings"])
    assert_predicted_as_gated(done, tmp_path / "data", [tmp_path / "data" / "none" / "PA000"], "none/PA000/SE01")


def test_a_datalist_of_two_modalities_as_channels(tmp_path: Path) -> None:
    """The class is told by what the two modalities differ in, so that each alone says nothing."""
    parts: dict[str, list[dict[str, object]]] = {"training": [], "validation": [], "test": []}
    (tmp_path / "data" / "imagesTr").mkdir(parents=True)
    for n in range(60):
        random = np.random.default_rng(n)
        both = random.normal(500, 30, (2, 8, 8, 8))
        block = random.random() < 0.5
        both[int(block), 2:6, 2:6, 2:6] += 300
        image = []
        for place, what in enumerate(("t1", "flair")):
            image.append(f"imagesTr/case{n:02d}_{what}.nii.gz")
            volume = nib.Nifti1Image(both[place].astype(np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
            nib.save(volume, tmp_path / "data" / image[-1])
        split = "training" if n < 36 else "validation" if n < 46 else "test"
        parts[split].append({"image": image, "label": int(block), "patient": f"case{n:02d}"})
    (tmp_path / "data" / "datalist.json").write_text(json.dumps(parts))
    done = run(
        tmp_path,
        tmp_path / "data" / "datalist.json",
        """
input:
  dims: 3
  channels_from: {t1: "*_t1.nii.gz", flair: "*_flair.nii.gz"}
  intensity: {mode: minmax}
splits: {near_duplicate_bits: null, similar_bits: null}
""",
        TinyVolumes(in_channels=2),
        VOLUMES,
    )
    cohort, harden = (json.loads((done / f"{name}.json").read_text()) for name in ("cohort", "harden"))
    assert cohort["shape"] == [2, 8, 8, 8]
    assert harden["original"]["channels"] == 2
    assert any(f["code"] == "data.stacked_channels" and "t1, flair" in f["message"] for f in cohort["findings"])
    assert "60 cases are stacked of 2 images each" in (done / "report.html").read_text()
    files = [tmp_path / "data" / "imagesTr" / f"case50_{what}.nii.gz" for what in ("flair", "t1")]
    assert_predicted_as_gated(done, tmp_path / "data" / "datalist.json", files, "imagesTr/case50_t1.nii.gz")
