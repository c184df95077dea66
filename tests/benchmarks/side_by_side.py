"""Medharden beside other trainers: same original, data, epochs, batch size, validation cases and attacks, one process.

    pip install -e '.[test,benchmarks]'
    python tests/benchmarks/side_by_side.py --data DIR --model MODEL --protocol FILE --out results.jsonl VARIANT ...

A variant is TRAINER:EPOCHS:SEED, such as `art:8:0`. One line of results a variant is appended; a variant whose line
is there is not trained again, so the run goes on where it stopped; at the end all results are printed as a table. The
test split is not read. Trainers:

- `medharden-norm`, `medharden-full`: the carried adversary, learning rates 3e-3 and 1e-3 (as in compare.py).
- `art`: AdversarialTrainerMadryPGD of the Adversarial Robustness Toolbox, every weight of a copy of the original. The
  optimiser and its schedule are given to it. What its interface has no place for: a ramp of eps, gradient clipping,
  frozen running statistics, leaving out a last batch (1089 cases in batches of 32 leave a batch of one case; the
  last case is therefore left out of its data).
- `torchattacks`: the usual loop around torchattacks.PGD: train mode, attack, loss on the attacked batch, step.
- `torchattacks-recipe`: the same loop with medharden's ramp, gradient clipping and frozen running statistics, so that
  the attack is what differs from `medharden-full`.

The peers take PGD with 10 steps of a quarter of eps from a random start, AdamW, weight decay and one cycle as the
protocol has them, and a peak rate of 1e-3. Passes are counted, not assumed. Every trainer's last weights are measured.
All weights lie channels last: a pass then takes two thirds of the time on a CPU, whoever trains.

Drift is how far the validation logits of a frozen path move: of medharden's own clean path over the whole training;
of the peers', for a module that holds a frozen, eval-mode copy of the original beside a trainable one, over two steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchattacks
from art.defences.trainer import AdversarialTrainerMadryPGD
from art.estimators.classification import PyTorchClassifier
from compare import SUITE, LastEpochs, right, variant
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from medharden.attacks import run_suite
from medharden.data import Cohort, load_cohort, load_pseudonym_key
from medharden.hardening.branch import make_branch
from medharden.hardening.probe import Probe
from medharden.hardening.schedule import learning_rate, radius_share
from medharden.hardening.training import BranchTraining
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, DecisionView, load_classifier, logits_in_batches
from medharden.protocol import Protocol, load_protocol

ATTACK_STEPS = 10
STEP_OF_EPS = 2.5 / ATTACK_STEPS
DRIFT_STEPS = 2
OWN = {"medharden-norm": "norm:carried:3e-3", "medharden-full": "full:carried:1e-3"}

Train = Callable[[nn.Module, Tensor, Tensor, Protocol], None]


class Beside(nn.Module):
    """A frozen path beside one that trains, as two-path models hold them; answers with the mean of their logits."""

    def __init__(self, original: Classifier) -> None:
        super().__init__()
        self.clean_path = copy.deepcopy(original).requires_grad_(False).eval()
        self.branch = copy.deepcopy(original).requires_grad_(True)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, K) logits."""
        return (self.clean_path(inputs) + self.branch(inputs)) / 2


class Passes:
    """Counts what goes forward and backward through a model."""

    def __init__(self, model: nn.Module) -> None:
        self.forward = self.backward = 0
        self.handle = model.register_forward_hook(self._seen)

    def _seen(self, module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        self.forward += 1
        if logits.requires_grad:
            logits.register_hook(self._back)

    def _back(self, gradient: Tensor) -> None:
        self.backward += 1


def one_cycle(
    model: nn.Module, protocol: Protocol, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """The protocol's optimiser and its learning rate after each step."""
    settings = protocol.hardening
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1.0, weight_decay=settings.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate(settings, min(1.0, step / steps)))
    return optimiser, rate


def train_art(model: nn.Module, inputs: Tensor, labels: Tensor, protocol: Protocol) -> None:
    """ART's trainer after Madry et al.; it steps the schedule after each batch, since it fits batch by batch."""
    settings, threat = protocol.hardening, protocol.input_threat
    batches = len(inputs) // settings.batch_size
    whole = batches * settings.batch_size
    optimiser, rate = one_cycle(model, protocol, settings.epochs * batches)
    classifier = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimiser,
        input_shape=tuple(inputs.shape[1:]),
        nb_classes=len(protocol.task.classes),
        clip_values=threat.bounds,
        device_type="cpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=settings.epochs,
        batch_size=settings.batch_size,
        eps=threat.eps,
        eps_step=threat.eps * STEP_OF_EPS,
        max_iter=ATTACK_STEPS,
    )
    trainer.fit(inputs[:whole].numpy(), labels[:whole].numpy(), scheduler=rate)


def train_torchattacks(model: nn.Module, inputs: Tensor, labels: Tensor, protocol: Protocol, *, recipe: bool) -> None:
    """The loop that users write around torchattacks.PGD; `recipe` adds ramp, clipping and frozen statistics."""
    settings, threat = protocol.hardening, protocol.input_threat
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=settings.batch_size, shuffle=True, drop_last=True)
    steps = settings.epochs * len(loader)
    optimiser, rate = one_cycle(model, protocol, steps)
    attack = torchattacks.PGD(model, eps=threat.eps, alpha=threat.eps * STEP_OF_EPS, steps=ATTACK_STEPS)
    done = 0
    for _ in range(settings.epochs):
        model.train(not recipe)
        for images, targets in loader:
            if recipe:
                attack.eps = threat.eps * radius_share(settings, done / steps)
                attack.alpha = attack.eps * STEP_OF_EPS
            attacked = attack(images, targets)
            loss = nn.functional.cross_entropy(model(attacked), targets)
            optimiser.zero_grad()
            loss.backward()
            if recipe:
                nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimiser.step()
            rate.step()
            done += 1


