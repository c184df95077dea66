"""Branch forms and training methods side by side, on validation alone: robustness, clean loss, shift, time.

    python tests/benchmarks/compare.py --data DIR --model MODEL --protocol FILE --out results.jsonl VARIANT ...

A variant is FORM:METHOD:LEARNING_RATE:SEED, such as `norm:carried:3e-3:0`, with :HOLD behind it for a share of the
schedule at radius 0. `--epochs N` has them train for N instead of the protocol's, so that methods of several passes a
step can be held against one of a single pass at equal passes. One line of results a variant is appended; a variant
whose line is there is not trained again, so the run goes on where it stopped. The test split is not read.

Robust accuracy is under APGD with cross-entropy, then APGD with the margin loss, 20 steps each, on all of validation;
at half and twice eps under the first of them.
Shifts are ordinary ones of acquisition and transfer, each at one moderate severity, on the same cases; gained and lost
count cases that only the branch, or only the original, answers rightly. The last epoch's weights are measured, so that
no variant profits from a choice of epoch.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.transforms import AdjustContrast, GaussianSmooth
from PIL import Image
from torch import Tensor
from torch.nn import functional

from medharden.attacks import run_suite
from medharden.data import load_cohort, load_pseudonym_key
from medharden.hardening.branch import make_branch, merge
from medharden.hardening.probe import Probe, ProbeResult
from medharden.hardening.training import BranchTraining
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, DecisionView, load_classifier, logits_in_batches
from medharden.protocol import Attack, Protocol, load_protocol

SUITE = (Attack(attack="apgd", loss="ce", steps=20), Attack(attack="apgd", loss="margin", steps=20))


def noise(inputs: Tensor) -> Tensor:
    """Gaussian noise of 4 % of the range."""
    return (inputs + 0.04 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def each(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A MONAI transform of one image, on a batch."""
    return lambda inputs: torch.stack([torch.as_tensor(transform(image)) for image in inputs]).clamp(0, 1)


def jpeg(inputs: Tensor) -> Tensor:
    """JPEG at quality 40 and back."""
    back = []
    for image in inputs:
        buffer = io.BytesIO()
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(buffer, "JPEG", quality=40)
        back.append(torch.from_numpy(np.array(Image.open(buffer), dtype=np.float32) / 255)[None])
    return torch.stack(back)


def coarse(inputs: Tensor) -> Tensor:
    """Three quarters of the resolution and back."""
    small = functional.interpolate(inputs, scale_factor=0.75, mode="bilinear", antialias=True)
    return functional.interpolate(small, size=inputs.shape[2:], mode="bilinear").clamp(0, 1)


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": noise,
    "blur": each(GaussianSmooth(sigma=0.8)),
    "gamma 0.7": each(AdjustContrast(gamma=0.7)),
    "gamma 1.4": each(AdjustContrast(gamma=1.4)),
    "contrast": lambda inputs: (0.5 + 0.7 * (inputs - 0.5)).clamp(0, 1),
    "jpeg": jpeg,
    "resolution": coarse,
}


def flat(inputs: Tensor) -> Tensor:
    """Half the contrast about each image's own mean."""
    mean = inputs.mean(dim=(1, 2, 3), keepdim=True)
    return (0.5 * (inputs - mean) + mean).clamp(0, 1)


# what a branch without tone variation in its training fails on
TONES: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness 0.7": lambda inputs: 0.7 * inputs,
    "brightness 0.5": lambda inputs: 0.5 * inputs,
    "contrast 0.5": flat,
    "gamma 0.6": lambda inputs: inputs.clamp(min=1e-4) ** 0.6,
}


class LastEpochs:
    """A probe that measures nothing until the last epoch: the attack comes afterwards, on all of validation."""

    def __init__(self, probe: Probe) -> None:
        self.original, self.cases = probe.original, probe.cases
        self.classes, self.measures, self.allotment = probe.classes, probe.measures, probe.allotment

    def measure(self, branch: Classifier) -> ProbeResult:
        """The original's own figures: no epoch is rolled back for them."""
        return self.original


