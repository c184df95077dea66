"""Parity, size and latency of every exported form of hardened networks, as rows of Markdown tables.

python tests/benchmarks/exports.py NETWORK [MODE ...] [--forms FORM ...] [--branches BRANCH ...] [--store FILE]
python tests/benchmarks/exports.py NETWORK --latency [--size N] [--batches N ...] [--store FILE]

NETWORK is `effnet` (EfficientNet-Lite0, 64 pixels), `resnet` (ResNet-18, 112 pixels) or `densenet` (MONAI's
DenseNet-121 in 3D, 32 voxels a side); a MODE is one of fusion, all where none is named. Branches are moved by noise on
the weights that their form trains (`lora` of rank 8 at most), in place of training: the graph is what is measured.
Latency is that of `mixed`, in CPU time of one thread, which other work on the machine lengthens least; the original and
the composites take turns. Freed memory is kept for the next pass, unless `--default-heap` is given. Rows that lie in
the store are printed from it and not measured again. Under the rows of parity each form's are folded into one: the
largest difference, all answers, the largest file of each branch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from deployable import BRANCHES, MODES, composite

from medharden.exporting.bundle import GRAPH, opened_bundle
from medharden.exporting.parity import compare
from medharden.exporting.run import FORMS, made, opened
from medharden.exporting.timing import rounds, timed_form
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, HardenedClassifier, load_classifier, timm_module
from medharden.protocol import ModelSpec

_CASES, _RANK, _SECONDS = 12, 8, 4.0


class Store:
    """Rows by key, each measured once; what lies in the file is taken from there."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        self._known = dict(json.loads(line) for line in lines)

    def row(self, key: str, measure: Callable[[], str]) -> str:
        """Prints a row."""
        if key not in self._known:
            self._known[key] = measure()
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, self._known[key]]) + "\n")
        print(self._known[key], flush=True)
        return self._known[key]


def _settled(network: torch.nn.Module, shape: tuple[int, ...], batch: int) -> torch.nn.Module:
    """Statistics of normalisation layers from data, so that activations have the sizes of a trained network's."""
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(torch.rand((batch, *shape), generator=torch.Generator().manual_seed(seed)))
    return network.eval()


def efficientnet(folder: Path, size: int) -> tuple[Classifier, tuple[int, ...]]:
    torch.manual_seed(0)
    network = timm_module().create_model("efficientnet_lite0", num_classes=3, in_chans=3)
    torch.save(_settled(network, (3, size, size), 8).state_dict(), folder / "e.pt")
    return load_classifier(folder / "e.pt", spec=ModelSpec(arch="timm:efficientnet_lite0")), (3, size, size)


def resnet(folder: Path, size: int) -> tuple[Classifier, tuple[int, ...]]:
    torch.manual_seed(0)
    network = timm_module().create_model("resnet18", num_classes=2, in_chans=1)
    torch.save(_settled(network, (1, size, size), 8).state_dict(), folder / "r.pt")
    return load_classifier(folder / "r.pt", spec=ModelSpec(arch="timm:resnet18")), (1, size, size)


def densenet(folder: Path, size: int) -> tuple[Classifier, tuple[int, ...]]:
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)
    torch.save(_settled(network, (1, size, size, size), 4).state_dict(), folder / "d.pt")
    return load_classifier(folder / "d.pt", spec=ModelSpec(arch="monai:DenseNet121"), dims=3), (1, size, size, size)


def parity_rows(name: str, clean: Classifier, shape: tuple[int, ...], asked: argparse.Namespace, store: Store) -> None:
    """One row a form, mode and branch: largest difference and size of a logit, answers changed, size of the file."""
    inputs = torch.rand((_CASES, *shape), generator=torch.Generator().manual_seed(7))
    folded = []
    for form in asked.forms:
        sizes: list[int] = []
        rows = []

        def alone(form: str = form, sizes: list[int] = sizes) -> int:
            if not sizes:
                sizes.append(sum(map(len, _file(composite(clean, shape, "clean", "full"), form, clean)[0].values())))
            return sizes[0]

        for branch in asked.branches:
            for mode in asked.modes or MODES:

                def row(form: str = form, mode: str = mode, branch: str = branch) -> str:
                    model = composite(clean, shape, mode, branch, rank=_RANK)
                    files, run = _file(model, form, clean)
                    parities = [compare(model, run, shape), compare(model, run, shape, inputs)]
                    size = sum(map(len, files.values()))
                    same = "yes" if _clean_is_the_same(clean, run, mode, inputs, model) else "NO"
                    return (
                        f"| {name} | {form} | {mode} | {branch} | {max(p.largest for p in parities):.2g} | "
                        f"{max(p.scale for p in parities):.2g} | {sum(p.answers + p.referrals for p in parities)} of "
                        f"{sum(p.cases for p in parities)} | {same} | {size / 1e6:.1f} | {size / alone():.3f} |"
                    )

                rows.append(store.row(f"parity {name} {shape} {form} {mode} {branch}", row))
        folded.append(_folded(rows))
    print(*folded, sep="\n")


