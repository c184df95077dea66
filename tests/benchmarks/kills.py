"""Fifty kills (`SIGKILL`) at drawn moments of decoding, training, calibration and evaluation of a small run.

    python tests/benchmarks/kills.py --kills 50

Each stage is drawn as often as any other, and a moment within it: how often it has spoken, and up to 40 ms after that.
A killed run is called again until it ends; then its weights, its answers case by case, its verdict, its log and its
records are held against those of a run that nobody killed. The benchmark can be stopped and called again itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from killed import STAGES, kill_often


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cases", type=int, nargs=3, default=(100, 40, 30), metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--work", type=Path, default=Path(".bench/kills"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    toll = kill_often(given.work.resolve(), given.kills, tuple(given.cases))
    print("| Killed while it was at | Times |\n|---|---|")
    for stage in STAGES:
        print(f"| {stage} | {toll.kills.get(stage, 0)} |")
    print(
        f"\n{sum(toll.kills.values())} kills; {toll.alike} of {toll.runs} runs ended as the one that nobody killed "
        f"{toll.wrong}"
    )
    print(f"{time.perf_counter() - started:.0f} s")
    sys.exit(bool(toll.wrong))


if __name__ == "__main__":
    main()
