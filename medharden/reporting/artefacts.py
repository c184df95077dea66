"""Rows of exported models that were evaluated: each a subject of its own, with a verdict of its own."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.audit import RunFiles
from medharden.errors import RunError
from medharden.record import ARTEFACTS, Evaluation, ExportRecord, GateDecision
from medharden.reporting.numbers import count, percent

__all__ = ["Artefact", "ArtefactRow", "artefact_rows", "read_artefacts"]


@dataclass(frozen=True)
class Artefact:
    """An exported model that was decided on.

    Attributes:
        name: of its file below `exports`; empty where it was evaluated from elsewhere.
        gated: whether it was exported from weights with a PASS; null where it was exported elsewhere.
    """

    name: str
    gated: bool | None
    evaluation: Evaluation
    decision: GateDecision


@dataclass(frozen=True)
class ArtefactRow:
    """One exported model, formatted; `why` are the gate's reasons where it is no PASS."""

    name: str
    digest: str
    runtime: str
    clean: str
    robust: str
    changed: str
    verdict: str
    why: str


def read_artefacts(files: RunFiles) -> tuple[Artefact, ...]:
    """Every exported model that the log says was decided on, in order.

    Raises:
        RunError: a record is missing, unreadable, or not the one that was recorded.
    """
    decided = {
        str(entry.data["artefact"]): dict(entry.data["files"])
        for entry in files.log().entries
        if entry.event == "artefact_gate.decided"
    }
    names = {digest: name for record in _exports(files) for name, digest in record.files.items()}
    gated = {digest: record.gated for record in _exports(files) for digest in record.files.values()}
    found = []
    for artefact, recorded in decided.items():
        place = f"{ARTEFACTS}/{artefact[:16]}"
        if files.digest(f"{place}/gate.json") != recorded.get(f"{place}/gate.json"):
            raise RunError(f"{place}/gate.json is not the decision that audit.jsonl recorded; decide again")
        decision = files.record(f"{place}/gate.json", GateDecision)
        if decision.evaluation != files.digest(f"{place}/evaluation.json"):
            raise RunError(
                f"{place}/gate.json was decided on another evaluation; run `medharden gate --artefact` again"
            )
        evaluation = files.record(f"{place}/evaluation.json", Evaluation)
        found.append(Artefact(names.get(artefact, ""), gated.get(artefact), evaluation, decision))
    return tuple(found)


def _exports(files: RunFiles) -> list[ExportRecord]:
    """The records of exports that the log names, as far as they are there."""
    logged = [entry.data["files"] for entry in files.log().entries if entry.event == "export.recorded"]
    names = dict.fromkeys(name for held in logged for name in held if name.endswith(".json") and name.count("/") == 1)
    return [files.record(name, ExportRecord) for name in names if files.has(name)]


def artefact_rows(artefacts: tuple[Artefact, ...]) -> tuple[ArtefactRow, ...]:
    """The rows of the table."""
    return tuple(_row(artefact) for artefact in artefacts)


def _row(artefact: Artefact) -> ArtefactRow:
    decision, subject = artefact.decision, artefact.evaluation.subject("artefact")
    agreement = next((e for e in decision.endpoints if e.kind == "agreement"), None)
    mark = "" if artefact.gated is not False else " (UNGATED)"
    changed = "–" if agreement is None else f"{count(round(agreement.estimate * agreement.n))} of {count(agreement.n)}"
    return ArtefactRow(
        name=(artefact.name.rpartition("/")[2] or "from elsewhere") + mark,
        digest=decision.artefact[:12],
        runtime=artefact.evaluation.environment.device,
        clean=f"{percent(subject.clean_accuracy)} of {count(subject.n)}",
        robust=f"{percent(subject.robust_accuracy)} of {count(subject.attacked)}",
        changed=changed,
        verdict=decision.verdict.value,
        why="" if decision.verdict == "PASS" else "; ".join(decision.reasons[:3]),
    )
