"""`medharden inspect`: what would be loaded, before anything is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from medharden.cli.console import marked, out, stage_progress
from medharden.cli.pipeline import interruptible, with_findings
from medharden.cli.retrieving import fetched
from medharden.data import Cohort, load_cohort, load_pseudonym_key, locate_case
from medharden.data.stored.cases import stored_cases
from medharden.errors import DataError
from medharden.models import Classifier, check_classifier, load_classifier
from medharden.parity import show_parity
from medharden.protocol import Protocol, load_protocol
from medharden.record import Finding, ModelRecord, SourceParity, clusters_of, present

__all__ = ["run_inspection", "run_location"]

_SPLITS = ("train", "val", "test")
_CHECKED_CASES = 2


def run_inspection(
    model: Path | None,
    data: Path,
    protocol_name: str,
    arch: str | None,
    workers: int,
    max_decoded: int,
    key_file: Path | None,
    cache: Path | None = None,
    parity: int = 0,
    dicomweb: str | None = None,
) -> int:
    """Loads model and data as `harden` would and prints what it found; returns the exit code."""
    places = fetched(
        data, dicomweb, protocol_name, key_file=key_file, cache=cache, max_decoded=max_decoded, model=model
    )
    with places as (data, noted):
        return _inspected(model, data, protocol_name, arch, workers, max_decoded, key_file, cache, parity, noted)


def _inspected(
    model: Path | None,
    data: Path,
    protocol_name: str,
    arch: str | None,
    workers: int,
    max_decoded: int,
    key_file: Path | None,
    cache: Path | None,
    parity: int,
    noted: tuple[Finding, ...],
) -> int:
    protocol = load_protocol(protocol_name)
    classifier = None
    if model is not None:
        several = protocol.task.multilabel
        classifier = load_classifier(
            model, arch=arch, spec=protocol.model, dims=protocol.input.dims, fed=protocol.input, multilabel=several
        )
    key = load_pseudonym_key(key_file)
    try:
        with interruptible(data), stage_progress() as progress:
            cohort = load_cohort(
                data,
                protocol,
                key=key,
                progress=progress,
                workers=workers,
                max_decoded=max_decoded,
                cache=cache,
            )
        cohort = with_findings(cohort, noted)
    except DataError as error:
        if not error.problems:
            raise
        _show_problems(error)
        return error.exit_code
    if classifier is not None:
        inputs, _ = cohort.batch(cohort.indices("train")[:_CHECKED_CASES])
        check_classifier(classifier, inputs, cohort.classes, multilabel=protocol.task.multilabel)
    parts: list[Any] = [] if classifier is None else [_model_table(classifier)]
    parts += [_split_table(cohort, protocol), _data_table(cohort)]
    shown = None
    if classifier is not None and parity:
        files = partial(stored_cases, data, protocol, key=key, max_decoded=max_decoded)
        shown = show_parity(classifier, cohort, files, protocol, cases=parity)
        parts.append(marked("[yellow]parity[/] {}", shown.sentence))
    parts += [marked("[yellow]assumed[/] {}", text) for text in (classifier.record.assumed if classifier else ())]
    parts += [marked("[yellow]{}[/] {}", f.severity, f.message) for f in cohort.record.findings]
    parts.append(f"protocol {protocol.name} · digest {protocol.digest[:16]}")
    out.show(parts, _machine(classifier, cohort, protocol) | ({} if shown is None else {"parity": _said_of(shown)}))
    return 0


def _said_of(parity: SourceParity) -> dict[str, Any]:
    return {**asdict(parity), "shown": parity.shown}


def run_location(
    data: Path,
    protocol_name: str,
    case: str,
    max_decoded: int,
    key_file: Path | None,
    cache: Path | None = None,
    dicomweb: str | None = None,
) -> None:
    """Prints where a case lies: the one place where a pseudonym is resolved, on request and on this machine."""
    protocol, key = load_protocol(protocol_name), load_pseudonym_key(key_file)
    places = fetched(
        data, dicomweb, protocol_name, key_file=key_file, cache=cache, max_decoded=max_decoded, model=None, silent=True
    )
    with places as (data, _):
        where = locate_case(data, protocol, key=key, case=case, max_decoded=max_decoded)
    out.show(where, {"case": case, "location": where})


def _show_problems(error: DataError) -> None:
    count = len(error.problems)
    table = Table("case", "problem", title=f"{count} case{'' if count == 1 else 's'} can't be used")
    for problem in error.problems:
        table.add_row(problem.case, problem.reason)
    problems = [{"case": p.case, "reason": p.reason} for p in error.problems]
    table.caption = "--locate CASE prints where a case lies"
    out.show(table, {"problems": problems, "exit_code": error.exit_code})


def _model_table(classifier: Classifier) -> Table:
    record = classifier.record
    table = Table(title="model", show_header=False)
    for name, value in (
        ("architecture", f"{record.source}:{record.arch}"),
        ("weights", f"{record.parameters:,}"),
        ("classes", f"{record.classes}" + (" (one sigmoid logit)" if record.one_logit else "")),
        ("logits", "the one tensor that it returns" if record.output is None else f"its output {record.output!r}"),
        ("input channels", str(record.channels)),
        ("normaliser", _normaliser(record)),
        ("names of outputs", ", ".join(record.class_names) or "none in the file"),
        *((f"from: {part}", where) for part, where in record.origins.items()),
        ("state digest", record.state[:16]),
    ):
        table.add_row(name, value)
    return table


def _normaliser(record: ModelRecord) -> str:
    if record.zscore is None:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (record.mean, record.std))
        return f"mean {mean}; standard deviation {std}"
    return f"z-score of each {record.zscore}" + (", over values other than 0" if record.zscore_nonzero else "")


def _split_table(cohort: Cohort, protocol: Protocol) -> Table:
    made = "given" if cohort.record.splits_from == "given" else cohort.record.splits_from
    several, sizes = cohort.record.multilabel, {s: len(cohort.indices(s)) for s in _SPLITS}
    what = "finding" if several else "class"
    table = Table(what, *_SPLITS, title=f"cases (splits {made}; by {cohort.record.grouped_by})")
    counts = _counts(cohort)
    masked = Counter((cohort.classes[k], c.split) for c in cohort.cases for k in c.masked)
    for name in cohort.classes:
        known = {s: sizes[s] - masked[name, s] for s in _SPLITS}
        shares = (f" ({counts[name][s] / max(1, known[s]):.1%})" if several else "" for s in _SPLITS)
        open_ = (f", {masked[name, s]} not known" if masked[name, s] else "" for s in _SPLITS)
        cells = zip(_SPLITS, shares, open_, strict=True)
        table.add_row(name, *(f"{counts[name][s]}{share}{left_out}" for s, share, left_out in cells))
    if several:
        none = Counter(c.split for c in cohort.cases if not present(c.label))
        table.add_row("no finding", *(str(none[s]) for s in _SPLITS))
        table.add_row("cases", *(str(sizes[s]) for s in _SPLITS))
    table.add_row(_whose(cohort), *(str(len({c.patient for c in cohort.cases if c.split == s})) for s in _SPLITS))
    clusters = clusters_of(cohort.record, protocol.splits.is_copy)
    if clusters.copies:
        table.add_row("units (copies count once)", "", "", str(clusters.count))
    return table


def _whose(cohort: Cohort) -> str:
    """What the number of patients counts where some, or all, cases name none."""
    if cohort.record.grouped_by == "case":
        return "cases, no patient named"
    return "patients, or cases without" if cohort.record.unnamed else "patients"


def _data_table(cohort: Cohort) -> Table:
    source, (low, high) = cohort.source, cohort.source.stored_range
    table = Table(title="data", show_header=False)
    table.add_row("source", cohort.record.source)
    table.add_row("formats", ", ".join(f"{k} {v}" for k, v in source.formats.items()))
    table.add_row("native shapes", ", ".join(f"{k} ({v})" for k, v in source.native_shapes.items()))
    table.add_row("stored values", f"{low:g} to {high:g}")
    table.add_row("model input", f"{cohort.record.shape} in [0, 1]")
    for name, values in source.attributes.items():
        shown = ", ".join(f"{k} {v}" for k, v in sorted(values.items(), key=lambda item: -item[1])[:8])
        table.add_row(name, shown + (", ..." if len(values) > 8 else ""))
    return table


def _counts(cohort: Cohort) -> dict[str, dict[str, int]]:
    counts = {name: dict.fromkeys(_SPLITS, 0) for name in cohort.classes}
    for case in cohort.cases:
        for k in present(case.label):
            counts[cohort.classes[k]][case.split] += 1
    return counts


def _machine(classifier: Classifier | None, cohort: Cohort, protocol: Protocol) -> dict[str, Any]:
    source = cohort.source
    model = None
    if classifier is not None:
        record = classifier.record
        model = {
            "architecture": f"{record.source}:{record.arch}",
            "weights": record.parameters,
            "classes": record.classes,
            "output": record.output,
            "channels": record.channels,
            "mean": list(record.mean),
            "std": list(record.std),
            "zscore": record.zscore,
            "zscore_nonzero": record.zscore_nonzero,
            "state": record.state,
            "class_names": list(record.class_names),
            "origins": record.origins,
            "assumed": list(record.assumed),
        }
    return {
        "model": model,
        "classes": list(cohort.classes),
        "task": "multilabel" if cohort.record.multilabel else "multiclass",
        "cases": _counts(cohort),
        "splits_from": cohort.record.splits_from,
        "grouped_by": cohort.record.grouped_by,
        "unnamed": cohort.record.unnamed,
        "test_units": clusters_of(cohort.record, protocol.splits.is_copy).count,
        "formats": source.formats,
        "native_shapes": source.native_shapes,
        "stored_range": list(source.stored_range),
        "input_shape": list(cohort.record.shape),
        "attributes": source.attributes,
        "findings": [{"code": f.code, "severity": f.severity, "message": f.message} for f in cohort.record.findings],
        "excluded": [asdict(e) for e in cohort.record.excluded],
        "protocol": protocol.digest,
    }
