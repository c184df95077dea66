"""`harden()`: from a loaded classifier and a cohort to the hardened model and its record in a run directory."""

from __future__ import annotations

import copy
import io
import math
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medharden import ranks
from medharden._version import __version__
from medharden.audit import (
    RunFiles,
    audited,
    canonical_json,
    describe_environment,
    digest_bytes,
    guarded,
    open_sealed,
    read_record,
    write_atomic,
    write_record,
    write_sealed,
)
from medharden.data import Cohort
from medharden.errors import HardeningError, RunError
from medharden.hardening.allotting import Account, answers_paid, validation_record
from medharden.hardening.assumptions import model_findings
from medharden.hardening.branch import branch_record, check_form, check_gradient, make_branch
from medharden.hardening.calibration import calibrate
from medharden.hardening.clean import clean_epoch_seconds
from medharden.hardening.perturbations import PerturbationFiles
from medharden.hardening.probe import Probe
from medharden.hardening.state import EpochState
from medharden.hardening.training import BranchTraining
from medharden.models import (
    Classifier,
    Contract,
    HardenedClassifier,
    check_classifier,
    describe_hardened,
    hardened_bytes,
    state_digest,
)
from medharden.protocol import Protocol, protocol_yaml
from medharden.record import CostRecord, Finding, HardenRecord, Progress, SourceParity

__all__ = ["harden"]

_CHECKPOINT = "harden.checkpoint"
_UNEVEN = 2.0  # how many times as long the slower of two timings of one thing takes, for neither to count
_FORMAT = 3  # of the checkpoint; the first held the perturbations too, the second no number of processes
_FIXED_CASES = 32


