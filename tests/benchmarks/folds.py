"""What setting the operating point does, on data that no test split of the other benchmarks holds.

    python tests/benchmarks/folds.py --data DIR --work .bench/folds SETTING ...

SETTING as in `method.py`. The training and validation cases of its protocol are parted by patient into four folds. Each
in turn is a test split; of the others a fifth of the patients validate and the rest train an original and a branch, by
the protocol. The branch is compared with its original on the four test splits together, as trained and with its
operating point set on validation, alone and mixed. `passes` is the share that shows all that is gated, of test splits
as large as the setting's own that are drawn by patient from the four. `--threshold` answers the positive of two classes
at another probability than one half; training does not depend on it. A finished fold is not done again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from method import SETTINGS, settled, train_original
from torch import Tensor
from two_series import set_up

from medharden.cli.console import stage_progress
from medharden.data import Cohort, load_cohort, load_pseudonym_key
from medharden.hardening.branch import make_branch
from medharden.hardening.calibration import fit_temperature
from medharden.hardening.choosing import gated_parts
from medharden.hardening.probe import Probe
from medharden.hardening.run import decision_bias
from medharden.hardening.training import BranchTraining
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, load_classifier, logits_in_batches, mix
from medharden.protocol import Protocol
from medharden.record import Progress
from medharden.stats import noninferiority_test

FOLDS = 4
VALIDATE = 5  # one patient in so many of those that are left
DRAWS = 400
WEIGHTS = (0.7, 0.8, 0.9, 0.99)  # those that may be released


def fold_of(whole: Cohort, fold: int) -> Cohort:
    """The cohort split anew, its own test cases in no split."""
    patients = sorted({case.patient for case in whole.cases if case.split != "test"})
    parts = {}
    for place, number in enumerate(np.random.default_rng(7).permutation(len(patients))):
        rest = "train" if place // FOLDS % VALIDATE else "val"
        parts[patients[number]] = "test" if place % FOLDS == fold else rest
    cases = (replace(c, split="unused" if c.split == "test" else parts[c.patient]) for c in whole.cases)
    return replace(whole, cases=tuple(cases))


def train_branch(original: Classifier, cohort: Cohort, protocol: Protocol, progress: Progress) -> Classifier:
    """The branch as trained, before anything is calibrated."""
    settings = protocol.hardening
    probe = Probe(original, cohort, protocol, torch.zeros(len(cohort.classes)), "cpu")
    branch = make_branch(original, settings.branch, rank=settings.rank, seed=protocol.seed)
    training = BranchTraining(original, branch, cohort, protocol, probe, "cpu")
    while training.state.epoch < training.epochs:
        training.run_epoch(progress)
    training.finish()
    return training.branch


def answers(original: Classifier, branch: Classifier, cohort: Cohort) -> dict[str, Tensor]:
    """Labels, patients as numbers and both models' logits, on validation and test."""
    found, models = {}, {"clean": original, "branch": branch}
    for split in ("val", "test"):
        rows = cohort.indices(split)
        inputs, found[f"{split}/y"] = cohort.batch(rows)
        patients = np.unique([cohort.cases[row].patient for row in rows], return_inverse=True)[1]
        found[f"{split}/patient"] = torch.from_numpy(patients)
        with torch.no_grad():
            found |= {f"{split}/{name}": logits_in_batches(model, inputs, 64) for name, model in models.items()}
    return found


def right(found: dict[str, Tensor], bias: Tensor) -> dict[str, Tensor]:
    """Which test cases are answered rightly by the original, the branch as trained and set, and mixtures of either."""
    clean, robust, labels = (found[f"val/{name}"] for name in ("clean", "branch", "y"))
    before, now = found["test/clean"], found["test/branch"]
    shift, fusion = set_up(clean, robust, labels, bias)
    trained = replace(fusion, robust_temperature=fit_temperature(robust, labels, bias))
    given = {"original": before}
    for name, logits, how in (("as trained", now, trained), ("set", now + shift, fusion)):
        given[f"branch {name}"] = logits
        for weight in WEIGHTS:
            given[f"mixed at {weight}, {name}"] = mix(before, logits, replace(how, weight=weight), bias)
    return {subject: (logits + bias).argmax(1) == found["test/y"] for subject, logits in given.items()}


