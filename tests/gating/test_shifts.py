"""Endpoints under corruptions: each by itself, all that have a margin must pass, and the records must hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gating_factory as factory
import numpy as np
import pytest
from pydantic import ValidationError

from medharden.audit import read_cases, write_cases
from medharden.protocol import Protocol
from medharden.record import Endpoint, GateDecision, ShiftedAnswers, Verdict, point_of, under

WHY = "A tenth of what readers differ by."


def asking(mode: str = "mixed", **shift: Any) -> Protocol:
    fields = factory.protocol(mode=mode).model_dump()
    fields["shift"] |= {"corruptions": ("noise", "jpeg"), "severities": (1, 3), **shift}
    return Protocol.model_validate(fields)


def answered(rules: Protocol, lost: dict[str, int], n: int = 400, **given: Any) -> factory.Records:
    """Records in which the composite loses so many cases under each corruption, at each severity, and gains none."""
    made = factory.records(n, rules=rules, **given)
    right = made.cases.subjects["original"].predicted

    def worse(count: int) -> np.ndarray:
        changed = right.copy()
        changed[-count or n :] = 1 - changed[-count or n :]
        return changed

    shift = tuple(
        ShiftedAnswers(name, severity, right.copy(), worse(lost.get(name, 0)), np.zeros(n, dtype=bool))
        for name in rules.shift.corruptions
        for severity in rules.shift.severities
    )
    cases = replace(made.cases, shift=shift)
    points = tuple(point_of(answers, cases) for answers in shift)
    return replace(made, cases=cases, evaluation=replace(made.evaluation, shift=points))


def of(decision: GateDecision, name: str) -> Endpoint:
    return next(e for e in decision.endpoints if e.name == name)


def test_all_corruptions_with_a_margin_must_pass() -> None:
    rules = asking(margin=0.03, recall_margin=0.05, justification=WHY)
    kept = answered(rules, {}).decide()
    assert kept.verdict is Verdict.PASS
    assert of(kept, "shift:noise:accuracy").justification == WHY
    assert {e.name for e in kept.endpoints if e.kind == "shift"} == {
        f"shift:{name}:{of}" for name in ("noise", "jpeg") for of in ("accuracy", "specificity", "sensitivity")
    }
    fallen = answered(rules, {"jpeg": 40}).decide()
    assert fallen.verdict is Verdict.FAIL
    assert of(fallen, "shift:noise:accuracy").verdict is Verdict.PASS
    assert of(fallen, "shift:jpeg:accuracy").verdict is Verdict.FAIL
    assert any(reason.startswith("under jpeg, accuracy: ") for reason in fallen.reasons)


def test_one_class_lost_behind_a_good_whole_fails() -> None:
    rules = asking(margin=0.1, recall_margin=0.02, justification=WHY)
    made = answered(rules, {})
    sick = np.flatnonzero(made.cases.label == 1)[-10:]
    shift = []
    for answers in made.cases.shift:
        changed = answers.composite.copy()
        changed[sick] = 0
        shift.append(replace(answers, composite=changed))
    cases = replace(made.cases, shift=tuple(shift))
    points = tuple(point_of(answers, cases) for answers in shift)
    decision = replace(made, cases=cases, evaluation=replace(made.evaluation, shift=points)).decide()
    assert of(decision, "shift:noise:accuracy").verdict is Verdict.PASS
    assert of(decision, "shift:noise:sensitivity").verdict is Verdict.FAIL
    assert decision.verdict is Verdict.FAIL


def test_without_a_margin_the_change_is_reported_and_decides_nothing() -> None:
    decision = answered(asking(), {"jpeg": 40}).decide()
    assert decision.verdict is Verdict.PASS
    endpoint = of(decision, "shift:jpeg:accuracy")
    assert (endpoint.role, endpoint.verdict, endpoint.estimate) == ("reported", Verdict.FAIL, pytest.approx(-0.1))
    assert "gate.shift_not_gated" in {f.code for f in decision.findings}


def test_a_protocol_without_corruptions_has_no_endpoint_under_them() -> None:
    decision = factory.records().decide()
    assert not any(e.kind == "shift" for e in decision.endpoints)
    assert decision.findings == ()


def test_severities_add_no_patients() -> None:
    """Nothing lost of 60 cases at five severities is 60 cases that lost nothing, not 300."""
    few = answered(asking(margin=0.03, severities=(1, 2, 3, 4, 5)), {}, n=60).decide()
    endpoint = of(few, "shift:noise:accuracy")
    assert (endpoint.n, endpoint.patients, endpoint.verdict) == (300, 60, Verdict.INCONCLUSIVE)
    assert endpoint.lower < -0.03


def test_a_case_that_is_referred_under_a_corruption_is_not_answered() -> None:
    rules = asking(mode="guarded", margin=0.03)
    made = answered(rules, {})
    flags = np.arange(400) >= 360
    shift = tuple(replace(a, referred=flags) if a.corruption == "noise" else a for a in made.cases.shift)
    cases = replace(made.cases, shift=shift)
    points = tuple(point_of(answers, cases) for answers in shift)
    decision = replace(made, cases=cases, evaluation=replace(made.evaluation, shift=points)).decide()
    assert of(decision, "shift:noise:accuracy").verdict is Verdict.FAIL
    assert of(decision, "shift:jpeg:accuracy").verdict is Verdict.PASS
    assert [p.referred for p in points] == [40, 40, 0, 0]


def missing(made: factory.Records) -> factory.Records:
    return replace(made, cases=replace(made.cases, shift=made.cases.shift[1:]))


def twice(made: factory.Records) -> factory.Records:
    return replace(made, cases=replace(made.cases, shift=(*made.cases.shift, made.cases.shift[0])))


def uncounted(made: factory.Records) -> factory.Records:
    points = (replace(made.evaluation.shift[0], lost=1), *made.evaluation.shift[1:])
    return replace(made, evaluation=replace(made.evaluation, shift=points))


def no_class(made: factory.Records) -> factory.Records:
    first, *others = made.cases.shift
    return replace(made, cases=replace(made.cases, shift=(replace(first, composite=first.composite + 2), *others)))


def short(made: factory.Records) -> factory.Records:
    first, *others = made.cases.shift
    return replace(made, cases=replace(made.cases, shift=(replace(first, original=first.original[1:]), *others)))


def referring(made: factory.Records) -> factory.Records:
    first, *others = made.cases.shift
    return replace(made, cases=replace(made.cases, shift=(replace(first, referred=first.referred | True), *others)))


@pytest.mark.parametrize("broken", [missing, twice, uncounted, no_class, short, referring])
def test_records_that_do_not_hold_what_the_protocol_asks_are_invalid(broken: Any) -> None:
    decision = broken(answered(asking(margin=0.03), {})).decide()
    assert decision.verdict is Verdict.INVALID


def test_answers_that_nobody_asked_for_are_invalid() -> None:
    made = answered(asking(), {})
    plain = factory.records()
    assert replace(plain, cases=made.cases).decide().verdict is Verdict.INVALID


def test_the_table_comes_back_from_its_file(tmp_path: Any) -> None:
    made = answered(asking(), {"jpeg": 3})
    write_cases(tmp_path / "cases.parquet", made.cases)
    back = read_cases(tmp_path / "cases.parquet")
    assert set(back.subjects) == set(made.cases.subjects)
    for ours, theirs in zip(made.cases.shift, back.shift, strict=True):
        assert (ours.corruption, ours.severity) == (theirs.corruption, theirs.severity)
        for name in ("original", "composite", "referred"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert under(back, "blur") is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"corruptions": ("noise", "noise")}, "names one twice"),
        ({"severities": (2, 2)}, "names one twice"),
        ({"severities": (6,)}, "less than or equal to 5"),
        ({"corruptions": (), "margin": 0.02}, "needs shift.corruptions"),
        ({"margin": 0.3}, "needs shift.justification"),
        ({"corruptions": ("snow",)}, "noise"),
    ],
)
def test_a_protocol_that_asks_for_what_is_not_there_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        asking(**wrong)


def test_a_margin_without_a_reason_is_named() -> None:
    assert "shift accuracy margin 0.03" in asking(margin=0.03).unjustified
    assert not any("shift" in named for named in asking(margin=0.03, justification=WHY).unjustified)