def harden(
    original: Classifier,
    cohort: Cohort,
    protocol: Protocol,
    run: Path,
    *,
    device: str = "cpu",
    checkpoint_minutes: float = 10.0,
    precision: str = "fp32",
    parity: SourceParity | None = None,
    progress: Progress | None = None,
) -> HardenRecord:
    """Hardens a classifier; an interrupted run goes on from its last checkpoint when called again, to the same weights.

    Within a process group (`medharden.ranks`, or the caller's own) all processes call this alike: batches are dealt,
    the steps are those of one process up to rounding, and the first writes.

    Writes `protocol.yaml`, `cohort.json`, `hardened.safetensors`, `hardened.json` and, last, `harden.json`.

    Args:
        original: as loaded; not modified.
        cohort: its `train` and `val` splits are used, `test` is not opened.
        protocol: every scientific choice.
        run: the run directory, made if absent.
        device: such as `cpu` or `cuda:0`.
        checkpoint_minutes: a checkpoint is written after each epoch, and within one after so many minutes.
        precision: of the branch's layers in training: `fp32`, `bf16` or `fp16`; weights, losses, probes, calibration
            and the clean path stay in fp32.
        parity: whether the model is fed as its source says, as `medharden.parity` found it; kept in the record.
        progress: called with `prepare`, `harden` and `calibrate`.

    Raises:
        ModelError: the model does not fit the data.
        HardeningError: training collapsed beyond recovery, or the clean path moved.
        RunError: the directory holds another run.
        OutputError: it can't be written to.
        PrivacyError: a record would hold patient data.
    """
    guard = guarded(cohort.identifiers, (protocol.model_dump_json(), *cohort.classes))
    told: dict[str, Any] = {"protocol": protocol.digest, "model": original.record.file}
    with guard, audited(run, "harden", writes=ranks.first(), **told) as log:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        fixed, _ = cohort.batch(cohort.indices("train")[:_FIXED_CASES])
        check_classifier(original, fixed, cohort.classes, multilabel=protocol.task.multilabel)
        cohort_digest, settled = _write_inputs(run, cohort, protocol)
        said = {**told, "cohort": cohort_digest, "precision": precision, "version": __version__}
        ranks.agree("protocol, data, model, precision or version", said)
        files = {"protocol.yaml": settled}
        log.append("harden.locked", protocol=protocol.digest, cohort=cohort_digest, files=files)

        clean_path = copy.deepcopy(original).requires_grad_(False).to(device)
        before, answers = state_digest(clean_path), _answers(clean_path, fixed, device)
        ranks.agree("the clean path's weights", before)
        report = progress or (lambda stage, done, total: None)
        report("prepare", 0, 1)
        training, binding = _prepare(clean_path, cohort, protocol, cohort_digest, run, device, precision)
        saved = _read_checkpoint(run, binding, cohort.seal, training, precision)
        ranks.agree("what it read of an interrupted run", saved is None)
        keeping = _Keeping(training, run / _CHECKPOINT, binding, 60 * checkpoint_minutes, precision)
        report("prepare", 1, 1)
        clean_seconds = _go_on(keeping, clean_path, saved, progress)
        training.finish()

        calibrating = time.perf_counter()
        bias = decision_bias(protocol, cohort.classes).to(device)
        probe, cases = training.probe, len(cohort.indices("val"))
        account = Account(probe.allotment.limit, probe.account.spent)
        calibrated = answers_paid(account, cases)
        fusion, findings = calibrate(
            clean_path, training.branch, cohort, protocol, bias, device=device, account=account, progress=progress
        )
        searched = max((point.attacked for point in fusion.frontier), default=0)
        validation, stated = validation_record(
            probe.allotment, cases, calibrated, searched, probe.unsure, account.spent
        )
        calibration_seconds = time.perf_counter() - calibrating

        after, identical = state_digest(clean_path), torch.equal(answers, _answers(clean_path, fixed, device))
        if any(ranks.heard(after != before or not identical)):
            raise HardeningError("the clean path moved during hardening; this is a defect: nothing was written")
        contract = _contract(cohort, protocol)
        several = protocol.task.multilabel
        model = HardenedClassifier(clean_path, training.branch, fusion, bias, multilabel=several, contract=contract)
        digest, description = _write_model(run, model.cpu())
        record = HardenRecord(
            protocol=protocol.digest,
            cohort=cohort_digest,
            original=original.record,
            hardened=digest,
            description=description,
            branch=branch_record(
                clean_path,
                training.branch,
                protocol.hardening.branch,
                training.trained_parameters,
                training.state.best_epoch,
            ),
            fusion=fusion,
            clean_state_before=before,
            clean_state_after=after,
            clean_logits_identical=identical,
            epochs=tuple(training.state.history),
            cost=_cost(training, clean_seconds, calibration_seconds),
            environment=describe_environment(
                device, torch.get_num_threads(), processes=ranks.count(), precision=precision
            ),
            seed=protocol.seed,
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            findings=(
                *(() if parity is None else (Finding("model.parity", parity.severity, parity.sentence),)),
                *model_findings(original.record, *training.probe.validation, cohort.classes),
                *training.state.findings,
                *findings,
                *stated,
            ),
            parity=parity,
            validation=validation,
        )
        if ranks.first():
            written = write_record(run / "harden.json", record)
            log.append("harden.recorded", hardened=digest, record=written, files={"hardened.json": description})
            (run / _CHECKPOINT).unlink(missing_ok=True)
        training.remove()
        ranks.wait()
        return record if ranks.first() else read_record(run / "harden.json", HardenRecord)


def decision_bias(protocol: Protocol, classes: tuple[str, ...]) -> Tensor:
    """(K,) what is added to logits before they are answered: log((1-t)/t) for the positive class, or each finding."""
    bias = torch.zeros(len(classes))
    task = protocol.task
    if task.multilabel:
        return torch.tensor([_log_odds_against(task.threshold_of(name)) for name in classes])
    if len(classes) == 2 and task.positive is not None and task.threshold != 0.5:
        bias[classes.index(task.positive)] = _log_odds_against(task.threshold_of(task.positive))
    return bias


