"""A natural shift: trained on the normal X-rays of one series, tested on those of the other.

    python tests/benchmarks/two_series.py --data DIR/kermany_cxr_224 --work .bench/two-series \
        --protocol tests/benchmarks/protocols/kermany-64.yaml --unseen NORMAL2 VARIANT ...

The normal images of Kermany et al. come in two series, IM-... and NORMAL2-IM-..., of other patients. Of the cases that
are not in the protocol's test split, those of the unseen series and a quarter of the pneumonia patients are set aside;
an original and the variants (FORM:METHOD:LEARNING_RATE:PHOTOMETRIC:SEED) are trained on the rest. One line of results a
variant is appended. Robust accuracy is on validation as in `compare.py`; gained and lost count cases that only the
branch, or the composite at a weight, or only the original, answers rightly.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from compare import SUITE, LastEpochs
from method import XRAYS, clean_training, train_original
from method import Setting as Original
from torch import Tensor

from medharden.attacks import run_suite
from medharden.data import Cohort, load_cohort, load_pseudonym_key
from medharden.hardening.branch import make_branch, merge
from medharden.hardening.calibration import fit_temperature
from medharden.hardening.operating_point import operating_shift
from medharden.hardening.probe import Probe
from medharden.hardening.training import BranchTraining
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, DecisionView, load_classifier, logits_in_batches, mix
from medharden.protocol import Protocol, load_protocol
from medharden.record import FusionRecord

WEIGHTS = (0.7, 0.99)


def numbered(data: Path, folder: Path) -> list[dict[str, str]]:
    """A copy of the folder whose manifest has the row's number beside it; returns the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("NORMAL", "PNEUMONIA"):
        if not (folder / part).exists():
            shutil.copytree(data / part, folder / part, copy_function=shutil.copyfile)
    with (data / "manifest.csv").open(encoding="utf-8") as stream:
        rows = [row | {"row": str(number)} for number, row in enumerate(csv.DictReader(stream))]
    write_manifest(folder, rows)
    return rows


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    """Writes manifest.csv."""
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def part_of(row: dict[str, str], unseen: str) -> str:
    """The split of a row: by series where it is normal, by patient where it is not."""
    share = int(hashlib.sha256(row["patient"].encode()).hexdigest()[:8], 16) / 2**32
    if row["label"] == "normal" and row["patient"].startswith("NORMAL2") == (unseen == "NORMAL2"):
        return "test"
    if row["label"] != "normal" and share < 0.25:
        return "test"
    return "val" if share > 0.82 else "train"


def shifted_cohort(data: Path, work: Path, protocol: Protocol, unseen: str) -> Cohort:
    """The cohort in which one series is unseen in training, without the protocol's own test cases."""
    key = load_pseudonym_key()
    rows = numbered(data, work / "all")
    whole = load_cohort(work / "all", protocol, key=key)
    known = {case.attributes["row"] for case in whole.cases if case.split != "test"}
    numbered(data, work / unseen)
    kept = [row for row in rows if row["row"] in known]
    write_manifest(work / unseen, [row | {"split": part_of(row, unseen)} for row in kept])
    return load_cohort(work / unseen, protocol, key=key)


def changes(now: Tensor, before: Tensor, labels: Tensor) -> dict[str, list[int]]:
    """Gained and lost of each class, by logits."""
    mine, theirs = now.argmax(1) == labels, before.argmax(1) == labels
    return {
        str(k): [int((mine & ~theirs)[labels == k].sum()), int((theirs & ~mine)[labels == k].sum())]
        for k in labels.unique().tolist()
    }


def set_up(clean: Tensor, robust: Tensor, labels: Tensor, bias: Tensor) -> tuple[Tensor, FusionRecord]:
    """What is added to the branch's logits, and the temperatures, as `harden` sets both on validation."""
    heat = fit_temperature(clean, labels, bias), fit_temperature(robust, labels, bias)
    shift = heat[1] * operating_shift((clean + bias) / heat[0], (robust + bias) / heat[1], multilabel=False)
    return shift, FusionRecord("mixed", 0.5, heat[0], fit_temperature(robust + shift, labels, bias), 0.0, 0.0)


def measure(name: str, original: Classifier, cohort: Cohort, base: Protocol) -> dict[str, object]:
    """Trains one variant and measures it on validation and on the unseen series."""
    form, method, rate, photometric, seed = name.split(":")
    fields = base.model_dump()
    fields["hardening"] |= {
        "branch": form,
        "method": method,
        "learning_rate": float(rate),
        "photometric": float(photometric),
    }
    protocol = type(base).model_validate(fields | {"seed": base.seed + int(seed)})
    probe = Probe(original, cohort, protocol, torch.zeros(len(cohort.classes)), "cpu")
    branch = make_branch(original, form, rank=protocol.hardening.rank, seed=protocol.seed)
    training = BranchTraining(original, branch, cohort, protocol, LastEpochs(probe), "cpu")
    while training.state.epoch < training.epochs:
        training.run_epoch(None)
    merge(branch)
    inputs, labels = cohort.batch(cohort.indices("val"))
    view = DecisionView(branch, torch.zeros(len(cohort.classes)))
    attacked = run_suite(
        view, inputs, labels, threat=protocol.input_threat, suite=SUITE, seed=protocol.seed, batch_size=64
    )
    result: dict[str, object] = {
        "variant": name,
        "robust": sum(won == "" for won in attacked.won_by) / len(labels),
    }
    bias, settled = torch.zeros(len(cohort.classes)), None
    for split in ("val", "test"):
        inputs, labels = cohort.batch(cohort.indices(split))
        with torch.no_grad():
            clean, robust = (logits_in_batches(m, inputs, 64) for m in (original, branch))
        shift, fusion = settled = settled or set_up(clean, robust, labels, bias)
        released = {str(w): mix(clean, robust + shift, replace(fusion, weight=w), bias) for w in WEIGHTS}
        result[split] = {
            "cases": torch.bincount(labels).tolist(),
            "original": [int(n) for n in torch.bincount(labels[clean.argmax(1) == labels], minlength=2)],
            "branch": changes(robust + shift, clean, labels),
        } | {w: changes(logits, clean, labels) for w, logits in released.items()}
    return result


def main() -> None:
    """Trains the original where there is none, then measures the variants that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--data", "--work", "--protocol"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--unseen", choices=("IM", "NORMAL2"), required=True)
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    arguments = parser.parse_args()
    keep_freed_memory()
    protocol = load_protocol(arguments.protocol)
    cohort = shifted_cohort(arguments.data, arguments.work, protocol, arguments.unseen)
    model, out = (arguments.work / f"{arguments.unseen}.{end}" for end in ("pt", "jsonl"))
    if not model.exists():
        setting = Original(*XRAYS, clean_training(16, 1e-3, 3))
        train_original(setting, cohort, protocol, model, lambda *_: None)
    original = load_classifier(model, spec=protocol.model, dims=protocol.input.dims).requires_grad_(False)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    done = {json.loads(line)["variant"] for line in lines}
    for name in arguments.variants:
        if name not in done:
            result = measure(name, original, cohort, protocol)
            with out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
