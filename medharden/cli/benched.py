"""`medharden bench`, and `harden --dry-run`: what this machine does in a second, and what a whole run would take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from medharden.attacks import passes
from medharden.cli.console import out, spoken
from medharden.cli.pipeline import Job
from medharden.cli.runtime import device_of
from medharden.data import load_pseudonym_key
from medharden.data.sampled import SampledCohort, sample_cohort
from medharden.errors import DataError
from medharden.hardening.allotting import GRADIENT, Allotment, validation_work
from medharden.hardening.measuring import StepCosts, step_costs
from medharden.hardening.schedule import epochs_and_batches
from medharden.heap import keep_freed_memory
from medharden.models import load_classifier
from medharden.protocol import Protocol, load_protocol
from medharden.sizes import shown_bytes

__all__ = ["run_bench"]

_COPIES_OF_WEIGHTS = 5  # weights, two moments of the optimiser, the best and the last good ones
_PATHS = 4  # the original, the branch, and the composite of both, in gradients of one network
_MAC = 32


@dataclass(frozen=True)
class _Whole:
    """What a run would take, in seconds and bytes."""

    decoding: float
    training: float
    probing: float
    calibrating: float
    evaluating: float
    store: int
    perturbations: int
    checkpoint: int


def run_bench(job: Job, protocol_name: str, *, dry: bool, dicomweb: str | None = None) -> None:
    """Measures on a sample and prints rates, peak memory and what a whole run would take; writes nothing.

    Args:
        job: model, data, device, workers and batch size; its run directory is not touched.
        protocol_name: the protocol.
        dry: whether it stands in for `harden`, and says what that would do.
        dicomweb: as `harden` takes it; nothing is retrieved to be measured.

    Raises:
        DataError: the images are on a server.
    """
    if dicomweb is not None:
        raise DataError(
            "--dry-run measures on local files and retrieves none: leave --dicomweb out, and give an export as --data"
        )
    protocol = load_protocol(protocol_name)
    device = device_of(job.device)
    assert job.model is not None, "asked for by the command line"  # noqa: S101
    original = load_classifier(
        job.model,
        arch=job.arch,
        spec=protocol.model,
        dims=protocol.input.dims,
        fed=protocol.input,
        multilabel=protocol.task.multilabel,
    )
    key = load_pseudonym_key(job.key_file)
    sample = sample_cohort(job.data, protocol, key=key, workers=job.workers, max_decoded=job.max_decoded)
    keep_freed_memory()
    costs = step_costs(original, sample.cohort, protocol, device, job.batch_size)
    whole = _whole(sample, costs, protocol)
    parts: list[Any] = [_rates_table(sample, costs), _whole_table(whole)]
    parts += _notes(sample, protocol, job if dry else None)
    out.show(parts, _machine(sample, costs, whole, protocol, device))


def _whole(sample: SampledCohort, costs: StepCosts, protocol: Protocol) -> _Whole:
    settings, cases = protocol.hardening, sample.cases
    epochs, _ = epochs_and_batches(settings, cases["train"])
    mixed, allotment = protocol.fusion.mode == "mixed", Allotment.of(settings, cases["train"], cases["val"])
    probes, calibration = validation_work(settings, cases["train"], cases["val"], mixed=mixed)
    attacked = min(protocol.suite.cases or cases["test"], cases["test"])
    suite = sum(passes(attack, len(sample.cohort.classes) - 1) for attack in protocol.suite.attacks)
    size = math.prod(sample.cohort.inputs.shape[1:])
    return _Whole(
        decoding=sum(cases.values()) / sample.decoded,
        training=epochs * cases["train"] * costs.harden * (settings.replays if settings.method == "free" else 1),
        probing=probes * costs.gradient / GRADIENT,
        calibrating=calibration * costs.gradient / GRADIENT,
        evaluating=_PATHS * (2 * cases["test"] * costs.forward + attacked * suite * costs.gradient),
        store=sum(cases.values()) * sample.case_bytes,
        perturbations=2 * (cases["train"] + allotment.attacked) * (size + _MAC) if settings.method == "carried" else 0,
        checkpoint=_COPIES_OF_WEIGHTS * 4 * costs.trained,
    )


def _rates_table(sample: SampledCohort, costs: StepCosts) -> Table:
    table = Table("on this machine", "cases a second", "peak memory", box=None, padding=(0, 1))
    memory = {name: f"{mebibytes:.0f} MiB" for name, mebibytes in costs.memory.items()}
    for name, rate, peak in (
        ("decoding", sample.decoded, ""),
        ("reading from the store", sample.stored, ""),
        ("an ordinary training step", 1 / costs.clean, memory["clean step"]),
        ("a hardening step", 1 / costs.harden, memory["hardening step"]),
        ("an answer", 1 / costs.forward, ""),
        ("one gradient of an attack", 1 / costs.gradient, memory["attack"]),
    ):
        table.add_row(name, f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}", peak)
    return table


def _whole_table(whole: _Whole) -> Table:
    table = Table("a whole run", "about", box=None, padding=(0, 1))
    table.add_row("decoding, once", spoken(whole.decoding))
    table.add_row("training", spoken(whole.training))
    table.add_row("probes on validation", spoken(whole.probing))
    table.add_row("calibration, at most", spoken(whole.calibrating))
    table.add_row("evaluation, if every case withstood every attack", spoken(whole.evaluating))
    table.add_row("all, at most", spoken(_seconds(whole)))
    table.add_row("disk: decoded cases (temporary folder, or --cache)", shown_bytes(whole.store))
    table.add_row("disk: perturbations, while it trains (run directory)", shown_bytes(whole.perturbations))
    table.add_row("disk: checkpoint, while it trains (run directory)", shown_bytes(whole.checkpoint))
    return table


def _seconds(whole: _Whole) -> float:
    return whole.decoding + whole.training + whole.probing + whole.calibrating + whole.evaluating


def _notes(sample: SampledCohort, protocol: Protocol, job: Job | None) -> list[str]:
    split = ", ".join(f"{name} {count}" for name, count in sample.cases.items())
    notes = [f"· about {sum(sample.cases.values())} cases ({split}), protocol {protocol.name}"]
    if sample.unusable:
        notes.append(f"· {sample.unusable} of {sample.tried} cases that were tried can't be used: `medharden inspect`")
    if job is not None:
        epochs, batches = epochs_and_batches(protocol.hardening, sample.cases["train"])
        notes.append(
            f"· would train a {protocol.hardening.branch} branch by {protocol.hardening.method} for {epochs} epochs of "
            f"{batches} steps, calibrate `{protocol.fusion.mode}`, attack the test split, decide, and write to "
            f"{job.run}; nothing was written, and the test split was not answered"
        )
    return notes


def _machine(sample: SampledCohort, costs: StepCosts, whole: _Whole, protocol: Protocol, device: str) -> dict[str, Any]:
    return {
        "device": device,
        "protocol": protocol.digest,
        "cases": sample.cases,
        "unusable": sample.unusable,
        "tried": sample.tried,
        "cases_a_second": {
            "decoding": sample.decoded,
            "store": sample.stored,
            "clean_step": 1 / costs.clean,
            "hardening_step": 1 / costs.harden,
            "answer": 1 / costs.forward,
            "attack_gradient": 1 / costs.gradient,
        },
        "peak_memory_mib": costs.memory,
        "seconds": {
            "decoding": whole.decoding,
            "training": whole.training,
            "probing": whole.probing,
            "calibration": whole.calibrating,
            "evaluation": whole.evaluating,
            "all": _seconds(whole),
        },
        "bytes": {
            "store": whole.store,
            "perturbations": whole.perturbations,
            "checkpoint": whole.checkpoint,
        },
    }
