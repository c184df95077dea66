"""Rows of what was hardened, the data and the provenance: names, digests, environment, times."""

from __future__ import annotations

from medharden.protocol import protocol_yaml
from medharden.record import Environment, clusters_of
from medharden.reporting.numbers import count, percent
from medharden.reporting.source import RunRecords
from medharden.reporting.wording import BRANCH, FUSION, input_words

__all__ = ["Rows", "data_rows", "digest_rows", "environment_rows", "model_rows", "protocol_text", "time_rows"]

Rows = tuple[tuple[str, str], ...]
"""Terms and their values, in the order shown."""

_SPLITS_FROM = {
    "given": "given with the data",
    "made": "made by medharden, by patient, from the protocol's seed",
}


def model_rows(records: RunRecords) -> Rows:
    """The original, and what was built on it."""
    harden, protocol = records.harden, records.protocol
    original, branch, fusion = harden.original, harden.branch, harden.fusion
    arguments = ", ".join(f"{k} = {v}" for k, v in sorted(original.arguments.items())) or "none"
    head = "one sigmoid output, presented as two classes" if original.one_logit else f"{original.classes} classes"
    if original.output is not None:
        head = f"{original.output!r} of what the network returns: {head}"
    rows = [
        ("Intended use", protocol.intended_use),
        ("Original model", f"{original.arch} ({original.source}), {count(original.parameters)} weights"),
        ("Constructor arguments", arguments),
        ("Input", f"{_shape(records.cohort.shape)} in [0, 1]{_repeated(records)}; {input_words(protocol)}"),
        (
            "Normalisation, inside the model",
            f"mean {_numbers(original.mean)}, standard deviation {_numbers(original.std)}",
        ),
        *((f"Source of {part}", where) for part, where in original.origins.items()),
        ("Fed as its source says", _parity(records)),
        (
            "Output",
            f"{head}: {', '.join(records.evaluation.classes)}; {_decided(records)}",
        ),
        (
            "Robust branch",
            f"{branch.form}: {BRANCH.get(branch.form, 'as recorded')}; {count(branch.trained_parameters)} weights "
            f"trained, {count(branch.stored_parameters)} stored beside the original",
        ),
        ("Fusion", f"{fusion.mode.capitalize()}. {FUSION.get(fusion.mode, '')}"),
    ]
    if fusion.mode == "mixed":
        rows.append(
            (
                "Fusion, calibrated on validation",
                f"robust branch's weight {fusion.weight:.3f}; temperatures {fusion.clean_temperature:.3f} (clean) and "
                f"{fusion.robust_temperature:.3f} (robust)",
            )
        )
    if fusion.mode == "guarded":
        rows.append(
            (
                "Referral, calibrated on validation",
                f"branch's probability of the answer below {fusion.referral_threshold:.3f}, or another answer; "
                f"{percent(fusion.referral_rate)} of clean "
                f"validation cases referred (budget {percent(protocol.fusion.referral_budget)})",
            )
        )
    return tuple(rows)


def _repeated(records: RunRecords) -> str:
    """Where grey goes into a network of several channels."""
    own, given = records.harden.original.channels, records.cohort.shape[0]
    return f", repeated to the network's {own} channels" if given == 1 < own else ""


def _parity(records: RunRecords) -> str:
    parity = records.harden.parity
    if parity is None:
        return "not shown: nobody looked"
    if not parity.cases:
        return f"not shown: {parity.why}"
    start = "The model was fed as its source says: "
    return parity.sentence.removeprefix(start)


def data_rows(records: RunRecords) -> Rows:
    """Where the cases came from and how they were split."""
    cohort = records.cohort
    return (
        (
            "Source",
            f"{cohort.source}: " + ", ".join(f"{count(n)} {kind}" for kind, n in sorted(cohort.formats.items())),
        ),
        ("Splits", _SPLITS_FROM.get(cohort.splits_from, cohort.splits_from)),
        ("Statistical unit", _unit(records)),
        ("Pseudonyms", f"keyed HMAC, key {cohort.key_id}; no case is named but in findings that need it"),
    )


