"""`harden` runs with what `protocol new` proposes for labels that nobody knows, multi-frame files and modalities."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from data_helpers import dicom, manifest
from foreign_networks import TinyNet, TinyVolumes
from PIL import Image
from tiny import ARCH, KEY

from medharden.cli.drafted import Draft, run_new
from medharden.cli.pipeline import Job, run_all
from medharden.verifying import verify

QUICK = """
hardening: {branch: full, epochs: 2, min_steps: 1, batch_size: 20, learning_rate: 1.0e-3, probe_cases: 8}
suite: {attacks: [{attack: apgd, loss: ce, steps: 2}], cases: 8, sanity_cases: 4, reason: Tests are quick.}
"""


def masked(root: Path) -> Path:
    """Two findings, each a bright quarter; of every fifth case nobody knows the first."""
    root.mkdir()
    rows = []
    for n in range(100):
        image = np.random.default_rng(n).normal(90, 10, (16, 16))
        said = n % 2, n // 2 % 2
        image[:8, :8] += 90 * said[0]
        image[8:, 8:] += 90 * said[1]
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"{n}.png")
        first = str(said[0]) if n % 5 else ("-1", "")[n % 2]
        rows.append({"path": f"{n}.png", "patient": n, "Edema": first, "Mass": said[1]})
    return manifest(root, rows)


def films(root: Path) -> Path:
    for n in range(48):
        frames = np.random.default_rng(n).integers(0, 256, (3, 16, 16)).astype(np.uint8)
        dicom(root / "ab"[n % 2] / f"{n}.dcm", frames, PatientID=f"P{n}")
    return root


def modalities(root: Path) -> Path:
    for n in range(48):
        folder = root / "ab"[n % 2] / f"P{n:03d}x"
        folder.mkdir(parents=True)
        for k, what in enumerate(("t1", "flair", "seg")):
            volume = np.random.default_rng(10 * n + k).integers(0, 900, (8, 8, 8)).astype(np.int16)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / f"{what}.nii.gz")
    return root


@pytest.mark.parametrize(
    ("made", "network", "arch"),
    [
        (masked, TinyNet(2), ARCH),
        (films, TinyNet(2), ARCH),
        (modalities, TinyVolumes(in_channels=2), "python:foreign_networks:TinyVolumes"),
    ],
    ids=["masked", "films", "modalities"],
)
def test_harden_runs_with_what_was_proposed(tmp_path, monkeypatch, made, network, arch):
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())
    data = made(tmp_path / "data")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    target = tmp_path / "mine.yaml"
    run_new(Draft(data, None, target, None, "default", True, 1, None, 2**30))
    near = "near_duplicate_bits: null, similar_bits: null"
    text = target.read_text()
    target.write_text(
        text.replace("splits: {", f"splits: {{{near}, ") if "splits: {" in text else f"{text}splits: {{{near}}}\n"
    )
    target.write_text(target.read_text() + QUICK)
    job = Job(
        model=tmp_path / "model.pt",
        data=data,
        protocol=str(target),
        run=tmp_path / "run",
        arch=arch,
        device="cpu",
        batch_size=32,
        workers=1,
        key_file=None,
        pictures=False,
    )
    assert run_all(job) in (0, 3, 4)
    assert not verify(tmp_path / "run").faults
