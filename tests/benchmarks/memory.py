"""Whether memory, time and disk of hardening and evaluation grow with the cohort: 1, 4 and 16 times as many cases.

    python tests/benchmarks/memory.py --network tiny --cases 1250 5000 20000 --plot docs/memory-by-cases.svg
    python tests/benchmarks/memory.py --network test_resnet --cases 250 1000

Images are drawn: noise, brighter on one side for one of two classes, as uncompressed DICOM of 12 bits; 70 % train, 15 %
validate, 15 % are attacked by three steps of PGD. Each command runs in a process of its own, which reads the cohort
through a cache. Peaks are the kernel's high-water mark of resident memory, set back as each stage begins. What was
measured is kept in WORK, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

PROTOCOL = """
schema_version: 1
name: cohorts
title: Cohorts of any size
intended_use: Measurements.
input: {{dims: 2, size: [{side}, {side}], intensity: {{mode: window, low: 0, high: 4095}}}}
threat: {{eps: 2, unit: 1/255}}
splits: {{near_duplicate_bits: null, similar_bits: null,
  patients: {{unit: each_case, reason: "Each image is drawn by itself; nobody has two."}}}}
hardening: {{branch: full, epochs: 2, min_steps: 1, batch_size: 32, probe_cases: 64, probe_steps: 4}}
suite: {{attacks: [{{attack: pgd, loss: ce, steps: 3}}], sanity_cases: 0,
  reason: "What it costs is measured, and nothing is decided."}}
