"""The standard suite against other people's, on the same networks and cases: robust accuracy and seconds.

    python tests/benchmarks/references.py --out .bench/references.jsonl [--data DIR] PIECE ...

A PIECE is NETWORK:TOOL; a finished one is not run again, and without pieces the table of all that are finished is
printed. Every piece runs in minutes on one thread.

- TOOL: `medharden` (the suite `standard`), `pyautoattack` (the reference AutoAttack, `standard`), `torchattacks` (its
  AutoAttack), `art` (its AutoAttack), `pgd` (ours: PGD of 200 steps with 10 restarts on the margin; the check that the
  suite is no weaker where the others don't run).
- NETWORK: TASK-TRAINING-NORM. TASK: `digits10` (scikit-learn's handwritten digits, 8 x 8 upsampled to 16 x 16),
  `digits2`, `digits3`, `digits5` (the same in fewer classes), `findings4` (four findings a digit: even, above four,
  prime, with a loop), `volumes` (adrenal glands of MedMNIST at 16 x 16 x 16, under DIR). TRAINING: `standard` or
  `adversarial`. NORM: `linf` or `l2`.

Needs scikit-learn, and for the tools `pyautoattack`, `torchattacks` and `adversarial-robustness-toolbox`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medharden.attacks import Aim, pgd, run_suite
from medharden.protocol import Attack, Suite, ThreatModel

SEED, CASES, EPOCHS, BATCH = 0, 200, 12, 100
BUDGETS = {"linf": 0.1, "l2": 1.0}
VOLUME_BUDGETS = {"linf": 0.15, "l2": 4.0}


def main() -> None:
    """Runs the pieces that are not finished, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("pieces", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for piece in given.pieces:
        if piece in {line["piece"] for line in finished(given.out)}:
            continue
        network, tool = piece.split(":")
        line = {
            "piece": piece,
            "network": network,
            "tool": tool,
            **measure(network, tool, given.out.parent, given.data),
        }
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    show(finished(given.out))


def finished(path: Path) -> list[dict]:
    """The lines of the pieces that are done."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def measure(network: str, tool: str, folder: Path, data: Path | None) -> dict:
    """Trains the network or takes it from the folder, attacks it, and checks every success by a forward of our own."""
    task, training, norm = network.split("-")
    budget = (VOLUME_BUDGETS if task == "volumes" else BUDGETS)[norm]
    threat = ThreatModel(norm=norm, eps=budget)
    train, test = cases_of(task, data)
    model = network_of(task, train, training, threat, folder / f"{network}.pt")
    inputs, labels = test[0][:CASES], test[1][:CASES]
    wall, cpu = time.perf_counter(), time.process_time()
    points = TOOLS[tool](model, inputs, labels, threat)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    moved = (points - inputs).flatten(1)
    size = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    within = (size <= budget + 1e-5) & (points.flatten(1).amin(1) >= 0) & (points.flatten(1).amax(1) <= 1)
    with torch.no_grad():
        wrong = Aim(labels).won(model(inputs))
        lost = wrong | (within & Aim(labels).won(model(points)))
    return {
        "cases": len(inputs),
        "clean": round(1 - wrong.float().mean().item(), 4),
        "robust": round(1 - lost.float().mean().item(), 4),
        "outside": int((~within).sum()),
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
    }


# --- data and networks ------------------------------------------------------------------------------------------


def cases_of(task: str, data: Path | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test cases: (N, 1, *spatial) in [0, 1], and labels."""
    if task == "volumes":
        with np.load(data / "adrenalmnist3d_64" / "adrenalmnist3d_64.npz") as stored:
            parts = [
                (pooled(stored[f"{split}_images"]), torch.from_numpy(stored[f"{split}_labels"]).long().squeeze(1))
                for split in ("train", "test")
            ]
        return parts[0], parts[1]
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    images = nn.functional.interpolate(images, size=16, mode="bilinear").clamp(0, 1)
    labels = labels_of(task, torch.from_numpy(digits.target).long())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    images, labels = images[order], labels[order]
    return (images[:1200], labels[:1200]), (images[1200:], labels[1200:])


def pooled(volumes: np.ndarray) -> Tensor:
    """64 voxels a side to 16, the mean of each block."""
    return nn.functional.avg_pool3d(torch.from_numpy(volumes).unsqueeze(1).float() / 255, 4)


def labels_of(task: str, digit: Tensor) -> Tensor:
    """A digit's label under the task."""
    if task == "findings4":
        primes, loops = torch.tensor([2, 3, 5, 7]), torch.tensor([0, 6, 8, 9])
        columns = [digit % 2 == 0, digit > 4, torch.isin(digit, primes), torch.isin(digit, loops)]
        return torch.stack(columns, dim=1).float()
    return {"digits10": digit, "digits2": digit % 2, "digits3": digit % 3, "digits5": digit // 2}[task]


def network_of(task: str, train: tuple[Tensor, Tensor], training: str, threat: ThreatModel, path: Path) -> nn.Module:
    """A small residual network, trained with or without PGD of 5 steps, kept under `path`."""
    inputs, labels = train
    torch.manual_seed(SEED)
    outputs = labels.shape[1] if labels.dim() == 2 else int(labels.max()) + 1
    model = SmallResidual(outputs, dims=inputs.dim() - 2)
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    epochs = EPOCHS if len(inputs) > 500 else 2 * EPOCHS
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * (len(inputs) // BATCH))
    generator = torch.Generator().manual_seed(SEED)
    objective = nn.CrossEntropyLoss() if labels.dim() == 1 else nn.BCEWithLogitsLoss()
    for epoch in range(epochs):
        limits = threat.model_copy(update={"eps": threat.eps * min(1.0, (epoch + 1) / (epochs / 2))})
        for rows in torch.randperm(len(inputs), generator=generator).split(BATCH):
            if len(rows) < BATCH:
                continue
            batch = inputs[rows]
            if training == "adversarial":
                batch = pgd(
                    model, batch, labels[rows], threat=limits, steps=5, restarts=1, loss="ce", generator=generator
                )
            optimiser.zero_grad()
            objective(model(batch), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    torch.save(model.state_dict(), path)
    return model.eval()


class SmallResidual(nn.Module):
    """One convolution, two residual blocks with stride 2 between, and a linear layer; for 2D or 3D."""

    def __init__(self, outputs: int, dims: int, width: int = 8) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.first = conv(1, width, 3, padding=1, stride=2 if dims == 3 else 1)
        self.blocks = nn.ModuleList(conv(width, width, 3, padding=1) for _ in range(4))
        self.down = conv(width, 2 * width, 3, padding=1, stride=2)
        self.wide = nn.ModuleList(conv(2 * width, 2 * width, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(2 * width * 4**dims, outputs)
        self.pool = nn.AdaptiveAvgPool2d(4) if dims == 2 else nn.AdaptiveAvgPool3d(4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *spatial) to (N, outputs) logits."""
        x = torch.relu(self.first(x - 0.5))
        x = torch.relu(x + self.blocks[1](torch.relu(self.blocks[0](x))))
        x = torch.relu(self.down(x))
        x = torch.relu(x + self.wide[1](torch.relu(self.wide[0](x))))
        return self.head(self.pool(x).flatten(1))


# --- tools ------------------------------------------------------------------------------------------------------


def by_suite(model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
    """Ours: the standard suite."""
    suite = Suite().attacks
    return run_suite(model, inputs, labels, threat=threat, suite=suite, seed=SEED, batch_size=CASES).adversarial


def by_pgd(model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
    """Ours: PGD of 200 steps with 10 restarts on the margin."""
    long = (Attack(attack="pgd", loss="margin", steps=200, restarts=10),)
    return run_suite(model, inputs, labels, threat=threat, suite=long, seed=SEED, batch_size=CASES).adversarial


def by_pyautoattack(model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
    """The reference implementation, packaged."""
    from pyautoattack import AutoAttack

    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    attack = AutoAttack(model, norm=norm, eps=threat.eps, seed=SEED, version="standard")
    return attack.run_standard_evaluation(inputs, labels, batch_size=CASES)[0]


def by_torchattacks(model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
    """torchattacks' AutoAttack."""
    import torchattacks

    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    classes = int(labels.max()) + 1
    return torchattacks.AutoAttack(model, norm=norm, eps=threat.eps, n_classes=classes, seed=SEED)(inputs, labels)


def by_art(model: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> Tensor:
    """ART's AutoAttack."""
    from art.attacks.evasion import AutoAttack
    from art.estimators.classification import PyTorchClassifier

    classes = int(labels.max()) + 1
    wrapped = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(inputs.shape[1:]), classes, clip_values=(0.0, 1.0), device_type="cpu"
    )
    norm = np.inf if threat.norm == "linf" else 2
    attack = AutoAttack(wrapped, norm=norm, eps=threat.eps, eps_step=threat.eps / 4, batch_size=CASES)
    return torch.from_numpy(attack.generate(inputs.numpy(), labels.numpy()))


TOOLS: dict[str, Callable[[nn.Module, Tensor, Tensor, ThreatModel], Tensor]] = {
    "medharden": by_suite,
    "pgd": by_pgd,
    "pyautoattack": by_pyautoattack,
    "torchattacks": by_torchattacks,
    "art": by_art,
}


def show(lines: list[dict]) -> None:
    """Prints the table in Markdown."""
    print("| Network | Tool | Clean | Robust | CPU seconds | Seconds |\n|---|---|---|---|---|---|")
    for line in sorted(lines, key=lambda each: (each["network"], list(TOOLS).index(each["tool"]))):
        robust = f"{line['robust']:.3f}" + (f" ({line['outside']} points outside)" if line["outside"] else "")
        row = (line["network"], line["tool"], f"{line['clean']:.3f}", robust, line["cpu_seconds"], line["seconds"])
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