def _unit(records: RunRecords) -> str:
    """What counts as one, in words."""
    cohort, limits = records.cohort, records.protocol.splits
    unit = "patient"
    if cohort.grouped_by != "patient":
        unit = "case: the data name no patients, so each case stands for one"
    elif cohort.unnamed:
        unit = f"patient; {count(cohort.unnamed)} of {count(len(cohort.cases))} cases name none and stand for one each"
    if limits.each_case and (cohort.unnamed or cohort.grouped_by != "patient"):
        unit += f", as the protocol states: {limits.patients.reason}"
    clusters = clusters_of(cohort, limits.is_copy)
    if clusters.copies:
        unit += f"; copies count once: {count(clusters.count)} units of {count(clusters.patients)} in the test split"
    return unit


def digest_rows(records: RunRecords) -> Rows:
    """SHA-256 of everything that the verdict rests on."""
    harden, files, required = records.harden, records.files, records.decision.protocol_required
    return (
        ("Original model, file", harden.original.file),
        ("Original network, state (parameters and buffers)", harden.original.state),
        ("Clean path (network and normalisation), state before hardening", harden.clean_state_before),
        ("Clean path (network and normalisation), state after hardening", harden.clean_state_after),
        ("Hardened weights", records.evaluation.hardened),
        ("Protocol", records.protocol.digest),
        ("Protocol that whoever decided required", required or "none: the run's own was taken"),
        ("Cohort record", files["cohort.json"]),
        ("Hardening record", files["harden.json"]),
        ("Evaluation record", files["evaluation.json"]),
        ("Case table", files["cases.parquet"]),
        ("Gate decision", files["gate.json"]),
        (f"Audit log to the decision, {count(records.events)} events, hash of the last", records.head),
    )


def environment_rows(records: RunRecords) -> tuple[tuple[str, str, str], ...]:
    """What, in hardening, in evaluation."""
    ours, theirs = records.harden.environment, records.evaluation.environment
    names = sorted(ours.packages.keys() | theirs.packages.keys())
    rows = [(label, _field(ours, key), _field(theirs, key)) for label, key in _FIELDS]
    rows += [(name, ours.packages.get(name, "–"), theirs.packages.get(name, "–")) for name in names]
    return tuple(rows)


_FIELDS = (
    ("medharden", "medharden"),
    ("Python", "python"),
    ("Platform", "platform"),
    ("Device", "device"),
    ("Threads", "threads"),
    ("Processes", "processes"),
    ("Precision of training", "precision"),
)


def time_rows(records: RunRecords) -> Rows:
    """When each stage ran, as recorded."""
    harden, evaluation = records.harden, records.evaluation
    return (
        ("Hardened", f"{harden.started} to {harden.finished}"),
        ("Evaluated", f"{evaluation.started} to {evaluation.finished}"),
        ("Decided", records.decision.decided or "not recorded"),
        ("Seed", str(harden.seed)),
    )


def protocol_text(records: RunRecords) -> str:
    """Every field of the protocol, defaults included, as YAML: what its digest covers."""
    return protocol_yaml(records.protocol, width=100)


def _decided(records: RunRecords) -> str:
    threshold, positive = records.evaluation.decision_threshold, records.protocol.task.positive
    if records.protocol.task.multilabel:
        return f"each finding by itself, called present above the probability {threshold}"
    if threshold == "argmax" or positive is None:
        return "the most probable one is answered"
    return f"{positive} is answered from probability {threshold}"


def _field(environment: Environment, key: str) -> str:
    return str(getattr(environment, key))


def _shape(shape: tuple[int, ...]) -> str:
    channels = "1 channel" if shape[0] == 1 else f"{shape[0]} channels"
    return f"{' × '.join(map(str, shape[1:]))}, {channels}"


def _numbers(values: tuple[float, ...]) -> str:
    return " / ".join(f"{v:g}" for v in values)
