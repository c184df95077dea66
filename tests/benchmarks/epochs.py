"""A whole hardening epoch against an ordinary fine-tuning epoch on the same files in one run, loading included.

    python tests/benchmarks/epochs.py --images 24 --repeats 3

The ordinary epoch is a loop of plain PyTorch in the manner of timm's `train.py`: a `DataLoader` that decodes each file,
channels-last images, the training mode of the network, cross-entropy, AdamW, clipped gradients. The hardening epoch is
medharden's, from its store; its probe and calibration are not part of it. Both have the same batches, tones varied, and
one thread. Epochs of the two alternate; of each the median counts. Seconds are the processor's: on a machine that
others use too, the wall clock of neither stands for it. Weights are random. A network's peak memory is the kernel's
high-water mark of resident memory over an epoch, its first excepted. What was measured is kept in WORK, and not
measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

PROTOCOL = """
schema_version: 1
name: epochs
title: Epochs
intended_use: Measurements.
input: {{dims: {dims}, size: {size}, intensity: {{mode: file}}}}
threat: {{eps: 2, unit: 1/255}}
splits: {{near_duplicate_bits: null, similar_bits: null,
  patients: {{unit: each_case, reason: "Each image is drawn by itself; nobody has two."}}}}
hardening: {{branch: full, epochs: 24, min_steps: 1, batch_size: {batch}, probe_cases: 4, probe_steps: 1}}
suite: {{attacks: [{{attack: pgd, loss: ce, steps: 3}}], sanity_cases: 0, reason: "What it costs is measured."}}
"""
# name: architecture, its arguments, dims, side, batch
NETWORKS: dict[str, tuple[str, dict[str, object], int, int, int]] = {
    "resnet50": ("timm:resnet50", {"in_chans": 1}, 2, 224, 8),
    "densenet121": ("timm:densenet121", {"in_chans": 1}, 2, 224, 8),
    "vit_s": ("timm:vit_small_patch16_224", {"in_chans": 1}, 2, 224, 8),
    "convnext_t": ("timm:convnext_tiny", {"in_chans": 1}, 2, 224, 8),
    "effnet": ("timm:tf_efficientnet_lite0", {"in_chans": 1}, 2, 224, 8),
    "densenet3d": ("monai:DenseNet121", {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, 3, 64, 4),
    "resnet3d": (
        "monai:resnet18",
        {"spatial_dims": 3, "n_input_channels": 1, "num_classes": 2},
        3,
        64,
        4,
    ),
}
TONES = 0.2


class Files(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Decodes a file each time that it is asked for, and varies its tones."""

    def __init__(self, paths: list[Path], labels: list[int], dims: int) -> None:
        self.paths, self.labels, self.dims = paths, labels, dims

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        if self.dims == 2:
            from PIL import Image

            values = np.asarray(Image.open(self.paths[number]), dtype=np.float32) / 255
        else:
            import nibabel

            values = np.asarray(nibabel.load(self.paths[number]).dataobj, dtype=np.float32) / 255
        image = torch.from_numpy(np.ascontiguousarray(values))[None]
        gamma, contrast, brightness = np.exp(np.random.default_rng().uniform(-TONES, TONES, 3))
        image = image.clamp(min=1e-3) ** float(gamma)
        image = ((image - image.mean()) * float(contrast) + image.mean()) * float(brightness)
        return image.clamp(0, 1), self.labels[number]


def write_files(folder: Path, images: int, dims: int, side: int) -> None:
    """Pictures (PNG) or volumes (NIfTI) of two classes, below train, val and test."""
    if folder.is_dir():
        return
    random, part = np.random.default_rng(0), folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    for split, count in (("train", images), ("val", 4), ("test", 4)):
        for n in range(count):
            values = random.integers(0, 200, (side,) * dims, dtype=np.uint8)
            values[..., side // 2 :] += 50 * (n % 2)
            path = part / split / "ab"[n % 2] / f"{split}-{n}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if dims == 2:
                from PIL import Image

                Image.fromarray(values).save(path.with_suffix(".png"))
            else:
                import nibabel

                nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path.with_suffix(".nii"))
    part.rename(folder)


class Ordinary:
    """Fine-tuning of every weight."""

    def __init__(self, network: nn.Module, data: Path, dims: int, batch: int) -> None:
        paths = sorted((data / "train").rglob("*.*"))
        files = Files(paths, ["ab".index(path.parent.name) for path in paths], dims)
        self.layout = torch.channels_last if dims == 2 else torch.contiguous_format
        self.network = network.train().to(memory_format=self.layout)
        self.loader = torch.utils.data.DataLoader(files, batch, shuffle=True, drop_last=True)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4, weight_decay=1e-4)

    def epoch(self) -> None:
        for images, labels in self.loader:
            loss = nn.functional.cross_entropy(self.network(images.contiguous(memory_format=self.layout)), labels)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()


