"""The rates of decoding and of the store, and peak memory of evaluation where the test split alone grows.

    python tests/benchmarks/cohorts.py evaluation --side 160 --cases 75 225 450 --work .bench/memory
    python tests/benchmarks/cohorts.py rates --side 512 --cases 600 --work .bench/cohorts

Images are drawn as those of `memory.py`, whose model `evaluation` takes. Each measurement runs in a process of its own.
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
from memory import PROTOCOL, write_cases


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
        found = in_a_process("evaluate", side, count, work / "model-test_resnet-224.pt", here)
        yield f"| {count} | {found['hardened']:.0f} | {found['peak']:.0f} |"
        shutil.rmtree(here)


def in_a_process(*arguments: object) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


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
    if sys.argv[1:2] == ["evaluate"]:
        evaluate_alone(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["evaluation", "rates"])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--cases", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--work", type=Path, default=Path(".bench/cohorts"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.what == "rates":
        lines = rates(given.side, given.cases[0], given.work)
    else:
        lines = evaluation(given.side, given.cases, given.work)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
