"""Endpoints beyond the common ones: operating points, worst groups, both countings of referrals, missing data."""

from __future__ import annotations

import json
from dataclasses import replace

import gating_factory as factory
import numpy as np
import pytest
from gating_factory import Records, records

from medharden.audit import canonical_json
from medharden.audit.records import parse_record
from medharden.errors import ProtocolError
from medharden.protocol import Protocol, parse_protocol
from medharden.record import Endpoint, Evaluation, ExcludedCase, GateDecision, OperatingThreshold, Verdict
from medharden.stats import share_interval, tango_interval

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def asking(made: Records, **endpoints: object) -> Records:
    """The same records under a protocol that asks for more."""
    content = made.protocol.model_dump(mode="python")
    content["endpoints"] |= endpoints
    return under(made, Protocol.model_validate(content))


def under(made: Records, rules: Protocol) -> Records:
    return replace(
        made,
        protocol=rules,
        harden=replace(made.harden, protocol=rules.digest),
        evaluation=replace(made.evaluation, protocol=rules.digest),
        digests=replace(made.digests, protocol=rules.digest),
        history=replace(made.history, locks=(replace(made.history.locks[0], protocol=rules.digest),)),
    )


def named(made: Records, name: str) -> Endpoint:
    return next(e for e in made.decide().endpoints if e.name == name)


# --- records from before --------------------------------------------------------------------------------------------


def test_records_from_before_these_fields_are_read_as_if_nothing_was_asked() -> None:
    made = records(800)
    decision = made.decide()
    fields = json.loads(canonical_json(decision))
    for name in ("independent", "missing", "worst_case", "changes"):
        assert not fields.pop(name)
    for endpoint in fields["endpoints"]:
        assert endpoint.pop("tester") == ""
    assert parse_record("gate.json", canonical_json(fields) + b"\n", GateDecision) == decision
    evaluated = json.loads(canonical_json(made.evaluation))
    assert evaluated.pop("tester") is None
    assert not evaluated.pop("operating_points")
    assert parse_record("evaluation.json", canonical_json(evaluated) + b"\n", Evaluation) == made.evaluation


# --- operating points -------------------------------------------------------------------------------------------------

POINT = {"fixed": "specificity", "at": 0.9, "margin": 0.05}


def scored(original: float, composite: float, **point: object) -> Records:
    """Answers with scores .8 and .2, called from these thresholds."""
    made = asking(records(800, gained=10, lost=10), operating_points=({**POINT, **point},))
    at = OperatingThreshold("specificity", 0.9, original, composite, 60, 0.9, 0.9)
    return replace(made, evaluation=replace(made.evaluation, operating_points=(at,)))


def test_each_model_answers_at_its_own_threshold_from_validation() -> None:
    made = scored(0.5, 0.5)
    usual = named(made, "sensitivity")
    found = named(made, "sensitivity_at_specificity_0.9")
    assert (found.table, found.lower, found.verdict) == (usual.table, usual.lower, PASS)
    assert found.limit == -0.05
    held = named(made, "specificity_at_specificity_0.9")
    assert held.table == named(made, "specificity").table
    moved = named(scored(0.5, 0.9), "sensitivity_at_specificity_0.9")  # the release never calls a case positive
    assert (moved.verdict, moved.table[0], moved.table[1]) == (FAIL, 0, 0)
    assert scored(0.5, 0.9).decide().verdict is FAIL
    assert scored(0.5, 0.9, role="reported").decide().verdict is PASS


def test_sensitivity_bought_with_specificity_does_not_pass() -> None:
    made = scored(0.5, 0.1)  # the release calls every case positive
    assert named(made, "sensitivity_at_specificity_0.9").verdict is PASS
    assert named(made, "specificity_at_specificity_0.9").verdict is FAIL
    wide = named(scored(0.5, 0.5, held_margin=0.5), "specificity_at_specificity_0.9")
    assert wide.limit == -0.5


def test_an_evaluation_without_the_thresholds_is_no_evidence() -> None:
    made = asking(records(800), operating_points=(POINT,))
    decision = made.decide()
    assert decision.verdict is Verdict.INVALID
    assert "no thresholds for specificity 0.9" in decision.reasons[0]


# --- worst groups -----------------------------------------------------------------------------------------------------


