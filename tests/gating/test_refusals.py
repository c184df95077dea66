"""Releases that look well in the sum and must not pass: each is refused with a reason that names what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_factory import Records, cohort, evaluation, protocol, records

from medharden.protocol import Protocol
from medharden.record import CaseTable, Endpoint, GateDecision, SubjectTable, Verdict

PASS, INCONCLUSIVE, FAIL, INVALID = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID
CLASSES = ("NORMAL", "PNEUMONIA")
Flags = np.ndarray


def released(
    label: Flags,
    *,
    rules: Protocol | None = None,
    right: tuple[Flags, Flags] | None = None,
    robust: tuple[Flags, Flags],
    sure: tuple[Flags | float, Flags | float] = (0.8, 0.8),
    referred: Flags | None = None,
    referred_attacked: Flags | None = None,
    attacked: Flags | None = None,
    groups: dict[str, Flags] | None = None,
) -> Records:
    """A run in which original and composite answer, stand and refer as said; right everywhere unless said."""
    rules = rules or protocol(floor=0.3)
    n = len(label)
    none, all_of_them = np.zeros(n, bool), np.ones(n, bool)
    right = right or (all_of_them, all_of_them)
    in_sample = all_of_them if attacked is None else attacked
    case, patient = tuple(f"case{i:05d}" for i in range(n)), tuple(f"patient{i:05d}" for i in range(n))

    def subject(k: int) -> SubjectTable:
        predicted = np.where(right[k], label, 1 - label).astype(np.int64)
        p = np.empty((n, 2))
        p[np.arange(n), predicted] = sure[k]
        p[np.arange(n), 1 - predicted] = 1 - np.asarray(sure[k])
        stands = robust[k] & right[k] & in_sample
        won = np.where(right[k], np.where(stands | ~in_sample, "", "pgd-ce-20"), "clean")
        return SubjectTable(predicted, p, stands, tuple(won.tolist()), none)

    composite = subject(1)
    if rules.fusion.mode == "guarded":
        composite = replace(
            composite,
            referred=none if referred is None else referred,
            referred_attacked=none if referred_attacked is None else referred_attacked,
        )
    table = CaseTable(
        case,
        patient,
        label.astype(np.int64),
        in_sample,
        {"original": subject(0), "robust_branch": subject(1), "composite": composite},
        {name: tuple(values.tolist()) for name, values in (groups or {}).items()},
    )
    base = records(40, rules=rules)
    told = evaluation(rules, table, CLASSES)
    return replace(base, cohort=cohort(case, patient, label.tolist(), CLASSES), cases=table, evaluation=told)


def first(n: int, of: int) -> Flags:
    return np.arange(of) < n


def of_class(label: Flags, k: int, n: int) -> Flags:
    """The first n cases of a class."""
    return (label == k) & (np.cumsum(label == k) <= n)


def reasons(decision: GateDecision, *starts: str) -> None:
    for start in starts:
        assert any(r.startswith(start) for r in decision.reasons), (start, decision.reasons)


def endpoint(decision: GateDecision, name: str) -> Endpoint:
    return {e.name: e for e in (*decision.endpoints, *decision.subgroups)}[name]


# --- robustness by class


def hiding(**wanted: object) -> Records:
    """900 normal, 100 diseased: the original stands on 60 of the diseased, the release on none and on 880 normals."""
    label = np.repeat([0, 1], [900, 100])
    robust = of_class(label, 1, 60), of_class(label, 0, 880)
    return released(label, rules=protocol(floor=0.6, robustness=wanted), robust=robust)


def test_robustness_that_leaves_the_sick_out_fails_by_class() -> None:
    decision = hiding().decide()
    assert endpoint(decision, "robust_floor").verdict is PASS
    assert endpoint(decision, "robust_gain").verdict is PASS
    assert decision.verdict is FAIL
    reasons(decision, "robust_sensitivity (PNEUMONIA): the share that stands 0.0% is below 60.0%")
    reasons(decision, "robust_sensitivity_change (PNEUMONIA): the observed change −60.0 pp uses up")
    assert endpoint(decision, "robust_specificity").verdict is PASS


def test_without_a_floor_by_class_it_still_fails_against_the_original() -> None:
    decision = hiding(class_floor=0.0).decide()
    assert decision.verdict is FAIL
    reasons(
        decision,
        "robust_sensitivity_change",
        "The protocol 'toy' does not ask under endpoints.robustness for a floor of each class's",
    )


def test_a_floor_of_one_class_is_its_own() -> None:
    label = np.repeat([0, 1], [200, 200])
    robust = first(0, 400), of_class(label, 0, 200) | of_class(label, 1, 100)
    for floor, verdict in ((0.4, PASS), (0.45, INCONCLUSIVE), (0.55, FAIL)):
        by_class = {"by_class": {"sensitivity": {"floor": floor, "justification": "As read."}}}
        decision = released(label, rules=protocol(floor=0.3, robustness=by_class), robust=robust).decide()
        assert endpoint(decision, "robust_sensitivity").verdict is decision.verdict is verdict
        assert endpoint(decision, "robust_specificity").limit == 0.3


def test_robustness_by_class_that_is_reported_alone_is_said_with_its_reason() -> None:
    decision = hiding(classes="reported", reason="A triage of normals.").decide()
    assert decision.verdict is PASS
    assert endpoint(decision, "robust_sensitivity").verdict is FAIL
    assert endpoint(decision, "robust_sensitivity").role == "reported"
    reasons(
        decision, "Robustness by class is reported and decides nothing; the protocol's reason: A triage of normals."
    )


def test_the_report_of_robustness_by_class_needs_its_reason() -> None:
    with pytest.raises(ValueError, match="classes reported needs its reason"):
        hiding(classes="reported")


# --- what is not asked, and gains on few cases


def test_a_protocol_without_a_floor_or_a_least_gain_says_so_in_every_verdict() -> None:
    for change in ({"gain": 0.0}, {"floor": 0.0}, {"class_floor": 0.0}):
        decision = records(rules=protocol(robustness=change)).decide()
        assert decision.verdict is PASS
        assert "gate.robustness_not_asked" in [f.code for f in decision.findings]
        reasons(decision, "The protocol 'toy' does not ask under endpoints.robustness for ")
    assert "gate.robustness_not_asked" not in [f.code for f in records().decide().findings]


def test_four_robust_cases_of_a_thousand_against_none_show_nothing() -> None:
    label = np.arange(1000) % 2
    rules = protocol(robustness={"floor": 0.0, "gain": 0.0})
    decision = released(label, rules=rules, robust=(first(0, 1000), first(4, 1000))).decide()
    assert decision.verdict is INCONCLUSIVE
    reasons(decision, "robust_gain: lower 95 % limit")


@pytest.mark.parametrize(("gained", "verdict"), [(90, FAIL), (110, INCONCLUSIVE), (160, PASS)])
def test_the_least_gain_is_held_against_the_limit(gained: int, verdict: Verdict) -> None:
    label = np.arange(400) % 2
    rules = protocol(robustness={"floor": 0.1, "gain": 0.25})
    decision = released(label, rules=rules, robust=(first(0, 400), first(gained, 400))).decide()
    assert endpoint(decision, "robust_gain").verdict is decision.verdict is verdict
    assert endpoint(decision, "robust_gain").limit == 0.25


@pytest.mark.parametrize(("n", "robust", "floor"), [(100, 5, 0.02), (60, 3, 0.017), (300, 6, 0.01)])
def test_a_low_floor_is_reached_by_the_exact_limit_alone(n: int, robust: int, floor: float) -> None:
    """Wilson's lower limit reaches these floors, and does so too often where the truth lies there."""
    label = np.arange(n) % 2
    rules = protocol(robustness={"floor": floor, "gain": 0.0, "class_floor": 0.0}, margins=(0.2, 0.2))
    decision = released(label, rules=rules, robust=(first(0, n), first(robust, n))).decide()
    assert endpoint(decision, "robust_floor").lower < floor
    assert endpoint(decision, "robust_floor").verdict is INCONCLUSIVE