@torch.no_grad()
def right(model: Classifier, inputs: Tensor, labels: Tensor) -> Tensor:
    """(N,) which cases a model answers rightly."""
    return logits_in_batches(model, inputs, 64).argmax(1) == labels


def standing(view: DecisionView, inputs: Tensor, labels: Tensor, protocol: Protocol, factor: float) -> int:
    """How many cases an adversary of another radius leaves right: 20 steps of APGD, cross-entropy."""
    threat = protocol.input_threat.model_copy(update={"eps": factor * protocol.input_threat.eps})
    attacked = run_suite(view, inputs, labels, threat=threat, suite=SUITE[:1], seed=protocol.seed, batch_size=64)
    return sum(won == "" for won in attacked.won_by)


def variant(name: str, protocol: Protocol) -> Protocol:
    """The protocol with a variant's settings."""
    form, method, rate, seed, *hold = name.split(":")
    fields = protocol.model_dump()
    fields["hardening"] |= {"branch": form, "method": method, "learning_rate": float(rate)}
    if hold:
        fields["hardening"]["hold"] = float(hold[0])
    elif method == "eps-scheduling":
        del fields["hardening"]["hold"]  # it brings its own
    fields["seed"] = protocol.seed + int(seed)
    return type(protocol).model_validate(fields)


def measure(name: str, original: Classifier, data: Path, base: Protocol) -> dict[str, object]:
    """Trains one variant and measures it on validation."""
    cohort = load_cohort(data, base, key=load_pseudonym_key())
    protocol = variant(name, base)
    probe = Probe(original, cohort, protocol, torch.zeros(len(cohort.classes)), "cpu")
    branch = make_branch(original, protocol.hardening.branch, rank=protocol.hardening.rank, seed=protocol.seed)
    training = BranchTraining(original, branch, cohort, protocol, LastEpochs(probe), "cpu")
    started = time.perf_counter()
    while training.state.epoch < training.epochs:
        training.run_epoch(None)
    seconds = time.perf_counter() - started
    merge(branch)
    inputs, labels = cohort.batch(cohort.indices("val"))
    view = DecisionView(branch, torch.zeros(len(cohort.classes)))
    attacked = run_suite(
        view, inputs, labels, threat=protocol.input_threat, suite=SUITE, seed=protocol.seed, batch_size=64
    )

    def changed(transform: Callable[[Tensor], Tensor]) -> list[float]:
        shifted = transform(inputs)
        mine, theirs = right(branch, shifted, labels), right(original, shifted, labels)
        return [int((mine & ~theirs).sum()), int((~mine & theirs).sum()), float(theirs.float().mean())]

    return {
        "variant": name,
        "cases": len(labels),
        "robust": sum(won == "" for won in attacked.won_by) / len(labels),
        "standing at half, twice eps": [standing(view, inputs, labels, protocol, factor) for factor in (0.5, 2.0)],
        "findings": [finding.message for finding in attacked.findings],
        "gained, lost, original": {n: changed(t) for n, t in {"none": lambda x: x, **SHIFTS}.items()},
        "tones: gained, lost, original": {n: changed(t) for n, t in TONES.items()},
        "epochs": training.epochs,
        "passes": training.adversary.passes,
        "steps": training.state.steps,
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measures the variants that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--data", "--model", "--protocol", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--epochs", type=int, help="instead of the protocol's")
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    arguments = parser.parse_args()
    keep_freed_memory()
    protocol = load_protocol(arguments.protocol)
    if arguments.epochs is not None:
        shorter = protocol.hardening.model_copy(update={"epochs": arguments.epochs, "min_steps": 1})
        protocol = protocol.model_copy(update={"hardening": shorter})
    original = load_classifier(arguments.model, spec=protocol.model, dims=protocol.input.dims).requires_grad_(False)
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.exists() else []
    done = {(line["variant"], line["epochs"]) for line in map(json.loads, lines)}
    for name in arguments.variants:
        if (name, protocol.hardening.epochs) not in done:
            result = measure(name, original, arguments.data, protocol)
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
