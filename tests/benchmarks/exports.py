"""Parity, size and latency of every exported form of hardened networks, as rows of Markdown tables.

python tests/benchmarks/exports.py NETWORK [MODE ...] [--forms FORM ...] [--branches BRANCH ...] [--no-latency]

NETWORK is `effnet` (EfficientNet-Lite0, 128 pixels), `resnet` (ResNet-18, 112 pixels) or `densenet` (MONAI's
DenseNet-121 in 3D, 32 voxels a side); a MODE is one of fusion, all where none is named. Branches are moved by noise on
the weights that their form trains (`lora` of rank 8), in place of training: the graph is what is measured. Latency is
that of `mixed`, in CPU time of one thread, which other work on the machine lengthens least; the original and the
composites take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from deployable import BRANCHES, MODES, composite

from medharden.exporting.bundle import GRAPH, opened_bundle
from medharden.exporting.graph import deployed
from medharden.exporting.parity import compare
from medharden.exporting.run import FORMS, made, opened
from medharden.exporting.timing import rounds
from medharden.models import Classifier, HardenedClassifier, load_classifier, timm_module
from medharden.protocol import ModelSpec

_CASES, _RANK = 12, 8


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
    torch.save(_settled(network, (3, 128, 128), 8).state_dict(), folder / "e.pt")
    return load_classifier(folder / "e.pt", spec=ModelSpec(arch="timm:efficientnet_lite0")), (3, 128, 128)


def resnet(folder: Path) -> tuple[Classifier, tuple[int, ...]]:
    torch.manual_seed(0)
    network = timm_module().create_model("resnet18", num_classes=2, in_chans=1)
    torch.save(_settled(network, (1, 112, 112), 8).state_dict(), folder / "r.pt")
    return load_classifier(folder / "r.pt", spec=ModelSpec(arch="timm:resnet18")), (1, 112, 112)


def densenet(folder: Path) -> tuple[Classifier, tuple[int, ...]]:
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)
    torch.save(_settled(network, (1, 32, 32, 32), 4).state_dict(), folder / "d.pt")
    return load_classifier(folder / "d.pt", spec=ModelSpec(arch="monai:DenseNet121"), dims=3), (1, 32, 32, 32)


def measured(name: str, clean: Classifier, shape: tuple[int, ...], asked: argparse.Namespace) -> None:
    """Prints the rows of one network."""
    inputs = torch.rand((_CASES, *shape), generator=torch.Generator().manual_seed(7))
    original = composite(clean, shape, "clean", "full")
    for form in asked.forms:
        base, own = _file(original, form, clean)
        alone = sum(map(len, base.values()))
        timed: dict[str, Callable[[torch.Tensor], object]] = {"original": own}
        for branch in asked.branches:
            for mode in asked.modes or MODES:
                model = composite(clean, shape, mode, branch, rank=_RANK)
                files, run = _file(model, form, clean)
                parities = [compare(model, run, shape), compare(model, run, shape, inputs)]
                size = sum(map(len, files.values()))
                print(
                    f"| {name} | {form} | {mode} | {branch} | {max(p.largest for p in parities):.2g} | "
                    f"{max(p.scale for p in parities):.2g} | {sum(p.answers + p.referrals for p in parities)} of "
                    f"{sum(p.cases for p in parities)} | {size / 1e6:.1f} | {size / alone:.2f} |",
                    flush=True,
                )
                if mode == "mixed":
                    timed[branch] = run
        if asked.latency and form != "bundle":
            latency(name, form, timed, shape)
    if asked.latency:
        modules = {branch: deployed(composite(clean, shape, "mixed", branch, rank=_RANK)) for branch in asked.branches}
        latency(name, "pytorch", {"original": deployed(original)} | modules, shape)


def _file(
    model: HardenedClassifier, form: str, clean: Classifier
) -> tuple[dict[str, bytes], Callable[[torch.Tensor], dict[str, torch.Tensor]]]:
    """A form's files, of a bundle the graph and its weights, and the form to be run."""
    files, _ = made(model, form, "", {})
    if form != "bundle":
        return files, opened(form, files[""])
    kept = {key: data for key, data in files.items() if key in (GRAPH, "/models/hardened.safetensors")}
    return kept, opened_bundle(files, clean.record.classes, multilabel=False)


def latency(name: str, form: str, runs: dict[str, Callable[[torch.Tensor], object]], shape: tuple[int, ...]) -> None:
    for batch in (1, 16):
        inputs = torch.rand((batch, *shape), generator=torch.Generator().manual_seed(batch))
        taken = rounds(runs, inputs, time.process_time)
        cells = []
        for seconds in taken.values():
            ratios = [one / other for one, other in zip(seconds, taken["original"], strict=True)]
            cells.append(f"{1000 * statistics.median(seconds):.1f} ({statistics.median(ratios):.2f})")
        print(f"| latency | {name} | {form} | {batch} | {' | '.join(cells)} | {len(seconds)} rounds |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=["effnet", "resnet", "densenet"])
    parser.add_argument("modes", nargs="*")
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--branches", nargs="+", default=list(BRANCHES))
    parser.add_argument("--no-latency", dest="latency", action="store_false")
    told = parser.parse_args()
    made_of = {
        "effnet": ("EfficientNet-Lite0", efficientnet),
        "resnet": ("ResNet-18", resnet),
        "densenet": ("DenseNet-121 3D", densenet),
    }
    with tempfile.TemporaryDirectory() as temporary:
        title, network = made_of[told.network]
        measured(title, *network(Path(temporary)), told)