def _folded(rows: list[str]) -> str:
    """One row of all modes and branches of a form."""
    cells = [row.strip("| ").split(" | ") for row in rows]
    changed, cases = (sum(int(one[6].split(" of ")[k]) for one in cells) for k in (0, 1))
    same = "yes" if all(one[7] == "yes" for one in cells) else "NO"
    branches = dict.fromkeys(one[3] for one in cells)
    sizes = [f"{branch} {max(float(one[9]) for one in cells if one[3] == branch):.2f}" for branch in branches]
    largest, scale = (max(float(one[k]) for one in cells) for k in (4, 5))
    start = f"| {cells[0][0]} | {cells[0][1]} | {len(cells)} | {largest:.1g} | {scale:.2g} | {changed} of {cases} |"
    return f"{start} {same} | {', '.join(sizes)} |"


def _clean_is_the_same(
    clean: Classifier,
    run: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
    mode: str,
    inputs: torch.Tensor,
    model: HardenedClassifier,
) -> bool:
    """Whether a form that answers by the clean path gives the original's answers."""
    with torch.no_grad():
        expected = (clean(inputs) + model.decision_bias).argmax(1)
    return mode not in ("clean", "guarded") or torch.equal(run(inputs)["answer"], expected)


def _file(
    model: HardenedClassifier, form: str, clean: Classifier
) -> tuple[dict[str, bytes], Callable[[torch.Tensor], Mapping[str, torch.Tensor]]]:
    """A form's files, of a bundle the graph and its weights, and the form to be run."""
    files, _ = made(model, form, "", {})
    if form != "bundle":
        return files, opened(form, files[""])
    kept = {key: data for key, data in files.items() if key in (GRAPH, "/models/hardened.safetensors")}
    return kept, opened_bundle(files, clean.record.classes, multilabel=False)


def latency_rows(name: str, clean: Classifier, shape: tuple[int, ...], asked: argparse.Namespace, store: Store) -> None:
    """One row a form and batch size: ms of the original and of each branch's composite, and times the original's."""
    for form in ["pytorch", *(form for form in asked.forms if form != "bundle")]:
        runs: dict[str, Callable[[torch.Tensor], object]] = {}

        def row(form: str, batch: int, runs: dict[str, Callable[[torch.Tensor], object]]) -> str:
            if not runs:
                for branch in ("", *asked.branches):
                    model = composite(clean, shape, "mixed" if branch else "clean", branch or "full", rank=_RANK)
                    runs[branch or "original"] = timed_form(model, form)[0]
            inputs = torch.rand((batch, *shape), generator=torch.Generator().manual_seed(batch))
            taken = rounds(runs, inputs, time.process_time, _SECONDS)
            cells = []
            for seconds in taken.values():
                ratios = [one / other for one, other in zip(seconds, taken["original"], strict=True)]
                cells.append(f"{1000 * statistics.median(seconds):.1f} ({statistics.median(ratios):.2f})")
            return f"| {name} | {form} | {batch} | {' | '.join(cells)} | {len(seconds)} rounds |"

        for batch in asked.batches:
            key = f"latency {name} {shape} {form} {batch} {' '.join(asked.branches)} {asked.default_heap}"
            store.row(key, lambda form=form, batch=batch, runs=runs: row(form, batch, runs))


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["effnet", "resnet", "densenet"])
    parser.add_argument("modes", nargs="*")
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--branches", nargs="+", default=list(BRANCHES))
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--size", type=int, help="pixels or voxels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--default-heap", action="store_true", help="of latency: the C library's own settings")
    parser.add_argument("--store", type=Path, help="file of rows that were measured")
    told = parser.parse_args()
    if not told.default_heap:
        keep_freed_memory()
    title, network, side = {
        "effnet": ("EfficientNet-Lite0", efficientnet, 128 if told.latency else 64),
        "resnet": ("ResNet-18", resnet, 112),
        "densenet": ("DenseNet-121 3D", densenet, 32),
    }[told.network]
    with tempfile.TemporaryDirectory() as temporary:
        made_of = network(Path(temporary), told.size or side)
        (latency_rows if told.latency else parity_rows)(title, *made_of, told, Store(told.store))
