"""Endpoints of multi-label tasks: what is compared of each finding, and of all together.

A finding that is masked in a case counts in none of these, and every case has one that is not.

accuracy            a case is right only with every finding right
finding_accuracy    share of right answers over cases and findings; findings of a patient count as one cluster
recall              sensitivity and specificity of each finding
auroc               mean over findings, each patient's influence summed over them
finding_auroc       one endpoint a finding
brier               squared error, mean over findings
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from medharden.protocol import Margin, Protocol
from medharden.record import CaseRecord, CaseTable, SubjectTable, finding_states, present
from medharden.stats import Difference, auroc_difference, finding_brier_difference, macro_auroc_difference

__all__ = ["coverage_problems", "finding_difference", "finding_problem", "right_answers", "score_names"]

_TIE_TOLERANCE = 1e-5  # answers are taken on float32 logits: a probability this near the threshold may fall either way

Flags = npt.NDArray[np.bool_]


def right_answers(metric: str, cases: CaseTable) -> tuple[Flags, Flags, CaseTable]:
    """Of whom the original and the composite answer rightly, by case or (`finding_accuracy`) by answer; and whose.

    Returns:
        (N,) or (K,) flags of both, of cases or of known findings, and a table that names as many patients.
    """
    if metric == "accuracy":
        return cases.right("original"), cases.right("composite"), cases
    if metric == "within_one_grade":
        near = [
            (cases.subjects[name].predicted >= 0) & (np.abs(cases.subjects[name].predicted - cases.label) < 2)
            for name in ("original", "composite")
        ]
        return near[0], near[1], cases
    before, after = (cases.subjects[name].predicted == cases.label for name in ("original", "composite"))
    owners = np.repeat(np.asarray(cases.patient)[:, None], cases.label.shape[1], axis=1)
    known = cases.known
    return before[known], after[known], replace(cases, patient=tuple(owners[known].tolist()))


def score_names(wanted: Margin, classes: tuple[str, ...]) -> tuple[tuple[str, int | None], ...]:
    """Names of a score's endpoints, each with its finding where it is of one."""
    if wanted.metric != "finding_auroc":
        return ((wanted.metric, None),)
    return tuple((f"auroc:{classes[k]}", k) for k in _chosen(wanted, classes))


def finding_difference(metric: str, finding: int | None, cases: CaseTable, level: float) -> Difference:
    """New minus old of a score over findings, or of one finding's AUROC.

    Raises:
        RangeError: too few patients with or without a finding.
    """
    new, old = cases.subjects["composite"].probabilities, cases.subjects["original"].probabilities
    truth, known = cases.label == 1, cases.known
    if metric == "brier":
        return finding_brier_difference(new, old, truth, known=known, level=level, patients=cases.patient)
    if finding is not None:
        rows = known[:, finding]
        new, old, one = (each[rows, finding] for each in (new, old, truth))
        return auroc_difference(new, old, one, level=level, patients=np.asarray(cases.patient)[rows].tolist())
    return macro_auroc_difference(new, old, truth, known=known, level=level, patients=cases.patient)


def coverage_problems(classes: tuple[str, ...], test: tuple[CaseRecord, ...]) -> Iterator[str]:
    """One sentence for what keeps a finding's recall from being estimated, or makes a label none."""
    labels = [case.label for case in test]
    known = set(range(len(classes)))
    if any(isinstance(label, int) or not set(label) <= known for label in labels):
        yield f"cohort.json has test labels that are no findings among {len(classes)}"
        return
    if any(not set(c.masked) < known or set(c.masked) & set(present(c.label)) for c in test):
        yield "cohort.json masks what is no finding, one that is there, or all of a case's"
        return
    states = np.array([finding_states(c.label, c.masked, len(classes)) for c in test]).reshape(len(test), len(classes))
    lacking = [name for name, own in zip(classes, states.T, strict=True) if not {0, 1} <= set(own.tolist())]
    if lacking:
        yield f"the test split has no case with, or none without {', '.join(lacking)}: recall can't be estimated"


def finding_problem(subject: SubjectTable, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> str:
    """What is wrong with a subject's probabilities, answers and attacked findings, or nothing."""
    p, answer = subject.probabilities, subject.predicted
    if not np.isfinite(p).all():
        return "a probability is not finite"
    if p.min() < 0.0 or p.max() > 1.0:
        return "a probability lies outside 0 to 1"
    if answer.shape != p.shape or not np.isin(answer, (0, 1)).all():
        return "an answer is neither 0 nor 1"
    above = p - np.array([protocol.task.threshold_of(name) for name in classes])
    if not np.where(answer == 1, above >= -_TIE_TOLERANCE, above <= _TIE_TOLERANCE).all():
        return "an answer doesn't follow from its probability under the protocol's threshold"
    found = subject.findings
    if found is None:
        return "there is no outcome of each finding under attack"
    if found.robust.shape != p.shape or found.attacked_probabilities.shape != p.shape:
        return "the outcomes under attack are not one for each finding"
    attacked = found.attacked_probabilities
    if not np.isfinite(attacked).all() or attacked.min() < 0.0 or attacked.max() > 1.0:
        return "a probability under attack lies outside 0 to 1"
    if np.any(found.robust & ~((answer == cases.label) & cases.attacked[:, None])):
        return "a finding counts as robust that was wrong when clean or was not attacked"
    if np.any(subject.robust & ~(found.robust | ~cases.known).all(axis=1)):
        return "a case counts as robust of which a finding fell"
    return ""


def _chosen(wanted: Margin, classes: tuple[str, ...]) -> list[int]:
    """The findings that an endpoint is asked of, in the classes' order."""
    return [k for k, name in enumerate(classes) if wanted.findings is None or name in wanted.findings]
