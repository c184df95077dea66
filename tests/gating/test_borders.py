"""Verdicts exactly at their borders: which side a limit that equals its bound falls on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from gating_changes import grouped, scored
from gating_factory import Records, protocol, records

from medharden.gating.endpoints import family_verdict
from medharden.gating.scores import score_endpoint
from medharden.protocol import Margin
from medharden.record import Endpoint, Verdict
from medharden.stats import (
    Difference,
    auroc_difference,
    balanced_accuracy_difference,
    brier_difference,
    cases_needed,
    gain_test,
    holm,
    share_interval,
    tango_interval,
)

PASS, INCONCLUSIVE, FAIL = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL
MORE = (("balanced_accuracy", 0.03), ("auroc", 0.02), ("brier", 0.02))


def endpoint(made: Records, name: str) -> Endpoint:
    decision = made.decide()
    return {e.name: e for e in (*decision.endpoints, *decision.subgroups)}[name]


def just_above(value: float) -> float:
    return float(np.nextafter(value, 2.0))


def test_a_lower_limit_that_equals_the_margin_does_not_show_it() -> None:
    margin = -tango_interval(3, 5, 400)[0]
    at = records(rules=protocol(margins=(margin, 0.1)), gained=3, lost=5)
    wider = records(rules=protocol(margins=(just_above(margin), 0.1)), gained=3, lost=5)
    assert endpoint(at, "accuracy").verdict is INCONCLUSIVE
    assert endpoint(wider, "accuracy").verdict is PASS


def test_an_observed_loss_of_the_margin_fails_and_one_just_below_does_not() -> None:
    at = records(rules=protocol(margins=(0.02, 0.5)), lost=8)
    assert endpoint(at, "accuracy").verdict is FAIL
    wider = records(rules=protocol(margins=(just_above(0.02), 0.5)), lost=8)
    assert endpoint(wider, "accuracy").verdict is INCONCLUSIVE


def test_a_floor_and_a_budget_are_met_by_a_limit_that_equals_them() -> None:
    lower = share_interval(np.arange(400) < 240).lower
    assert endpoint(records(rules=protocol(floor=lower)), "robust_floor").verdict is PASS
    assert endpoint(records(rules=protocol(floor=just_above(lower))), "robust_floor").verdict is INCONCLUSIVE
    assert endpoint(records(rules=protocol(floor=0.6)), "robust_floor").verdict is INCONCLUSIVE
    upper = share_interval(np.arange(400) < 10).upper
    within = records(rules=protocol(mode="guarded", budget=upper), referred=10)
    assert endpoint(within, "referral").verdict is PASS
    smaller = protocol(mode="guarded", budget=float(np.nextafter(upper, 0.0)))
    assert endpoint(records(rules=smaller, referred=10), "referral").verdict is INCONCLUSIVE
    assert (
        endpoint(records(rules=protocol(mode="guarded", budget=0.025), referred=10), "referral").verdict is INCONCLUSIVE
    )


def test_harm_in_a_subgroup_is_shown_beyond_the_margin_alone() -> None:
    lost = np.arange(40) < 15
    upper = gain_test(~lost & lost, lost, alpha=0.025, patients=None).interval[1]
    for margin, verdict in ((-upper, INCONCLUSIVE), (float(np.nextafter(-upper, 0.0)), FAIL)):
        rules = protocol(columns=("sex",), margins=(margin, 0.9))
        assert endpoint(grouped("sex", 40)(records(rules=rules, lost=15, wrong=0)), "sex=A").verdict is verdict


@pytest.mark.parametrize("patients", [1, 4])
def test_score_endpoints_hold_the_numbers_of_their_methods(patients: int) -> None:
    rules = protocol(more=MORE, positive="NORMAL")
    made = scored("composite", -0.1)(records(rules=rules, gained=3, lost=9, cases_a_patient=patients))
    old, new, label = made.cases.subjects["original"], made.cases.subjects["composite"], made.cases.label
    who, before, after = made.cases.patient, old.predicted == label, new.predicted == label
    expected = {
        "balanced_accuracy": balanced_accuracy_difference(after & ~before, before & ~after, label, patients=who),
        "auroc": auroc_difference(new.probabilities[:, 0], old.probabilities[:, 0], label == 0, patients=who),
        "brier": brier_difference(new.probabilities, old.probabilities, label, patients=who),
    }
    for name, change in expected.items():
        found = endpoint(made, name)
        assert (found.estimate, found.lower, found.upper) == (change.estimate, *change.interval)
        assert (found.n, found.patients, found.level, found.method) == (400, 400 // patients, 0.95, change.method)
        margin, shown = abs(found.limit), planned(change, rises=name == "brier")
        assert found.smallest_margin == pytest.approx(shown(1.0), rel=1e-6)
        assert found.needed is not None
        assert shown(found.needed / 400) <= margin * (1 + 1e-5)
        assert shown((found.needed - 1) / 400) > margin


def planned(change: Difference, *, rises: bool) -> Callable[[float], float]:
    """The margin shown with power .80 if nothing is lost, by how many times as many cases there are."""
    if change.error is None:  # its half width, times (z.975 + z.80) / z.975
        half = (change.interval[1] - change.interval[0]) / 2
        return lambda times: half * (1.959964 + 0.841621) / 1.959964 / times**0.5
    # the deciding limit's distance, but for the least part z standard errors, and z.80 more
    distance = change.interval[1] - change.estimate if rises else change.estimate - change.interval[0]
    if distance <= change.least * (1 + abs(change.estimate)):
        distance = 1.959964 * change.error
    power = 0.841621 * change.error
    return lambda times: max(distance / times**0.5, change.least / times) + power / times**0.5


def test_brier_passes_below_its_margin_alone() -> None:
    base = scored("composite", -0.01)(records(rules=protocol(more=(("brier", 0.5),))))
    upper = endpoint(base, "brier").upper
    for margin, verdict in ((upper, INCONCLUSIVE), (just_above(upper), PASS)):
        made = scored("composite", -0.01)(records(rules=protocol(more=(("brier", margin),))))
        assert endpoint(made, "brier").verdict is verdict


def test_a_score_whose_lower_limit_equals_the_margin_is_not_shown() -> None:
    lower = endpoint(records(rules=protocol(more=(("balanced_accuracy", 0.5),)), lost=4), "balanced_accuracy").lower
    for margin, verdict in ((-lower, INCONCLUSIVE), (just_above(-lower), PASS)):
        made = records(rules=protocol(more=(("balanced_accuracy", margin),)), lost=4)
        assert endpoint(made, "balanced_accuracy").verdict is verdict


def test_a_score_that_has_the_cases_it_needs_is_not_said_to_need_more() -> None:
    def judged(margin: float) -> Endpoint:
        return endpoint(records(rules=protocol(more=(("balanced_accuracy", margin),)), lost=4), "balanced_accuracy")

    smallest = judged(0.5).smallest_margin
    assert smallest is not None
    enough, narrower = judged(smallest), judged(smallest * 0.999)
    assert (enough.needed, enough.verdict) == (400, INCONCLUSIVE)
    assert "needs about" not in enough.reason
    assert narrower.reason.endswith("; not shown: needs about 401 cases at this variance")


def test_who_has_the_cases_that_are_needed_is_told_that_the_loss_is_too_near() -> None:
    low, high = 0.01, 0.02  # cases needed fall as the margin grows
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if cases_needed(3 / 400, middle, alpha=0.025) <= 400 else (middle, high)
    enough = endpoint(records(rules=protocol(margins=(high, 0.1)), lost=3), "accuracy")
    assert (enough.needed, enough.verdict) == (400, INCONCLUSIVE)
    assert enough.reason.endswith("the observed loss is too near the margin")
    narrower = endpoint(records(rules=protocol(margins=(low, 0.1)), lost=3), "accuracy")
    assert narrower.reason.endswith("needs about 401 cases at this discordance")


@pytest.mark.parametrize(("metric", "side"), [("balanced_accuracy", "upper"), ("brier", "lower")])
def test_an_alternative_whose_whole_interval_reaches_the_margin_is_not_shown_to_be_worse(
    metric: str, side: str
) -> None:
    def judged(margin: float) -> Endpoint:
        others = [(name, 0.9) for name in ("balanced_accuracy", "brier") if name != metric]
        rules = protocol(more=((metric, margin), *others), multiplicity="any-holm", margins=(0.9, 0.9))
        return endpoint(scored("composite", -0.25)(records(rules=rules, lost=60)), metric)

    near = abs(getattr(judged(0.001), side))
    assert judged(near).verdict is INCONCLUSIVE
    assert judged(float(np.nextafter(near, 0.0))).verdict is FAIL


def one_sided_p(made: Records, margin: Margin) -> float:
    """The smallest alpha at which the endpoint's limit shows it, by bisection."""
    low, high = 1e-6, 0.499
    for _ in range(16):
        middle = (low * high) ** 0.5
        found = score_endpoint(margin, made.protocol, made.cohort.classes, made.cases, middle, name=margin.metric)
        low, high = (low, middle) if found.verdict is PASS else (middle, high)
    return high