# --- who was attacked


@pytest.mark.parametrize("chosen", ["normals", "the first", "one exchanged", "too few"])
def test_a_hand_picked_sample_is_invalid(chosen: str) -> None:
    label = np.repeat([0, 1], [200, 200])
    rules = protocol(sample=100)
    fair = released(label, rules=rules, robust=(first(0, 400), first(400, 400)), attacked=_drawn(label, rules)).decide()
    assert fair.verdict is PASS
    picked = {"normals": of_class(label, 0, 100), "the first": first(100, 400)}.get(chosen)
    if picked is None:
        picked = _drawn(label, rules).copy()
        picked[np.flatnonzero(picked)[0]] = False
        if chosen == "one exchanged":
            picked[np.flatnonzero(~picked)[1]] = True
    decision = released(label, rules=rules, robust=(first(0, 400), first(400, 400)), attacked=picked).decide()
    assert decision.verdict is INVALID
    assert "that were to be were not; the protocol asks for 100 at most, drawn from its seed" in decision.reasons[0]


def _drawn(label: Flags, rules: Protocol) -> Flags:
    from medharden.stats.sampling import stratified_sample

    flags = np.zeros(len(label), bool)
    flags[stratified_sample(label, rules.suite.cases, rules.seed)] = True
    return flags