def grouped(lost_in_b: int, n: int = 900, small: int = 0, **wanted: object) -> Records:
    """Three sites, A and C alike, B with so many cases lost and nothing gained; `small` cases of a site D."""
    rules = factory.protocol(columns=("site",), margins=(0.15, 0.3))
    made = asking(records(n, rules=rules), worst_group=({"metric": "accuracy", "margin": 0.1, **wanted},))
    sites = np.array(["A", "B", "C"])[np.arange(n) % 3]
    sites[n - small :] = "D"
    lost = np.flatnonzero((sites == "B") & made.cases.right("composite"))[:lost_in_b]
    released = made.cases.subjects["composite"]
    predicted, p = released.predicted.copy(), released.probabilities.copy()
    predicted[lost] = 1 - predicted[lost]
    p[lost] = p[lost, ::-1]
    robust, won = released.robust.copy(), np.array(released.won_by, dtype=object)
    robust[lost], won[lost] = False, "clean"
    moved = replace(released, predicted=predicted, probabilities=p, robust=robust, won_by=tuple(won.tolist()))
    table = replace(
        made.cases, subjects=made.cases.subjects | {"composite": moved}, groups={"site": tuple(sites.tolist())}
    )
    return replace(made, cases=table, evaluation=factory.evaluation(made.protocol, table, made.cohort.classes))


def test_the_least_limit_of_all_groups_decides() -> None:
    found = named(grouped(9), "worst_group:accuracy")
    assert found.lower == pytest.approx(tango_interval(0, 9, 300)[0], abs=1e-9)
    assert (found.n, found.verdict) == (300, PASS)
    assert "worst of 3 groups, site=B" in found.reason
    assert "intersection-union" in found.method
    assert named(grouped(25), "worst_group:accuracy").verdict is INCONCLUSIVE
    assert named(grouped(60), "worst_group:accuracy").verdict is FAIL
    assert "harm is shown in site=B" in named(grouped(60), "worst_group:accuracy").reason


def test_groups_that_gain_do_not_hide_one_that_loses() -> None:
    made = grouped(25)
    assert named(made, "accuracy").verdict is PASS
    assert made.decide().verdict is INCONCLUSIVE


def test_a_floor_holds_in_every_group_by_exact_limits() -> None:
    found = named(grouped(9, margin=None, floor=0.8), "worst_group_floor:accuracy")
    right = grouped(9).cases
    b = np.array(right.groups["site"]) == "B"
    share = share_interval(right.right("composite")[b])
    assert found.lower == pytest.approx(share.lower, abs=1e-9)
    assert found.verdict is PASS
    assert named(grouped(9, margin=None, floor=0.92), "worst_group_floor:accuracy").verdict is INCONCLUSIVE
    assert named(grouped(9, margin=None, floor=0.97), "worst_group_floor:accuracy").verdict is FAIL


def test_a_group_of_a_few_patients_is_neither_passed_over_nor_left_out_in_silence() -> None:
    held = named(grouped(0, small=6), "worst_group:accuracy")
    assert held.verdict is INCONCLUSIVE
    out = named(grouped(0, small=6, least_cases=20, justification="Site D opened last week."), "worst_group:accuracy")
    assert out.verdict is PASS
    assert "left out as too small: site=D (n = 6)" in out.reason


def test_each_class_and_robustness_have_their_worst_group() -> None:
    made = grouped(9, metric="recall", margin=0.2)
    assert {e.name for e in made.decide().endpoints if e.name.startswith("worst")} == {
        "worst_group:sensitivity", "worst_group:specificity",
    }  # fmt: skip
    robust = named(grouped(0, metric="robust", margin=None, floor=0.2), "worst_group_floor:robust")
    assert (robust.kind, robust.verdict) == ("robust_floor", PASS)


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ("worst_group: [{metric: accuracy, margin: 0.1}]", "subgroups.columns declares"),
        ("worst_group: [{metric: accuracy}]", "needs a margin, a floor or both"),
        ("worst_group: [{metric: accuracy, margin: 0.1, least_cases: 9}]", "say why"),
        ("operating_points: [{fixed: specificity, at: 0.9, margin: 0.1}]", "task.positive"),
        ("operating_points: [{fixed: specificity, at: 1.0, margin: 0.1}]", "less than 1"),
    ],
)
def test_a_protocol_that_cannot_be_held_is_refused(endpoints: str, said: str) -> None:
    text = "schema_version: 1\nname: a\ntitle: A\nintended_use: T.\nthreat: {eps: 0.1}\nendpoints:\n  "
    with pytest.raises(ProtocolError, match=said):
        parse_protocol(text + endpoints + "\n", "a.yaml")


