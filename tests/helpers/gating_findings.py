"""Makes the records of one multi-label run for the gate's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from gating_factory import Records, protocol, records

from medharden.protocol import Protocol
from medharden.record import FindingTable, SubjectTable

NAMES = ("Effusion", "Hernia")
ALL = (
    ("accuracy", 0.05),
    ("recall", 0.1),
    ("finding_accuracy", 0.05),
    ("auroc", 0.1),
    ("finding_auroc", 0.1),
    ("brier", 0.05),
)


def rules(threshold: object = 0.5, asked: tuple[tuple[str, float], ...] = ALL, **recall: object) -> Protocol:
    fields = protocol(positive=None).model_dump()
    fields["task"] = {"kind": "multilabel", "classes": NAMES, "threshold": threshold}
    margins = [{"metric": m, "margin": value, "justification": "a reason"} for m, value in asked]
    margins[1] |= recall
    fields["endpoints"]["noninferiority"] = tuple(margins)
    return Protocol.model_validate(fields)


def run(n: int = 600, *, missed: int = 0, wanted: Protocol | None = None, cases_a_patient: int = 1) -> Records:
    """Every second case has an effusion, every tenth a hernia; the release misses the first `missed` hernias."""
    wanted = wanted or rules()
    base = records(n, rules=wanted, classes=NAMES, cases_a_patient=cases_a_patient)
    truth = np.stack([np.arange(n) % 2, np.arange(n) % 10 == 0], axis=1).astype(np.int64)
    lost = truth.copy()
    lost[np.flatnonzero(truth[:, 1])[:missed], 1] = 0
    kept = np.arange(n) >= n // 4

    def subject(predicted: np.ndarray, robust: np.ndarray) -> SubjectTable:
        right = predicted == truth
        # scores that differ from case to case, so that areas have a variance
        p = np.where(predicted == 1, 0.8, 0.2) + 0.001 * (np.arange(n)[:, None] % 7 - 3)
        findings = FindingTable(right & robust[:, None], np.where(robust[:, None], p, 1 - p))
        stands = right.all(1) & robust
        won = tuple(np.where(stands, "", np.where(right.all(1), "pgd-ce-20", "clean")).tolist())
        return SubjectTable(predicted, p, stands, won, np.zeros(n, dtype=np.bool_), findings)

    table = replace(
        base.cases,
        label=truth,
        subjects={
            "original": subject(truth, np.zeros(n, dtype=np.bool_)),
            "robust_branch": subject(lost, kept),
            "composite": subject(lost, kept),
        },
    )
    labels = {c: tuple(np.flatnonzero(row).tolist()) for c, row in zip(table.case, truth, strict=True)}
    cases = tuple(replace(c, label=labels.get(c.case, (c.label,))) for c in base.cohort.cases)
    outcomes = tuple(
        replace(
            s, clean_correct=int(table.right(s.name).sum()), robust_correct=int(table.subjects[s.name].robust.sum())
        )
        for s in base.evaluation.subjects
    )
    evaluation = replace(base.evaluation, decision_threshold=wanted.decision_rule(2), subjects=outcomes)
    return replace(base, cohort=replace(base.cohort, cases=cases), evaluation=evaluation, cases=table)


Change = Callable[[SubjectTable], dict[str, object]]


def broken(change: Change) -> Records:
    """A run whose composite has other columns."""
    made = run(missed=12)
    return made.with_subject("composite", **change(made.cases.subjects["composite"]))


def _findings(table: SubjectTable) -> FindingTable:
    assert table.findings is not None
    return table.findings


def _near(index: tuple[int, int], probability: float) -> Change:
    """One probability of a case and finding."""

    def change(table: SubjectTable) -> dict[str, object]:
        p = table.probabilities.copy()
        p[index] = probability
        return {"probabilities": p}

    return change


# The last case has the first finding and not the second, and is answered so.
WITHIN_ROUNDING = [_near((599, 0), 0.5 - 5e-6), _near((599, 1), 0.5 + 5e-6), _near((599, 0), 0.5)]
PROBLEMS: list[tuple[str, Change, str]] = [
    ("no outcome of findings", lambda t: {"findings": None}, "no outcome of each finding under attack"),
    ("no probability: above 1", lambda t: {"probabilities": t.probabilities + 1.0}, "outside 0 to 1"),
    ("no probability: below 0", lambda t: {"probabilities": t.probabilities - 0.5}, "outside 0 to 1"),
    ("no probability: NaN", lambda t: {"probabilities": t.probabilities * np.nan}, "a probability is not finite"),
    ("no answer", lambda t: {"predicted": t.predicted + 2}, "neither 0 nor 1"),
    ("answers of one finding", lambda t: {"predicted": t.predicted[:, :1]}, "columns a case"),
    ("a present finding below its threshold", lambda t: {"predicted": t.predicted | 1}, "doesn't follow"),
    ("an absent finding above its threshold", lambda t: {"predicted": t.predicted & 0}, "doesn't follow"),
    ("a present finding beyond rounding", _near((599, 0), 0.5 - 2e-5), "doesn't follow"),
    ("an absent finding beyond rounding", _near((599, 1), 0.5 + 2e-5), "doesn't follow"),
    ("a case robust of which a finding fell", lambda t: {"robust": np.ones_like(t.robust)}, "of which a finding fell"),
    (
        "outcomes of one finding",
        lambda t: {"findings": replace(_findings(t), robust=_findings(t).robust[:, :1])},
        "not one for each finding",
    ),
    (
        "probabilities under attack of one finding",
        lambda t: {
            "findings": replace(_findings(t), attacked_probabilities=_findings(t).attacked_probabilities[:, :1])
        },
        "not one for each finding",
    ),
    (
        "no probability under attack: below 0",
        lambda t: {"findings": replace(_findings(t), attacked_probabilities=t.probabilities - 1.0)},
        "a probability under attack lies outside 0 to 1",
    ),
    (
        "no probability under attack: above 1",
        lambda t: {"findings": replace(_findings(t), attacked_probabilities=t.probabilities + 1.0)},
        "a probability under attack lies outside 0 to 1",
    ),
    (
        "no probability under attack: NaN",
        lambda t: {"findings": replace(_findings(t), attacked_probabilities=t.probabilities * np.nan)},
        "a probability under attack lies outside 0 to 1",
    ),
    (
        "a finding robust that was wrong",
        lambda t: {"findings": replace(_findings(t), robust=_findings(t).robust | True)},
        "a finding counts as robust that was wrong when clean or was not attacked",
    ),
]
