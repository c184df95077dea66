"""What was seen, as records: the table of cases, the counts of each subject, and the findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medharden.attacks import SuiteResult
from medharden.data import Cohort, group_values
from medharden.evaluating.findings import Pushed
from medharden.evaluating.subjects import Subject
from medharden.models import answers, probabilities
from medharden.protocol import Protocol
from medharden.record import MASKED, CaseTable, Finding, FindingTable, Identity, SubjectOutcome, SubjectTable

__all__ = ["case_table", "findings_of", "outcome_of"]


def case_table(
    cohort: Cohort,
    protocol: Protocol,
    subjects: tuple[Subject, ...],
    results: dict[str, SuiteResult],
    labels: Tensor,
    sample: Tensor,
    pushed: dict[str, Pushed],
    referred: npt.NDArray[np.bool_] | None = None,
    stands: Mapping[str, Tensor] | None = None,
) -> CaseTable:
    """Every test case with each subject's answer, and what the attacks did to it.

    Args:
        cohort: its `test` split.
        protocol: subgroups.
        subjects: original, branch and composite.
        results: of the suite, by subject.
        labels: (N,) or (N, L), of the test cases; NaN where masked.
        sample: (n,) rows that were attacked.
        pushed: of a multi-label task, what became of each finding, by subject.
        referred: (n,) which attacked cases the composite refers under attack; null where it never refers.
        stands: by subject, (n,) the largest budget of the curve that each attacked case withstands.
    """
    cases = [cohort.cases[i] for i in cohort.indices("test")]
    rows = sample.cpu().numpy()
    attacked = np.zeros(len(cases), dtype=np.bool_)
    attacked[rows] = True
    truth = labels.nan_to_num(MASKED).cpu().numpy().astype(np.int64)
    tables = {s.name: _subject_table(s, results[s.name], truth, rows, pushed.get(s.name)) for s in subjects}
    if referred is not None:
        under_attack = np.zeros(len(cases), dtype=np.bool_)
        under_attack[rows] = referred
        tables["composite"] = replace(tables["composite"], referred_attacked=under_attack)
    for name, values in (stands or {}).items():
        withstands = np.full(len(cases), -1.0)
        equal = (tables[name].predicted[rows] == truth[rows]) | (truth[rows] == MASKED)
        right = equal.all(axis=1) if equal.ndim == 2 else equal
        # A wrong answer that is referred is no success of an attack, and stands for nothing.
        withstands[rows] = np.where(right, values.cpu().numpy(), -1.0)
        tables[name] = replace(tables[name], withstands=withstands)
    return CaseTable(
        case=tuple(c.case for c in cases),
        patient=tuple(c.patient for c in cases),
        label=truth,
        attacked=attacked,
        subjects=tables,
        groups=group_values(cases, protocol.subgroups),
    )


def _subject_table(
    subject: Subject,
    result: SuiteResult,
    truth: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    pushed: Pushed | None,
) -> SubjectTable:
    several = truth.ndim == 2
    predicted = answers(subject.logits + subject.bias, multilabel=several).cpu().numpy().astype(np.int64)
    right = ((predicted == truth) | (truth == MASKED)).all(axis=1) if several else predicted == truth
    won = np.where(right, "", "clean").astype(object)
    won[rows] = np.where(right[rows], np.array(result.won_by, dtype=object), "clean")
    robust = np.zeros(len(truth), dtype=np.bool_)
    robust[rows] = right[rows] & (won[rows] == "")
    shares = probabilities(subject.logits.cpu().double(), multilabel=several).numpy()
    return SubjectTable(
        predicted=predicted,
        probabilities=shares,
        robust=robust,
        won_by=tuple(won.tolist()),
        referred=subject.referred.cpu().numpy(),
        findings=None if pushed is None else _finding_table(subject, pushed, shares, rows),
    )


def _finding_table(
    subject: Subject, pushed: Pushed, clean: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]
) -> FindingTable:
    robust = np.zeros(clean.shape, dtype=np.bool_)
    robust[rows] = pushed.robust.cpu().numpy()
    attacked = clean.copy()
    attacked[rows] = (pushed.logits - subject.bias).cpu().double().sigmoid().numpy()
    return FindingTable(robust=robust, attacked_probabilities=attacked)


def outcome_of(subject: Subject, result: SuiteResult, table: CaseTable) -> SubjectOutcome:
    """The counts of one subject."""
    rows = table.subjects[subject.name]
    return SubjectOutcome(
        name=subject.name,
        n=len(table.label),
        clean_correct=int(table.right(subject.name).sum()),
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
        found += [_of_subject(name, f) for f in result.findings]
    released = table.subjects["composite"]
    if len(np.unique(released.predicted, axis=0)) == 1:
        message = "The release gives every test case the same answer; a constant answer is robust and useless."
        found.append(Finding("evaluation.constant_answer", "critical", message))
    if table.multilabel:
        found += _constant_findings(table, protocol.task.classes or ())
    if protocol.suite.cases is not None and protocol.suite.cases < len(table.label):
        message = f"Attacks ran on {int(table.attacked.sum())} of {len(table.label)} test cases, drawn by class."
        found.append(Finding("evaluation.sampled", "info", message))
    unknown = [name for name in protocol.subgroups.columns if name not in table.groups]
    if unknown:
        message = f"The test cases have no attribute {', '.join(unknown)}, in which the protocol asks for subgroups."
        found.append(Finding("evaluation.subgroups_unknown", "warning", message))
    return tuple(found)


def _of_subject(name: str, finding: Finding) -> Finding:
    """A suite's finding under its subject's name.

    What makes attacks on the original unsound flatters the original alone: its robust accuracy is then an upper limit,
    and the gain over it a lower one. The release was attacked end to end, with findings of its own.
    """
    if name != "original" or finding.severity != "critical":
        return Finding(finding.code, finding.severity, f"{name}: {finding.message}")
    bound = "This is said of the original alone: its robust accuracy is an upper limit, and the gain a lower one."
    return Finding(finding.code, "warning", f"{name}: {finding.message} {bound}")


def _constant_findings(table: CaseTable, names: tuple[str, ...]) -> list[Finding]:
    """Findings that the release answers alike for every case, and the original does not."""
    before, after = (table.subjects[name].predicted for name in ("original", "composite"))
    lost = [
        name for k, name in enumerate(names) if len(set(after[:, k].tolist())) == 1 < len(set(before[:, k].tolist()))
    ]
    if not lost:
        return []
    message = f"The release answers these findings alike for every test case, the original does not: {', '.join(lost)}."
    return [Finding("evaluation.constant_finding", "warning", message)]