def peak() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure(name: str, images: int, data: Path, work: Path, which: str, repeats: int) -> None:
    """Warm-up and `repeats` epochs of one kind, or of both in turn; prints processor seconds and peak as JSON."""
    from medharden.data import load_cohort
    from medharden.hardening.branch import make_branch
    from medharden.hardening.probe import Probe
    from medharden.hardening.training import BranchTraining
    from medharden.heap import keep_freed_memory
    from medharden.models import load_classifier
    from medharden.protocol import ModelSpec, parse_protocol

    torch.set_num_threads(1)
    torch.manual_seed(0)
    arch, arguments, dims, side, batch = NETWORKS[name]
    protocol = parse_protocol(PROTOCOL.format(dims=dims, size=[side] * dims, batch=batch), "epochs.yaml")
    path = work / f"{name}.pt"
    if not path.exists():
        torch.save(fresh(arch, arguments).state_dict(), path)
    classifier = load_classifier(path, arch=arch, spec=ModelSpec(arguments=arguments), dims=dims)
    keep_freed_memory()
    epochs: dict[str, Any] = {}
    if which != "hardening":
        network = load_classifier(path, arch=arch, spec=ModelSpec(arguments=arguments), dims=dims)
        epochs["ordinary"] = Ordinary(network, data, dims, batch).epoch
    if which != "ordinary":
        cohort = load_cohort(data, protocol, key=b"measurements, no secret at all")
        clean_path = classifier.requires_grad_(False)
        branch = make_branch(clean_path, "full", rank=1, seed=0)
        probe = Probe(clean_path, cohort, protocol, torch.zeros(2), "cpu")
        training = BranchTraining(clean_path, branch, cohort, protocol, probe, "cpu")

        def harden() -> None:
            training._train(None, None, time.perf_counter())
            training.state.epoch += 1

        epochs["hardening"] = harden
    for epoch in epochs.values():
        epoch()
    Path("/proc/self/clear_refs").write_text("5")
    taken: dict[str, list[float]] = {kind: [] for kind in epochs}
    for _ in range(repeats):
        for kind, epoch in epochs.items():
            started = time.process_time()
            epoch()
            taken[kind].append(time.process_time() - started)
    print(json.dumps({"seconds": taken, "peak": peak()}))


def fresh(arch: str, arguments: dict[str, object]) -> nn.Module:
    source, name = arch.split(":")
    if source == "timm":
        from medharden.models import timm_module

        made: nn.Module = timm_module().create_model(name, num_classes=2, **arguments)
        return made
    from monai.networks import nets

    network: nn.Module = getattr(nets, name)(**arguments)
    return network


def in_a_process(*arguments: object) -> dict[str, Any]:
    words = [sys.executable, __file__, "measure", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, images: int, repeats: int, work: Path) -> Iterator[str]:
    """One line of the table, from the file of results where it was measured before."""
    results = work / "epochs.jsonl"
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    found = next((r for r in known if (r["name"], r["images"]) == (name, images)), None)
    arch, _, dims, side, batch = NETWORKS[name]
    if found is None:
        data = work / f"data-{dims}-{side}-{images}"
        write_files(data, images, dims, side)
        both = in_a_process(name, images, data, work, "both", repeats)["seconds"]
        alone = {kind: in_a_process(name, images, data, work, kind, 1)["peak"] for kind in ("ordinary", "hardening")}
        found = {"name": name, "images": images, "seconds": both, "peaks": alone}
        with results.open("a") as stream:
            stream.write(json.dumps(found) + "\n")
    ordinary, hardening = (statistics.median(found["seconds"][kind]) for kind in ("ordinary", "hardening"))
    before, after = found["peaks"]["ordinary"], found["peaks"]["hardening"]
    size = "x".join([str(side)] * dims)
    yield (
        f"| {arch.split(':')[1]} ({size}, batches of {batch}) | {ordinary:.1f} | {hardening:.1f} | "
        f"{hardening / ordinary:.2f} | {before:.0f} | {after:.0f} | {after / before:.2f} |"
    )


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        name, images, data, work, which, repeats = sys.argv[2:]
        measure(name, int(images), Path(data), Path(work), which, int(repeats))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(".bench/epochs"))
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    print("| Network | Ordinary epoch, s | Hardening epoch, s | Ratio | Peak, MiB: ordinary | hardening | Ratio |")
    print("|---" * 7 + "|", flush=True)
    for name in given.networks or NETWORKS:
        for line in row(name, given.images, given.repeats, given.work):
            print(line, flush=True)


if __name__ == "__main__":
    main()
