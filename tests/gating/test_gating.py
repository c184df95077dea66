"""What a decision says beside its verdict: endpoints, numbers, findings, subgroups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_changes import (
    counted,
    digests,
    grouped,
    identity,
    in_order,
    logged,
    same,
)
from gating_factory import protocol, records

from medharden.record import CohortRecord, Finding, Verdict
from medharden.stats import cases_needed, power_to_show, smallest_margin

PASS, INCONCLUSIVE, FAIL, INVALID = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID


def test_an_original_that_was_no_file_is_identity_all_the_same_and_its_reason_says_how_it_is_checked_again() -> None:
    made = records(gained=8, lost=2)
    state = made.harden.clean_state_before
    (of_file, of_module) = (
        next(e for e in run.decide().endpoints if e.name == "identity")
        for run in (made, identity(against="module")(made))
    )
    assert of_file.verdict == of_module.verdict == PASS
    assert "no file of it is named" in of_module.reason
    assert state[:16] in of_module.reason
    assert "no file" not in of_file.reason
    moved = identity(against="module", state_equal=False)(made).decide()
    assert next(e.verdict for e in moved.endpoints if e.name == "identity") is FAIL


def test_a_passing_run_names_its_endpoints_numbers_and_parents() -> None:
    made = records(gained=8, lost=2)
    decision = made.decide()
    by_name = {e.name: e for e in decision.endpoints}
    clean = ["identity", "accuracy", "specificity", "sensitivity", "brier"]
    attacked = ["robust_floor", "robust_gain", "robust_gain_where_right"]
    by_class = ["robust_specificity", "robust_specificity_change", "robust_sensitivity", "robust_sensitivity_change"]
    assert list(by_name) == [*clean, *attacked, *by_class]
    accuracy = by_name["accuracy"]
    assert accuracy.table == (370, 8, 2, 20)
    assert (accuracy.n, accuracy.patients, accuracy.limit, accuracy.level) == (400, 400, -0.02, 0.95)
    assert accuracy.lower < accuracy.estimate == 0.015 < accuracy.upper
    assert accuracy.smallest_margin == pytest.approx(0.0256, abs=3e-3)
    assert accuracy.needed == pytest.approx(600, abs=60)
    assert accuracy.power == power_to_show(400, 10 / 400, 0.02, alpha=0.025)
    assert 0.4 < accuracy.power < 0.8
    assert accuracy.justification
    assert by_name["sensitivity"].n + by_name["specificity"].n == 400
    assert "sensitivity (PNEUMONIA)" in by_name["sensitivity"].reason
    assert "specificity (NORMAL)" in by_name["specificity"].reason
    assert (decision.protocol, decision.hardened) == (made.protocol.digest, made.digests.hardened)
    assert (decision.evaluation, decision.decided, decision.margins_justified) == (made.digests.evaluation, "", True)


def test_sensitivity_lost_behind_a_kept_accuracy_fails() -> None:
    made = records(400)
    composite, label = made.cases.subjects["composite"], made.cases.label
    predicted, p = composite.predicted.copy(), composite.probabilities.copy()
    turned = np.concatenate([np.flatnonzero(label == 0)[:10], np.flatnonzero(label == 1)[-10:]])
    predicted[turned] = 0
    p[turned] = (0.8, 0.2)
    robust = composite.robust & (predicted == label)
    changed = made.with_subject("composite", predicted=predicted, probabilities=p, robust=robust)
    changed = counted("composite", robust_correct=int(robust.sum()))(changed)
    decision = changed.decide()
    by_name = {e.name: e for e in decision.endpoints}
    assert by_name["accuracy"].estimate == 0.0
    assert by_name["sensitivity"].verdict is FAIL
    assert by_name["specificity"].verdict is PASS
    assert decision.verdict is FAIL


def test_a_fusion_that_flips_three_percent_of_clean_cases_is_seen() -> None:
    decision = records(400, lost=12).decide()
    assert {e.name: e.verdict for e in decision.endpoints}["accuracy"] is FAIL
    assert {e.name: e.verdict for e in decision.endpoints}["identity"] is PASS


def test_an_unjustified_margin_is_said_whatever_the_verdict() -> None:
    bare = protocol(justified=False)
    for made, change in ((records(rules=bare), same), (records(rules=bare), digests(cases="0" * 64))):
        decision = change(made).decide()
        assert not decision.margins_justified
        assert "no clinical justification" in decision.reasons[-1]
        assert [f.code for f in decision.findings] == ["gate.margin_not_justified"]
    assert records(rules=bare).decide().verdict is PASS


def test_only_what_lacks_a_justification_is_named() -> None:
    half = protocol().model_dump()
    half["endpoints"]["noninferiority"][1]["justification"] = None
    rules = type(protocol()).model_validate(half)
    reason = records(rules=rules).decide().reasons[-1]
    assert "recall margin 0.05" in reason
    assert "accuracy margin" not in reason
    assert "floor" not in reason


def test_findings_of_the_cohort_are_carried() -> None:
    finding = Finding("data.no_patients", "warning", "Each case counts as its own patient.")
    made = records()
    cohort: CohortRecord = replace(made.cohort, grouped_by="case", findings=(finding,))
    assert replace(made, cohort=cohort).decide().findings == (finding,)


def test_looks_beyond_the_first_are_said_with_the_error_they_may_add_up_to() -> None:
    def findings(**events: int) -> list[tuple[str, str]]:
        made = logged(**events)(records(rules=protocol(looks=3)))
        first, *others = [(f.code, f.message) for f in made.decide().findings]
        assert first[0] == "gate.alpha_per_look"
        assert "of alpha 0.025 each of them is decided at 0.00833, its limits at 98.333 %" in first[1]
        return others

    assert findings(opened=1, looks=1, finished=1) == []
    [(code, message)] = findings(opened=2, looks=2, finished=2)
    assert code == "gate.repeated_look"
    assert "looked at 2 times, of 3 that the protocol plans" in message
    assert "up to 0.025 an endpoint, since each look is decided at alpha 0.00833" in message
    [(code, message)] = findings(opened=3, looks=1, finished=1)
    assert code == "gate.resumed_look"
    assert "opened 3 times for 1 looks" in message
    [_, (code, message)] = findings(opened=3, looks=3, finished=1)
    assert code == "gate.unfinished_look"
    assert "2 of 3 looks at the test split came to no record" in message
    assert "They count" in message


def test_each_subgroup_has_its_own_numbers_and_verdict() -> None:
    rules = protocol(columns=("sex",), margins=(0.1, 0.2), floor=1e-9)
    decision = grouped("sex", 3, 60)(records(rules=rules, lost=8)).decide()
    by_name = {e.name: e for e in decision.subgroups}
    parts = ["", ":robust_change", ":robust_floor", ":specificity", ":robust_specificity"]
    parts += [":sensitivity", ":robust_sensitivity"]
    assert list(by_name) == [f"sex={value}{part}" for value in ("A", "B", "rest") for part in parts]
    whole = [by_name[f"sex={value}"] for value in ("A", "B", "rest")]
    assert [(e.kind, e.limit, e.n, e.patients) for e in whole] == [("subgroup", -0.1, n, n) for n in (3, 60, 337)]
    assert [e.verdict for e in whole] == [INCONCLUSIVE, INCONCLUSIVE, PASS]
    assert by_name["sex=B:sensitivity"].n + by_name["sex=B:specificity"].n == 60
    assert by_name["sex=B:sensitivity"].limit == -0.2
    assert "fewer than the 20 cases" in by_name["sex=A"].reason
    assert "harm is not shown either" in by_name["sex=B"].reason
    assert by_name["sex=B"].table == (35, 0, 8, 17)
    assert by_name["sex=B"].lower < -0.1 < by_name["sex=B"].upper
    finding = next(f for f in decision.findings if f.code == "gate.subgroups_inconclusive")
    assert f"sex=B (n = 60 of about {by_name['sex=B'].needed} needed)" in finding.message
    assert finding.message in decision.reasons
    assert not [e for e in decision.endpoints if e.kind == "subgroup"]


def test_subgroups_in_which_all_is_shown_leave_no_finding() -> None:
    rules = protocol(columns=("sex",), margins=(0.05, 0.1), floor=0.3)
    decision = grouped("sex", 200)(records(rules=rules, robust=(0, 360))).decide()
    assert {e.verdict for e in decision.subgroups} == {PASS}
    assert decision.findings == ()


def test_rows_in_another_order_give_the_same_verdict() -> None:
    made = records(gained=4, lost=2, robust=(60, 240))
    cases = in_order(made.cases, np.random.default_rng(0).permutation(400))
    assert replace(made, cases=cases).decide() == made.decide()


def test_needed_cases_grow_with_the_design_effect() -> None:
    single = {e.name: e for e in records(400).decide().endpoints}["accuracy"]
    paired = {e.name: e for e in records(400, cases_a_patient=2).decide().endpoints}["accuracy"]
    assert single.needed is not None
    assert paired.needed is not None
    assert paired.needed == pytest.approx(2 * single.needed, abs=1)
    assert paired.smallest_margin > single.smallest_margin  # type: ignore[operator]
    assert "effective cases" in paired.method
    floor = {e.name: e for e in records(400, cases_a_patient=2).decide().endpoints}["robust_floor"]
    assert floor.method.endswith("by patient)")
    assert "(n = 400 of 200 patients; 240 robust)" in floor.reason


def test_equal_answers_are_planned_with_one_discordant_case() -> None:
    accuracy = {e.name: e for e in records(400).decide().endpoints}["accuracy"]
    assert accuracy.needed == cases_needed(1 / 400, 0.02, alpha=0.025) > cases_needed(0.0, 0.02, alpha=0.025)
    assert accuracy.smallest_margin == smallest_margin(400, 1 / 400, alpha=0.025)


def test_attacked_endpoints_count_attacked_cases_alone() -> None:
    decision = records(rules=protocol(sample=100), attacked=100, robust=(10, 60)).decide()
    by_name = {e.name: e for e in decision.endpoints}
    assert (by_name["robust_floor"].n, by_name["robust_floor"].estimate) == (100, 0.6)
    assert (by_name["robust_gain"].n, by_name["robust_gain"].estimate) == (100, 0.5)
    assert by_name["robust_gain"].table == (10, 50, 0, 40)
    assert by_name["accuracy"].n == 400
