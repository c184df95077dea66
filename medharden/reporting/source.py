"""Reads a finished run directory whole, and refuses one whose records don't belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from medharden.audit import RunFiles
from medharden.errors import RunError
from medharden.files import require_plain
from medharden.protocol import Protocol
from medharden.record import CaseTable, CohortRecord, Evaluation, GateDecision, HardenRecord, StabilityRecord, Verdict
from medharden.reporting.artefacts import Artefact, read_artefacts
from medharden.reporting.stability import read_stability
from medharden.reporting.tested import read_tests

__all__ = ["COMPARED", "Examples", "RunRecords", "read_run", "require_records"]

COMPARED = ("original", "composite")
_WRITTEN_BY = {
    "protocol.yaml": "harden",
    "cohort.json": "harden",
    "harden.json": "harden",
    "evaluation.json": "evaluate",
    "cases.parquet": "evaluate",
    "gate.json": "gate",
    "audit.jsonl": "harden",
}
_ANSWERS = ("label", "original_clean", "original_attacked", "composite_clean", "composite_attacked")


@dataclass(frozen=True)
class Examples:
    """Example pictures, present only where they were allowed.

    Attributes:
        clean, attacked: (M, C, *spatial) float32 in [0, 1]; `attacked` is the attack on the original.
        label, original_clean, original_attacked, composite_clean, composite_attacked: (M,) class indices; each
            model's attacked answer is to the attack on that very model.
    """

    clean: npt.NDArray[np.float32]
    attacked: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    original_clean: npt.NDArray[np.int64]
    original_attacked: npt.NDArray[np.int64]
    composite_clean: npt.NDArray[np.int64]
    composite_attacked: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RunRecords:
    """Everything that the report shows.

    Attributes:
        cases: None where the table can't be read, which only an INVALID verdict lets pass.
        files: SHA-256 of each record file present, by name.
        artefacts: exported models that were decided on.
        stability: the same protocol under other seeds; null where that was not measured.
        tests: independent tests that the decision took in, in its order.
        events, head: length of the audit log up to the gate's decision, and the hash of that line. What is logged
            after it (this very report, say) does not change the report.
    """

    protocol: Protocol
    cohort: CohortRecord
    harden: HardenRecord
    evaluation: Evaluation
    cases: CaseTable | None
    decision: GateDecision
    examples: Examples | None
    files: dict[str, str]
    events: int
    head: str
    artefacts: tuple[Artefact, ...] = ()
    tests: tuple[Evaluation, ...] = ()
    stability: StabilityRecord | None = None


def read_run(files: RunFiles) -> RunRecords:
    """Reads every record of a run.

    Raises:
        RunError: a record is missing, unreadable, or belongs to another run while the verdict claims otherwise.
    """
    require_records(files.run)
    evaluation = files.record("evaluation.json", Evaluation)
    _require_subjects(evaluation)
    decision = files.record("gate.json", GateDecision)
    events, head = _log_to_decision(files)
    records = RunRecords(
        protocol=files.protocol(),
        cohort=files.record("cohort.json", CohortRecord),
        harden=files.record("harden.json", HardenRecord),
        evaluation=evaluation,
        cases=_cases(files, decision),
        decision=decision,
        examples=_read_examples(files, len(evaluation.classes)),
        files={name: files.digest(name) for name in _WRITTEN_BY if name not in ("protocol.yaml", "audit.jsonl")},
        events=events,
        head=head,
        artefacts=read_artefacts(files),
        tests=read_tests(files, decision),
        stability=read_stability(files, evaluation.hardened),
    )
    _require_one_run(records)
    return records


def _log_to_decision(files: RunFiles) -> tuple[int, str]:
    entries = files.log().entries
    for number in range(len(entries), 0, -1):
        if entries[number - 1].event.startswith("gate"):
            return number, entries[number - 1].line
    return len(entries), files.log().head


def _cases(files: RunFiles, decision: GateDecision) -> CaseTable | None:
    """The table may be the very thing that was tampered with: an INVALID verdict is still shown without it."""
    try:
        table = files.cases()
    except RunError:
        if decision.verdict is Verdict.INVALID:
            return None
        raise
    absent = [name for name in COMPARED if name not in table.subjects]
    if not absent:
        return table
    if decision.verdict is Verdict.INVALID:
        return None
    raise RunError(f"cases.parquet holds no outcome of: {', '.join(absent)}; run `medharden evaluate` again")


def require_records(run: Path) -> None:
    """Looks whether every record is there, and opens none.

    Raises:
        RunError: one is missing, and the message names the command that writes it; or the directory holds links.
    """
    if run.is_dir():
        require_plain(run)
    missing = [name for name in _WRITTEN_BY if not (run / name).is_file()]
    if missing:
        stages = list(dict.fromkeys(_WRITTEN_BY[name] for name in missing))
        raise RunError(
            f"the run directory lacks {', '.join(missing)}; a report needs all records of a finished run: run "
            + " and ".join(f"`medharden {stage}`" for stage in stages)
            + " first"
        )


def _require_subjects(evaluation: Evaluation) -> None:
    absent = [name for name in COMPARED if name not in {s.name for s in evaluation.subjects}]
    if absent:
        raise RunError(f"evaluation.json holds no outcome of: {', '.join(absent)}; run `medharden evaluate` again")
    if any(s.n == 0 or s.attacked == 0 for s in evaluation.subjects):
        raise RunError("evaluation.json holds a model without test cases or without attacked ones; evaluate again")


def _require_one_run(records: RunRecords) -> None:
    """A verdict is shown only over the records it was reached on; an INVALID one may be about their disagreement."""
    decision, evaluation = records.decision, records.evaluation
    if decision.verdict is Verdict.INVALID:
        return
    pairs = (
        ("the protocol", decision.protocol, records.protocol.digest),
        ("the evaluation", decision.evaluation, records.files["evaluation.json"]),
        ("the hardened weights", decision.hardened, evaluation.hardened),
        ("the case table", evaluation.cases, records.files["cases.parquet"]),
    )
    for what, decided, found in pairs:
        if decided != found:
            made = f", or use medharden {evaluation.environment.medharden} as it was when it made this run"
            raise RunError(
                f"gate.json was decided on other records: {what} has digest {found[:12]}, expected {decided[:12]}; "
                f"run `medharden gate` again{made if what == 'the protocol' else ''}"
            )


def _read_examples(files: RunFiles, classes: int) -> Examples | None:
    file = "examples.safetensors"
    if not files.has(file):
        return None
    try:
        tensors = load(files.data(file))
    except (ValueError, TypeError, KeyError, SafetensorError) as error:
        raise RunError(f"{file} is not a safetensors file: {type(error).__name__}") from error
    absent = [name for name in ("clean", "adversarial_original", *_ANSWERS) if name not in tensors]
    if absent:
        raise RunError(f"{file} lacks {', '.join(absent)}; run `medharden evaluate` again")
    clean, attacked = tensors["clean"], tensors["adversarial_original"]
    if clean.ndim not in (4, 5) or attacked.shape != clean.shape:
        raise RunError(
            f"{file}: expected pictures (M, C, H, W) or (M, C, D, H, W) and attacked ones of the same shape, "
            f"found {clean.shape} and {attacked.shape}"
        )
    for name in _ANSWERS:
        answers = tensors[name]
        if answers.shape != clean.shape[:1] or (answers.size and not 0 <= answers.min() <= answers.max() < classes):
            raise RunError(f"{file}: {name} must hold one class index in [0, {classes}) a picture")
    return Examples(clean=clean, attacked=attacked, **{name: tensors[name] for name in _ANSWERS})
