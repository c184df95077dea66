"""`medharden harden` and `medharden evaluate`: the stages in order, each skipped where its record already stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medharden import ranks
from medharden.audit import RunFiles, audited, canonical_json, digest_bytes, guarded
from medharden.cli.console import Stages, announce, out, stage_progress
from medharden.cli.foretold import foretell
from medharden.cli.runtime import device_of
from medharden.cli.tracking import tracking
from medharden.cli.verdicts import EXIT_CODES, show_verdict
from medharden.data import Cohort, load_cohort, load_pseudonym_key
from medharden.data.sources.listing import require_source
from medharden.data.stored.cases import stored_cases
from medharden.errors import Interrupted, ModelError, OutputError, RunError
from medharden.evaluating import evaluate
from medharden.gating import gate
from medharden.hardening import harden, measure_stability
from medharden.heap import keep_freed_memory
from medharden.models import Classifier, check_classifier, load_classifier, load_hardened
from medharden.parity import PARITY_CASES, show_parity
from medharden.protocol import Protocol, load_protocol
from medharden.record import Evaluation, Finding, HardenRecord, Progress, SourceParity, StabilityRecord
from medharden.reporting import render
from medharden.sizes import MAX_DECODED
from medharden.text import counted
from medharden.verifying import write_bom

__all__ = [
    "Job",
    "interruptible",
    "load_data",
    "load_original",
    "prepare",
    "require_sources",
    "run_all",
    "run_evaluation",
    "with_findings",
]


@dataclass(frozen=True)
class Job:
    """What a command was asked to do; nothing in it is a scientific choice."""

    model: Path | None
    data: Path
    protocol: str
    run: Path
    arch: str | None
    device: str
    batch_size: int
    workers: int
    key_file: Path | None
    pictures: bool
    ledger: Path | None = None
    max_decoded: int = MAX_DECODED
    cache: Path | None = None
    checkpoint_minutes: float = 10.0
    precision: str = "fp32"
    track: str = ""
    seeds: int = 1
    noted: tuple[Finding, ...] = ()


def run_all(job: Job) -> int:
    """Load, harden, evaluate, gate, report; returns the gate's exit code."""
    protocol = load_protocol(job.protocol)
    threat = protocol.input_threat
    require_sources(job)
    job = prepare(job)
    with (
        ranks.joined(job.device),
        tracking(job.track, job.run) as told,
        interruptible(job.run),
        audited(job.run, "run", writes=_writes()),
    ):
        told.locked(protocol.digest, protocol.seed)
        out.say(f"protocol: {protocol.name}, {threat.norm} eps {threat.eps:.4g} of the input range")
        with stage_progress() as progress:
            original = load_original(job, protocol)
            cohort = load_data(job, protocol, progress)
            _say_what_comes(job, original, cohort, protocol, progress)
            _harden(job, original, cohort, protocol, progress)
            told.hardened()
            _vary(job, original, cohort, protocol, progress)
            _evaluate(job, original, cohort, protocol, progress)
            if not ranks.first():
                return 0
            told.evaluated()
            with guarded(cohort.identifiers, (protocol.model_dump_json(), *cohort.classes)):
                progress("report", 0, 1)
                decision = gate(job.run, protocol=protocol.digest, ledger=job.ledger)
                paths = render(job.run)
                write_bom(job.run)
                progress("report", 1, 1)
            told.decided(decision, job.pictures)
    show_verdict(job.run, decision, next(p for p in paths if p.suffix == ".html"))
    return EXIT_CODES[decision.verdict]


def run_evaluation(job: Job) -> None:
    """Evaluates a hardened run again, from its own protocol."""
    if not (job.run / "protocol.yaml").is_file():
        raise RunError(
            f"{job.run} is no run directory: it has no protocol.yaml; expected what `medharden harden` wrote"
        )
    require_sources(job)
    job = prepare(job)
    with (
        ranks.joined(job.device),
        interruptible(job.run),
        audited(job.run, "run", writes=_writes()),
        stage_progress() as progress,
    ):
        protocol = RunFiles(job.run).protocol()
        original = None if job.model is None else load_original(job, protocol)
        cohort = load_data(job, protocol, progress)
        record = _attack(job, original, cohort, protocol, progress)
        if not ranks.first():
            return
    rows = {s.name: {"clean": s.clean_accuracy, "robust": s.robust_accuracy, "n": s.n} for s in record.subjects}
    lines = [f"{name}: clean {r['clean']:.3f}, under attack {r['robust']:.3f}" for name, r in rows.items()]
    out.show(lines, {"subjects": rows})


