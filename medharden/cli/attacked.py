"""`medharden attack`: a model attacked through the files of its images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from medharden.attacking import Target, attack
from medharden.audit import RunFiles
from medharden.cli.console import marked, out, stage_progress
from medharden.cli.runtime import device_of
from medharden.data import Cohort, load_cohort, load_pseudonym_key
from medharden.data.stored.cases import stored_cases
from medharden.errors import Interrupted, OutputError, ProtocolError, RunError
from medharden.hardening.run import decision_bias
from medharden.models import Classifier, DecisionView, check_classifier, load_classifier, load_hardened, state_digest
from medharden.protocol import Protocol, load_protocol
from medharden.record import AttackRecord, Evaluation
from medharden.sizes import MAX_DECODED

__all__ = ["AttackJob", "run_attack"]

_HARDENED = "hardened.safetensors"
_CHECKED_CASES = 2


@dataclass(frozen=True)
class AttackJob:
    """What the command was asked to do; nothing in it is a scientific choice but which cases are attacked.

    Attributes:
        model: a classifier's file or bundle, or a run directory.
        protocol: name or path; None takes the run directory's own, else `default`.
    """

    model: Path
    data: Path
    write: Path
    protocol: str | None
    arch: str | None
    split: str
    cases: tuple[str, ...]
    device: str
    workers: int
    key_file: Path | None
    max_decoded: int = MAX_DECODED
    cache: Path | None = None


def run_attack(job: AttackJob) -> None:
    """Loads model and data, attacks, writes the images, and prints what the search found and what the files do."""
    protocol = _protocol(job)
    if job.write.exists() and (not job.write.is_dir() or any(job.write.iterdir())):
        raise OutputError(f"{job.write.name} holds something already; expected a new or empty folder as --write")
    if job.data.is_dir() and job.write.resolve().is_relative_to(job.data.resolve()):
        raise OutputError("--write lies inside --data, where the images would be taken for cases; choose another place")
    try:
        with stage_progress() as progress:
            key = load_pseudonym_key(job.key_file)
            cohort = load_cohort(
                job.data,
                protocol,
                key=key,
                progress=progress,
                workers=job.workers,
                max_decoded=job.max_decoded,
                cache=job.cache,
            )
            _require_counted(job, cohort)
            inputs, _ = cohort.batch(cohort.indices("train")[:_CHECKED_CASES])
            target, network = _target(job, protocol, cohort.classes)
            check_classifier(network, inputs, cohort.classes, multilabel=protocol.task.multilabel)
            record = attack(
                target,
                cohort,
                stored_cases(job.data, protocol, key=key, max_decoded=job.max_decoded),
                protocol,
                job.write,
                split=job.split,
                cases=job.cases,
                device=device_of(job.device, float64=True),
                progress=progress,
            )
    except KeyboardInterrupt:
        raise Interrupted(f"nothing was written to {job.write.name}; run the same command again") from None
    _show(record, job.write)


def _protocol(job: AttackJob) -> Protocol:
    """The named protocol, else the run directory's own; other preprocessing than the run's would be another model."""
    own = RunFiles(job.model).protocol() if (job.model / _HARDENED).is_file() else None
    if job.protocol is None:
        return own or load_protocol("default")
    protocol = load_protocol(job.protocol)
    if own is not None and (protocol.input, protocol.task) != (own.input, own.task):
        raise ProtocolError(
            f"{protocol.name} states another input or task than the run was hardened under; expected the same, "
            "with another threat or suite where wanted"
        )
    return protocol


def _require_counted(job: AttackJob, cohort: Cohort) -> None:
    """Stops where a release's answers to its test cases would be seen before they were counted as a look.

    Raises:
        RunError: no evaluation of these weights is on record.
    """
    named = {case.case for case in cohort.record.split("test")}.intersection(job.cases)
    if not (job.model / _HARDENED).is_file() or not (named if job.cases else job.split == "test"):
        return
    files = RunFiles(job.model)
    recorded = files.has("evaluation.json") and files.history().evaluation == files.digest("evaluation.json")
    if recorded and files.record("evaluation.json", Evaluation).hardened == files.digest(_HARDENED):
        return
    raise RunError(
        f"{job.model.name} has no evaluation of these weights on record, and figures of its test cases that are seen "
        "before one would be a look that nobody counts: run `medharden evaluate` first, or attack with --split val"
    )


def _target(job: AttackJob, protocol: Protocol, classes: tuple[str, ...]) -> tuple[Target, Classifier]:
    """What is attacked, and the classifier that tells whether the data fit."""
    if (job.model / _HARDENED).is_file():
        hardened = load_hardened(job.model, arch=job.arch)
        return Target("composite", hardened.decision_view(), state_digest(hardened)), hardened.clean_path
    classifier = load_classifier(
        job.model,
        arch=job.arch,
        spec=protocol.model,
        dims=protocol.input.dims,
        fed=protocol.input,
        multilabel=protocol.task.multilabel,
    )
    view = DecisionView(classifier, decision_bias(protocol, classes))
    return Target("original", view, state_digest(classifier)), classifier


def _show(record: AttackRecord, folder: Path) -> None:
    table = Table("answered rightly", "cases", "share", title=f"{record.subject}: {record.threat}")
    n = len(record.cases)
    for name, count in _figures(record):
        table.add_row(name, f"{count} of {n}", f"{count / n:.3f}")
    findings = [marked("[yellow]{}[/] {}", f.severity, f.message) for f in record.findings]
    images = sum(bool(case.name) for case in record.cases)
    out.show([table, *findings, f"{images} images and attack.json: {folder}"], _machine(record, folder))


def _figures(record: AttackRecord) -> tuple[tuple[str, int], ...]:
    return (
        ("without attack", record.clean_correct),
        ("on what the search found", record.search_correct),
        ("on the files, read back", record.file_correct),
    )


def _machine(record: AttackRecord, folder: Path) -> dict[str, Any]:
    n = len(record.cases)
    return {
        "subject": record.subject,
        "threat": record.threat,
        "split": record.split,
        "n": n,
        "clean_accuracy": record.clean_correct / n,
        "search_accuracy": record.search_correct / n,
        "file_accuracy": record.file_correct / n,
        "attacks": [dataclasses.asdict(a) for a in record.attacks],
        "findings": [dataclasses.asdict(f) for f in record.findings],
        "written": str(folder),
    }