# --- referrals, counted both ways -------------------------------------------------------------------------------------


def test_referred_cases_are_shown_as_wrong_and_as_right_and_one_counting_decides() -> None:
    rules = factory.protocol(mode="guarded", budget=0.2)
    made = records(800, rules=rules, referred=60)
    decision = made.decide()
    found = {e.name: e for e in decision.endpoints}
    assert not any(name.startswith("referred_wrong") for name in found)  # the common endpoints count them so
    as_right = found["referred_right:accuracy"]
    assert (as_right.role, found["accuracy"].role) == ("reported", "co-primary")
    assert as_right.estimate > found["accuracy"].estimate
    stated = factory.protocol(mode="guarded", budget=0.2, fusion={"referred": {"counts_as": "right", "reason": "R."}})
    other = {e.name: e for e in records(800, rules=stated, referred=60).decide().endpoints}
    assert other["referred_wrong:accuracy"].table == found["accuracy"].table
    assert other["accuracy"].table == as_right.table
    assert not any(e.name.startswith("referred_") for e in records(800).decide().endpoints)


# --- missing data -----------------------------------------------------------------------------------------------------


def left_out(made: Records, *cases: tuple[str, int | None]) -> Records:
    lost = tuple(ExcludedCase(f"x{n}", label, "test", reason) for n, (reason, label) in enumerate(cases))
    return replace(made, cohort=replace(made.cohort, excluded=lost))


def test_missing_cases_are_counted_by_reason_class_and_arm() -> None:
    rules = factory.protocol(mode="guarded", budget=0.2)
    made = left_out(
        records(800, rules=rules, referred=5), ("can't be read", 0), ("label is uncertain", 1), ("can't be read", 0)
    )
    rows = {(r.kind, r.label, r.arm): r.cases for r in made.decide().missing}
    assert rows == {
        ("unusable", "NORMAL", "both"): 2,
        ("uncertain", "PNEUMONIA", "both"): 1,
        ("referred", "NORMAL", "release"): 3,
        ("referred", "PNEUMONIA", "release"): 2,
    }


def test_each_arm_has_its_worst_case() -> None:
    made = left_out(records(2000), *[("can't be read", n % 2) for n in range(20)])
    base = {e.name: e for e in made.decide().endpoints}
    found = {e.name: e for e in made.decide().worst_case}
    n = 2020
    assert found["against_release:accuracy"].estimate == pytest.approx(-20 / n)
    assert found["against_original:accuracy"].estimate == pytest.approx(20 / n)
    assert found["against_both:accuracy"].estimate == base["accuracy"].estimate == 0.0
    assert found["against_release:accuracy"].lower == pytest.approx(tango_interval(0, 20, n)[0], abs=1e-9)
    assert {e.role for e in found.values()} == {"reported"}
    assert not records(2000).decide().worst_case


def test_a_protocol_may_ask_that_the_worst_case_passes() -> None:
    lost = [("can't be read", n % 2) for n in range(60)]
    assert left_out(records(2000), *lost).decide().verdict is PASS
    rules = factory.protocol(splits={"excluded_worst_case": "must_pass"})
    decision = left_out(records(2000, rules=rules), *lost).decide()
    assert decision.verdict is INCONCLUSIVE
    assert any("splits.excluded_worst_case" in reason and "accuracy" in reason for reason in decision.reasons)
    assert left_out(records(2000, rules=rules), *lost[:4]).decide().verdict is PASS


def test_of_unknown_classes_the_worst_guess_counts() -> None:
    made = left_out(records(2000), *[("can't be read", None)] * 20)
    found = {e.name: e for e in made.decide().worst_case}
    assert found["against_release:sensitivity"].estimate == pytest.approx(-20 / 1020)
    assert found["against_release:specificity"].estimate == pytest.approx(-20 / 1020)
