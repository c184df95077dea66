"""Frozen records of what was done and seen: the only thing the verbs hand to each other.

A record holds no patient data: cases and patients appear as keyed pseudonyms, files as digests. It is read
and written through `medharden.audit`. Every number is finite (a JSON record can't hold NaN).
"""

from medharden.record.attack import AttackedCase, AttackRecord
from medharden.record.clusters import Clusters, by_unit, clusters_of, joined
from medharden.record.cohort import (
    MASKED,
    AlikePair,
    CaseRecord,
    CohortRecord,
    ExcludedCase,
    Label,
    ModelRecord,
    finding_states,
    present,
)
from medharden.record.common import Environment, Finding, Progress, Verdict
from medharden.record.compared import ComparedAnswers, ComparedRow
from medharden.record.curve import CURVE_RATIOS, CurvePoint
from medharden.record.evaluation import (
    INDEPENDENT,
    AttackOutcome,
    CaseTable,
    Evaluation,
    FindingTable,
    Identity,
    IndependentTester,
    OperatingThreshold,
    SanityPoint,
    ShiftedAnswers,
    ShiftPoint,
    SubjectOutcome,
    SubjectTable,
)
from medharden.record.export import ARTEFACTS, EXPORTS, ExportRecord, Parity
from medharden.record.gate import ChangeRow, Endpoint, GateDecision, IndependentTest, MissingRow
from medharden.record.hardening import (
    BranchRecord,
    CostRecord,
    EpochRecord,
    FrontierPoint,
    FusionRecord,
    HardenRecord,
    ValidationRecord,
)
from medharden.record.parity import PARITY_TOLERANCE, SourceParity
from medharden.record.shifted import point_of, under
from medharden.record.stability import SeedOutcome, StabilityRecord

__all__ = [
    "ARTEFACTS",
    "CURVE_RATIOS",
    "EXPORTS",
    "INDEPENDENT",
    "MASKED",
    "PARITY_TOLERANCE",
    "AlikePair",
    "AttackOutcome",
    "AttackRecord",
    "AttackedCase",
    "BranchRecord",
    "CaseRecord",
    "CaseTable",
    "ChangeRow",
    "Clusters",
    "CohortRecord",
    "ComparedAnswers",
    "ComparedRow",
    "CostRecord",
    "CurvePoint",
    "Endpoint",
    "Environment",
    "EpochRecord",
    "Evaluation",
    "ExcludedCase",
    "ExportRecord",
    "Finding",
    "FindingTable",
    "FrontierPoint",
    "FusionRecord",
    "GateDecision",
    "HardenRecord",
    "Identity",
    "IndependentTest",
    "IndependentTester",
    "Label",
    "MissingRow",
    "ModelRecord",
    "OperatingThreshold",
    "Parity",
    "Progress",
    "SanityPoint",
    "SeedOutcome",
    "ShiftPoint",
    "ShiftedAnswers",
    "SourceParity",
    "StabilityRecord",
    "SubjectOutcome",
    "SubjectTable",
    "ValidationRecord",
    "Verdict",
    "by_unit",
    "clusters_of",
    "finding_states",
    "joined",
    "point_of",
    "present",
    "under",
]
