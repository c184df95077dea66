"""Whole decisions: a case made worse never improves a verdict, nor does a copy; swapping the arms mirrors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_factory import Records, evaluation, protocol, records
from hypothesis import given, settings
from hypothesis import strategies as st

from medharden.record import CaseTable, Endpoint, GateDecision, SubjectTable, Verdict

GRAVITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID)
SCORES = (("balanced_accuracy", 0.1), ("auroc", 0.09), ("brier", 0.15))
RULES = protocol(margins=(0.08, 0.12), floor=0.5, more=SCORES)
CLASSES = ("NORMAL", "PNEUMONIA")
FEW = settings(deadline=None, max_examples=25)


def subject(rng: np.random.Generator, label: np.ndarray, right: np.ndarray, robust: np.ndarray) -> SubjectTable:
    """Random probabilities for the answers that are right as said."""
    predicted = np.where(right, label, 1 - label)
    sure = rng.uniform(0.5, 1.0, label.size)
    positive = np.where(predicted == 1, sure, 1 - sure)
    won = np.where(right, np.where(robust, "", "pgd-ce-20"), "clean")
    none = np.zeros(label.size, dtype=np.bool_)
    return SubjectTable(predicted, np.c_[1 - positive, positive], robust & right, tuple(won.tolist()), none)


def drawn(seed: int) -> Records:
    """Records near the borders: some cases wrong, lost, gained or moved, one, two or three of a patient."""
    rng = np.random.default_rng(seed)
    n, each = int(rng.choice([120, 240])), int(rng.integers(1, 4))
    made = records(n, rules=RULES, cases_a_patient=each)
    label = made.cases.label
    whole = np.repeat(rng.random(n), each)[:n] if rng.random() < 0.5 else rng.random(n)
    before = rng.random(n) < 0.9
    after = np.where(whole < rng.choice([0.0, 0.02, 0.06]), rng.random(n) < rng.choice([0.2, 0.8]), before)
    old = subject(rng, label, before, rng.random(n) < 0.2)
    new = subject(rng, label, after, rng.random(n) < rng.choice([0.3, 0.6, 0.8]))
    kept = before == after
    p = np.where((kept & (rng.random(n) < rng.choice([0.5, 1.0])))[:, None], old.probabilities, new.probabilities)
    return told(made, {"original": old, "composite": replace(new, probabilities=p)})


def told(made: Records, subjects: dict[str, SubjectTable]) -> Records:
    """The same records with these subjects, and the evaluation's counts as they add up."""
    cases = replace(made.cases, subjects={**made.cases.subjects, **subjects})
    return replace(made, cases=cases, evaluation=evaluation(made.protocol, cases, CLASSES))


def endpoints(made: Records) -> dict[str, Endpoint]:
    decision = made.decide()
    assert decision.verdict is not Verdict.INVALID, decision.reasons
    return {"the run": replace(decision.endpoints[0], verdict=decision.verdict)} | {
        e.name: e for e in decision.endpoints if e.kind != "identity"
    }


def worse_in(made: Records, case: int, step: float) -> Records:
    """The composite less sure of the truth in one case, up to a wrong answer; a right one that falls under attack."""
    table, truth = made.cases.subjects["composite"], int(made.cases.label[case])
    p, predicted, robust = table.probabilities.copy(), table.predicted.copy(), table.robust.copy()
    if step == 0.0:
        robust[case] = False
    else:
        p[case, truth] *= 1.0 - step
        p[case, 1 - truth] = 1.0 - p[case, truth]
        if p[case, truth] < 0.5:
            predicted[case], robust[case] = 1 - truth, False
    won = list(table.won_by)
    won[case] = "clean" if predicted[case] != truth else "" if robust[case] else "pgd-ce-20"
    worse = replace(table, probabilities=p, predicted=predicted, robust=robust, won_by=tuple(won))
    return told(made, {"composite": worse})


@FEW
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 0.05, 0.6, 1.0]))
def test_making_a_case_worse_never_improves_a_verdict_or_a_limit(seed: int, step: float) -> None:
    made = drawn(seed)
    table = made.cases.subjects["composite"]
    case = int(np.random.default_rng(seed).choice(np.flatnonzero(table.robust | (step > 0.0))))
    before, after = endpoints(made), endpoints(worse_in(made, case, step))
    for name, e in before.items():
        assert GRAVITY.index(after[name].verdict) >= GRAVITY.index(e.verdict), name
        for one, other in ((e.lower, after[name].lower), (e.upper, after[name].upper)):
            assert (other >= one - 1e-9) if e.kind == "brier" else (other <= one + 1e-9), name


def copied(made: Records, case: int, patient: str) -> Records:
    """The same records with one case once more, pixel for pixel, of this patient."""
    order = [*range(len(made.cases.case)), case]

    def once_more(table: SubjectTable) -> SubjectTable:
        return SubjectTable(
            table.predicted[order],
            table.probabilities[order],
            table.robust[order],
            tuple(table.won_by[n] for n in order),
            table.referred[order],
        )

    old = made.cases
    cases = CaseTable(
        (*old.case, "the copy"),
        (*old.patient, patient),
        old.label[order],
        old.attacked[order],
        {name: once_more(table) for name, table in old.subjects.items()},
    )
    twin = next(c for c in made.cohort.cases if c.case == old.case[case])
    cohort = replace(made.cohort, cases=(*made.cohort.cases, replace(twin, case="the copy", patient=patient)))
    identity = replace(made.evaluation.identity, cases=len(order))
    counts = replace(evaluation(made.protocol, cases, CLASSES), identity=identity)
    return replace(made, cases=cases, cohort=cohort, evaluation=counts)


