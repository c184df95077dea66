"""What a cohort's size costs: peak memory of hardening and evaluation, and the rates of decoding and of the store.

    python tests/benchmarks/cohorts.py memory --side 224 --cases 500 2000 8000 --work .bench/cohorts
    python tests/benchmarks/cohorts.py evaluation --side 160 --cases 75 225 450 --work .bench/cohorts
    python tests/benchmarks/cohorts.py rates --side 512 --cases 600 --work .bench/cohorts

Images are drawn: noise, brighter on one side for one of two classes. Each measurement runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

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


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(data: Path, protocol: Path, work: Path, stage: str) -> None:
    """One stage in this process; prints what it took as JSON."""
    import torch

    from medharden.data import load_cohort
    from medharden.evaluating import evaluate
    from medharden.hardening import fine_tune, harden
    from medharden.heap import keep_freed_memory
    from medharden.models import load_classifier, load_hardened, timm_module
    from medharden.protocol import Hardening, load_protocol

    torch.set_num_threads(1)  # on a busy machine two wait for each other
    torch.manual_seed(0)
    settings, model, key = load_protocol(str(protocol)), work / "model.pt", b"measurements, no secret at all"
    base, started = peak(), time.monotonic()
    cohort = load_cohort(data, settings, key=key, cache=work / "cache")
    read, loaded = peak(), time.monotonic()
    keep_freed_memory()
    if stage == "train":
        network = timm_module().create_model("test_resnet", num_classes=2, in_chans=1)
        torch.save({"arch": "test_resnet", "state_dict": network.state_dict()}, model)
        trained = load_classifier(model)
        fine_tune(trained, cohort, Hardening(epochs=1, min_steps=1, batch_size=32, learning_rate=3e-3), seed=0)
        torch.save({"arch": "test_resnet", "state_dict": trained.network.state_dict()}, model)
    elif stage == "harden":
        harden(load_classifier(model), cohort, settings, work / "run")
    else:
        evaluate(load_hardened(work / "run"), cohort, settings, work / "run", original=load_classifier(model))
    seconds = {"load": loaded - started, "work": time.monotonic() - loaded}
    print(json.dumps({"start": base, "read": read, "peak": peak(), **seconds}))


def evaluate_alone(side: int, cases: int, model: Path, work: Path) -> None:
    """Hardens on few cases and evaluates on many, in this process; prints the peaks as JSON."""
    import torch

    from medharden.data import load_cohort
    from medharden.evaluating import evaluate
    from medharden.hardening import harden
    from medharden.heap import keep_freed_memory
    from medharden.models import load_classifier, load_hardened
    from medharden.protocol import parse_protocol

    torch.set_num_threads(1)
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 96), ("val", 40), ("test", cases)):
        labels = np.arange(count) % 2
        images = random.integers(0, 150, (count, side, side)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, (side // 2) * label : (side // 2) * (label + 1)] += 80
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None].astype(np.uint8)}
    np.savez(work / "cases.npz", **arrays)
    text = PROTOCOL.format(side=side).replace("{mode: window, low: 0, high: 4095}", "{mode: file}")
    settings = parse_protocol(text, "cohorts.yaml")
    cohort = load_cohort(work / "cases.npz", settings, key=b"measurements, no secret at all")
    keep_freed_memory()
    original = load_classifier(model)
    harden(original, cohort, settings, work / "run")
    hardened = peak()
    evaluate(load_hardened(work / "run"), cohort, settings, work / "run", original=original)
    print(json.dumps({"hardened": hardened, "peak": peak()}))


def evaluation(side: int, cases: list[int], work: Path) -> Iterator[str]:
    """Peak memory of evaluation by number of test cases, after hardening on 96; the model is that of `memory`."""
    yield "| Test cases | Peak, MiB: hardening on 96 | evaluating |"
    yield "|---|---|---|"
    for count in cases:
        here = work / f"evaluation-{side}-{count}"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        found = in_a_process("evaluate", side, count, work / "model-224.pt", here)
        yield f"| {count} | {found['hardened']:.0f} | {found['peak']:.0f} |"
        shutil.rmtree(here)


def in_a_process(*arguments: object) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def memory(side: int, cases: list[int], work: Path) -> Iterator[str]:
    """Peak memory of hardening and evaluation by number of cases."""
    yield "| Cases | Decoded, MiB | Peak, MiB: reading | hardening | evaluating | Seconds: hardening | evaluating |"
    yield "|---|---|---|---|---|---|---|"
    model = work / f"model-{side}.pt"
    for count in cases:
        here = work / f"{side}-{count}"
        data = write_cases(work / f"data-{side}-{count}", count, side)
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        protocol = here / "cohorts.yaml"
        protocol.write_text(PROTOCOL.format(side=side))
        if model.exists():
            shutil.copy(model, here / "model.pt")
        else:
            in_a_process("stage", data, protocol, here, "train")
            shutil.copy(here / "model.pt", model)
        found = {stage: in_a_process("stage", data, protocol, here, stage) for stage in ("harden", "evaluate")}
        figures = [found["harden"]["read"], found["harden"]["peak"], found["evaluate"]["peak"]]
        seconds = [found["harden"]["work"], found["evaluate"]["work"]]
        decoded = count * side * side * 4 / 2**20
        yield f"| {count} | {decoded:.0f} | " + " | ".join(f"{x:.0f}" for x in (*figures, *seconds)) + " |"
        shutil.rmtree(here)
        shutil.rmtree(data)


def rates(side: int, cases: int, work: Path) -> Iterator[str]:
    """Cases a second from files, in threads and processes, and from the store."""
    from medharden.data import load_cohort
    from medharden.data.store import reading
    from medharden.protocol import load_protocol

    data = write_cases(work / f"data-{side}-{cases}", cases, side)
    protocol = work / "rates.yaml"
    protocol.write_text(PROTOCOL.format(side=224))
    settings, key, cache = load_protocol(str(protocol)), b"measurements, no secret at all", work / "cache-of-rates"
    load_cohort(data, settings, key=key)
    yield f"| {cases} DICOM files of {side} x {side}, 16 bits, uncompressed, to 224 x 224 | Cases a second |"
    yield "|---|---|"
    for name, limit, workers in (("1 thread", 1e9, 1), ("2 threads", 1e9, 2), ("2 processes", -1.0, 2)):
        reading._WORTH_PROCESSES = limit
        started = time.perf_counter()
        load_cohort(data, settings, key=key, workers=workers)
        yield row(f"decoded in {name}, all checks included", cases, started)
    shutil.rmtree(cache, ignore_errors=True)
    reading._WORTH_PROCESSES = 1e9
    cohort = load_cohort(data, settings, key=key, cache=cache)
    started = time.perf_counter()
    load_cohort(data, settings, key=key, cache=cache)
    yield row("a later command with `--cache`: all files digested, all cases held to theirs", cases, started)
    rows = np.arange(len(cohort.cases))
    started = time.perf_counter()
    for part in np.array_split(rows, max(1, len(rows) // 32)):
        cohort.batch(part)
    yield row("batches of 32 read from the store, digests checked, 1 thread", cases, started)
    shutil.rmtree(cache)


def row(name: str, cases: int, started: float) -> str:
    return f"| {name} | {cases / (time.perf_counter() - started):.0f} |"


def main() -> None:
    if sys.argv[1:2] == ["stage"]:
        measure(*map(Path, sys.argv[2:5]), sys.argv[5])
        return
    if sys.argv[1:2] == ["evaluate"]:
        evaluate_alone(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "evaluation", "rates"])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--cases", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--work", type=Path, default=Path(".bench/cohorts"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.what == "rates":
        lines = rates(given.side, given.cases[0], given.work)
    else:
        lines = (memory if given.what == "memory" else evaluation)(given.side, given.cases, given.work)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
