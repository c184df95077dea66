"""A release against the change control plan of its predecessor: what changed, what was foreseen, under which bars."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gating_factory as factory
import pytest
from gating_factory import Records, records
from gating_releases import OLD, decision_of, released

from medharden.errors import ProtocolError
from medharden.gating import Release, changes
from medharden.gating.changes import artefact_bars, artefact_rows
from medharden.protocol import Protocol, parse_protocol
from medharden.record import CaseRecord, Endpoint, GateDecision, Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
SEED = {"change": "seed", "description": "Retraining under another seed."}
DATA = {"change": "data", "description": "More cases of the same sites.", "bars": {"accuracy": 0.012}}


def planned(*modifications: dict[str, Any], **changes: Any) -> Protocol:
    """A protocol with a plan; `changes` are of other sections."""
    content = factory.protocol(margins=(0.05, 0.1)).model_dump(mode="python")
    unforeseen = changes.pop("unforeseen", "hold")
    content["change_control"] = {"modifications": modifications, "unforeseen": unforeseen}
    for section, value in changes.items():
        content[section] = content[section] | value if isinstance(value, dict) else value
    return Protocol.model_validate(content)


def decided(before: Protocol, after: Protocol, change: Any = None, **made: Any) -> GateDecision:
    new = records(1000, rules=after, **made)
    return decision_of(change(new) if change else new, released(records(1000, rules=before)))


def with_more_training(made: Records) -> Records:
    more = CaseRecord("train99", "train-patient99", "train", 0, "pixels-train99")
    return replace(made, cohort=replace(made.cohort, cases=(*made.cohort.cases, more)))


def test_a_foreseen_change_passes_and_is_told_as_the_plan_has_it() -> None:
    decision = decided(planned(SEED), planned(SEED, seed=7))
    assert decision.verdict is PASS, decision.reasons
    [row] = decision.changes
    assert (row.change, row.foreseen, row.description) == ("seed", True, "Retraining under another seed.")
    assert row.what == "the seed, 20220413 to 7"
    assert "gate.change_foreseen" in {f.code for f in decision.findings}
    assert decision.authorised == OLD


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (planned(SEED, hardening={"epochs": 3}), "hardening"),
        (planned(SEED, threat={"eps": 1.0}), "threat"),
        (planned(SEED, endpoints={"alpha": 0.02}), "endpoints"),
        (planned(SEED, intended_use="Screening of children."), "intended_use"),
        (planned(SEED, DATA), "plan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_plan_does_not_foresee_holds_the_release(after: Protocol, change: str) -> None:
    decision = decided(planned(SEED), after)
    assert decision.verdict is INCONCLUSIVE
    assert [row.change for row in decision.changes if not row.foreseen] == [change]
    assert any("not foreseen by the plan that was authorised" in reason for reason in decision.reasons)


def test_a_release_cannot_write_its_own_permission() -> None:
    decision = decided(planned(SEED), planned(SEED, DATA), with_more_training)
    assert {row.change: row.foreseen for row in decision.changes} == {"data": False, "plan": False}
    assert decision.verdict is INCONCLUSIVE
    allowed = decided(planned(SEED, DATA), planned(SEED, DATA), with_more_training)
    assert {row.change: row.foreseen for row in allowed.changes} == {"data": True}
    assert allowed.verdict is PASS


def test_a_plan_may_only_say_what_it_does_not_foresee() -> None:
    plan = planned(SEED, unforeseen="say")
    decision = decided(plan, planned(SEED, unforeseen="say", hardening={"epochs": 3}))
    assert decision.verdict is PASS
    assert any("not foreseen by its plan" in reason for reason in decision.reasons)


def test_the_bar_of_a_change_that_was_made_is_an_endpoint_and_stricter_than_the_margin() -> None:
    plan = planned(SEED, DATA)
    decision = decided(plan, plan, with_more_training, lost=8)
    found = {e.name: e for e in decision.endpoints}
    assert found["authorised:accuracy"].verdict is PASS
    assert (found["plan:accuracy"].limit, found["plan:accuracy"].verdict) == (-0.012, INCONCLUSIVE)
    assert decision.verdict is INCONCLUSIVE
    assert decided(plan, plan, with_more_training, lost=13).verdict is FAIL
    untouched = decided(plan, plan, lost=8)
    assert not any(e.name.startswith("plan:") for e in untouched.endpoints)
    assert untouched.verdict is PASS


def test_other_tools_and_another_original_are_changes() -> None:
    plan = planned(SEED)
    new, old = records(1000, rules=plan), records(1000, rules=plan)
    environment = replace(old.harden.environment, packages={"numpy": "1"})
    original = replace(old.harden.original, state="9" * 64)
    release: Release = released(
        old, harden=replace(old.harden, hardened=OLD, environment=environment, original=original)
    )
    assert {row.change for row in decision_of(new, release).changes} == {"tool", "original"}


def test_without_a_plan_or_a_predecessor_nothing_is_held() -> None:
    assert decided(factory.protocol(), planned(SEED)).changes == ()
    assert records(1000, rules=planned(SEED)).decide().changes == ()
    assert records(1000, rules=planned(SEED)).decide().verdict is PASS


# --- exported forms ---------------------------------------------------------------------------------------------------


def agreement(estimate: float, upper: float) -> Endpoint:
    return Endpoint("agreement", "agreement", INCONCLUSIVE, estimate, 0.0, upper, 0.95, 0.0, 1000, 1000, (), None, None,
                    "exact", "", "agreement: some", comparator="composite", role="reported")  # fmt: skip


def test_an_exported_form_is_held_against_the_bars_of_its_own_run() -> None:
    rules = planned({"change": "quantisation", "description": "int8.", "bars": {"agreement": 0.01, "accuracy": 0.02}})
    [row] = artefact_rows(rules, "int8")
    assert (row.change, row.foreseen) == ("quantisation", True)
    assert [r.foreseen for r in artefact_rows(rules, "")] == [False]
    table = records(1000, rules=rules, lost=3).cases
    table = replace(table, subjects=table.subjects | {"artefact": table.subjects["composite"]})
    for (estimate, upper), verdict in (((0.0, 0.004), PASS), ((0.008, 0.016), INCONCLUSIVE), ((0.02, 0.03), FAIL)):
        found = {
            e.name: e for e in artefact_bars(rules, ("NORMAL", "PNEUMONIA"), table, agreement(estimate, upper), (row,))
        }
        assert found["plan:agreement"].verdict is verdict
        assert (found["plan:accuracy"].verdict, found["plan:accuracy"].comparator) == (PASS, "composite")
        assert found["plan:accuracy"].estimate == 0.0


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("[{change: seed, description: A.}, {change: seed, description: B.}]", "foresees a change twice"),
        ("[{change: seed, description: A., bars: {agreement: 0.1}}]", "is for export and quantisation"),
        ("[{change: anything, description: A.}]", "modifications"),
    ],
)
def test_a_plan_that_says_nothing_is_refused(plan: str, said: str) -> None:
    text = "schema_version: 1\nname: a\ntitle: A\nintended_use: T.\nthreat: {eps: 0.1}\nchange_control:\n"
    with pytest.raises(ProtocolError, match=said):
        parse_protocol(f"{text}  modifications: {plan}\n", "a.yaml")


def test_every_section_of_a_protocol_that_decides_is_compared() -> None:
    compared = {*changes._SECTIONS, *changes._UNFORESEEABLE, "seed", "change_control"}
    assert set(Protocol.model_fields) - compared == {"schema_version", "name", "title", "report"}
