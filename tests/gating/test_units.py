"""Who is counted: copies of a test image count once, and nothing passes while it is unknown whose the cases are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_changes import counted, grouped, in_order
from gating_factory import Records, protocol, records
from gating_findings import run
from gating_releases import decision_of, released
from hypothesis import given, settings
from hypothesis import strategies as st

from medharden.protocol import Protocol
from medharden.record import AlikePair, Endpoint, Verdict

PASS, INCONCLUSIVE, FAIL, INVALID = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID
SCORES = (("balanced_accuracy", 0.03), ("auroc", 0.02), ("brier", 0.02))
EACH_CASE = {"patients": {"unit": "each_case", "reason": "A screening round: each woman was seen once."}}


def pixels(images: int, made: Records) -> Records:
    """The same records, but the test cases show so many images; those of an image have its label: labels alternate."""
    cases = tuple(
        replace(c, pixels=f"image-{n % images}") if c.split == "test" else c for n, c in enumerate(made.cohort.cases)
    )
    return replace(made, cohort=replace(made.cohort, cases=cases))


def alike(made: Records, *pairs: tuple[int, int], bits: int = 9) -> Records:
    copies = tuple(AlikePair(f"case{one:05d}", f"case{other:05d}", bits) for one, other in pairs)
    return replace(made, cohort=replace(made.cohort, copies=copies))


def stars(images: int, n: int) -> list[tuple[int, int]]:
    """Pairs that join every so manieth case to one of the first."""
    return [(k % images, k) for k in range(images, n)]


def endpoints(made: Records) -> dict[str, Endpoint]:
    return {e.name: e for e in made.decide().endpoints}


def twenty(how: str, made: Records) -> Records:
    return pixels(20, made) if how == "pixels" else alike(made, *stars(20, len(made.cases.case)))


GUARDED = protocol(
    mode="guarded",
    more=SCORES,
    margins=(0.05, 0.1),
    budget=0.3,
    fusion={"referral_attacked": 0.5, "referred": {"counts_as": "model_answer", "reason": "As the reader sees it."}},
)


@pytest.mark.parametrize("how", ["pixels", "look"])
def test_four_hundred_cases_that_are_twenty_images_are_decided_as_twenty(how: str) -> None:
    before, after = records(rules=GUARDED), twenty(how, records(rules=GUARDED))
    assert before.decide().verdict is PASS
    decision = after.decide()
    # what is made here falls in some copies of each image, and the worst of identical ones counts
    assert decision.verdict is (FAIL if how == "pixels" else INCONCLUSIVE)
    for e in decision.endpoints:
        if e.kind != "identity" and e.name != "robust_gain_where_right":
            of_class = "sensitivity" in e.name or "specificity" in e.name or ":" in e.name
            assert e.patients == (10 if of_class else 20), e.name
            assert e.n == (e.patients if how == "pixels" else 20 * e.patients)
    assert "accuracy: lower 95 % limit −16.1 pp" in " ".join(decision.reasons)
    assert [f.code for f in decision.findings] == ["gate.copies", "gate.referred_count"]
    assert "400 of 400 test cases are copies: 20 sets that are identical" in decision.findings[0].message
    assert "20 units of 400 patients" in decision.findings[0].message


@pytest.mark.parametrize("how", ["pixels", "look"])
def test_copies_count_once_in_subgroups_findings_and_against_an_authorised_release(how: str) -> None:
    rules = protocol(columns=("sex",), margins=(0.1, 0.2))
    of_sex = twenty(how, grouped("sex", 200)(records(rules=rules))).decide().subgroups
    assert sum(e.patients for e in of_sex if ":" not in e.name) == (20 if how == "pixels" else 40)
    assert all(e.verdict is not PASS for e in of_sex if e.name in ("sex=A", "sex=rest"))
    several = twenty(how, run()).decide()
    assert {e.patients for e in several.endpoints if e.name in ("accuracy", "finding_accuracy", "auroc")} == {20}
    made = twenty(how, records())
    against = decision_of(made, released(made))
    assert {e.patients for e in against.endpoints if e.name == "authorised:accuracy"} == {20}


def test_the_pixels_in_the_record_are_believed_whatever_it_says_of_copies_and_patients() -> None:
    made = pixels(20, records())
    assert made.cohort.copies == ()
    assert endpoints(made)["accuracy"].n == 20
    one_each = replace(made, cohort=replace(made.cohort, grouped_by="case", unnamed=412))
    assert endpoints(one_each)["accuracy"].n == 20


def test_what_looks_alike_is_one_unit_through_patients_and_images_in_between() -> None:
    """Case 0 looks like 2, 2 has a patient in common with 3, and 3 looks like 5: one unit of four cases and more."""
    made = alike(records(400, cases_a_patient=2), (0, 2), (3, 5))
    accuracy = endpoints(made)["accuracy"]
    assert (accuracy.n, accuracy.patients) == (400, 198)
    [finding] = made.decide().findings
    assert "4 of 400 test cases are copies: 2 sets" in finding.message
    assert "case00000, case00002; case00003, case00005" in finding.message


def reviewed(*pairs: tuple[int, int], **splits: object) -> Protocol:
    said = ({"cases": (f"case{a:05d}", f"case{b:05d}"), "justification": "Sisters."} for a, b in pairs)
    return protocol(splits={"reviewed": tuple(said), **splits})


@pytest.mark.parametrize(
    ("rules", "bits", "units"),
    [
        (protocol(), 16, 399),
        (protocol(), 17, 400),
        (reviewed((1, 0)), 16, 400),
        (reviewed((1, 2)), 16, 399),
        (protocol(splits={"near_duplicate_bits": None}), 0, 400),
        (protocol(splits={"near_duplicate_bits": 40}), 40, 399),
    ],
)
def test_a_pair_is_one_unit_only_as_the_protocol_says(rules: Protocol, bits: int, units: int) -> None:
    assert endpoints(alike(records(rules=rules), (0, 1), bits=bits))["accuracy"].patients == units


def test_copies_that_are_named_for_no_test_case_join_nothing() -> None:
    made = records()
    strange = (AlikePair("case00000", "train0", 0), AlikePair("nobody", "case00001", 0))
    decision = replace(made, cohort=replace(made.cohort, copies=strange)).decide()
    assert (decision.verdict, decision.findings) == (PASS, ())


def test_a_reviewed_pair_that_is_identical_still_counts_once() -> None:
    cases = list(records().cohort.cases)
    cases[2] = replace(cases[2], pixels=cases[0].pixels)
    made = records(rules=reviewed((0, 2)))
    made = replace(made, cohort=replace(made.cohort, cases=tuple(cases)))
    assert endpoints(made)["accuracy"].n == 399


def test_images_that_chain_into_a_large_part_of_the_split_are_told() -> None:
    chain = [(n, n + 1) for n in range(20)]
    small, large = (alike(records(), *chain[:n]).decide() for n in (19, 20))
    assert [f.code for f in small.findings] == ["gate.copies"]
    assert [f.code for f in large.findings] == ["gate.copies", "gate.large_cluster"]
    assert large.findings[1].message.startswith("21 of 400 test cases (5.2 %) count as one")
    assert "case00000, case00001, case00002, case00003 and 17 more" in large.findings[0].message


def test_of_very_many_sets_five_are_listed_the_largest_first() -> None:
    [finding] = alike(records(), *((2 * n, 2 * n + 1) for n in range(8)), (0, 20)).decide().findings
    assert "units of 400 patients. case00000, case00001, case00020; case00002, case00003;" in finding.message
    assert finding.message.endswith("and 3 more sets.")


# --- identical images are one case


def copied(made: Records, row: int, times: int, **changes: object) -> Records:
    """The same run with a test image evaluated under so many further names and patients, answered alike."""
    n = len(made.cases.case)
    order = np.array([*range(n), *[row] * times])
    cases = in_order(made.cases, order)
    names = tuple(f"again{k}" for k in range(times))
    cases = replace(cases, case=(*cases.case[:n], *names), patient=(*cases.patient[:n], *names))
    first = next(c for c in made.cohort.cases if c.case == made.cases.case[row])
    more = tuple(replace(first, case=name, patient=name) for name in names)
    cohort = replace(made.cohort, cases=(*made.cohort.cases, *more))
    identity = replace(made.evaluation.identity, cases=n + times)
    subjects = tuple(
        replace(
            s,
            n=n + times,
            attacked=int(cases.attacked.sum()),
            clean_correct=int(cases.right(s.name).sum()),
            robust_correct=int(cases.subjects[s.name].robust.sum()),
            referred=int(cases.subjects[s.name].referred.sum()),
        )
        for s in made.evaluation.subjects
    )
    evaluation = replace(made.evaluation, identity=identity, subjects=subjects)
    return replace(made, cases=cases, cohort=cohort, evaluation=evaluation)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 6), st.sampled_from([60, 120, 400]), st.floats(0, 1), st.sampled_from([1, 5, 60])
)
def test_a_copy_of_any_case_changes_no_number_of_any_endpoint(
    lost: int, gained: int, n: int, where: float, times: int
) -> None:
    made = records(n, rules=GUARDED, lost=lost, gained=gained, referred=n // 10)
    again = copied(made, int(where * (n - 1)), times)
    before, after = made.decide(), again.decide()
    for one, other in zip(before.endpoints[1:], after.endpoints[1:], strict=True):
        assert (one.name, one.verdict, one.n, one.patients, one.table) == (
            other.name,
            other.verdict,
            other.n,
            other.patients,
            other.table,
        )
        assert (one.estimate, one.lower, one.upper) == pytest.approx((other.estimate, other.lower, other.upper), 1e-12)
    assert before.verdict is after.verdict
    assert next(f.code for f in after.findings) == "gate.copies"


def test_a_copy_that_fell_or_was_referred_counts_for_all_copies() -> None:
    made = copied(records(rules=protocol(mode="guarded")), 399, 1)
    table = made.cases.subjects["composite"]
    robust, referred = table.robust.copy(), table.referred.copy()
    robust[400], referred[400] = False, True
    won = (*table.won_by[:400], "pgd-ce-20")
    changed = made.with_subject("composite", robust=robust, referred=referred, won_by=won)
    changed = counted("composite", robust_correct=int(robust.sum()), referred=int(referred.sum()))(changed)
    floor, referral = (endpoints(changed)[name] for name in ("robust_floor", "referral"))
    assert (floor.n, round(400 * floor.estimate)) == (400, 239)
    assert (referral.n, round(400 * referral.estimate)) == (400, 1)


def test_rows_in_another_order_give_the_same_verdict_where_images_repeat() -> None:
    made = pixels(150, records(gained=4, lost=2))
    shuffled = replace(made, cases=in_order(made.cases, np.random.default_rng(0).permutation(400)))
    assert shuffled.decide() == made.decide()


# --- few units, and units that nobody named


@pytest.mark.parametrize(("units", "verdict"), [(19, INCONCLUSIVE), (20, PASS)])
def test_nothing_passes_on_fewer_than_twenty_units(units: int, verdict: Verdict) -> None:
    """Margins may be so wide that hardly any patients are needed; the AUROC's classes have ten units each."""
    wide = protocol(more=(("auroc", 0.6), ("brier", 0.6)), margins=(0.4, 0.6), floor=0.1)
    made = alike(records(rules=wide), *stars(units, 400))
    composite = made.cases.subjects["composite"]
    p = composite.probabilities + 1e-4 * np.sin(np.arange(400))[:, None] * np.array([1, -1])
    found = endpoints(made.with_subject("composite", probabilities=p))
    assert {found[name].verdict for name in ("accuracy", "brier", "robust_floor")} == {verdict}
    assert found["auroc"].verdict is INCONCLUSIVE
    assert "it takes 20 patients with PNEUMONIA and as many without, there are" in found["auroc"].reason
    if verdict is INCONCLUSIVE:
        assert "but 19 independent patients are too few: 20 at least" in found["brier"].reason
    assert found["identity"].verdict is PASS