@FEW
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_copy_never_improves_a_verdict_or_a_limit_whosever_it_is_said_to_be(seed: int, own: bool) -> None:
    made = drawn(seed)
    rng = np.random.default_rng(seed)
    old, new = made.cases.right("original"), made.cases.right("composite")
    chosen = (new & ~old) | made.cases.subjects["composite"].robust  # what a copy would help
    case = int(rng.choice(np.flatnonzero(chosen)))
    before, after = endpoints(made), endpoints(copied(made, case, made.cases.patient[case] if own else "somebody"))
    for name, e in before.items():
        assert GRAVITY.index(after[name].verdict) >= GRAVITY.index(e.verdict), name
        assert (after[name].lower, after[name].upper) == pytest.approx((e.lower, e.upper), abs=1e-9), name


@FEW
@given(st.integers(0, 2**32 - 1))
def test_swapping_the_arms_mirrors_estimates_and_limits(seed: int) -> None:
    made = drawn(seed)
    arms = {"original": made.cases.subjects["composite"], "composite": made.cases.subjects["original"]}
    before, after = endpoints(made), endpoints(told(made, arms))
    for name, e in before.items():
        if e.kind in ("noninferiority", "brier", "robust_change") or name == "robust_gain":
            other = after[name]
            assert (other.lower, other.estimate, other.upper) == pytest.approx(
                (-e.upper, -e.estimate, -e.lower), abs=1e-8
            )


def test_what_is_drawn_lies_on_both_sides_of_the_borders() -> None:
    seen: dict[str, set[Verdict]] = {}
    for seed in range(40):
        for name, e in endpoints(drawn(seed)).items():
            seen.setdefault(name, set()).add(e.verdict)
    seen = {name: verdicts for name, verdicts in seen.items() if not name.endswith("_change")}  # 40 are too few for all
    assert all(Verdict.PASS in verdicts and len(verdicts) > 1 for verdicts in seen.values()), seen


@pytest.mark.parametrize("step", [1e-9, 1e-6, 1e-3, 0.1])
def test_one_score_that_is_worse_does_not_pass_where_identical_ones_do_not(step: float) -> None:
    rules = protocol(more=(("auroc", 0.018), ("brier", 0.018)))
    same = records(rules=rules)
    verdicts = {name: endpoints(same)[name].verdict for name in ("auroc", "brier")}
    assert verdicts == {"auroc": Verdict.INCONCLUSIVE, "brier": Verdict.INCONCLUSIVE}
    worse = endpoints(worse_in(same, 399, step))
    assert {worse[name].verdict for name in verdicts} == {Verdict.INCONCLUSIVE}
    assert worse["brier"].upper >= endpoints(same)["brier"].upper


GUARDED = protocol(
    mode="guarded",
    margins=(0.08, 0.12),
    floor=0.4,
    budget=0.15,
    columns=("site",),
    fusion={"referral_attacked": 0.3},
    recall={"floor": 0.7},
)


def referring(seed: int) -> Records:
    """A guarded release of two sites, that refers some cases, clean and under attack."""
    rng, made = np.random.default_rng(seed), drawn(seed)
    n = made.cases.label.size
    clean, attacked = (rng.random(n) < rng.choice([0.0, 0.02, 0.1, 0.25]) for _ in range(2))
    table = replace(made.cases.subjects["composite"], referred=clean, referred_attacked=attacked)
    site = tuple(np.where(rng.random(n) < 0.3, "B", "A").tolist())
    made = records(n, rules=GUARDED, cases_a_patient=n // len(set(made.cases.patient)))
    made = replace(made, cases=replace(made.cases, groups={"site": site}))
    return told(made, {"original": drawn(seed).cases.subjects["original"], "composite": table})


def strict_ones(decision: GateDecision) -> list[Endpoint]:
    """All but those that count what is referred as right: they rise with each referral, and the others beside them."""
    found = (*decision.endpoints, *decision.subgroups)
    return [e for e in found if not e.name.startswith("referred_right:")]


@settings(deadline=None, max_examples=8)  # a decision on sites takes long
@given(st.integers(0, 2**32 - 1), st.sampled_from(["referred", "referred_attacked", "robust"]))
def test_a_referral_or_a_fall_more_never_improves_a_verdict_or_a_limit_of_all_or_of_a_site(seed: int, how: str) -> None:
    made = referring(seed)
    table = made.cases.subjects["composite"]
    flags = getattr(table, how).copy()
    open_ones = np.flatnonzero(flags if how == "robust" else ~flags)
    case = int(np.random.default_rng(seed).choice(open_ones))
    flags[case] = how != "robust"
    won = list(table.won_by)
    won[case] = "pgd-ce-20" if how == "robust" else won[case]
    worse = told(made, {"composite": replace(table, won_by=tuple(won), **{how: flags})})
    before, after = made.decide(), worse.decide()
    assert before.verdict is not Verdict.INVALID, before.reasons
    assert GRAVITY.index(after.verdict) >= GRAVITY.index(before.verdict)
    for one, other in zip(strict_ones(before), strict_ones(after), strict=True):
        assert one.name == other.name
        assert GRAVITY.index(other.verdict) >= GRAVITY.index(one.verdict), one.name
        sign = -1.0 if one.kind in ("referral", "subgroup_referral", "brier") else 1.0
        assert sign * other.lower <= sign * one.lower + 1e-9, one.name
        assert sign * other.upper <= sign * one.upper + 1e-9, one.name
