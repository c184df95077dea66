"""The gate on multi-label records: endpoints of each finding and of all, and what makes such records INVALID."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_findings import ALL, NAMES, PROBLEMS, WITHIN_ROUNDING, Change, broken, rules, run

from medharden.gating.findings import coverage_problems
from medharden.record import GateDecision, Verdict
from medharden.stats import brier_difference, finding_brier_difference


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
        "robust_gain_where_right",
        *(
            f"robust_{side}{what}:{finding}"
            for finding in NAMES
            for side in ("sensitivity", "specificity")
            for what in ("", "_change")
        ),
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


@pytest.mark.parametrize(("change", "reason"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS])
def test_a_table_that_can_not_be_is_invalid(change: Change, reason: str) -> None:
    decision = broken(change).decide()
    assert decision.verdict is Verdict.INVALID
    assert reason in " ".join(decision.reasons)


@pytest.mark.parametrize("change", WITHIN_ROUNDING)
def test_an_answer_may_lie_at_its_threshold_within_rounding(change: Change) -> None:
    made = run()
    changed = made.with_subject("composite", **change(made.cases.subjects["composite"]))
    assert changed.decide().verdict is Verdict.PASS


def test_a_case_may_have_every_finding() -> None:
    base = run().cohort.split("test")
    every = replace(base[0], label=(0, 1))
    assert list(coverage_problems(NAMES, (*base, every))) == []
    [problem] = coverage_problems(NAMES, (*base, replace(every, label=(0, 2))))
    assert "no findings among 2" in problem


def test_probabilities_of_0_and_1_are_probabilities() -> None:
    made = run()
    table = made.cases.subjects["composite"]
    assert table.findings is not None
    certain = replace(table.findings, attacked_probabilities=table.findings.attacked_probabilities.round())
    changed = made.with_subject("composite", probabilities=table.predicted.astype(float), findings=certain)
    assert changed.decide().verdict is Verdict.PASS


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


def fallen(state: int, finding: int = 1) -> GateDecision:
    """Every case in which the finding is (or is not) there has fallen to an attack on that finding."""
    made = run()
    table = made.cases.subjects["composite"]
    assert table.findings is not None
    robust = table.findings.robust.copy()
    robust[made.cases.label[:, finding] == state, finding] = False
    stands = table.robust & robust.all(axis=1)
    won = tuple(np.where(table.robust & ~stands, "push-20", np.array(table.won_by, dtype=object)).tolist())
    changed = made.with_subject("composite", robust=stands, won_by=won, findings=replace(table.findings, robust=robust))
    outcomes = tuple(
        replace(s, robust_correct=int(stands.sum())) if s.name == "composite" else s for s in made.evaluation.subjects
    )
    return replace(changed, evaluation=replace(made.evaluation, subjects=outcomes)).decide()


def test_an_attack_that_hides_one_rare_finding_fails_its_robust_sensitivity() -> None:
    decision = fallen(1)
    verdicts = by_name(decision)
    assert verdicts["robust_floor"] is verdicts["robust_specificity:Hernia"] is Verdict.PASS
    assert verdicts["robust_sensitivity:Hernia"] is decision.verdict is Verdict.FAIL
    assert any(r.startswith("robust_sensitivity:Hernia: the share that stands 0.0%") for r in decision.reasons)


def test_robustness_is_asked_of_the_findings_whose_recall_is() -> None:
    decision = run(wanted=rules(asked=ALL[:3], findings=("Effusion",))).decide()
    assert not [e.name for e in decision.endpoints if e.name.startswith("robust_") and "Hernia" in e.name]
