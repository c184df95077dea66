"""Fuzzes every reader of files of others with 100,000 inputs, and prints the table of outcomes.

python tests/benchmarks/fuzz.py [--inputs 100000] [--seed 0] [--out .bench/fuzz] [TARGET ...]

Resumable: a target that is finished has its outcome in the folder, and is not tried again. A failure is any exception
that is not the project's own, more than 10 s, or more than 1 GiB of memory for an input of less than 1 MB; hypothesis
then prints the fewest changes that still fail, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "helpers"))

from fuzz_targets import SLOW, targets
from fuzzing import Outcomes, Target, fuzz

SHARE_OF_SLOW = 0.15  # of an input that takes a whole run directory, for each of one that takes a file


def main() -> int:
    """Tries what is left to try; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".bench/fuzz"))
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        known = targets(Path(folder))
        each = given.inputs / sum(SHARE_OF_SLOW if t.name in SLOW else 1.0 for t in known)
        for target in known:
            if not given.targets or target.name in given.targets:
                inputs = round(each * (SHARE_OF_SLOW if target.name in SLOW else 1.0)) + 1
                failed += _tried(target, inputs, given.seed, given.out)
    _print(given.out)
    return int(failed > 0)


def _tried(target: Target, inputs: int, seed: int, out: Path) -> bool:
    """Whether the target failed, now or when it was tried before."""
    kept = out / f"{target.name.replace(' ', '-').replace(',', '')}-{seed}-{inputs}.json"
    if kept.exists():
        return False
    print(f"{target.name}: {inputs} inputs from {len(target.seeds)} files", file=sys.stderr, flush=True)
    try:
        found = fuzz(target, inputs, seed=seed)
    except Exception:
        traceback.print_exc()
        return True
    kept.write_text(json.dumps({"name": target.name, **vars(found)}))
    return False


def _print(out: Path) -> None:
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    print("| File | Inputs | Accepted | Refused by | Failures | Slowest | Most memory |\n|---|---|---|---|---|---|---|")
    for row in rows:
        found = Outcomes(**{k: v for k, v in row.items() if k != "name"})
        refused = ", ".join(f"{name} {count}" for name, count in sorted(found.refused.items()))
        memory = f"{found.largest / 2**20:.0f} MiB"
        print(
            f"| {row['name']} | {found.inputs} | {found.accepted} | {refused} | 0 | {found.slowest:.1f} s | {memory} |"
        )
    print(f"\n{sum(row['inputs'] for row in rows)} inputs")


if __name__ == "__main__":
    sys.exit(main())
