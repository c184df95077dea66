"""The standard suite against other people's, on the same networks and cases: robust accuracy and seconds.

    python tests/benchmarks/references.py --out .bench/references.jsonl [--data DIR] PIECE ...

A PIECE is NETWORK:TOOL; a finished one is not run again, and without pieces the table of all that are finished is
printed. Every piece runs in minutes on one thread.

- TOOL: `medharden` (the suite `standard`), `pyautoattack` (the reference AutoAttack, `standard`), `torchattacks` (its
  AutoAttack), `art` (its AutoAttack), `pgd` (ours: PGD of 200 steps with 10 restarts on the margin; the check that the
  suite is no weaker where the others don't run).
- NETWORK: TASK-TRAINING-NORM. TASK: `digits10` (scikit-learn's handwritten digits, 8 x 8 upsampled to 16 x 16),
  `digits2`, `digits3`, `digits5` (the same in fewer classes), `findings4` (four findings a digit: even, above four,
  prime, with a loop), `volumes` (adrenal glands of MedMNIST at 16 x 16 x 16, under DIR), `ct` (60 CT slices with or
  without contrast agent, DICOM of two vendors, under DIR). TRAINING: `standard` or `adversarial`. NORM: `linf` or
  `l2`; for `ct` the budget in HU behind the space, such as `hu4` (on the model's input) or `stored4` (on the files' own
  values, by what `medharden attack --write` does; scored on the written files).

The slices are folded by patient, one network a fold, so that each is attacked as a test case. Whether there is contrast
agent goes with the vendor in these data: they test attacks, and no classifier.

Needs scikit-learn, and for the tools `pyautoattack`, `torchattacks` and `adversarial-robustness-toolbox`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medharden.attacking import Target, attack
from medharden.attacks import Criterion, pgd, run_suite
from medharden.data import Cohort, load_cohort
from medharden.data.stored.cases import StoredCases, stored_cases
from medharden.protocol import Attack, Protocol, Suite, ThreatModel

SEED, CASES, EPOCHS, BATCH = 0, 200, 12, 100
BUDGETS = {"linf": 0.1, "l2": 1.0}
VOLUME_BUDGETS = {"linf": 0.15, "l2": 4.0}
LONG_PGD = (Attack(attack="pgd", loss="margin", steps=200, restarts=10),)
FOLDS, KEY = 3, b"benchmark" * 4


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
        measured = (measure_ct if network.startswith("ct-") else measure)(network, tool, given.out.parent, given.data)
        line = {"piece": piece, "network": network, "tool": tool, **measured}
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
    watch = Stopwatch()
    points = TOOLS[tool](model, inputs, labels, threat)
    watch.stop()
    return said(watch, *confirmed(model, inputs, labels, points, threat))


class Stopwatch:
    """Wall-clock and processor seconds between its making and its stop."""

    def __init__(self) -> None:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()

    def stop(self) -> None:
        """Turns starts into durations."""
        self.wall, self.cpu = self.wall + time.perf_counter(), self.cpu + time.process_time()


@torch.no_grad()
def confirmed(
    model: nn.Module, inputs: Tensor, labels: Tensor, points: Tensor, threat: ThreatModel
) -> tuple[Tensor, Tensor, Tensor]:
    """Which cases (N,) are wrong without attack, which fall, and whose points lie outside the threat."""
    moved = (points - inputs).flatten(1)
    size = moved.abs().amax(1) if threat.norm == "linf" else moved.norm(dim=1)
    within = (size <= threat.eps + 1e-5) & (points.flatten(1).amin(1) >= 0) & (points.flatten(1).amax(1) <= 1)
    wrong = Criterion(labels).won(model(inputs))
    return wrong, wrong | (within & Criterion(labels).won(model(points))), ~within


def said(watch: Stopwatch, wrong: Tensor, lost: Tensor, outside: Tensor) -> dict:
    """A piece's figures."""
    return {
        "cases": len(wrong),
        "clean": round(1 - wrong.float().mean().item(), 4),
        "robust": round(1 - lost.float().mean().item(), 4),
        "outside": int(outside.sum()),
        "seconds": round(watch.wall, 1),
        "cpu_seconds": round(watch.cpu, 1),
    }


# --- CT slices --------------------------------------------------------------------------------------------------


