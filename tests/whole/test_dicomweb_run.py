"""From a search of a DICOMweb server to a verdict that verifies, and on without the server: tiny, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import dicom
from dicomweb_server import serving
from foreign_networks import TinyNet
from tiny import ARCH, KEY
from typer.testing import CliRunner

from medharden.cli.app import app
from medharden.cli.console import out
from medharden.data.dicomweb.address import TOKEN
from medharden.verifying import verify

PROTOCOL = """
schema_version: 1
name: from-a-server
title: From a server
intended_use: Exercise of the pipeline.
task: {positive: EFFUSION}
columns: {label: BodyPartExamined}
input: {size: [16, 16]}
threat: {eps: 0.05}
splits: {near_duplicate_bits: null, similar_bits: null}
hardening: {branch: full, epochs: 2, min_steps: 1, batch_size: 20, learning_rate: 1.0e-3, probe_cases: 12}
suite: {attacks: [{attack: apgd, loss: ce, steps: 3}], cases: 16, sanity_cases: 4, reason: Tests are quick.}
"""
SECRETS = ("secret-token", "Doe", "127.0.0.1", "2.25.1", "PAT0")


def run(*arguments: object):
    out.__dict__.pop("console", None)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_from_a_search_verifies_goes_on_from_the_cache_and_names_neither_server_nor_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(48):
        image = np.random.default_rng(n).normal(90, 10, (16, 16))
        image[4:12, 4:12] += 90 * (n % 2)
        said = {"StudyInstanceUID": f"2.25.1{n:03d}", "SeriesInstanceUID": f"2.25.1{n:03d}.1"}
        said |= {"PatientID": f"PAT0{n}", "PatientName": f"Doe^{n}", "Modality": "DX"}
        said |= {"SOPInstanceUID": f"2.25.1{n:03d}.1.1", "BodyPartExamined": ("NORMAL", "EFFUSION")[n % 2]}
        dicom(tmp_path / "pacs" / f"{n}.dcm", image.clip(0, 255).astype(np.uint8), **said)
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())
    monkeypatch.setenv(TOKEN, "secret-token")
    monkeypatch.chdir(tmp_path)
    Path("protocol.yaml").write_text(PROTOCOL)
    torch.save(TinyNet(2).state_dict(), "model.pt")
    with serving(tmp_path / "pacs") as archive:
        data = ("--data", f"dicomweb+{archive.url}/series?Modality=DX", "--cache", "kept")
        fresh = ("--arch", ARCH, "--device", "cpu", "--workers", 1)
        done = run("harden", "model.pt", *data, "--protocol", "protocol.yaml", "--out", "run", *fresh)
        assert done.exit_code in (0, 3, 4), done.output
        assert archive.tokens == {"Bearer secret-token"}
    again = run("inspect", *data, "--protocol", "protocol.yaml")  # the server is gone
    assert again.exit_code == 0, (again.output, again.exception)
    assert "not searched anew" in again.output
    assert not verify(Path("run")).faults
    cohort = json.loads(Path("run/cohort.json").read_text())
    assert (len(cohort["cases"]), cohort["grouped_by"], cohort["formats"]) == (48, "patient", {"dicom": 48})
    assert any(f["code"] == "data.dicomweb" and f["message"].startswith("48 series") for f in cohort["findings"])
    written = b"".join(path.read_bytes() for path in Path("run").rglob("*") if path.is_file())
    for secret in SECRETS:
        assert secret.encode() not in written, secret
        assert secret not in done.output + again.output
    bench = run("bench", "model.pt", *data[:2], "--protocol", "protocol.yaml", *fresh[:4])
    assert "--data is a DICOMweb server's address" in str(bench.exception)