@pytest.mark.parametrize(
    ("gained", "lost", "spread", "margins"),
    [(3, 3, -0.02, (0.02, 0.012, 0.05)), (0, 1, 0.02, (0.01, 0.009, 0.012))],
)
def test_steps_on_limits_decide_as_holm_does_on_p_values(
    gained: int, lost: int, spread: float, margins: tuple[float, float, float]
) -> None:
    names = ("balanced_accuracy", "auroc", "brier")
    rules = protocol(more=tuple(zip(names, margins, strict=True)), multiplicity="any-holm")
    made = scored("composite", spread)(records(rules=rules, gained=gained, lost=lost))
    expected = holm([one_sided_p(made, m) for m in rules.endpoints.noninferiority[2:]]) <= 0.025
    assert [endpoint(made, name).verdict is PASS for name in names] == expected.tolist()


def test_a_family_is_as_its_members() -> None:
    one = replace(endpoint(records(), "accuracy"), role="alternative")
    passed, open_one, harmed = (replace(one, verdict=v) for v in (PASS, INCONCLUSIVE, FAIL))
    assert family_verdict([passed, passed])[0] is PASS
    assert family_verdict([open_one, passed])[0] is PASS
    assert family_verdict([open_one, open_one])[0] is INCONCLUSIVE
    assert family_verdict([passed, harmed])[0] is FAIL