def test_few_attacked_cases_of_a_class_show_nothing_of_it() -> None:
    label = np.repeat([0, 1], [900, 100])
    rules = protocol(sample=100, robustness={"class_floor": 0.2})
    attacked = _drawn(label, rules)
    decision = released(label, rules=rules, robust=(first(0, 1000), first(1000, 1000)), attacked=attacked).decide()
    assert decision.verdict is INCONCLUSIVE
    reasons(decision, "robust_sensitivity (PNEUMONIA)")
    assert "10 independent patients are too few: 20 at least" in " ".join(decision.reasons)


def test_a_class_of_which_nobody_was_attacked_is_inconclusive() -> None:
    label = np.repeat([0, 1], [995, 5])
    rules = protocol(sample=20, margins=(0.02, 0.9))
    decision = released(
        label, rules=rules, robust=(first(0, 1000), first(1000, 1000)), attacked=_drawn(label, rules)
    ).decide()
    assert decision.verdict is INCONCLUSIVE
    reasons(decision, "robust_sensitivity_change: no such case was attacked", "robust_sensitivity (PNEUMONIA)")


# --- referral


def guarded(**fusion: object) -> Protocol:
    return protocol(mode="guarded", floor=0.3, classes=CLASSES, fusion={"referral_attacked": 0.5, **fusion})


READER = {"counts_as": "right", "reason": "A second reader answers what is referred, as shown in the reader study."}


def test_the_sick_cannot_be_hidden_in_referrals() -> None:
    """30 of 100 diseased are referred and none of 900 normals: 3 % of all."""
    label = np.repeat([0, 1], [900, 100])
    stands = first(0, 1000), first(1000, 1000)
    decision = released(label, rules=guarded(referred=READER), robust=stands, referred=of_class(label, 1, 30)).decide()
    assert endpoint(decision, "referral").verdict is PASS
    assert decision.verdict is FAIL
    reasons(decision, "referral:PNEUMONIA: the clean referral rate 30.0% exceeds 5.0% (n = 100, 30 referred)")


def test_a_referred_case_is_not_answered_unless_the_protocol_says_what_the_reader_does() -> None:
    label = np.arange(1000) % 2
    stands = first(0, 1000), first(1000, 1000)
    verdicts = {}
    for counts_as in ("not_answered", "model_answer", "right"):
        reason = None if counts_as == "not_answered" else "Shown in the reader study."
        rules = guarded(referred={"counts_as": counts_as, "reason": reason})
        decision = released(label, rules=rules, robust=stands, referred=first(30, 1000)).decide()
        verdicts[counts_as] = (decision.verdict, endpoint(decision, "accuracy").table)
    assert verdicts["not_answered"] == (FAIL, (970, 0, 30, 0))
    assert verdicts["model_answer"] == verdicts["right"] == (PASS, (1000, 0, 0, 0))
    wrong = first(30, 1000)
    rules = guarded(referred=READER)
    decision = released(label, rules=rules, right=(~wrong, ~wrong), robust=stands, referred=wrong).decide()
    assert endpoint(decision, "accuracy").table == (970, 30, 0, 0)