"""
KEY = b"measurements, no secret at all"
STAGES = ("read", "harden", "evaluate")
MIB = 2**20


class Tiny(nn.Module):
    """A network that takes a millisecond: what grows with the cohort does so whatever the network is."""

    def __init__(self, num_classes: int = 2, in_chans: int = 1) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(in_chans, 8, 8, stride=8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 4, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        features = nn.functional.adaptive_avg_pool2d(self.norm(self.stem(inputs)).relu(), 2)
        return self.head(features.flatten(1))


ARCHITECTURES = {"tiny": "python:memory:Tiny", "test_resnet": "timm:test_resnet", "resnet18": "timm:resnet18"}


def write_cases(folder: Path, cases: int, side: int) -> Path:
    """Uncompressed DICOM files of 12 bits, below train, val and test as 70, 15 and 15 of 100."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    if folder.is_dir():
        return folder
    random, part = np.random.default_rng(0), folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    for n in range(cases):
        split, label = ("train" if n % 20 < 14 else "val" if n % 20 < 17 else "test"), n // 20 % 2
        stored = random.integers(0, 2500, (side, side), dtype=np.uint16)
        stored[:, (side // 2) * label : (side // 2) * (label + 1)] += 1200
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, ds.file_meta.MediaStorageSOPInstanceUID
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows = ds.Columns = side
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = stored.tobytes()
        path = part / split / "ab"[label] / f"{n}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path, enforce_file_format=True)
    part.rename(folder)
    return folder


class Peaks:
    """The largest resident memory of each stage of this process, in MiB."""

    def __init__(self) -> None:
        self.found, self.name = dict[str, float](), "start"

    def __call__(self, stage: str, done: int, total: int) -> None:
        """A `Progress`: notes the peak of the stage before as another begins."""
        if stage != self.name:
            self.note()
            self.name = stage
            Path("/proc/self/clear_refs").write_text("5")

    def note(self) -> None:
        said = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        self.found[self.name] = max(self.found.get(self.name, 0.0), int(said) / 1024)


class Disk:
    """The largest checkpoint, and what lies in the run directory with it."""

    def __init__(self, run: Path) -> None:
        self.run, self.checkpoint, self.folder = run, 0.0, 0.0

    def look(self) -> None:
        if (self.run / "harden.checkpoint").exists():
            self.checkpoint = max(self.checkpoint, (self.run / "harden.checkpoint").stat().st_size / MIB)
            self.folder = max(self.folder, sum(path.stat().st_size for path in self.run.iterdir()) / MIB)


def measure(data: Path, protocol: Path, work: Path, network: str, stage: str) -> None:
    """One command in this process; prints what it took as JSON."""
    from medharden.heap import keep_freed_memory, share_one_heap

    share_one_heap()
    import torch

    from medharden.data import load_cohort
    from medharden.evaluating import evaluate
    from medharden.hardening import harden
    from medharden.models import load_classifier, load_hardened
    from medharden.protocol import load_protocol

    torch.set_num_threads(1)  # on a busy machine two wait for each other
    settings, arch, peaks, disk = load_protocol(str(protocol)), ARCHITECTURES[network], Peaks(), Disk(work / "run")
    started = time.monotonic()
    cohort = load_cohort(data, settings, key=KEY, cache=work / "cache", progress=peaks)
    loaded = time.monotonic()
    keep_freed_memory()
    original = load_classifier(work / "model.pt", arch=arch)

    def watch(name: str, done: int, total: int) -> None:
        peaks(name, done, total)
        disk.look()

    if stage == "harden":
        harden(original, cohort, settings, work / "run", progress=watch)
    elif stage == "evaluate":
        hardened = load_hardened(work / "run", arch=arch if arch.startswith("python:") else None)
        evaluate(hardened, cohort, settings, work / "run", original=original, progress=peaks)
    peaks.note()
    seconds = (loaded if stage == "read" else time.monotonic()) - (started if stage == "read" else loaded)
    found = {"peak": max(peaks.found.values()), "peaks": peaks.found, "seconds": seconds}
    print(json.dumps(found | {"checkpoint": disk.checkpoint, "folder": disk.folder}))


def train(data: Path, protocol: Path, work: Path, network: str) -> None:
    """An original, of one clean epoch."""
    import torch

    from medharden.data import load_cohort
    from medharden.hardening import fine_tune
    from medharden.models import load_classifier, timm_module
    from medharden.protocol import Hardening, load_protocol

    torch.set_num_threads(1)
    torch.manual_seed(0)
    name = ARCHITECTURES[network]
    made = Tiny() if network == "tiny" else timm_module().create_model(name.split(":")[1], num_classes=2, in_chans=1)
    path = work / "model.pt"
    torch.save(made.state_dict(), path)
    classifier = load_classifier(path, arch=name)
    cohort = load_cohort(data, load_protocol(str(protocol)), key=KEY)
    fine_tune(classifier, cohort, Hardening(epochs=2, min_steps=1, batch_size=32, learning_rate=3e-3), seed=0)
    torch.save(classifier.network.state_dict(), path)


def in_a_process(*arguments: object) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


def measured(network: str, side: int, cases: list[int], work: Path) -> Iterator[dict[str, Any]]:
    """What each number of cases took, from the file of results where it was measured before."""
    results = work / "memory.jsonl"
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    model = work / f"model-{network}-{side}.pt"
    for count in cases:
        name = {"network": network, "side": side, "cases": count}
        row = next((r for r in known if {k: r[k] for k in name} == name), None)
        if row is None:
            here = work / f"{network}-{side}-{count}"
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir(parents=True)
            protocol = here / "cohorts.yaml"
            protocol.write_text(PROTOCOL.format(side=side))
            if not model.exists():
                few = write_cases(work / f"data-{side}-200", 200, side)
                in_a_process("train", few, protocol, here, network)
                os.replace(here / "model.pt", model)
            shutil.copy(model, here / "model.pt")
            data = write_cases(work / f"data-{side}-{count}", count, side)
            row = name | {stage: in_a_process("stage", data, protocol, here, network, stage) for stage in STAGES}
            row["store"] = sum(p.stat().st_size for p in (here / "cache").rglob("*") if p.is_file()) / MIB
            with results.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            shutil.rmtree(here)
            shutil.rmtree(data)
        yield row


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "| Cases | Peak, MiB: reading | hardening | evaluating | Seconds: reading | hardening | evaluating "
        "| Disk, MiB: decoded | checkpoint | run directory |"
    )
    yield "|---" * 10 + "|"
    for r in rows:
        peaks = " | ".join(f"{r[stage]['peak']:.0f}" for stage in STAGES)
        seconds = " | ".join(f"{r[stage]['seconds']:.0f}" for stage in STAGES)
        disk = f"{r['store']:.0f} | {r['harden']['checkpoint']:.2f} | {r['harden']['folder']:.0f}"
        yield f"| {r['cases']} | {peaks} | {seconds} | {disk} |"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Peak memory against the number of cases, as an SVG."""
    from matplotlib.figure import Figure

    from medharden.reporting.svg import COLOURS, light_palette, standalone, style_axes, to_svg

    figure = Figure(figsize=(5.0, 2.6))
    axes = figure.add_axes((0.15, 0.2, 0.82, 0.74))
    style_axes(axes, grid="y")
    cases = [r["cases"] for r in rows]
    for stage, colour, name in (
        ("read", "original", "decoding"),
        ("harden", "branch", "harden"),
        ("evaluate", "released", "evaluate"),
    ):
        peaks = [r[stage]["peak"] for r in rows]
        axes.plot(cases, peaks, marker="o", color=COLOURS[colour], linewidth=1.6, markersize=5, label=name)
    axes.set_xscale("log")
    axes.set_xticks(cases, [f"{c}" for c in cases])
    axes.minorticks_off()
    axes.set_ylim(0, 1.25 * max(r[stage]["peak"] for r in rows for stage in STAGES))
    axes.set_xlabel(f"cases of {rows[0]['side']} x {rows[0]['side']}")
    axes.set_ylabel("peak memory, MiB")
    axes.legend(loc="upper left", ncols=3, frameon=False, labelcolor=COLOURS["muted"])
    said = "; ".join(f"{r['cases']} cases: " + ", ".join(f"{s} {r[s]['peak']:.0f}" for s in STAGES) for r in rows)
    path.write_text(standalone(to_svg(figure, "memory", f"Peak memory in MiB. {said}."), light_palette()))


def main() -> None:
    if sys.argv[1:2] == ["stage"]:
        measure(*map(Path, sys.argv[2:5]), *sys.argv[5:7])
        return
    if sys.argv[1:2] == ["train"]:
        train(*map(Path, sys.argv[2:5]), sys.argv[5])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=ARCHITECTURES, default="tiny")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--cases", type=int, nargs="+", default=[1250, 5000, 20000])
    parser.add_argument("--work", type=Path, default=Path(".bench/memory"))
    parser.add_argument("--plot", type=Path, help="an SVG to write")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in measured(given.network, given.side, given.cases, given.work):
        rows.append(row)
        print(json.dumps({stage: row[stage]["peaks"] for stage in STAGES}), file=sys.stderr, flush=True)
    print("\n".join(table(rows)))
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