PEERS: dict[str, Train] = {
    "art": train_art,
    "torchattacks": partial(train_torchattacks, recipe=False),
    "torchattacks-recipe": partial(train_torchattacks, recipe=True),
}


def settled(name: str, base: Protocol) -> Protocol:
    """The protocol with a variant's form, learning rate, epochs and seed."""
    trainer, epochs, seed = name.split(":")
    fields = variant(f"{OWN.get(trainer, 'full:pgd:1e-3')}:{seed}", base).model_dump()
    fields["hardening"] |= {"epochs": int(epochs), "min_steps": 1}
    return type(base).model_validate(fields)


def train_own(original: Classifier, branch: Classifier, cohort: Cohort, protocol: Protocol) -> None:
    """The carried adversary, without a probe."""
    probe = Probe(original, cohort, protocol, torch.zeros(len(cohort.classes)), "cpu")
    training = BranchTraining(original, branch, cohort, protocol, LastEpochs(probe), "cpu")
    while training.state.epoch < training.epochs:
        training.run_epoch(None)


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """(N, K) in eval mode."""
    return logits_in_batches(model.eval(), inputs, 64)


def drift(train: Train, original: Classifier, cohort: Cohort, protocol: Protocol, validation: Tensor) -> Tensor:
    """A frozen path's validation logits after two steps of a peer, on cases from all over the training split."""
    both = Beside(original)
    rows = cohort.indices("train")
    few = np.linspace(0, len(rows) - 1, DRIFT_STEPS * protocol.hardening.batch_size).astype(int)
    fields = protocol.model_dump()
    fields["hardening"] |= {"epochs": 1}
    train(both, *cohort.batch(rows[few]), type(protocol).model_validate(fields))
    return logits_of(both.clean_path, validation)


def measure(name: str, original: Classifier, data: Path, base: Protocol) -> dict[str, object]:
    """Trains one variant and measures it on validation."""
    trainer, protocol = name.split(":")[0], settled(name, base)
    cohort = load_cohort(data, base, key=load_pseudonym_key())
    inputs, labels = cohort.batch(cohort.indices("val"))
    before = logits_of(original, inputs)
    torch.manual_seed(protocol.seed)
    np.random.seed(protocol.seed)  # ART draws its order from it
    form = protocol.hardening.branch
    branch = make_branch(original, form, rank=protocol.hardening.rank, seed=protocol.seed)
    passes, load = Passes(branch), os.getloadavg()[0]
    wall, processor = time.perf_counter(), time.process_time()
    if trainer in OWN:
        train_own(original, branch, cohort, protocol)
    else:
        PEERS[trainer](branch, *cohort.batch(cohort.indices("train")), protocol)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    passes.handle.remove()
    steps = protocol.hardening.epochs * (len(cohort.indices("train")) // protocol.hardening.batch_size)
    branch.eval()
    after = logits_of(original, inputs)
    if trainer in PEERS:
        after = drift(PEERS[trainer], original, cohort, protocol, inputs)
    attacked = run_suite(
        DecisionView(branch, torch.zeros(len(cohort.classes))),
        inputs,
        labels,
        threat=protocol.input_threat,
        suite=SUITE,
        seed=protocol.seed,
        batch_size=64,
    )
    mine, theirs = right(branch, inputs, labels), right(original, inputs, labels)
    return {
        "variant": name,
        "cases": len(labels),
        "clean": int(mine.sum()),
        "original clean": int(theirs.sum()),
        "gained": int((mine & ~theirs).sum()),
        "lost": int((~mine & theirs).sum()),
        "robust": sum(won == "" for won in attacked.won_by),
        "positives answered": int(logits_of(branch, inputs).argmax(1).sum()),
        "steps": steps,
        "forward passes a step": passes.forward / steps,
        "backward passes a step": passes.backward / steps,
        "seconds": round(wall, 1),
        "processor seconds": round(processor, 1),
        "load at start": round(load, 1),
        "threads": torch.get_num_threads(),
        "frozen path: largest change of a logit": float((after - before).abs().max()),
        "frozen path: answers changed": int((after.argmax(1) != before.argmax(1)).sum()),
        "frozen path: largest logit": float(before.abs().max()),
    }


def table(results: list[dict[str, float]]) -> str:
    """The results as Markdown."""
    rows = [
        "| Trainer : epochs : seed | Clean (gained/lost) | Robust | Forward, backward a step | Seconds, of processor |",
        "|---|---|---|---|---|",
    ]
    for r in results:
        cases = r["cases"]
        rows.append(
            f"| {r['variant']} | {r['clean'] / cases:.3f} ({r['gained']}/{r['lost']}) "
            f"| {r['robust'] / cases:.3f} ({r['robust']}) "
            f"| {r['forward passes a step']:.1f}, {r['backward passes a step']:.1f} "
            f"| {r['seconds']:.0f}, {r['processor seconds']:.0f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measures the variants that are not in the results yet, and prints all results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--data", "--model", "--protocol", "--out"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("variants", nargs="*", metavar="VARIANT")
    arguments = parser.parse_args()
    keep_freed_memory()
    protocol = load_protocol(arguments.protocol)
    original = load_classifier(arguments.model, spec=protocol.model, dims=protocol.input.dims).requires_grad_(False)
    original = original.to(memory_format=torch.channels_last)
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.exists() else []
    results = [json.loads(line) for line in lines]
    done = {result["variant"] for result in results}
    for name in arguments.variants:
        if name not in done:
            result = measure(name, original, arguments.data, protocol)
            with arguments.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(result) + "\n")
            results.append(result)
    print(table(results))


if __name__ == "__main__":
    main()
