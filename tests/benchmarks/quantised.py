"""What export and quantisation do to a hardened X-ray classifier: each artefact with a verdict of its own.

python tests/benchmarks/quantised.py DIR/kermany_cxr_224 FOLDER [float32] [fp16] [int8]

EfficientNet-Lite0 from ImageNet weights, fine-tuned for 6 epochs and hardened for 8, on the X-rays at 64 pixels, under
`protocols/kermany-64.yaml` with the suite `fast` on 100 test cases: short, for what export changes is measured. A run
that lies in FOLDER goes on where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from method import clean_training, write_start

from medharden.audit import digest_file
from medharden.data import Cohort, load_cohort, load_pseudonym_key
from medharden.evaluating import evaluate, evaluate_artefact
from medharden.exporting import export
from medharden.gating import gate, gate_artefact
from medharden.hardening import fine_tune, harden
from medharden.models import load_classifier, load_hardened, read_onnx
from medharden.protocol import Protocol, load_protocol
from medharden.protocol.attacking import SUITES


def main(data: Path, folder: Path, quantised: list[str]) -> None:
    """Prints one line for each model."""
    torch.set_num_threads(1)
    base = load_protocol(Path(__file__).parent / "protocols" / "kermany-64.yaml")
    changes = {
        "hardening": base.hardening.model_copy(update={"epochs": 8}),
        "suite": load_protocol("default").suite.model_copy(
            update={"name": "fast", "attacks": SUITES["fast"], "cases": 100, "sanity_cases": 0}
        ),
    }
    protocol = base.model_copy(update=changes)
    folder.mkdir(parents=True, exist_ok=True)
    cohort = load_cohort(data, protocol, key=load_pseudonym_key(None))
    run = folder / "run"
    _release(folder, cohort, protocol)
    decision = gate(run)
    print(f"composite: {decision.verdict}", *decision.reasons, sep="\n  ", flush=True)
    for quantise in quantised:
        path, exported = export(load_hardened(run), run, to="onnx", quantise=quantise, ungated=True)
        found = evaluate_artefact(load_hardened(run), read_onnx(path), cohort, protocol, run).subject("artefact")
        verdict = gate_artefact(run, digest_file(path))
        changed = next(e for e in verdict.endpoints if e.kind == "agreement")
        print(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, logits off by {exported.parity.largest:.3g} "
            f"(up to {exported.parity.scale:.3g}), "
            f"{found.clean_correct}/{found.n}, {found.robust_correct}/{found.attacked}, "
            f"{round(changed.estimate * changed.n)} answers changed, {verdict.verdict}",
            *verdict.reasons,
            *(f"{a.name}: {a.wins} of {a.cases}" for a in found.attacks),
            sep="\n  ",
            flush=True,
        )


def _release(folder: Path, cohort: Cohort, protocol: Protocol) -> None:
    """An original, hardened and evaluated; what is there already is not made again."""
    file, run = folder / "original.pt", folder / "run"
    if not file.is_file():
        write_start(folder / "start.pt", protocol.model, len(cohort.classes))
        original = load_classifier(folder / "start.pt", spec=protocol.model)
        fine_tune(original, cohort, clean_training(6, 1e-3, 2), seed=protocol.seed)
        torch.save(original.network.state_dict(), file)
        print("fine-tuned", flush=True)
    original = load_classifier(file, spec=protocol.model)
    if not (run / "harden.json").is_file():
        harden(original, cohort, protocol, run)
        print("hardened", flush=True)
    if not (run / "evaluation.json").is_file():
        record = evaluate(load_hardened(run), cohort, protocol, run, original=original)
        for subject in record.subjects:
            print(f"{subject.name}: {subject.clean_correct}/{subject.n}, {subject.robust_correct}/{subject.attacked}")


if __name__ == "__main__":
    asked = sys.argv[3:] or ["float32", "fp16", "int8"]
    main(Path(sys.argv[1]), Path(sys.argv[2]), ["" if word == "float32" else word for word in asked])
