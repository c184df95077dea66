"""What the fusion weight moves, on validation: robustness kept, ordinary shifts gained and lost.

    python tests/benchmarks/weights.py --data DIR/kermany_cxr_224 --split-seed SEED RUN ...

RUN is a run directory of `method.py`, which splits the data by the seed of the protocol in `protocols/`, whatever the
run's own: SEED is that one. The weight of 1 is the branch alone. Attacks, shifts and tones are those of `compare.py`,
on all validation cases; gained and lost are against the original and added over shifts and tones. The test split is
not read. One line of results a run and weight.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from compare import SHIFTS, SUITE, TONES, right
from torch import Tensor

from medharden.attacks import run_suite
from medharden.audit import canonical_json
from medharden.data import load_cohort, load_pseudonym_key
from medharden.heap import keep_freed_memory
from medharden.models import DecisionView, load_hardened
from medharden.protocol import load_protocol

WEIGHTS = (1.0, 0.9, 0.8, 0.7, 0.6)


def measure(run: Path, data: Path, split_seed: int | None) -> Iterator[dict[str, object]]:
    """One weight after the other of one run."""
    protocol, model = load_protocol(run / "protocol.yaml"), load_hardened(run)
    seed = protocol.seed if split_seed is None else split_seed
    cohort = load_cohort(data, protocol.model_copy(update={"seed": seed}), key=load_pseudonym_key())
    if canonical_json(cohort.record) != (run / "cohort.json").read_bytes().strip():
        raise SystemExit(f"{run.name} was trained on another split; give its seed, and the same key")
    inputs, labels = cohort.batch(cohort.indices("val"))
    shifted = [transform(inputs) for transform in (*SHIFTS.values(), *TONES.values())]
    original = DecisionView(model.clean_path, model.decision_bias)
    before = [right(original, images, labels) for images in (inputs, *shifted)]
    for weight in WEIGHTS:
        model.fusion = replace(model.fusion, weight=weight, mode="robust" if weight == 1 else "mixed")
        view = DecisionView(model, model.decision_bias)
        changes = [changed(right(view, x, labels), y) for x, y in zip((inputs, *shifted), before, strict=True)]
        attacked = run_suite(
            view, inputs, labels, threat=protocol.input_threat, suite=SUITE, seed=protocol.seed, batch_size=64
        )
        yield {
            "run": run.name,
            "weight": weight,
            "cases": len(labels),
            "robust": sum(won == "" for won in attacked.won_by),
            "clean gained, lost": changes[0],
            "shifted gained, lost": [sum(change) for change in zip(*changes[1:], strict=True)],
        }


def changed(now: Tensor, before: Tensor) -> list[int]:
    """Cases gained and lost."""
    return [int((now & ~before).sum()), int((~now & before).sum())]


def main() -> None:
    """Measures each run at each weight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split-seed", type=int, help="the seed of the split, where the run's own is another")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    arguments = parser.parse_args()
    keep_freed_memory()
    for run in arguments.runs:
        for line in measure(run, arguments.data, arguments.split_seed):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
