"""The whole pipeline on real CT, PET and ultrasound, to a verdict and a report, and nothing of a patient in it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from command import assert_clear, medharden
from tiny import KEY

from medharden.audit import read_cases, verify_log
from medharden.data import load_cohort
from medharden.hardening import fine_tune
from medharden.models import load_classifier, timm_module
from medharden.protocol import Hardening, load_protocol

HEAD = "schema_version: 1\nintended_use: Exercise of the pipeline.\n"
CT = (
    HEAD
    + """
name: ct-contrast
title: Contrast agent on CT slices
columns: {label: contrast, patient: patient_id}
task: {classes: ["0", "1"], positive: "1"}
input: {channels: gray, size: [48, 48], intensity: {mode: window, low: -160, high: 240}}
threat: {eps: 4, unit: HU}
hardening: {epochs: 2, min_steps: 1, batch_size: 8}
suite: {attacks: [{attack: apgd, loss: ce, steps: 5}, {attack: apgd, loss: margin, steps: 5}], reason: Quick.}
subgroups: {columns: [sex, age, scanner, ward], min_cases: 5}
"""
)
PET = (
    HEAD
    + """
name: pet-dementia
title: Alzheimer's disease on FDG-PET
input: {dims: 3, channels: gray, size: [32, 40, 32], intensity: {mode: percentile, low: 1, high: 99}}
model: {arch: "monai:DenseNet", arguments: {init_features: 4, growth_rate: 4, block_config: [2, 2, 2, 2]}}
splits: {train: 0.5, val: 0.2, test: 0.3}
threat: {eps: 0.01}
hardening: {epochs: 2, min_steps: 1, batch_size: 4}
suite: {attacks: [{attack: apgd, loss: ce, steps: 5}], reason: Tests are quick.}
"""
)
ULTRASOUND = (
    HEAD
    + """