def passing(
    change: Tensor, labels: Tensor, patients: list[str], protocol: Protocol, cases: int, classes: tuple[str, ...]
) -> float:
    """The share of test splits of so many cases, drawn by patient, on which all that is gated is shown."""
    rows, alpha, passed = {}, protocol.endpoints.alpha, 0
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    everyone, generator = list(rows.values()), np.random.default_rng(11)
    for _ in range(DRAWS):
        drawn, whose = [], []
        while len(drawn) < cases:
            new = everyone[generator.integers(len(everyone))]
            whose += [str(len(drawn))] * len(new)
            drawn += new
        moved, names = change[drawn].numpy(), np.asarray(whose)
        passed += all(
            noninferiority_test(
                moved[part.rows] > 0, moved[part.rows] < 0, margin=part.margin, alpha=alpha, patients=names[part.rows]
            ).shown
            for part in gated_parts(labels[drawn], protocol, classes)
        )
    return passed / DRAWS


def compared(
    folds: list[dict[str, Tensor]], classes: tuple[str, ...], protocol: Protocol, cases: int
) -> dict[str, object]:
    """Of all folds, for each subject and class: gained, lost, and the change of recall with its limits, by patient."""
    labels = torch.cat([fold["test/y"] for fold in folds])
    patients = [f"{n}/{p}" for n, fold in enumerate(folds) for p in fold["test/patient"].tolist()]
    bias = decision_bias(protocol, classes)
    each = [right(fold, bias) for fold in folds]
    parts = {"all": torch.ones_like(labels, dtype=torch.bool)} | {c: labels == k for k, c in enumerate(classes)}
    before, result = torch.cat([one["original"] for one in each]), {}
    for subject in list(each[0])[1:]:
        now, row = torch.cat([one[subject] for one in each]), {}
        for part, chosen in parts.items():
            gained, lost = (now & ~before)[chosen].numpy(), (before & ~now)[chosen].numpy()
            who = [patients[n] for n in chosen.nonzero()[:, 0].tolist()]
            limits = noninferiority_test(
                gained, lost, margin=0.05, alpha=protocol.endpoints.alpha, patients=who
            ).interval
            change = (int(gained.sum()) - int(lost.sum())) / len(who)
            row[part] = [int(gained.sum()), int(lost.sum()), *(round(v, 3) for v in (change, *limits))]
        result[subject] = row | {
            "passes": passing(now.int() - before.int(), labels, patients, protocol, cases, classes)
        }
    return {"cases": {part: int(chosen.sum()) for part, chosen in parts.items()}} | result


def main() -> None:
    """Trains the folds that are missing, then prints a line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("settings", nargs="+", choices=SETTINGS, metavar="SETTING")
    arguments = parser.parse_args()
    keep_freed_memory()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.settings:
        setting = SETTINGS[name]
        protocol = settled(setting, None)
        fields = protocol.model_dump()
        fields["task"]["threshold"] = arguments.threshold
        answering = type(protocol).model_validate(fields)
        whole = load_cohort(arguments.data / setting.data, protocol, key=load_pseudonym_key())
        folds = []
        for fold in range(FOLDS):
            model, kept = (arguments.work / f"{name}-{fold}.{end}" for end in ("pt", "npz"))
            if not kept.exists():
                cohort = fold_of(whole, fold)
                with stage_progress() as progress:
                    if not model.exists():
                        train_original(setting, cohort, protocol, model, progress)
                    original = load_classifier(model, spec=protocol.model, dims=protocol.input.dims).requires_grad_(
                        False
                    )
                    branch = train_branch(original, cohort, protocol, progress)
                np.savez(kept, **{k: v.numpy() for k, v in answers(original, branch, cohort).items()})
            with np.load(kept) as saved:
                folds.append({k: torch.from_numpy(saved[k]) for k in saved.files})
        print(
            json.dumps({"setting": name} | compared(folds, whole.classes, answering, len(whole.indices("test")))),
            flush=True,
        )


if __name__ == "__main__":
    main()