def test_a_reader_who_is_always_right_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="counts_as right needs its reason"):
        guarded(referred={"counts_as": "right"})


def test_referral_under_attack_is_within_its_own_limit() -> None:
    label = np.arange(400) % 2
    stands = first(0, 400), first(400, 400)
    for sent, verdict in ((160, PASS), (190, INCONCLUSIVE), (210, FAIL)):
        rules = guarded(referred=READER)
        decision = released(label, rules=rules, robust=stands, referred_attacked=first(sent, 400)).decide()
        assert endpoint(decision, "referral_attacked").verdict is decision.verdict is verdict
    decision = released(label, rules=guarded(referral_attacked=1.0, referred=READER), robust=stands).decide()
    reasons(decision, "The protocol 'toy' states no limit of referrals under attack")


def test_a_guarded_run_without_referral_under_attack_is_invalid() -> None:
    made = released(np.arange(100) % 2, rules=guarded(), robust=(first(0, 100), first(100, 100)))
    decision = made.with_subject("composite", referred_attacked=None).decide()
    assert decision.verdict is INVALID
    assert "there is no outcome of referral under attack" in decision.reasons[0]


# --- subgroups and sites


def test_sensitivity_lost_in_women_fails_though_accuracy_is_kept() -> None:
    """12 of 12 to 4 of 12 in women; men gain as many."""
    label = np.repeat([0, 1], [500, 500])
    women = (of_class(label, 1, 12)) | of_class(label, 0, 200)
    lost, gained = of_class(label, 1, 8), (label == 1) & ~of_class(label, 1, 492)
    rules = protocol(floor=0.3, columns=("sex",), margins=(0.02, 0.05))
    decision = released(
        label,
        rules=rules,
        right=(~gained, ~lost),
        robust=(first(0, 1000), ~gained),
        groups={"sex": np.where(women, "F", "M")},
    ).decide()
    assert endpoint(decision, "accuracy").verdict is endpoint(decision, "sensitivity").verdict is PASS
    assert decision.verdict is FAIL
    reasons(
        decision, "sex=F:sensitivity: harm is shown: exact upper limit −16.7 pp is below −5.0 pp (n = 12, 0 gained, 8"
    )


def test_a_subgroup_that_is_too_small_is_named_with_the_cases_it_would_take() -> None:
    label = np.arange(1000) % 2
    rules = protocol(floor=0.3, columns=("site",))
    site = np.where(first(40, 1000), "B", "A")
    decision = released(label, rules=rules, robust=(first(0, 1000), first(1000, 1000)), groups={"site": site}).decide()
    assert decision.verdict is PASS
    needed = endpoint(decision, "site=B:sensitivity").needed
    assert needed is not None
    assert needed > 60
    reasons(decision, "Subgroups are descriptive")
    assert f"site=B:sensitivity (n = 20 of about {needed} needed)" in decision.reasons[-1]


def test_a_site_without_robustness_fails() -> None:
    label = np.arange(1000) % 2
    site = np.where(first(200, 1000), "B", "A")
    rules = protocol(floor=0.3, columns=("site",))
    decision = released(label, rules=rules, robust=(first(0, 1000), site == "A"), groups={"site": site}).decide()
    assert endpoint(decision, "robust_floor").verdict is PASS
    assert decision.verdict is FAIL
    reasons(decision, "site=B:robust_floor: harm is shown: exact upper limit 1.8% is below 30.0% (n = 200, 0 robust)")


def test_a_site_whose_cases_are_referred_fails() -> None:
    label = np.arange(1000) % 2
    site = np.where(first(40, 1000), "B", "A")
    rules = protocol(
        mode="guarded",
        classes=CLASSES,
        floor=0.3,
        columns=("site",),
        fusion={"referral_attacked": 0.5, "referred": READER},
    )
    stands, groups = (first(0, 1000), first(1000, 1000)), {"site": site}
    clean = released(label, rules=rules, robust=stands, groups=groups, referred=first(35, 1000)).decide()
    assert endpoint(clean, "referral").verdict is PASS
    assert clean.verdict is FAIL
    reasons(clean, "site=B:referral: harm is shown: exact lower limit")
    attacked = released(label, rules=rules, robust=stands, groups=groups, referred_attacked=first(35, 1000)).decide()
    assert attacked.verdict is FAIL
    reasons(attacked, "site=B:referral_attacked: harm is shown")


