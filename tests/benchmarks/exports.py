"""Parity, size and latency of every exported form on an EfficientNet-Lite0 and a 3D DenseNet-121, as Markdown tables.

python tests/benchmarks/exports.py [effnet] [densenet] [latency] [MODE:BRANCH ...]

Branches are moved by noise on the weights that their form trains, in place of training: the graph is what is measured.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from deployable import BRANCHES, MODES, composite

from medharden.exporting.bundle import opened_bundle
from medharden.exporting.parity import compare
from medharden.exporting.run import FORMS, made, opened
from medharden.exporting.timing import time_forms
from medharden.models import Classifier, load_classifier, timm_module
from medharden.protocol import ModelSpec

_CASES = 12


def _settled(network: torch.nn.Module, shape: tuple[int, ...], batch: int) -> torch.nn.Module:
    """Statistics of normalisation layers from data, so that activations have the sizes of a trained network's."""
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(torch.rand((batch, *shape), generator=torch.Generator().manual_seed(seed)))
    return network.eval()


def efficientnet(folder: Path) -> tuple[Classifier, tuple[int, ...]]:
    torch.manual_seed(0)
    network = timm_module().create_model("efficientnet_lite0", num_classes=3, in_chans=3)
    torch.save(_settled(network, (3, 224, 224), 8).state_dict(), folder / "e.pt")
    return load_classifier(folder / "e.pt", spec=ModelSpec(arch="timm:efficientnet_lite0")), (3, 224, 224)


def densenet(folder: Path) -> tuple[Classifier, tuple[int, ...]]:
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)
    torch.save(_settled(network, (1, 32, 32, 32), 4).state_dict(), folder / "d.pt")
    return load_classifier(folder / "d.pt", spec=ModelSpec(arch="monai:DenseNet121"), dims=3), (1, 32, 32, 32)


def parity(name: str, clean: Classifier, shape: tuple[int, ...], pairs: set[str]) -> None:
    inputs = torch.rand((_CASES, *shape), generator=torch.Generator().manual_seed(7))
    alone: dict[str, int] = {}
    for mode in MODES:
        for branch in BRANCHES:
            if pairs and f"{mode}:{branch}" not in pairs:
                continue
            model = composite(clean, shape, mode, branch)
            for form in FORMS:
                started = time.perf_counter()
                files, own = made(model, form, "", {})
                run = (
                    opened_bundle(files, clean.record.classes, multilabel=False)
                    if form == "bundle"
                    else opened(form, files[""])
                )
                found = compare(model, run, shape, inputs)
                size = sum(map(len, files.values()))
                largest, scale = max(own.largest, found.largest), max(own.scale, found.scale)
                alone.setdefault(form, size)
                print(
                    f"| {name} | {form} | {mode} | {branch} | {largest:.2g} | {scale:.2g} | "
                    f"{own.answers + found.answers} of {own.cases + found.cases} | "
                    f"{own.referrals + found.referrals} | {size / 1e6:.1f} | {size / alone[form]:.2f} | "
                    f"{time.perf_counter() - started:.0f} |",
                    flush=True,
                )


def latency(name: str, clean: Classifier, shape: tuple[int, ...]) -> None:
    for branch in BRANCHES:
        for timing in time_forms(composite(clean, shape, "mixed", branch)):
            if timing.model != "robust_branch":
                print(
                    f"| {name} | {branch} | {timing.form} | {timing.model} | {timing.batch} | "
                    f"{1000 * timing.seconds:.1f} | {timing.ratio:.2f} | {timing.bytes / 1e6:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    torch.set_num_threads(1)
    pairs = {word for word in sys.argv[1:] if ":" in word}
    asked = set(sys.argv[1:]) - pairs or {"effnet", "densenet", "latency"}
    with tempfile.TemporaryDirectory() as temporary:
        if "effnet" in asked:
            parity("EfficientNet-Lite0", *efficientnet(Path(temporary)), pairs)
        if "latency" in asked:
            latency("EfficientNet-Lite0", *efficientnet(Path(temporary)))
        if "densenet" in asked:
            parity("DenseNet-121 3D", *densenet(Path(temporary)), pairs)
