"""Whether the per-case table is the test split's, holds probabilities, and adds up to what the evaluation says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from medharden.gating.findings import finding_problem
from medharden.gating.records import COMPARED
from medharden.gating.referrals import referral_problem
from medharden.protocol import Protocol
from medharden.record import CaseTable, CohortRecord, Evaluation, SubjectOutcome, SubjectTable, finding_states
from medharden.stats.sampling import stratified_sample

__all__ = ["content_problems", "shape_problems"]

_SUM_TOLERANCE = 1e-4
# Answers are taken on float32 logits, in which a threshold is a bias: a probability this near it may fall either way.
_TIE_TOLERANCE = 1e-5


def shape_problems(cohort: CohortRecord, evaluation: Evaluation, cases: CaseTable) -> Iterator[str]:
    """One sentence for each way in which the table's rows or columns are not those expected."""
    test = {case.case: case for case in cohort.split("test")}
    rows = len(cases.case)
    if rows != len(test):
        yield f"cases.parquet has {rows} rows; the test split of cohort.json has {len(test)} cases"
    if len(set(cases.case)) != rows or set(cases.case) != set(test):
        yield "the cases of cases.parquet are not exactly those of the cohort's test split"
    columns = [("patient", len(cases.patient)), ("label", len(cases.label)), ("attacked", len(cases.attacked))]
    columns += [(f"group.{name}", len(values)) for name, values in cases.groups.items()]
    for name, subject in cases.subjects.items():
        columns += [
            (f"{name}.predicted", len(subject.predicted)),
            (f"{name}.probabilities", len(subject.probabilities)),
            (f"{name}.robust", len(subject.robust)),
            (f"{name}.referred", len(subject.referred)),
        ]
        if subject.referred_attacked is not None:
            columns.append((f"{name}.referred_attacked", len(subject.referred_attacked)))
        if subject.probabilities.ndim != 2 or subject.probabilities.shape[1] != len(cohort.classes):
            yield f"cases.parquet has {name} probabilities that are not one for each of {len(cohort.classes)} classes"
    width = (len(cohort.classes),) if cohort.multilabel else ()
    answered = [("label", cases.label), *((f"{name}.predicted", s.predicted) for name, s in cases.subjects.items())]
    for name, values in answered:
        if values.shape[1:] != width:
            yield f"cases.parquet has {name} of {list(values.shape[1:])} columns a case; expected {list(width)}"
    for name, length in columns:
        if length != rows:
            yield f"cases.parquet has {length} values of {name} for {rows} cases"
    expected = {outcome.name for outcome in evaluation.subjects} | set(COMPARED)
    if set(cases.subjects) != expected:
        yield f"cases.parquet holds the subjects {sorted(cases.subjects)}; evaluation.json has {sorted(expected)}"


def content_problems(
    protocol: Protocol, cohort: CohortRecord, evaluation: Evaluation, cases: CaseTable
) -> Iterator[str]:
    """One sentence for each way in which the table's values can't be, or don't add up to the evaluation's counts.

    The table's shape must have been found right before.
    """
    test = {case.case: case for case in cohort.split("test")}
    said = [test[case] for case in cases.case]
    wanted = [finding_states(c.label, c.masked, len(cohort.classes)) if cases.multilabel else c.label for c in said]
    if wanted != cases.label.tolist():
        yield "cases.parquet has labels that differ from cohort.json"
    if any(test[case].patient != patient for case, patient in zip(cases.case, cases.patient, strict=True)):
        yield "cases.parquet has patients that differ from cohort.json"
    undeclared = [name for name in cases.groups if name not in protocol.subgroups.columns]
    if undeclared:
        yield f"cases.parquet has the groups {undeclared}, which the protocol's subgroups.columns don't declare"
    seed = protocol.seed if evaluation.tester is None else evaluation.tester.seed
    yield from _sample(protocol, cohort, cases, seed)
    rule = protocol.decision_rule(len(cohort.classes))
    positive = cohort.classes.index(protocol.task.positive) if protocol.task.positive is not None else 0
    threshold = None if rule == "argmax" else protocol.task.threshold_of(cohort.classes[positive])
    for name, subject in cases.subjects.items():
        if cases.multilabel:
            problem = finding_problem(subject, protocol, cohort.classes, cases)
        else:
            problem = _answers(subject, threshold, positive)
        if problem:
            yield f"cases.parquet, {name}: {problem}"
        if problem := referral_problem(subject, protocol.fusion.mode, name, cases):
            yield f"cases.parquet, {name}: {problem}"
        if np.any(subject.robust & ~(cases.right(name) & cases.attacked)):
            yield f"cases.parquet, {name}: a case counts as robust that was wrong when clean or was not attacked"
        yield from _counts(evaluation.subject(name), subject, cases)


def _sample(protocol: Protocol, cohort: CohortRecord, cases: CaseTable, seed: int) -> Iterator[str]:
    """Whether the attacked cases are those that the seed draws from the test split, all and no others."""
    test = cohort.split("test")
    labels = np.array([finding_states(c.label, c.masked, len(cohort.classes)) for c in test])
    drawn = stratified_sample(labels if cohort.multilabel else labels.argmax(axis=1), protocol.suite.cases, seed)
    expected = {test[row].case for row in drawn.tolist()}
    attacked = {case for case, flag in zip(cases.case, cases.attacked.tolist(), strict=True) if flag}
    if attacked == expected:
        return
    asked = "all" if protocol.suite.cases is None else f"{protocol.suite.cases} at most, drawn from its seed"
    yield (
        f"{len(attacked)} of {len(test)} test cases were attacked, of whom {len(attacked - expected)} were not to be, "
        f"and {len(expected - attacked)} that were to be were not; the protocol asks for {asked}"
    )


def _answers(subject: SubjectTable, threshold: float | None, positive: int) -> str:
    """What is wrong with a subject's probabilities and answers, or nothing."""
    p = subject.probabilities
    if not np.isfinite(p).all():
        return "a probability is not finite"
    if p.min() < -_SUM_TOLERANCE or np.abs(p.sum(axis=1) - 1.0).max() > _SUM_TOLERANCE:
        return "probabilities are negative or don't add up to 1"
    if subject.predicted.min() < 0 or subject.predicted.max() >= p.shape[1]:
        return "an answer is no class"
    if not _follows(subject.predicted, p, threshold, positive):
        return "an answer doesn't follow from its probabilities under the protocol's decision threshold"
    return ""


def _follows(
    predicted: npt.NDArray[np.int64], p: npt.NDArray[np.float64], threshold: float | None, positive: int
) -> bool:
    if threshold is None:
        chosen = p[np.arange(len(p)), predicted]
        return bool((chosen >= p.max(axis=1) - _TIE_TOLERANCE).all())
    above = p[:, positive] - threshold
    return bool(np.where(predicted == positive, above >= -_TIE_TOLERANCE, above <= _TIE_TOLERANCE).all())


def _counts(outcome: SubjectOutcome, subject: SubjectTable, cases: CaseTable) -> Iterator[str]:
    counted = (
        ("n", outcome.n, len(cases.case)),
        ("clean_correct", outcome.clean_correct, int(cases.right(outcome.name).sum())),
        ("attacked", outcome.attacked, int(cases.attacked.sum())),
        ("robust_correct", outcome.robust_correct, int(subject.robust.sum())),
        ("referred", outcome.referred, int(subject.referred.sum())),
    )
    for name, recorded, found in counted:
        if recorded != found:
            yield f"evaluation.json says {name} = {recorded} of the {outcome.name}; cases.parquet adds up to {found}"