def measure_ct(network: str, tool: str, folder: Path, data: Path) -> dict:
    """Attacks each fold's slices on the network that was trained on the others; figures are of all folds together."""
    _, training, norm = network.split("-")
    space, budget = norm.rstrip("0123456789"), float(norm.lstrip("hustored"))
    suite = {"medharden": Suite().attacks, "pgd": LONG_PGD}[tool]
    protocol = ct_protocol("input", budget, suite)
    cohort = load_cohort(data / "ct_contrast_dicom", protocol, key=KEY)
    folds = folds_by_patient(cohort)
    wall, cpu, parts = 0.0, 0.0, []
    for fold in range(FOLDS):
        train, test = (np.flatnonzero(chosen) for chosen in (folds != fold, folds == fold))
        path = folder / f"ct-{training}-{budget:g}-{fold}.pt"
        model = network_of("ct", cohort.batch(train), training, protocol.input_threat, path)
        inputs, labels = cohort.batch(test)
        watch = Stopwatch()
        if space == "hu":
            points = TOOLS[tool](model, inputs, labels, protocol.input_threat)
            watch.stop()
            parts.append(confirmed(model, inputs, labels, points, protocol.input_threat))
        else:
            parts.append(by_files(model, cohort, test, ct_protocol("stored", budget, suite), data, watch))
        wall, cpu = wall + watch.wall, cpu + watch.cpu
    watch.wall, watch.cpu = wall, cpu
    return said(watch, *(torch.cat(part) for part in zip(*parts, strict=True)))


def ct_protocol(space: str, budget: float, suite: tuple[Attack, ...]) -> Protocol:
    """A soft-tissue window at 64 x 64, and a budget in HU."""
    window = {"mode": "window", "low": -160.0, "high": 240.0}
    return Protocol.model_validate(
        {
            "schema_version": 1,
            "name": "ct",
            "title": "CT slices",
            "intended_use": "A test of attacks.",
            "input": {"channels": "gray", "size": (64, 64), "intensity": window},
            "threat": {"space": space, "eps": budget, "unit": "HU"},
            "suite": {"attacks": suite},
            "seed": SEED,
        }
    )


def folds_by_patient(cohort: Cohort) -> np.ndarray:
    """(N,) the fold of each case; all slices of a patient share one."""
    patients = sorted({case.patient for case in cohort.cases})
    order = torch.randperm(len(patients), generator=torch.Generator().manual_seed(SEED)).tolist()
    fold = {patients[place]: number % FOLDS for number, place in enumerate(order)}
    return np.array([fold[case.patient] for case in cohort.cases])


def by_files(
    model: nn.Module, cohort: Cohort, rows: np.ndarray, protocol: Protocol, data: Path, watch: Stopwatch
) -> tuple[Tensor, Tensor, Tensor]:
    """Attacks some cases in their files' stored values; what counts is the answer to the files that are written."""
    files = stored_cases(data / "ct_contrast_dicom", protocol, key=KEY)
    names = [cohort.cases[row].case for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        cases = attack(Target("original", model, "benchmark"), cohort, files, protocol, out, cases=names).cases
        watch.stop()
        outside = [bool(c.name) and farthest(files, c.case, out / c.name) > protocol.threat.eps for c in cases]
    wrong = torch.tensor([not c.clean for c in cases])
    return wrong, wrong | torch.tensor([not c.file for c in cases]), torch.tensor(outside)


def farthest(files: StoredCases, case: str, written: Path) -> float:
    """The largest change of a stored value, in HU, as pydicom reads both files."""
    before, after = (pydicom.dcmread(path) for path in (files.entries[case].path, written))
    return np.abs(after.pixel_array.astype(int) - before.pixel_array).max() * abs(float(before.RescaleSlope))


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
    epochs, size = (5 * EPOCHS, 16) if task == "ct" else (EPOCHS, BATCH)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * (len(inputs) // size))
    generator = torch.Generator().manual_seed(SEED)
    objective = nn.CrossEntropyLoss() if labels.dim() == 1 else nn.BCEWithLogitsLoss()
    for epoch in range(epochs):
        limits = threat.model_copy(update={"eps": threat.eps * min(1.0, (epoch + 1) / (epochs / 2))})
        for rows in torch.randperm(len(inputs), generator=generator).split(size):
            if len(rows) < size:
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
    return run_suite(model, inputs, labels, threat=threat, suite=LONG_PGD, seed=SEED, batch_size=CASES).adversarial


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
