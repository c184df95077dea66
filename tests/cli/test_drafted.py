"""A protocol written from data and model, and data that are of another kind than the protocol."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command import assert_clear, environment, medharden
from PIL import Image
from safetensors.torch import save_file
from tiny import ARCH, tiny_cohort, tiny_model, tiny_protocol

from medharden.models import timm_module
from medharden.protocol import load_protocol


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 24 pictures each, by 24 patients, in a manifest with their sex."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = ["path,label,patient,sex"]
    for n in range(48):
        label = ("normal", "opacity")[n % 2]
        grey = rng.integers(0, 120, (40, 32), dtype=np.uint8) + np.uint8(100 * (n % 2))
        Image.fromarray(grey).save(root / f"{n}.png")
        rows.append(f"{n}.png,{label},p{n // 2},{'FM'[n % 3 == 0]}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def new(data: Path, target: Path, *more: object) -> tuple[int, str]:
    result = medharden("protocol", "new", "--data", data, "--out", target, "--yes", *more, cwd=target.parent)
    return result.returncode, result.stdout + result.stderr


def test_a_protocol_is_written_from_pictures_with_what_is_seen_and_what_is_to_be_decided(
    pictures: Path, tmp_path: Path
) -> None:
    code, said = new(pictures, tmp_path / "mine.yaml")
    assert code == 0, said
    text, protocol = (tmp_path / "mine.yaml").read_text(), load_protocol(tmp_path / "mine.yaml")
    assert (protocol.task.classes, protocol.task.positive) == (("normal", "opacity"), "opacity")
    assert (protocol.input.dims, protocol.input.channels, protocol.input.size) == (2, "gray", (40, 32))
    assert (protocol.threat.eps, protocol.threat.unit) == (2, "1/255")
    assert protocol.subgroups.columns == ("sex",)
    assert not protocol.margins_justified
    assert "TO DO" in text
    assert "# needs 1,067 test cases, " in text
    assert str(pictures) not in text


def test_how_the_model_s_source_feeds_it_is_written_and_inspect_takes_it(pictures: Path, tmp_path: Path) -> None:
    network = timm_module().create_model("test_resnet", num_classes=2, in_chans=1)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    trained = {"input_size": [1, 32, 32], "crop_pct": 0.8, "interpolation": "bilinear", "mean": [0.4], "std": [0.3]}
    config = {"architecture": "test_resnet", "pretrained_cfg": trained, "label_names": ["Opacity", "Normal"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, said = new(pictures, tmp_path / "mine.yaml", "--model", "model.safetensors")
    assert code == 0, said
    assert load_protocol(tmp_path / "mine.yaml").task.classes == ("opacity", "normal"), "in the order of the outputs"
    resize, crop = load_protocol(tmp_path / "mine.yaml").input.spatial
    assert (resize.size, resize.mode, resize.fit, crop.size) == ((40, 40), "bilinear", "shortest", (32, 32))
    assert "# As the model's config.json says: resize shortest 40x40 bilinear" in (tmp_path / "mine.yaml").read_text()
    inspect = ("inspect", "model.safetensors", "--data", pictures, "--json", "--protocol")
    seen = medharden(*inspect, "mine.yaml", "--parity", 2, cwd=tmp_path)
    assert seen.returncode == 0, seen.stdout + seen.stderr
    told = json.loads(seen.stdout)
    assert told["model"]["assumed"] == []
    assert (told["parity"]["shown"], told["parity"]["cases"]) == (True, 2)
    assert told["parity"]["difference"] < 1e-4
    other = medharden(*inspect, "default", cwd=tmp_path)
    assert other.returncode == 1
    assert "says how its inputs are made" in json.loads(other.stdout)["error"]


def test_a_model_whose_arguments_must_be_stated_is_told_where_they_can_be(pictures: Path, tmp_path: Path) -> None:
    network = timm_module().create_model("vit_tiny_patch16_224", num_classes=2, in_chans=1, img_size=32, depth=1)
    torch.save({"arch": "vit_tiny_patch16_224", "state_dict": network.state_dict()}, tmp_path / "vit.pt")
    code, said = new(pictures, tmp_path / "mine.yaml", "--model", "vit.pt")
    assert code == 1
    assert "model.arguments: {img_size: 32}" in said
    assert "named by --like" in said


def test_volumes_in_a_table_are_seen_to_be_volumes(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), ["file,label,sex"]
    for number in range(12):
        values = rng.integers(0, 900, (12, 14, 10)).astype(np.int16)
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / f"{number}.nii.gz")
        rows.append(f"{number}.nii.gz,{'AD' if number % 2 else 'nAD'},{'FM'[number % 3 == 0]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    code, said = new(tmp_path / "labels.csv", tmp_path / "mine.yaml")
    assert code == 0, said
    assert "12 cases (manifest, nifti), AD, nAD" in said
    protocol = load_protocol(tmp_path / "mine.yaml")
    assert (protocol.input.dims, protocol.input.size) == (3, (12, 14, 10))


def test_no_protocol_is_overwritten(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine\n")
    code, said = new(pictures, tmp_path / "mine.yaml")
    assert code == 1
    assert "is there already" in said
    assert (tmp_path / "mine.yaml").read_text() == "mine\n"


def test_harden_runs_with_what_was_written_once_its_settings_are_small(tmp_path: Path) -> None:
    tiny_model(tmp_path, cohort=tiny_cohort(tmp_path, tiny_protocol()))
    result = medharden(
        "protocol", "new", "--data", "tiny.npz", "--model", "model.pt", "--arch", ARCH, "--out", "new.yaml", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert json.loads(result.stdout)["to_do"] > 3
    text = (tmp_path / "new.yaml").read_text()
    quick = "hardening: {epochs: 2, min_steps: 1}\nsuite: {reason: quick, attacks: [{attack: pgd, steps: 4}]}\n"
    (tmp_path / "new.yaml").write_text(text + quick)
    options = ("--data", "tiny.npz", "--protocol", "new.yaml", "--arch", ARCH, "--out", "run", "--json")
    done = medharden("harden", "model.pt", *options, cwd=tmp_path)
    assert done.returncode in (0, 3, 4), done.stdout + done.stderr
    assert json.loads(done.stdout)["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE")
    record = json.loads((tmp_path / "run" / "harden.json").read_text())
    assert record["parity"]["why"] == "its file names no pipeline that medharden knows"
    assert [f["severity"] for f in record["findings"] if f["code"] == "model.parity"] == ["info"]
    assert "is not shown: its file names no pipeline" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("ct-slice-hu", ("Hounsfield units", "all 48 cases are pictures", "medharden protocol new")),
        ("volume-3d", ("is for volumes", "all 48 cases are single pictures")),
        ("chest-xray-multilabel", ("none of the 48 cells", "are these its findings?")),
    ],
)
def test_a_protocol_for_another_kind_of_data_is_noticed_in_one_sentence(
    pictures: Path, tmp_path: Path, protocol: str, words: tuple[str, ...]
) -> None:
    result = medharden("inspect", "--data", pictures, "--protocol", protocol, cwd=tmp_path)
    assert_clear(result, 1, *words)
    assert len((result.stdout + result.stderr).strip().splitlines()) == 1


def answered(*words: str, answers: tuple[str, ...], cwd: Path) -> str:
    """What a command says at a terminal of 80 columns whose person types these lines."""
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        [sys.executable, "-m", "medharden", *words],
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment() | {"COLUMNS": "80"},
    )
    os.close(theirs)
    os.write(ours, "".join(f"{line}\n" for line in answers).encode())
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # how a terminal ends on Linux
        pass
    os.close(ours)
    assert started.wait(60) == 0, said
    return said.decode()


def test_an_answer_that_can_not_be_read_is_asked_for_again_and_none_is_replaced(pictures: Path, tmp_path: Path) -> None:
    said = answered(
        "protocol", "new", "--data", str(pictures), "--out", "mine.yaml",
        answers=("Opacity", "normal", "64", "64x48", "two", "30", "1.5", "", ""), cwd=tmp_path,
    )  # fmt: skip
    for hint in ("expected normal or opacity, or none", "expected 2 whole numbers", "from 0.1 to 20"):
        assert hint in " ".join(said.split()), said
    assert "data: 48 cases" in said
    protocol = load_protocol(tmp_path / "mine.yaml")
    assert (protocol.task.positive, protocol.input.size) == ("normal", (64, 48))
    assert [m.margin for m in protocol.endpoints.noninferiority[:2]] == [0.015, 0.05]
