"""JSON Schemas of every record of a run, made from the records' own types; `python -m` writes them to a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from medharden.audit import write_atomic
from medharden.codes import Step
from medharden.protocol import Protocol
from medharden.record import (
    AttackOutcome,
    BranchRecord,
    ChangeRow,
    CohortRecord,
    CostRecord,
    CurvePoint,
    Endpoint,
    Environment,
    EpochRecord,
    Evaluation,
    ExportRecord,
    Finding,
    FusionRecord,
    GateDecision,
    HardenRecord,
    Identity,
    IndependentTest,
    MissingRow,
    ModelRecord,
    SanityPoint,
    ShiftPoint,
    StabilityRecord,
    SubjectOutcome,
)
from medharden.reporting.matrix import ThreatRow
from medharden.reporting.usefulness import UsefulAt
from medharden.stats import MeanArea

__all__ = ["record_schemas", "write_schemas"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
Interval = tuple[float, float]


class ReportedSubject(TypedDict):
    """One model's counts, with shares and their intervals."""

    name: str
    n: int
    clean_correct: int
    attacked: int
    robust_correct: int
    referred: int
    attacks: tuple[AttackOutcome, ...]
    clean_accuracy: float
    clean_interval: Interval
    robust_accuracy: float
    robust_interval: Interval
    interval: str


ClassCount = TypedDict("ClassCount", {"class": str, "split": str, "cases": int, "patients": int, "masked": int})


Exclusion = TypedDict("Exclusion", {"class": str, "split": str, "reason": str, "cases": int, "of": int})


class ReportedCohort(TypedDict):
    """The cohort in counts."""

    classes: list[str]
    counts: list[ClassCount]
    cases: int
    patients: int
    excluded: list[Exclusion]
    source: str
    formats: dict[str, int]
    splits_from: str
    grouped_by: str
    key_id: str
    shape: list[int]
    preprocessing: str


class ReportedArticle(TypedDict):
    """One row of Art. 15(5)."""

    name: str
    tested: bool
    note: str


class ExpectedRobustness(TypedDict):
    """The area under accuracy over budgets from 0 to `upto`, in multiples of the protocol's, divided by it."""

    upto: float
    original: MeanArea
    composite: MeanArea
    change: MeanArea


class Curve(TypedDict):
    """Accuracy of original and release over budgets."""

    points: list[CurvePoint]
    expected_robustness: list[ExpectedRobustness]


class Environments(TypedDict):
    """What each stage ran on."""

    harden: Environment
    evaluate: Environment


class Times(TypedDict):
    """Start and end of each stage, ISO 8601."""

    harden: tuple[str, str]
    evaluate: tuple[str, str]
    decided: str


class Digests(TypedDict):
    """SHA-256 in hexadecimal; `files` by name."""

    protocol: str
    original_file: str
    original_state: str
    clean_state_after: str
    hardened: str
    files: dict[str, str]


class LogHead(TypedDict):
    """Length of the audit log up to the decision, and the hash of that line."""

    events: int
    head: str


class ReportedArtefact(TypedDict):
    """An exported model that was decided on."""

    file: str
    gated: bool | None
    digest: str
    runtime: str
    subject: SubjectOutcome
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
    reasons: list[str]
    endpoints: list[Endpoint]


class Report(TypedDict):
    """The report in machine form (`report.json`)."""

    schema: Literal["medharden/report/1"]
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
    reasons: list[str]
    to_do: list[Step]
    margins_justified: bool
    endpoints: list[Endpoint]
    subgroups: list[Endpoint]
    subjects: list[ReportedSubject]
    by_finding: NotRequired[list[dict[str, Any]]]
    artefacts: NotRequired[list[ReportedArtefact]]
    stability: NotRequired[StabilityRecord]
    changes: NotRequired[list[ChangeRow]]
    missing: NotRequired[list[MissingRow]]
    worst_case: NotRequired[list[Endpoint]]
    independent: NotRequired[list[IndependentTest]]
    usefulness: list[UsefulAt]
    curve: NotRequired[Curve]
    shift: list[ShiftPoint]
    sanity: list[SanityPoint]
    identity: Identity
    threat: str
    decision_threshold: str
    split: str
    original: ModelRecord
    branch: BranchRecord
    fusion: FusionRecord
    epochs: list[EpochRecord]
    cost: CostRecord
    seed: int
    cohort: ReportedCohort
    findings: list[Finding]
    threats: list[ThreatRow]
    article_15_5: list[ReportedArticle]
    not_tested: list[str]
    environment: Environments
    times: Times
    digests: Digests
    audit_log: LogHead
    protocol: Protocol


_TYPES: dict[str, Any] = {
    "protocol": Protocol,
    "cohort": CohortRecord,
    "harden": HardenRecord,
    "evaluation": Evaluation,
    "gate": GateDecision,
    "export": ExportRecord,
    "stability": StabilityRecord,
    "report": Report,
}


def record_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of `NAME.json` by name; `protocol` is of the YAML file's content with every default.

    Keys that no schema names are refused, as they are on reading.
    """
    return {
        name: {"$schema": _DRAFT, "$id": f"urn:medharden:{name}:1"}
        | _closed(TypeAdapter(kind).json_schema(mode="serialization"))
        for name, kind in _TYPES.items()
    }


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    held = {key: _closed(part) for key, part in schema.items()}
    if isinstance(held.get("properties"), dict) and held.get("type") == "object":
        held["additionalProperties"] = False
    return held


def write_schemas(folder: Path) -> tuple[Path, ...]:
    """Writes `NAME.schema.json` of every record.

    Raises:
        OutputError: the folder can't be written to.
    """
    paths = []
    for name, schema in record_schemas().items():
        path = folder / f"{name}.schema.json"
        write_atomic(path, (json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())
        paths.append(path)
    return tuple(paths)


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
