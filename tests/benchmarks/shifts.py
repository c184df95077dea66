"""Ordinary shift: the released composite against the original on test X-rays as MedMNIST-C corrupts them, case by case.

    python tests/benchmarks/shifts.py --data DIR/kermany_cxr_224 RUN_DIRECTORY ...

The corruptions and their five severities are those that MedMNIST-C (Di Salvo et al. 2024) publishes for
`pneumoniamnist`, which is this data set, in the package `medmnistc` at 224 pixels: acquisition noise, blur, resolution,
JPEG, brightness, contrast, gamma. Each test image is corrupted before it is resampled to the model's size. Gained and
lost count the cases that only the composite, or only the original, answers rightly; the limits of the change are by
patient.

`pip install --no-deps medmnistc wand opencv-python-headless scikit-image`, and ImageMagick's library.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medharden.data import load_cohort, load_pseudonym_key
from medharden.data.formats.window import Window
from medharden.data.view.preprocessing import Recipe, preprocess
from medharden.models import DecisionView, load_hardened, logits_in_batches, timm_module
from medharden.protocol import Protocol, load_protocol
from medharden.stats import noninferiority_test

NATIVE = (224, 224)
SEVERITIES = range(5)


def corrupted(images: Tensor, corruption: object, severity: int, size: tuple[int, int]) -> Tensor:
    """(N, 1, *size) in [0, 1]: 8-bit grey images, corrupted and resampled."""
    np.random.seed(severity)  # the package draws its noise from the global generator
    corruption.rng = np.random.default_rng(severity)  # type: ignore[attr-defined]  # where it forgot to make one
    recipe, done = Recipe(Window(0, 1), False, 1, size, "stretch"), []
    for image in images:
        grey = Image.fromarray((image[0] * 255).round().byte().numpy())
        after = np.asarray(corruption.apply(grey, severity=severity), dtype=np.float32)  # type: ignore[attr-defined]
        plane = after if after.ndim == 2 else after[..., 0]
        done.append(preprocess(torch.from_numpy(plane.copy())[None] / 255, recipe))
    return torch.stack(done)


def native(protocol: Protocol, data: Path) -> tuple[Tensor, Tensor, list[str]]:
    """The test images as they are stored, their labels and their patients; the split is the protocol's."""
    fields = protocol.model_dump()
    fields["input"]["size"] = NATIVE
    cohort = load_cohort(data, type(protocol).model_validate(fields), key=load_pseudonym_key())
    rows = cohort.indices("test")
    inputs, labels = cohort.batch(rows)
    return inputs, labels, [cohort.cases[row].patient for row in rows]


@torch.no_grad()
def right(view: torch.nn.Module, inputs: Tensor, labels: Tensor) -> np.ndarray:
    """(N,) which cases are answered rightly."""
    return (logits_in_batches(view, inputs, 64).argmax(1) == labels).numpy()


def main() -> None:
    """Prints a table in Markdown for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split-seed", type=int, help="the seed of the split, where the run's own is another")
    parser.add_argument("runs", nargs="+", type=Path)
    arguments = parser.parse_args()
    timm_module()  # declares what torchvision, which the package imports, needs beside a CPU torch
    from medmnistc.corruptions.registry import CORRUPTIONS_DS

    for run in arguments.runs:
        protocol, model = load_protocol(run / "protocol.yaml"), load_hardened(run)
        if arguments.split_seed is not None:
            protocol = protocol.model_copy(update={"seed": arguments.split_seed})
        images, labels, patients = native(protocol, arguments.data)
        original = DecisionView(model.clean_path, model.decision_bias)
        composite = DecisionView(model, model.decision_bias)
        height, width = protocol.input.size or NATIVE
        print(f"\n{run}: gained / lost of {len(labels)} at severity 1 to 5; all severities together\n")
        print("| Corruption | 1 | 2 | 3 | 4 | 5 | original | change | 95 % limits |\n" + "|---" * 9 + "|")
        for name, corruption in CORRUPTIONS_DS["pneumoniamnist"].items():
            cells, gains, losses, before = [], [], [], []
            for severity in SEVERITIES:
                inputs = corrupted(images, corruption, severity, (height, width))
                theirs, mine = right(original, inputs, labels), right(composite, inputs, labels)
                gains.append(mine & ~theirs)
                losses.append(theirs & ~mine)
                before.append(theirs)
                cells.append(f"{gains[-1].sum()}/{losses[-1].sum()}")
            gained, lost = np.concatenate(gains), np.concatenate(losses)
            test = noninferiority_test(gained, lost, margin=0.03, alpha=0.025, patients=patients * len(gains))
            low, high = test.interval
            print(
                f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {np.mean(before):.3f} | "
                f"{(gained.sum() - lost.sum()) / len(gained):+.3f} | {low:+.3f}, {high:+.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