# --- what a comparison is worth


def test_an_original_that_is_a_coin_flip_shows_nothing() -> None:
    label, flip = np.arange(1000) % 2, np.arange(1000) % 4 < 2
    made = released(label, right=(flip, flip), robust=(first(0, 1000), flip))
    decision = made.decide()
    assert decision.verdict is INCONCLUSIVE
    reasons(
        decision, "original: the lower 95 % limit of its balanced accuracy 46.9% is not above 50.0%, which is chance"
    )


def test_stated_floors_of_clean_performance_hold_for_both_models() -> None:
    label, wrong = np.arange(1000) % 2, first(150, 1000)
    right = ~wrong
    for floor, verdict in ((0.8, PASS), (0.84, INCONCLUSIVE), (0.9, FAIL)):
        rules = protocol(floor=0.3, recall={"floor": floor})
        decision = released(label, rules=rules, right=(right, right), robust=(first(0, 1000), right)).decide()
        names = ["specificity_floor", "sensitivity_floor", "original_specificity_floor", "original_sensitivity_floor"]
        assert {endpoint(decision, name).verdict for name in names} == {verdict}
        assert decision.verdict is verdict


def test_a_clean_gain_is_no_gain_under_attack() -> None:
    """The original is right on 40 %, and all of it stands; the release on all, of which attacks take 54 %."""
    label = np.arange(1000) % 2
    right = first(400, 1000) | first(0, 1000), first(1000, 1000)
    stands = right[0], np.arange(1000) % 100 < 46
    rules = protocol(floor=0.3, recall={"floor": 0.1})
    decision = released(label, rules=rules, right=right, robust=stands).decide()
    assert endpoint(decision, "robust_gain").verdict is PASS
    assert decision.verdict is FAIL
    reasons(decision, "robust_gain_where_right: attacks win on the composite more often than on the original")


def test_a_suite_that_wins_on_nobody_shows_nothing() -> None:
    label = np.arange(1000) % 2
    right = ~first(100, 1000), first(1000, 1000)
    decision = released(label, right=right, robust=right).decide()
    assert endpoint(decision, "robust_gain").verdict is PASS
    assert decision.verdict is INCONCLUSIVE
    reasons(decision, "attacks: of the suite none won on any case", "robust_gain_where_right: lower 95 % limit")


def test_a_wrong_answer_that_was_referred_is_no_win_of_an_attack() -> None:
    """With a reader who is right, clean wrong answers count as right; no attack won on them for that."""
    label, wrong = np.arange(1000) % 2, first(40, 1000)
    decision = released(
        label, rules=guarded(referred=READER), right=(~wrong, ~wrong), robust=(~wrong, ~wrong), referred=wrong
    ).decide()
    reasons(decision, "attacks: of the suite none won on any case")


def test_calibration_that_is_destroyed_does_not_pass_under_the_defaults() -> None:
    """Confidence .9 to .9995 at 90 % right."""
    label, right = np.arange(1000) % 2, np.arange(1000) % 10 > 0
    stands = first(0, 1000), right
    sure = 0.9, 0.9995
    default = protocol(more=(("brier", 0.02),), floor=0.3)
    decision = released(label, rules=default, right=(right, right), robust=stands, sure=sure).decide()
    assert decision.verdict is not PASS
    assert endpoint(decision, "brier").verdict is not PASS
    metrics = [m.metric for m in Protocol.model_validate(_minimal()).endpoints.noninferiority]
    assert metrics == ["accuracy", "recall", "brier"]


def test_calibration_held_against_nothing_is_said() -> None:
    raw = _minimal()
    raw["endpoints"] = {
        "noninferiority": ({"metric": "accuracy", "margin": 0.02}, {"metric": "recall", "margin": 0.05})
    }
    decision = records(rules=Protocol.model_validate(raw)).decide()
    assert "gate.calibration_not_held" in [f.code for f in decision.findings]
    reasons(decision, "The protocol 'bare' has no brier among endpoints.noninferiority: calibration was not held")