def _writes() -> bool:
    """Whether this process writes and speaks."""
    if ranks.count() > 1:
        out.say(f"processes: {ranks.count()}, of which the first writes")
    return ranks.first()


@contextmanager
def interruptible(run: Path) -> Iterator[None]:
    """Turns Ctrl-C into an outcome that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"nothing is lost: what was finished is in {run}; run the same command again to go on"
        ) from None


def require_sources(job: Job) -> None:
    """Checks that what is to be read is there, before any of it is read and anything is written.

    Raises:
        ModelError: there is no such model.
        DataError: there are no such data.
    """
    if job.model is not None and not job.model.exists():
        raise ModelError(
            f"there is no model file {job.model.name}; expected a checkpoint, a state dict, or a MONAI bundle's folder"
        )
    require_source(job.data)


def prepare(job: Job) -> Job:
    """Checks what would otherwise fail late: a writable run directory, the device; returns the job with its device.

    Raises:
        OutputError: the directory can't be written to.
        RunError: there is no such device.
    """
    if ranks.beside():
        out.json, out.quiet = False, True  # one speaks for all, but for errors
    if job.cache is not None and job.cache.resolve().is_relative_to(job.run.resolve()):
        raise OutputError("--cache lies inside the run directory, which holds no images; choose another place")
    job = replace(job, device=device_of(job.device))
    try:
        job.run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{job.run} can't be made: {error.strerror}; choose another --out") from error
    if not os.access(job.run, os.W_OK):
        raise OutputError(f"{job.run} is not writable; choose another --out")
    return job


def load_original(job: Job, protocol: Protocol) -> Classifier:
    """The model that is hardened or compared with, said in one line."""
    if job.model is None:
        raise RunError("no model was given")
    several = protocol.task.multilabel
    original = load_classifier(
        job.model, arch=job.arch, spec=protocol.model, dims=protocol.input.dims, fed=protocol.input, multilabel=several
    )
    record = original.record
    answers = f"{record.classes} {'findings' if several else 'classes'}"
    out.say(
        f"model: {record.source}:{record.arch}, {record.parameters / 1e6:.2f} M weights, {answers}, "
        f"{counted(record.channels, 'channel')}"
    )
    return original


def load_data(job: Job, protocol: Protocol, progress: Progress) -> Cohort:
    """The run's cohort, said in one line."""
    with ranks.first_alone():  # which makes the key where there is none
        key = load_pseudonym_key(job.key_file)
    progress("read", 0, 1)
    # the others find in the cache what the first decoded; without one each decodes for itself, at the same time
    with ranks.first_alone() if job.cache is not None else nullcontext():
        cohort = load_cohort(
            job.data,
            protocol,
            key=key,
            progress=progress,
            workers=job.workers,
            max_decoded=job.max_decoded,
            cache=job.cache,
        )
    cohort = with_findings(cohort, job.noted)
    keep_freed_memory()  # not before: what reading frees must be free for the next file
    sizes = ", ".join(f"{name} {len(cohort.indices(name))}" for name in ("train", "val", "test"))
    out.say(f"data: {len(cohort.cases)} cases ({sizes}), classes {', '.join(cohort.classes)}, {cohort.record.shape}")
    return cohort


def with_findings(cohort: Cohort, noted: tuple[Finding, ...]) -> Cohort:
    """A cohort with what is known of its source beside."""
    return replace(cohort, record=replace(cohort.record, findings=(*cohort.record.findings, *noted)))


def _say_what_comes(job: Job, original: Classifier, cohort: Cohort, protocol: Protocol, progress: Stages) -> None:
    """The stages that are ahead and how long each will take, on what was measured; nothing where training is over."""
    if out.json or out.quiet or (job.run / "harden.json").is_file():
        return
    inputs, _ = cohort.batch(cohort.indices("train")[:2])
    check_classifier(original, inputs, cohort.classes, multilabel=protocol.task.multilabel)
    seconds = foretell(original, cohort, protocol, job.device)
    out.say(announce(seconds))
    progress.expect(seconds)