def unnamed(count: int, rules: Protocol | None = None) -> Records:
    made = records(rules=rules or protocol())
    return replace(made, cohort=replace(made.cohort, unnamed=count, grouped_by="case" if count == 412 else "patient"))


@pytest.mark.parametrize(
    ("count", "said"), [(412, "patients: the data name no patients"), (1, "patients: 1 of 412 cases name no patient")]
)
def test_without_named_patients_nothing_passes_and_the_reason_says_so(count: int, said: str) -> None:
    decision = unnamed(count).decide()
    assert decision.verdict is INCONCLUSIVE
    [reason] = decision.reasons
    assert reason.startswith(said)
    assert "splits.patients: {unit: each_case, reason: ...}" in reason
    assert all(e.verdict is PASS for e in decision.endpoints)


@pytest.mark.parametrize("count", [412, 1])
def test_where_the_protocol_states_that_each_case_is_a_patient_it_may_pass_on_its_word(count: int) -> None:
    decision = unnamed(count, protocol(splits=EACH_CASE)).decide()
    assert decision.verdict is PASS
    [finding] = decision.findings
    assert (finding.code, finding.severity) == ("gate.each_case", "info")
    assert finding.message.endswith("A screening round: each woman was seen once.")


def test_a_loss_that_is_seen_fails_whoever_the_patients_are() -> None:
    made = records(lost=30)
    decision = replace(made, cohort=replace(made.cohort, unnamed=412, grouped_by="case")).decide()
    assert decision.verdict is FAIL
    assert any(reason.startswith("patients: ") for reason in decision.reasons)


def test_a_record_that_groups_by_case_is_unnamed_whatever_it_counts() -> None:
    made = records()
    assert replace(made, cohort=replace(made.cohort, grouped_by="case")).decide().verdict is INCONCLUSIVE


def test_the_statement_says_nothing_of_patients_that_are_named() -> None:
    decision = records(rules=protocol(splits=EACH_CASE), cases_a_patient=40).decide()
    assert {e.patients for e in decision.endpoints if e.name == "accuracy"} == {10}
    assert decision.verdict is INCONCLUSIVE
    assert decision.findings == ()
