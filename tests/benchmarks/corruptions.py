"""A release against its original under the corruptions that a protocol may name, as `evaluate` applies and draws them.

    python tests/benchmarks/corruptions.py --data DIR --protocol FILE RUN_DIRECTORY --severities 1 3 5

Gained and lost count the cases that only the release, or only the original, answers rightly; limits are by patient, all
severities together. `--split val` keeps the test split closed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medharden.data import load_cohort, load_pseudonym_key
from medharden.data.view.corruptions import corrupted, draw_of
from medharden.models import HardenedClassifier, load_hardened
from medharden.protocol import CORRUPTIONS, load_protocol
from medharden.stats import noninferiority_test


@torch.no_grad()
def right(model: HardenedClassifier, inputs: Tensor, labels: Tensor) -> np.ndarray:
    """(2, N) which cases the original, and the release, answer rightly."""
    bias = model.decision_bias
    answered = [(model.clean_path(part), model.assess(part).logits) for part in inputs.split(64)]
    found = [torch.stack([(z + bias).argmax(1) for z in both]) for both in answered]
    return (torch.cat(found, dim=1) == labels).numpy()


def change(gained: np.ndarray, lost: np.ndarray, patients: list[str]) -> str:
    """Counts, change and its 95 % limits."""
    test = noninferiority_test(gained, lost, margin=0.03, alpha=0.025, patients=patients)
    low, high = test.interval
    return f"{gained.sum()}/{lost.sum()} {test.estimate:+.3f} ({low:+.3f}, {high:+.3f})"


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--protocol", type=Path, required=True)
    parser.add_argument("--severities", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    protocol, model = load_protocol(arguments.protocol), load_hardened(arguments.run)
    cohort = load_cohort(arguments.data, protocol, key=load_pseudonym_key())
    rows = cohort.indices(arguments.split)
    inputs, labels = cohort.batch(rows)
    cases, times = [cohort.cases[row] for row in rows], len(arguments.severities)
    patients = [case.patient for case in cases] * times
    print("| Corruption | gained/lost by severity | original | change | " + " | ".join(cohort.classes) + " |")
    print("|---" * (4 + len(cohort.classes)) + "|")
    for name in CORRUPTIONS:
        found = []
        for severity in arguments.severities:
            draws = [draw_of(protocol.seed, case.pixels, name, severity) for case in cases]
            found.append(right(model, corrupted(inputs, name, severity, draws), labels))
        before, after = np.concatenate(found, axis=1)
        gained, lost = after & ~before, before & ~after
        cells = [f"{int((b & ~a).sum())}/{int((a & ~b).sum())}" for a, b in found]
        parts = [change(gained, lost, patients)]
        for k in range(len(cohort.classes)):
            of = np.tile(labels.numpy() == k, times)
            parts.append(change(gained[of], lost[of], [who for who, one in zip(patients, of, strict=True) if one]))
        print(f"| {name} | {', '.join(cells)} | {before.mean():.3f} | {' | '.join(parts)} |", flush=True)


if __name__ == "__main__":
    main()