name: breast-ultrasound
title: Breast ultrasound, a foreign architecture
task: {classes: [malignant, other], positive: malignant}
input: {channels: gray, unusable: exclude}
splits: {near_duplicate_bits: null}
model: {mean: [0.5], std: [0.5]}
threat: {eps: 2, unit: 1/255}
hardening: {epochs: 3, min_steps: 1, learning_rate: 1.0e-3}
suite: {attacks: [{attack: apgd, loss: ce, steps: 5}, {attack: apgd, loss: margin, steps: 5}], reason: Quick.}
"""
)
VERDICTS = {0: "PASS", 3: "FAIL", 4: "INCONCLUSIVE"}


def assert_a_whole_run(run: Path, code: int) -> dict[str, object]:
    """A verdict that the exit code tells, a report, an intact log, an unmoved clean path."""
    assert code in VERDICTS
    report = json.loads((run / "report.json").read_text())
    assert json.loads((run / "gate.json").read_text())["verdict"] == VERDICTS[code]
    assert VERDICTS[code] in (run / "report.html").read_text()
    assert verify_log(run / "audit.jsonl")[0] > 5
    identity = json.loads((run / "evaluation.json").read_text())["identity"]
    assert (identity["against"], identity["state_equal"], identity["logits_equal"]) == ("file", True, True)
    assert not [p.name for p in run.iterdir() if p.name.startswith(".") or p.name.endswith("checkpoint")]
    return report


def everything(run: Path) -> bytes:
    return b"\n".join(p.read_bytes() for p in sorted(run.iterdir()))


def test_real_ct_slices_run_through_from_dicom_and_no_identifier_gets_out(tmp_path: Path, test_data: Path) -> None:
    source = test_data / "ct_contrast_dicom"
    (tmp_path / "ct.yaml").write_text(CT)
    protocol = load_protocol(tmp_path / "ct.yaml")
    torch.manual_seed(0)
    network = timm_module().create_model("test_resnet", num_classes=2, in_chans=1)
    torch.save({"arch": "test_resnet", "state_dict": network.state_dict()}, tmp_path / "model.pt")
    model = load_classifier(tmp_path / "model.pt")
    cohort = load_cohort(source, protocol, key=KEY)
    fine_tune(model, cohort, Hardening(branch="full", epochs=8, min_steps=1, batch_size=8), seed=0)
    torch.save({"arch": "test_resnet", "state_dict": model.network.state_dict()}, tmp_path / "model.pt")
    result = medharden("harden", "model.pt", "--data", source, "--protocol", "ct.yaml", "--out", "run", cwd=tmp_path)
    assert_clear(result, result.returncode)
    assert_a_whole_run(tmp_path / "run", result.returncode)
    with (source / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    said = everything(tmp_path / "run") + (result.stdout + result.stderr).encode()
    for row in rows:
        assert row["patient_id"].encode() not in said
        assert row["file"].encode() not in said
    assert not (tmp_path / "run" / "examples.safetensors").exists(), "pictures of patients are off by default"
    record = json.loads((tmp_path / "run" / "cohort.json").read_text())
    assert (len(record["cases"]), record["formats"], record["grouped_by"]) == (60, {"dicom": 60}, "patient")
    table = read_cases(tmp_path / "run" / "cases.parquet")
    assert {"sex", "age"} <= set(table.groups) <= {"sex", "age", "scanner"}
    for values in table.groups.values():
        for value in set(values):
            assert len({p for p, v in zip(table.patient, values, strict=True) if v == value}) >= 5, "singled out"
    findings = {
        f["code"]: f["message"] for f in json.loads((tmp_path / "run" / "evaluation.json").read_text())["findings"]
    }
    assert "no attribute ward" in findings["evaluation.subgroups_unknown"]
    assert "Subgroups" in (tmp_path / "run" / "report.html").read_text()


def test_real_pet_volumes_run_through_a_three_dimensional_monai_network(tmp_path: Path, test_data: Path) -> None:
    from monai.networks.nets import DenseNet

    torch.manual_seed(0)
    network = DenseNet(3, 1, 2, init_features=4, growth_rate=4, block_config=(2, 2, 2, 2))
    torch.save(network.state_dict(), tmp_path / "model.pth")
    (tmp_path / "pet.yaml").write_text(PET)
    data = test_data / "cdi_fdgpet"
    result = medharden("harden", "model.pth", "--data", data, "--protocol", "pet.yaml", "--out", "run", cwd=tmp_path)
    assert_clear(result, result.returncode)
    assert_a_whole_run(tmp_path / "run", result.returncode)
    record = json.loads((tmp_path / "run" / "cohort.json").read_text())
    assert (record["formats"], record["shape"]) == ({"nifti": 20}, [1, 32, 40, 32])


@pytest.mark.parametrize("mode", ["mixed", "guarded"])
def test_real_ultrasound_runs_through_the_foreign_network_that_the_user_names(
    tmp_path: Path, test_data: Path, mode: str
) -> None:
    (tmp_path / "us.yaml").write_text(ULTRASOUND + f"fusion: {{mode: {mode}}}\n")
    weights = test_data / "weights" / "breastmnist_cnn.pth"
    data = test_data / "medmnist28" / "breastmnist.npz"
    arch = "python:foreign_networks:BreastCnn"
    result = medharden(
        "harden", weights, "--data", data, "--arch", arch, "--protocol", "us.yaml", "--out", "run", cwd=tmp_path
    )
    assert_clear(result, result.returncode)
    assert_a_whole_run(tmp_path / "run", result.returncode)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    original, branch, composite = evaluation["subjects"]
    assert original["clean_correct"] / original["n"] == pytest.approx(0.81, abs=0.02), "the published weights' accuracy"
    if mode == "guarded":
        assert composite["clean_correct"] == original["clean_correct"]
        assert composite["robust_correct"] >= original["robust_correct"]
    assert branch["attacked"] == composite["attacked"] == original["attacked"]


def test_a_planted_identity_appears_in_no_output_of_a_run(tmp_path: Path, test_data: Path) -> None:
    """Canaries in file names, manifest and header, on a run that succeeds and on one that fails."""
    import pydicom

    names = ["Canary^Jane", "CANARY-4711", "19470101", "CANARY-ACCESSION", "CANARYFILE"]
    data = tmp_path / "data"
    data.mkdir()
    source = test_data / "ct_contrast_dicom"
    with (source / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    uids = []
    with (data / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        for number, row in enumerate(rows):
            dataset = pydicom.dcmread(source / row["file"])
            dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.AccessionNumber = names[:4]
            uids.append(str(dataset.SOPInstanceUID))
            name = f"{names[4]}_{number}.dcm"
            dataset.save_as(data / name)
            writer.writerow(row | {"file": name, "patient_id": f"CANARY-{row['patient_id']}"})
    (tmp_path / "ct.yaml").write_text(CT.replace("epochs: 2", "epochs: 1"))
    torch.manual_seed(0)
    network = timm_module().create_model("test_resnet", num_classes=2, in_chans=1)
    torch.save({"arch": "test_resnet", "state_dict": network.state_dict()}, tmp_path / "model.pt")
    command = ("harden", "model.pt", "--data", "data", "--protocol", "ct.yaml", "--out")
    result = medharden(*command, "run", "--pictures", cwd=tmp_path)
    assert result.returncode in (0, 1, 3, 4), result.stderr
    broken = sorted(data.glob("*.dcm"))[0]
    broken.write_bytes(broken.read_bytes()[:2000])
    failed = medharden(*command, "other", cwd=tmp_path)
    assert_clear(failed, 1, "can't be used")
    said = result.stdout + result.stderr + failed.stdout + failed.stderr
    for folder in ("run", "other"):
        said += everything(tmp_path / folder).decode("latin-1")
    for canary in [*names, "CANARY", *uids]:
        assert canary not in said


def test_labels_without_files_a_volume_with_nan_and_one_class_are_clear_errors(tmp_path: Path, test_data: Path) -> None:
    import nibabel
    import numpy as np

    data = tmp_path / "data"
    shutil.copytree(test_data / "cdi_fdgpet", data)
    (tmp_path / "pet.yaml").write_text(PET)
    broken = data / "AD1.nii.gz"
    broken.chmod(0o644)
    image = nibabel.load(broken)
    values = image.get_fdata().astype(np.float32)
    values[3, 4, 5] = np.nan
    broken.unlink()
    nibabel.save(nibabel.Nifti1Image(values, image.affine), broken)
    (data / "AD14.nii.gz").unlink()
    result = medharden("inspect", "--data", "data", "--protocol", "pet.yaml", "--json", cwd=tmp_path)
    assert_clear(result, 1, "not finite", "missing")
    assert len(json.loads(result.stdout)["problems"]) == 2
    with (data / "labels.csv").open() as stream:
        rows = [
            r for r in csv.DictReader(stream) if r["label"] == "AD" and r["file"] not in ("AD1.nii.gz", "AD14.nii.gz")
        ]
    (data / "labels.csv").chmod(0o644)
    with (data / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert_clear(medharden("inspect", "--data", "data", "--protocol", "pet.yaml", cwd=tmp_path), 1, "AD")
    (tmp_path / "empty").mkdir()
    assert_clear(medharden("inspect", "--data", "empty", cwd=tmp_path), 1, "expected")