def _minimal() -> dict[str, object]:
    return {
        "schema_version": 1,
        "name": "bare",
        "title": "Bare",
        "intended_use": "Tests.",
        "task": {"positive": "PNEUMONIA"},
        "threat": {"eps": 2.0, "unit": "1/255"},
        "suite": {"attacks": ({"attack": "pgd", "loss": "ce", "steps": 20},)},
    }


# --- margins by class


@pytest.mark.parametrize("key", ["sensitivity", "PNEUMONIA"])
def test_a_class_has_its_own_margin_with_its_own_reason(key: str) -> None:
    label, lost = np.arange(1000) % 2, of_class(np.arange(1000) % 2, 0, 15)
    own = {"by_class": {key: {"margin": 0.02, "justification": "A missed pneumonia is treated late."}}}
    rules = protocol(floor=0.3, margins=(0.05, 0.1), recall=own, classes=CLASSES)
    everybody = first(1000, 1000)
    decision = released(label, rules=rules, right=(everybody, ~lost), robust=(first(0, 1000), ~lost)).decide()
    sensitivity, specificity = endpoint(decision, "sensitivity"), endpoint(decision, "specificity")
    assert (sensitivity.limit, specificity.limit) == (-0.02, -0.1)
    assert sensitivity.justification == "A missed pneumonia is treated late."
    assert decision.verdict is PASS
    turned = of_class(label, 1, 15)
    decision = released(label, rules=rules, right=(everybody, ~turned), robust=(first(0, 1000), ~turned)).decide()
    assert endpoint(decision, "sensitivity").verdict is FAIL


def test_a_rare_class_with_its_own_margin_lets_identical_answers_pass() -> None:
    label = np.repeat([0, 1], [1980, 23])
    everybody = first(2003, 2003)
    for own, verdict in ((None, INCONCLUSIVE), ({"margin": 0.19, "justification": "Read twice."}, PASS)):
        recall = {} if own is None else {"by_class": {"sensitivity": own}}
        rules = protocol(floor=0.3, margins=(0.02, 0.05), recall=recall)
        decision = released(label, rules=rules, robust=(first(0, 2003), everybody)).decide()
        assert decision.verdict is verdict


def test_a_margin_by_class_without_a_reason_is_said_in_every_verdict() -> None:
    rules = protocol(recall={"by_class": {"specificity": {"margin": 0.1}}})
    decision = records(rules=rules).decide()
    assert not decision.margins_justified
    assert "recall of specificity margin 0.1" in decision.reasons[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"recall": {"by_class": {"Effusion": {"margin": 0.1}}}},
            "can't be told to be classes; write out task.classes",
        ),
        ({"recall": {"by_class": {"Effusion": {"margin": 0.1}}}, "classes": CLASSES}, "are none of task.classes"),
        ({"recall": {"by_class": {"sensitivity": {"margin": 0.1}}}, "positive": None}, "write out task.classes"),
        ({"robustness": {"by_class": {"nobody": {"floor": 0.1}}}, "classes": CLASSES}, "are none of task.classes"),
        ({"fusion": {"referral_by_class": {"sensitivity": 0.1}}, "classes": CLASSES}, "are none of task.classes"),
    ],
)
def test_limits_of_classes_that_are_none_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        protocol(**changes)  # type: ignore[arg-type]


def test_a_loss_that_is_shown_within_the_margin_is_a_finding() -> None:
    label, lost = np.arange(2000) % 2, first(12, 2000)
    everybody = first(2000, 2000)
    rules = protocol(floor=0.3)
    decision = released(label, rules=rules, right=(everybody, ~lost), robust=(first(0, 2000), ~lost)).decide()
    assert decision.verdict is PASS
    [finding] = [f for f in decision.findings if f.code == "gate.loss_shown"]
    assert finding.message.startswith("Within the margin, and yet a loss that is shown: accuracy (−0.6 pp, limits ")
    assert "gate.loss_shown" not in [f.code for f in records().decide().findings]
