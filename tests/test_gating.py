"""The gate's verdicts on valid records, one line a rule and a border."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_changes import (
    Change,
    column,
    counted,
    critical,
    digests,
    evaluated,
    grouped,
    hardened,
    identity,
    logged,
    same,
    scored,
)
from gating_factory import Records, protocol, records

from medharden.record import CohortRecord, Finding, Verdict
from medharden.stats import cases_needed, power_to_show, smallest_margin

PASS, INCONCLUSIVE, FAIL, INVALID = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID

GUARDED = protocol(mode="guarded")
BY_SEX = protocol(columns=("sex",))
AUROC = protocol(more=(("auroc", 0.02),))
BRIER = protocol(more=(("brier", 0.02),))
BALANCED = protocol(more=(("balanced_accuracy", 0.03),))
WIDE_BY_SEX = protocol(columns=("sex",), margins=(0.1, 0.2))
VERDICTS = [
    # G2, G4, and zero discordance: equal answers are not enough, the cases must be many
    ("all endpoints pass", records(), same, PASS, ""),
    ("equal accuracy on few cases", records(20, wrong=0), same, INCONCLUSIVE, "accuracy: lower 95 % limit"),
    ("188 equal answers", records(188, rules=protocol(margins=(0.02, 0.2))), same, INCONCLUSIVE, "-0.02002 is below"),
    ("189 equal answers", records(189, rules=protocol(margins=(0.02, 0.2))), same, PASS, ""),
    ("100 equal answers, guarded", records(100, rules=GUARDED), same, INCONCLUSIVE, "lower 95 % limit"),
    ("few cases of each class", records(190), same, PASS, ""),
    (
        "too few cases of each class",
        records(140, rules=protocol(margins=(0.1, 0.05))),
        same,
        INCONCLUSIVE,
        "sensitivity",
    ),
    ("few gained and lost", records(gained=3, lost=3), same, PASS, ""),
    ("more gained and lost", records(gained=9, lost=9), same, INCONCLUSIVE, "9 gained, 9 lost"),
    ("a loss as large as the margin", records(lost=8), same, FAIL, "accuracy: the observed change -0.020 uses up"),
    ("a loss just below the margin", records(lost=7), same, INCONCLUSIVE, "not shown: needs about"),
    ("a loss too near the margin", records(1000, lost=19), same, INCONCLUSIVE, "too near the margin"),
    ("a gain", records(gained=8), same, PASS, ""),
    ("doubled rows add nothing", records(400, cases_a_patient=4), same, INCONCLUSIVE, "400 of 100 patients"),
    ("two cases a patient, no discordance", records(400, cases_a_patient=2), same, PASS, ""),
    # G8: identity
    (
        "identity: not compared with a file",
        records(),
        identity(against="none"),
        INCONCLUSIVE,
        "identity: the clean path",
    ),
    ("identity: a buffer changed", records(), identity(state_equal=False), FAIL, "identity: the clean path is not"),
    ("identity: a logit changed", records(), identity(logits_equal=False, max_abs_difference=1.5e-8), FAIL, "1.5e-08"),
    ("identity: a difference that is called equal", records(), identity(max_abs_difference=1e-9), FAIL, "1e-09"),
    ("identity: some cases left out", records(), identity(cases=399), INCONCLUSIVE, "399 of 400"),
    ("identity: moved during hardening", records(), hardened(clean_state_after="9" * 64), FAIL, "moved the clean path"),
    ("identity: logits moved", records(), hardened(clean_logits_identical=False), FAIL, "moved the clean path"),
    (
        "identity: moved, and no file",
        records(),
        lambda r: identity(against="none")(hardened(clean_state_after="9")(r)),
        FAIL,
        "moved",
    ),
    # G11: robust, above the floor and better than the original
    ("floor: reached by the limit", records(rules=protocol(floor=0.55)), same, PASS, ""),
    (
        "floor: reached by the estimate alone",
        records(rules=protocol(floor=0.6)),
        same,
        INCONCLUSIVE,
        "robust_floor: lower",
    ),
    ("floor: missed", records(rules=protocol(floor=0.61)), same, FAIL, "robust_floor: robust accuracy 0.600 is below"),
    ("floor: of nothing, and no gain", records(rules=protocol(floor=0.0), robust=(0, 0)), same, FAIL, "robust_gain"),
    ("gain: worse than the original", records(robust=(240, 200)), same, FAIL, "not better than the original"),
    ("gain: none", records(robust=(200, 200)), same, FAIL, "0 gained, 0 lost"),
    ("gain: too small to show", records(robust=(200, 203)), same, INCONCLUSIVE, "a gain under attack is not shown"),
    ("gain: by sample", records(rules=protocol(sample=100), attacked=100, robust=(10, 60)), same, PASS, ""),
    (
        "gain: by few patients",
        records(rules=protocol(margins=(0.3, 0.4), floor=0.0), cases_a_patient=80, robust=(0, 80)),
        same,
        INCONCLUSIVE,
        "robust_gain",
    ),
    (
        "a constant answer",
        records(),
        evaluated(findings=critical("evaluation.constant_answer")),
        INCONCLUSIVE,
        "critical",
    ),
    (
        "gradient masking",
        records(),
        evaluated(findings=critical("attack.vanishing_gradient")),
        FAIL,
        "attack.vanishing",
    ),
    ("collapse", records(), hardened(findings=critical("hardening.collapse")), FAIL, "hardening.collapse"),
    ("a warning does not count", records(), evaluated(findings=(Finding("attack.x", "warning", "m"),)), PASS, ""),
    # G13: looks within the budget
    ("two looks of two", records(rules=protocol(looks=2)), logged(opened=2, finished=2), PASS, ""),
    ("an interrupted look", records(), logged(opened=2), PASS, ""),
    ("locked twice alike, as a resumed run", records(), lambda r: logged(locks=r.history.locks * 2)(r), PASS, ""),
    # G3: AUROC and balanced accuracy beside the others, never alone
    ("equal scores of many patients", records(1000, rules=AUROC), same, PASS, ""),
    ("equal scores of few patients", records(300, rules=AUROC), same, INCONCLUSIVE, "auroc: lower 95 % limit"),
    ("a ranking that got worse", records(rules=AUROC), scored("composite", -0.29, of=slice(100, 400)), FAIL, "auroc"),
    ("the same AUROC, a shifted threshold", records(1000, rules=AUROC, lost=20), same, FAIL, "accuracy"),
    (
        "three classes, each against the rest",
        records(1200, classes=("A", "B", "C"), rules=protocol(positive=None, more=(("auroc", 0.02),))),
        same,
        PASS,
        "",
    ),
    (
        "a class of one patient",
        records(4, rules=protocol(more=(("auroc", 0.02),)), cases_a_patient=4, wrong=0),
        same,
        INCONCLUSIVE,
        "auroc: lower 95 % limit -1.000 is below",
    ),
    ("balanced accuracy kept", records(rules=BALANCED), same, PASS, ""),
    ("balanced accuracy used up", records(rules=BALANCED, lost=12), same, FAIL, "balanced_accuracy: the observed"),
    ("balanced accuracy open", records(rules=BALANCED, lost=7), same, INCONCLUSIVE, "balanced_accuracy: lower"),
    ("few of each class", records(100, rules=BALANCED, gained=2, lost=2), same, INCONCLUSIVE, "at this variance"),
    # G15: Brier, where higher is worse
    ("a better calibration", records(rules=BRIER), scored("composite", 0.05), PASS, ""),
    ("a copy with worse calibration", records(rules=BRIER), scored("composite", -0.25), FAIL, "brier: the observed"),
    ("a calibration hardly worse", records(1600, rules=BRIER), scored("composite", -0.01), PASS, ""),
    (
        "a calibration that may be worse",
        records(rules=BRIER),
        scored("composite", -0.29, of=slice(380, 400)),
        INCONCLUSIVE,
        "brier: upper 95 % limit 0.021 is above 0.020 (n = 400)",
    ),
    ("equal scores, no variance", records(rules=BRIER), same, PASS, ""),
    ("equal scores of 100, no variance", records(100, rules=BRIER), same, INCONCLUSIVE, "brier: upper 95 % limit"),
    # G14: subgroups; the 20 cases that are wrong anyway come first, then the lost ones
    ("subgroups without a change", records(rules=BY_SEX), grouped("sex", 200), PASS, ""),
    ("a subgroup of 3", records(rules=BY_SEX), grouped("sex", 3), PASS, ""),
    ("a subgroup that only it harms", records(rules=WIDE_BY_SEX, lost=15), grouped("sex", 40), FAIL, "harm is shown"),
    ("harm in 19 cases is too few to say", records(rules=WIDE_BY_SEX, lost=15, wrong=0), grouped("sex", 19), PASS, ""),
    (
        "harm in 20 cases",
        records(rules=WIDE_BY_SEX, lost=15, wrong=0),
        grouped("sex", 20),
        FAIL,
        "sex=A: harm is shown",
    ),
    ("a loss that is not shown", records(rules=WIDE_BY_SEX, lost=8), grouped("sex", 60), PASS, ""),
    # guarded: the referral budget
    ("referral: within the budget", records(rules=GUARDED, referred=10), same, PASS, ""),
    (
        "referral: within by the estimate alone",
        records(rules=GUARDED, referred=20),
        same,
        INCONCLUSIVE,
        "referral: upper",
    ),
    ("referral: exceeded", records(rules=GUARDED, referred=21), same, FAIL, "referral: clean referral rate"),
    ("referral: without a budget in other modes", records(referred=90), same, PASS, ""),
    # several classes
    ("three classes", records(900, classes=("A", "B", "C"), rules=protocol(positive=None)), same, PASS, ""),
    (
        "three classes, one too rare",
        records(200, classes=("A", "B", "C"), rules=protocol(positive=None, floor=0.0)),
        same,
        INCONCLUSIVE,
        "recall:C",
    ),
    ("a decision threshold", records(rules=protocol(threshold=0.3)), same, PASS, ""),
    ("sum of 1.00005", records(), column("composite", "probabilities", (399, 0), 0.20005), PASS, ""),
]


@pytest.mark.parametrize(
    ("made", "change", "verdict", "reason"), [v[1:] for v in VERDICTS], ids=[v[0] for v in VERDICTS]
)
def test_verdict(made: Records, change: Change, verdict: Verdict, reason: str) -> None:
    decision = change(made).decide()
    assert decision.verdict is verdict, decision.reasons
    assert any(reason in r for r in decision.reasons) if reason else decision.reasons == ()
    assert bool(decision.endpoints) == (verdict is not INVALID)
    assert all(e.verdict is not PASS or e.reason not in decision.reasons for e in decision.endpoints)


def test_a_passing_run_names_its_endpoints_numbers_and_parents() -> None:
    made = records(gained=8, lost=2)
    decision = made.decide()
    by_name = {e.name: e for e in decision.endpoints}
    assert list(by_name) == ["identity", "accuracy", "specificity", "sensitivity", "robust_floor", "robust_gain"]
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
        return [(f.code, f.message) for f in made.decide().findings]

    assert findings(opened=1, finished=1) == []
    [(code, message)] = findings(opened=2, finished=2)
    assert code == "gate.repeated_look"
    assert "evaluated 2 times" in message
    assert "up to 0.05 an endpoint, not 0.025" in message
    [(code, message)] = findings(opened=3, finished=1)
    assert code == "gate.unfinished_look"
    assert "opened 3 times, and 2 of these" in message
    assert [code for code, _ in findings(opened=5, finished=4)] == ["gate.repeated_look", "gate.unfinished_look"]


def test_each_subgroup_has_its_own_numbers_and_verdict() -> None:
    decision = grouped("sex", 3, 60)(records(rules=protocol(columns=("sex",), margins=(0.1, 0.2)), lost=8)).decide()
    by_name = {e.name: e for e in decision.subgroups}
    assert list(by_name) == ["sex=A", "sex=B", "sex=rest"]
    assert [(e.kind, e.limit, e.n, e.patients) for e in decision.subgroups] == [
        ("subgroup", -0.1, n, n) for n in (3, 60, 337)
    ]
    assert [e.verdict for e in decision.subgroups] == [INCONCLUSIVE, INCONCLUSIVE, PASS]
    assert "fewer than the 20 cases" in by_name["sex=A"].reason
    assert "harm is not shown either" in by_name["sex=B"].reason
    assert by_name["sex=B"].table == (35, 0, 8, 17)
    assert by_name["sex=B"].lower < -0.1 < by_name["sex=B"].upper
    [finding] = decision.findings
    assert finding.code == "gate.subgroups_inconclusive"
    assert "sex=A (n = 3), sex=B (n = 60)." in finding.message
    assert not [e for e in decision.endpoints if e.kind == "subgroup"]


def test_subgroups_in_which_all_is_shown_leave_no_finding() -> None:
    decision = grouped("sex", 200)(records(rules=protocol(columns=("sex",), margins=(0.05, 0.1)))).decide()
    assert [e.verdict for e in decision.subgroups] == [PASS, PASS]
    assert decision.findings == ()


def test_rows_in_another_order_give_the_same_verdict() -> None:
    made = records(gained=4, lost=2, robust=(60, 240))
    order = np.random.default_rng(0).permutation(400)
    subjects = {
        name: replace(
            s,
            predicted=s.predicted[order],
            probabilities=s.probabilities[order],
            robust=s.robust[order],
            won_by=tuple(s.won_by[i] for i in order),
            referred=s.referred[order],
        )
        for name, s in made.cases.subjects.items()
    }
    cases = replace(
        made.cases,
        case=tuple(made.cases.case[i] for i in order),
        patient=tuple(made.cases.patient[i] for i in order),
        label=made.cases.label[order],
        attacked=made.cases.attacked[order],
        subjects=subjects,
    )
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
    assert "effective cases" in floor.method


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
