"""What was seen, as records: the table of cases, the counts of each subject, and the findings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medharden.attacks import SuiteResult
from medharden.data import Cohort, group_values
from medharden.evaluating.subjects import Subject
from medharden.protocol import Protocol
from medharden.record import CaseTable, Finding, Identity, SubjectOutcome, SubjectTable

__all__ = ["case_table", "findings_of", "outcome_of"]


def case_table(
    cohort: Cohort,
    protocol: Protocol,
    subjects: tuple[Subject, ...],
    results: dict[str, SuiteResult],
    labels: Tensor,
    sample: Tensor,
) -> CaseTable:
    """Every test case with each subject's answer, and what the attacks did to it."""
    cases = [cohort.cases[i] for i in cohort.indices("test")]
    rows = sample.cpu().numpy()
    attacked = np.zeros(len(cases), dtype=np.bool_)
    attacked[rows] = True
    truth = labels.cpu().numpy()
    return CaseTable(
        case=tuple(c.case for c in cases),
        patient=tuple(c.patient for c in cases),
        label=truth.astype(np.int64),
        attacked=attacked,
        subjects={s.name: _subject_table(s, results[s.name], truth, rows) for s in subjects},
        groups=group_values(cases, protocol.subgroups),
    )


def _subject_table(
    subject: Subject, result: SuiteResult, truth: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> SubjectTable:
    predicted = (subject.logits + subject.bias).argmax(1).cpu().numpy().astype(np.int64)
    right = predicted == truth
    won = np.where(right, "", "clean").astype(object)
    won[rows] = np.where(right[rows], np.array(result.won_by, dtype=object), "clean")
    robust = np.zeros(len(truth), dtype=np.bool_)
    robust[rows] = right[rows] & (won[rows] == "")
    return SubjectTable(
        predicted=predicted,
        probabilities=subject.logits.double().softmax(1).cpu().numpy(),
        robust=robust,
        won_by=tuple(won.tolist()),
        referred=subject.referred.cpu().numpy(),
    )


def outcome_of(subject: Subject, result: SuiteResult, table: CaseTable) -> SubjectOutcome:
    """The counts of one subject."""
    rows = table.subjects[subject.name]
    return SubjectOutcome(
        name=subject.name,
        n=len(table.label),
        clean_correct=int((rows.predicted == table.label).sum()),
        attacked=int(table.attacked.sum()),
        robust_correct=int(rows.robust.sum()),
        referred=int(rows.referred.sum()),
        attacks=result.outcomes,
    )


def findings_of(
    identity: Identity, results: dict[str, SuiteResult], table: CaseTable, protocol: Protocol
) -> tuple[Finding, ...]:
    """What a reader of the evaluation must know."""
    found = []
    if identity.against == "none":
        message = "The original file was not given, so the clean path was compared with its own stored copy only."
        found.append(Finding("identity.not_against_file", "warning", message))
    for name, result in results.items():
        found += [Finding(f.code, f.severity, f"{name}: {f.message}") for f in result.findings]
    released = table.subjects["composite"]
    if np.unique(released.predicted).size == 1:
        message = "The release gives every test case the same answer; a constant answer is robust and useless."
        found.append(Finding("evaluation.constant_answer", "critical", message))
    if protocol.suite.cases is not None and protocol.suite.cases < len(table.label):
        message = f"Attacks ran on {int(table.attacked.sum())} of {len(table.label)} test cases, drawn by class."
        found.append(Finding("evaluation.sampled", "info", message))
    unknown = [name for name in protocol.subgroups.columns if name not in table.groups]
    if unknown:
        message = f"The test cases have no attribute {', '.join(unknown)}, in which the protocol asks for subgroups."
        found.append(Finding("evaluation.subgroups_unknown", "warning", message))
    return tuple(found)