def _contract(cohort: Cohort, protocol: Protocol) -> Contract:
    """What the released model takes and answers: the view and the classes that it is gated on."""
    rule = protocol.decision_rule(len(cohort.classes))
    return Contract(cohort.classes, protocol.input, cohort.record.shape, rule, protocol.digest)


def _log_odds_against(threshold: float) -> float:
    return math.log((1 - threshold) / threshold)


def _write_inputs(run: Path, cohort: Cohort, protocol: Protocol) -> tuple[str, str]:
    """Locks protocol and cohort before anything is trained; returns the digests of cohort and protocol file."""
    record = canonical_json(cohort.record) + b"\n"
    digest = digest_bytes(record)
    if not ranks.first():
        return digest, ""
    files = RunFiles(run)
    if files.has("cohort.json") and files.digest("cohort.json") != digest:
        raise RunError(f"{run.name} holds a run on other data; choose another --out, or give it the same --data")
    if files.has("protocol.yaml") and files.protocol().digest != protocol.digest:
        raise RunError(f"{run.name} holds a run under another protocol; choose another --out")
    written = write_atomic(run / "protocol.yaml", protocol_yaml(protocol).encode())
    return write_atomic(run / "cohort.json", record), written


def _prepare(
    clean_path: Classifier,
    cohort: Cohort,
    protocol: Protocol,
    cohort_digest: str,
    run: Path,
    device: str,
    precision: str,
) -> tuple[BranchTraining, dict[str, str]]:
    bias = decision_bias(protocol, cohort.classes).to(device)
    settings = protocol.hardening
    check_form(clean_path, settings.branch)
    branch = make_branch(clean_path, settings.branch, rank=settings.rank, seed=protocol.seed)
    check_gradient(branch, cohort.batch(cohort.indices("train")[:1])[0].to(device))
    binding = {"protocol": protocol.digest, "cohort": cohort_digest, "model": clean_path.record.file}
    said = digest_bytes(canonical_json(binding))
    perturbation_files = PerturbationFiles(
        run if cohort.seal else None, cohort.seal, said
    )  # without a seal no process goes on from them
    probe = Probe(clean_path, cohort, protocol, bias, device, perturbation_files)
    return BranchTraining(clean_path, branch, cohort, protocol, probe, device, perturbation_files, precision), binding


@dataclass
class _Keeping:
    """When and where the state of training is kept."""

    training: BranchTraining
    checkpoint: Path
    binding: dict[str, str]
    seconds: float
    precision: str = "fp32"
    clean_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._due = time.monotonic() + self.seconds

    def if_due(self) -> None:
        """Writes a checkpoint where the last is old enough."""
        if ranks.told(time.monotonic() >= self._due):  # for all, or none
            self.now()

    def now(self) -> None:
        """Writes a checkpoint, perturbations first: what it goes on from is then on the disk, whoever wrote it."""
        self.training.flush()
        saved = {
            "format": _FORMAT,
            "binding": self.binding,
            "clean_seconds": self.clean_seconds,
            "processes": ranks.count(),
            "precision": self.precision,
            "training": self.training.snapshot(),
        }
        if ranks.first():
            write_sealed(self.checkpoint, partial(torch.save, saved), self.training.cohort.seal)
        ranks.wait()  # nobody writes over what the last checkpoint needs before this one is there
        self._due = time.monotonic() + self.seconds


