"""The gate on multi-label records: endpoints of each finding and of all, and what makes such records INVALID."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_factory import Records, protocol, records

from medharden.protocol import Protocol
from medharden.record import FindingTable, GateDecision, SubjectTable, Verdict
from medharden.stats import brier_difference, finding_brier_difference

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


def by_name(decision: GateDecision) -> dict[str, Verdict]:
    return {e.name: e.verdict for e in decision.endpoints}


def test_an_unchanged_release_passes_every_endpoint_of_every_finding() -> None:
    decision = run().decide()
    assert decision.verdict is Verdict.PASS, decision.reasons
    assert [e.name for e in decision.endpoints] == [
        "identity",
        "accuracy",
        "sensitivity:Effusion",
        "specificity:Effusion",
        "sensitivity:Hernia",
        "specificity:Hernia",
        "finding_accuracy",
        "auroc",
        "auroc:Effusion",
        "auroc:Hernia",
        "brier",
        "robust_floor",
        "robust_gain",
    ]
    n = {e.name: e.n for e in decision.endpoints}
    assert (n["sensitivity:Hernia"], n["specificity:Hernia"], n["finding_accuracy"]) == (60, 540, 1200)


def test_a_rare_finding_that_is_missed_fails_its_sensitivity_where_accuracy_hides_it() -> None:
    """12 of 600 cases lose a hernia: 2 points of accuracy, 1 of the mean over findings, 20 of sensitivity."""
    decision = run(missed=12).decide()
    verdicts = by_name(decision)
    assert verdicts["accuracy"] is verdicts["finding_accuracy"] is Verdict.PASS
    assert verdicts["sensitivity:Hernia"] is Verdict.FAIL
    assert verdicts["sensitivity:Effusion"] is Verdict.PASS
    assert decision.verdict is Verdict.FAIL
    estimates = {e.name: e.estimate for e in decision.endpoints}
    assert estimates["finding_accuracy"] == pytest.approx(estimates["accuracy"] / 2)


def test_a_case_counts_for_accuracy_only_with_every_finding_right() -> None:
    endpoint = next(e for e in run(missed=12).decide().endpoints if e.name == "accuracy")
    assert endpoint.table == (588, 0, 12, 0)


def test_the_protocol_names_the_findings_that_decide() -> None:
    decision = run(missed=12, wanted=rules(asked=ALL[:3], findings=("Effusion",))).decide()
    assert decision.verdict is Verdict.PASS
    assert not any("Hernia" in e.name for e in decision.endpoints if "sensitivity" in e.name)


def test_a_patients_findings_and_cases_count_as_one_cluster() -> None:
    alone, grouped = (
        next(e for e in run(missed=12, cases_a_patient=size).decide().endpoints if e.name == "finding_accuracy")
        for size in (1, 30)
    )
    assert (alone.patients, grouped.patients) == (600, 20)
    assert grouped.lower < alone.lower


def test_thresholds_of_each_finding_decide_what_follows_from_a_probability() -> None:
    made = run(wanted=rules(threshold={"Effusion": 0.5, "Hernia": 0.1}))
    decision = made.decide()
    assert decision.verdict is Verdict.INVALID
    assert "doesn't follow from its probability" in " ".join(decision.reasons)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {"findings": None}, "no outcome of each finding under attack"),
        (lambda t: {"probabilities": t.probabilities + 1.0}, "outside 0 to 1"),
        (lambda t: {"predicted": t.predicted + 2}, "neither 0 nor 1"),
        (lambda t: {"robust": np.ones_like(t.robust)}, "of which a finding fell"),
        (lambda t: {"predicted": t.predicted[:, :1]}, "columns a case"),
        (lambda t: {"probabilities": t.probabilities * np.nan}, "a probability is not finite"),
        (lambda t: {"findings": replace(t.findings, robust=t.findings.robust[:, :1])}, "not one for each finding"),
        (
            lambda t: {"findings": replace(t.findings, attacked_probabilities=t.probabilities - 1.0)},
            "a probability under attack lies outside 0 to 1",
        ),
        (lambda t: {"findings": FindingTable(t.findings.robust | True, t.findings.attacked_probabilities)}, "robust"),
    ],
)
def test_a_table_that_can_not_be_is_invalid(change: object, reason: str) -> None:
    made = run(missed=12)
    decision = made.with_subject("composite", **change(made.cases.subjects["composite"])).decide()  # type: ignore[operator]
    assert decision.verdict is Verdict.INVALID
    assert reason in " ".join(decision.reasons)


def test_a_finding_that_no_test_case_has_can_not_be_judged() -> None:
    made = run()
    cases = tuple(replace(c, label=tuple(k for k in c.label if k != 1)) for c in made.cohort.cases)
    decision = replace(made, cohort=replace(made.cohort, cases=cases)).decide()
    assert decision.verdict is Verdict.INVALID
    assert "Hernia" in " ".join(decision.reasons)


def test_a_finding_that_ranks_worse_has_a_lower_area() -> None:
    changes = {e.name: e.estimate for e in run(missed=12).decide().endpoints}
    assert changes["auroc:Hernia"] < -0.05
    assert changes["auroc"] < -0.02
    assert changes["auroc:Effusion"] == 0.0


def test_labels_that_are_no_findings_or_of_another_task_are_invalid() -> None:
    made = run()
    for label, reason in (((2,), "no findings among 2"), (1, "another kind of task")):
        cases = tuple(replace(c, label=label) for c in made.cohort.cases)
        decision = replace(made, cohort=replace(made.cohort, cases=cases)).decide()
        assert decision.verdict is Verdict.INVALID
        assert reason in " ".join(decision.reasons)


def test_the_brier_score_of_one_finding_is_half_that_of_two_classes() -> None:
    random = np.random.default_rng(0)
    new, old, truth = random.random((80, 1)), random.random((80, 1)), random.random((80, 1)) < 0.3
    patients = [f"p{k // 2}" for k in range(80)]
    one = finding_brier_difference(new, old, truth, patients=patients)
    two = brier_difference(
        np.hstack([1 - new, new]), np.hstack([1 - old, old]), truth[:, 0].astype(int), patients=patients
    )
    assert (one.estimate, one.interval) == (
        pytest.approx(two.estimate / 2),
        pytest.approx(tuple(limit / 2 for limit in two.interval)),
    )
    unchanged = finding_brier_difference(new, new, truth, patients=patients)
    assert unchanged.interval[1] > 0.05, "equal scores of few patients do not pass by themselves"
