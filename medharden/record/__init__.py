"""Frozen records of what was done and seen: the only thing the verbs hand to each other.

A record holds no patient data: cases and patients appear as keyed pseudonyms, files as digests. It is read
and written through `medharden.audit`. Every number is finite (a JSON record can't hold NaN).
"""

from medharden.record.attack import AttackedCase, AttackRecord
from medharden.record.clusters import Clusters, by_unit, clusters_of, joined
from medharden.record.cohort import AlikePair, CaseRecord, CohortRecord, ExcludedCase, Label, ModelRecord, present
from medharden.record.common import Environment, Finding, Progress, Verdict
from medharden.record.compared import ComparedAnswers, ComparedRow
from medharden.record.evaluation import (
    INDEPENDENT,
    AttackOutcome,
    CaseTable,
    Evaluation,
    FindingTable,
    Identity,
    IndependentTester,
    SanityPoint,
    SubjectOutcome,
    SubjectTable,
)
from medharden.record.export import ARTEFACTS, EXPORTS, ExportRecord, Parity
from medharden.record.gate import Endpoint, GateDecision, IndependentTest
from medharden.record.hardening import BranchRecord, CostRecord, EpochRecord, FrontierPoint, FusionRecord, HardenRecord

__all__ = [
    "ARTEFACTS",
    "EXPORTS",
    "INDEPENDENT",
    "AlikePair",
    "AttackOutcome",
    "AttackRecord",
    "AttackedCase",
    "BranchRecord",
    "CaseRecord",
    "CaseTable",
    "Clusters",
    "CohortRecord",
    "ComparedAnswers",
    "ComparedRow",
    "CostRecord",
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
    "ModelRecord",
    "Parity",
    "Progress",
    "SanityPoint",
    "SubjectOutcome",
    "SubjectTable",
    "Verdict",
    "by_unit",
    "clusters_of",
    "joined",
    "present",
]