def _harden(job: Job, original: Classifier, cohort: Cohort, protocol: Protocol, progress: Progress) -> None:
    if not ranks.told(_hardened_already(job.run, original, cohort, protocol)):
        harden(
            original,
            cohort,
            protocol,
            job.run,
            device=job.device,
            checkpoint_minutes=job.checkpoint_minutes,
            precision=job.precision,
            parity=_parity(job, original, cohort, protocol),
            progress=progress,
        )
    else:
        out.say("hardening: finished earlier with the same model, data and protocol")


def _parity(job: Job, original: Classifier, cohort: Cohort, protocol: Protocol) -> SourceParity | None:
    """Whether the model is fed as its source says; by the process that writes."""
    if not ranks.first():
        return None
    files = partial(stored_cases, job.data, protocol, key=load_pseudonym_key(job.key_file), max_decoded=job.max_decoded)
    shown = show_parity(original, cohort, files, protocol, cases=PARITY_CASES)
    if original.view is not None:
        out.say(shown.sentence)
    return shown


def _vary(job: Job, original: Classifier, cohort: Cohort, protocol: Protocol, progress: Progress) -> None:
    """Hardens under the further seeds that were asked for, once."""
    if job.seeds == 1:
        return
    if ranks.count() > 1:
        raise RunError("--seeds hardens in one process; run the command without `accelerate launch`")
    files = RunFiles(job.run)
    if files.has("stability.json") and len(files.record("stability.json", StabilityRecord).seeds) == job.seeds:
        out.say("stability: measured earlier under as many seeds")
        return
    record = measure_stability(
        original,
        cohort,
        protocol,
        job.run,
        seeds=job.seeds,
        arch=job.arch,
        device=job.device,
        precision=job.precision,
        progress=progress,
    )
    clean = [one.clean_correct / record.cases for one in record.seeds]
    robust = [one.robust / record.attacked for one in record.seeds]
    out.say(
        f"stability: on validation {len(record.seeds)} seeds are right on {min(clean):.3f} to {max(clean):.3f}, and "
        f"stand on {min(robust):.3f} to {max(robust):.3f}; released is the protocol's own seed"
    )


def _hardened_already(run: Path, original: Classifier, cohort: Cohort, protocol: Protocol) -> bool:
    if not (run / "harden.json").is_file():
        return False
    files = RunFiles(run)
    record = files.record("harden.json", HardenRecord)
    wanted = (protocol.digest, digest_bytes(canonical_json(cohort.record) + b"\n"), original.record.file)
    if (record.protocol, record.cohort, record.original.file) != wanted:
        raise RunError(f"{run} holds a finished run with another model, protocol or data; choose another --out")
    if record.hardened != files.digest("hardened.safetensors"):
        raise RunError(f"{run}: hardened.safetensors is not what harden.json records; choose another --out")
    return True


def _evaluate(job: Job, original: Classifier, cohort: Cohort, protocol: Protocol, progress: Progress) -> None:
    if ranks.told(ranks.first() and _evaluated_already(job)):
        out.say("evaluation: finished earlier on these weights; the test split is not opened again")
        return
    _attack(job, original, cohort, protocol, progress)


def _evaluated_already(job: Job) -> bool:
    if not (job.run / "evaluation.json").is_file():
        return False
    files = RunFiles(job.run)
    record, now = files.record("evaluation.json", Evaluation), files.digest("hardened.safetensors")
    logged = files.history().evaluation == files.digest("evaluation.json")
    return record.hardened == now and logged and (not job.pictures or (job.run / "examples.safetensors").is_file())


def _attack(
    job: Job, original: Classifier | None, cohort: Cohort, protocol: Protocol, progress: Progress
) -> Evaluation:
    return evaluate(
        load_hardened(job.run, arch=job.arch),
        cohort,
        protocol,
        job.run,
        original=original,
        batch_size=job.batch_size,
        device=job.device,
        with_examples=job.pictures,
        ledger=job.ledger,
        progress=progress,
    )