def _go_on(keeping: _Keeping, clean_path: Classifier, saved: dict[str, Any] | None, progress: Progress | None) -> float:
    """Trains all epochs, from what was saved where there is such; returns the seconds of a clean epoch.

    One is timed before and one after: on a machine that others use too, neither stands for the time between.
    """
    training = keeping.training
    if saved is not None:
        keeping.clean_seconds = float(saved["clean_seconds"])
        training.resume(saved["training"])
        if saved["processes"] != ranks.count():
            message = f"Hardening was begun with {saved['processes']} process(es) and went on with {ranks.count()}."
            training.state.findings.append(Finding("hardening.processes_changed", "info", message))
    begun = training.progress(len(training.state.under_way.get("losses", [])))
    if progress is not None:
        progress("harden", *begun)
    if saved is None:
        keeping.clean_seconds = _time_clean_epoch(clean_path, training)
        if progress is not None:
            progress("harden", *begun)  # again: the timing of clean steps is not the pace of what comes
    while training.state.epoch < training.epochs:
        training.run_epoch(progress, keeping.if_due)
        keeping.now()
    after = _time_clean_epoch(clean_path, training)
    training.state.findings.extend(_uneven(keeping.clean_seconds, after))
    return (keeping.clean_seconds + after) / 2


def _uneven(before: float, after: float) -> list[Finding]:
    """Whether the machine was not as fast before training as after: the ratio of costs says little then."""
    if max(before, after) <= _UNEVEN * min(before, after):
        return []
    message = (
        f"A clean epoch took {before:.2g} s before training and {after:.2g} s after it, so the machine was not "
        "equally free: what a hardening epoch costs in clean ones can't be told from this run."
    )
    return [Finding("hardening.uneven_times", "warning", message)]


def _time_clean_epoch(clean_path: Classifier, training: BranchTraining) -> float:
    return clean_epoch_seconds(
        clean_path, training.cohort, training.settings, seed=training.protocol.seed, device=training.device
    )


def _read_checkpoint(
    run: Path, binding: dict[str, str], seal: bytes, training: BranchTraining, precision: str
) -> dict[str, Any] | None:
    """What an interrupted run left; null where it left nothing, or nothing that is sealed, which is a finding."""
    try:
        data = open_sealed(run, _CHECKPOINT, seal)
    except RunError as error:
        message = f"{error}; hardening began anew."
        training.state.findings.append(Finding("hardening.begun_anew", "warning", message))
        return None
    if data is None:
        return None
    saved: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if saved["binding"] != binding:
        raise RunError(
            f"{run.name} holds an interrupted run with another model, protocol or data; choose another --out"
        )
    if saved.get("precision", precision) != precision:
        raise RunError(
            f"{run.name} holds a run that was begun with --precision {saved['precision']}, not {precision}; go on with "
            "that, or choose another --out"
        )
    reason = ""
    if saved.get("format") != _FORMAT:
        reason = "harden.checkpoint is of another version of medharden"
    elif not training.intact(saved["training"]):
        reason = "The perturbations beside harden.checkpoint are not those of this run"
    if reason:
        message = f"{reason}; hardening began anew."
        training.state = EpochState(good=training.state.good)
        training.state.findings.append(Finding("hardening.begun_anew", "warning", message))
        return None
    return saved


@torch.no_grad()
def _answers(model: Classifier, inputs: Tensor, device: str) -> Tensor:
    return model(inputs.to(device)).cpu()  # type: ignore[no-any-return]


def _write_model(run: Path, model: HardenedClassifier) -> tuple[str, str]:
    """Writes the weights and their description; returns both digests."""
    description = canonical_json(describe_hardened(model)) + b"\n"
    if not ranks.first():
        return "", ""
    digest = write_atomic(run / "hardened.safetensors", hardened_bytes(model, description))
    return digest, write_atomic(run / "hardened.json", description)


def _cost(training: BranchTraining, clean_seconds: float, calibration_seconds: float) -> CostRecord:
    state = training.state
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return CostRecord(
        steps=state.steps,
        passes=training.adversary.passes,
        teacher_passes=0 if training.teacher is None else 1,
        train_seconds=state.train_seconds,
        probe_seconds=state.probe_seconds,
        calibration_seconds=calibration_seconds,
        epoch_seconds=statistics.median(e.seconds for e in state.history),
        clean_epoch_seconds=clean_seconds,
        peak_memory_mib=kibibytes / 1024,
    )
