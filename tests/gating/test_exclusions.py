"""Cases that were left out: their class, split and reason on record, of how many, and what they do to a verdict."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import gating_factory as factory
import numpy as np
import pytest
import reporting_records
from gating_factory import Records, records
from gating_findings import run as run_of_findings
from PIL import Image
from tiny import KEY

from medharden.data import Cohort, load_cohort
from medharden.gating.exclusions import with_lost
from medharden.protocol import Protocol, parse_protocol
from medharden.record import CohortRecord, ExcludedCase, Label, Verdict
from medharden.reporting.excluded import excluded_rows

PASS, INCONCLUSIVE = Verdict.PASS, Verdict.INCONCLUSIVE
LIMIT, COULD, WORST = "splits.excluded_limit", "gate.exclusions_could_turn", "gate.exclusions_worst_case"
RULES = """
schema_version: 1
name: left-out
title: Left out
intended_use: Tests.
threat: {eps: 2, unit: 1/255}
input: {channels: gray, size: [8, 8], unusable: exclude}
splits: {near_duplicate_bits: null, similar_bits: null}
"""


def left_out(made: Records, count: int, label: Label | None = 0, split: str = "test", **more: object) -> Records:
    cases = tuple(ExcludedCase(f"x{split}{label}{n}", label, split, "can't be read", **more) for n in range(count))  # type: ignore[arg-type]
    return replace(made, cohort=replace(made.cohort, excluded=(*made.cohort.excluded, *cases)))


def with_limit(limit: float) -> Protocol:
    return factory.protocol(splits={"excluded_limit": limit}, margins=(0.05, 0.1))


def held(made: Records) -> list[str]:
    return [reason for reason in made.decide().reasons if LIMIT in reason]


# --- too many ---------------------------------------------------------------------------------------------------------


def test_half_of_all_cases_left_out_is_no_pass() -> None:
    made = left_out(left_out(records(2000), 1000, 0, ""), 1000, 1, "")
    decision = made.decide()
    assert decision.verdict is INCONCLUSIVE
    [reason] = held(made)
    assert "of the cases, 2000 of 4012 before splits were made were left out (49.9 %)" in reason
    assert "more than splits.excluded_limit allows (5 %)" in reason


@pytest.mark.parametrize(("count", "over"), [(21, False), (22, True)])
def test_the_limit_is_on_the_test_split_with_what_was_left_out_of_it(count: int, over: bool) -> None:
    """Of 400 + 21 cases 21 are 4.99 %; each class has a limit of its own, so both lose alike."""
    made = left_out(left_out(records(400), count // 2, 0), count - count // 2, 1)
    assert any(f"of the cases, {count} of the {400 + count} in the test split" in r for r in held(made)) == over


def test_a_class_that_was_left_out_is_not_hidden_by_the_others() -> None:
    """60 of 1060 diseased are more than a twentieth of them, and less of all cases."""
    assert not held(left_out(records(2000), 50, 1))
    made = left_out(records(2000), 60, 1)
    [reason] = held(made)
    start = "exclusions: of those of PNEUMONIA, 60 of the 1060 in the test split were left out (5.66 %); that is more"
    assert reason.startswith(start)
    assert made.decide().verdict is INCONCLUSIVE


@pytest.mark.parametrize(
    ("split", "more"), [("train", {}), ("val", {}), ("test", {"repeated": True}), ("", {"repeated": True})]
)
def test_what_was_left_out_elsewhere_or_is_used_under_another_row_counts_for_nothing(
    split: str, more: dict[str, bool]
) -> None:
    made = left_out(records(400), 300, 0, split, **more)
    assert not held(made)
    assert not {COULD, WORST} & {f.code for f in made.decide().findings}


def test_cases_without_a_split_are_spread_as_the_others_are() -> None:
    """Of 400 test cases and 12 others; 21 of 433 are 4.8 % of any split."""
    assert not held(left_out(left_out(records(400), 10, 0, ""), 10, 1, ""))
    [reason] = held(left_out(left_out(records(400), 11, 0, ""), 12, 1, ""))
    assert "of the cases, 23 of 435 before splits were made" in reason
    both = left_out(left_out(records(400, rules=with_limit(0.05)), 14, 0, "test"), 14, 1, "")
    assert "14 of the 414 in the test split and 14 of 426 before splits were made" in held(both)[0]


@pytest.mark.parametrize(("limit", "over"), [(0.0, True), (0.1, True), (0.2, False), (1.0, False)])
def test_the_protocol_states_how_many_may_be_left_out(limit: float, over: bool) -> None:
    made = left_out(left_out(records(400, rules=with_limit(limit)), 30, 0), 30, 1)
    assert bool(held(made)) == over


def test_cases_whose_class_nobody_knows_count_among_all() -> None:
    [reason] = held(left_out(records(400), 40, None))
    assert reason.startswith("exclusions: of the cases, 40 of the 440")
    assert "of those of" not in reason


def test_of_findings_each_has_its_share() -> None:
    made = left_out(run_of_findings(600), 6, (1,))
    [reason] = held(made)
    assert reason.startswith("exclusions: of those of Hernia, 6 of the 66 in the test split were left out (9.09 %)")


# --- the worst case ---------------------------------------------------------------------------------------------------


def findings(made: Records) -> dict[str, str]:
    return {f.code: f.message for f in made.decide().findings if f.code in (COULD, WORST)}


def test_a_pass_that_the_cases_left_out_could_turn_says_so_with_the_numbers() -> None:
    made = left_out(records(400), 6, 1)
    decision = made.decide()
    assert decision.verdict is PASS
    message = findings(made)[COULD]
    assert message.startswith("6 cases that were left out belong to the test split, or may")
    assert "accuracy (0.0 pp to −1.5 pp, limit −1.0 pp to −3.2 pp)" in message
    assert "sensitivity (0.0 pp to −2.9 pp" in message
    assert "specificity" not in message
    assert message in decision.reasons


def test_a_pass_that_they_could_not_turn_says_that() -> None:
    made = left_out(records(4000), 2, 1)
    assert "no endpoint on answers that passes would turn" in findings(made)[WORST]
    assert made.decide().verdict is PASS
    assert findings(records(400)) == {}


def test_robustness_falls_in_the_worst_case_too() -> None:
    rules = factory.protocol(floor=0.55, margins=(0.1, 0.2))
    made = records(400, rules=rules, robust=(60, 246))
    before = {e.name: e.verdict for e in made.decide().endpoints}
    message = findings(left_out(left_out(made, 10, 0), 10, 1))[COULD]
    assert before["robust_floor"] is PASS
    assert "robust_floor (61.5% to 58.6%" in message
    assert "accuracy (" not in message.replace("robust_accuracy", "")


def test_a_case_of_unknown_class_may_be_of_any() -> None:
    message = findings(left_out(records(400, rules=factory.protocol(margins=(0.1, 0.05))), 8, None))[COULD]
    assert "sensitivity (" in message
    assert "specificity (" in message


def test_the_worst_case_of_findings_is_every_finding_wrong() -> None:
    message = findings(left_out(run_of_findings(600), 30, (0, 1)))[COULD]
    assert "sensitivity:Effusion" in message
    assert "sensitivity:Hernia" in message
    assert "specificity:Effusion" not in message
    assert "specificity:Effusion" in findings(left_out(run_of_findings(600), 30, None))[COULD]


def test_under_a_sample_as_many_of_them_are_attacked_as_of_the_others() -> None:
    rules = factory.protocol(sample=100, floor=0.47, margins=(0.3, 0.3))
    made = left_out(records(400, rules=rules, attacked=100, robust=(10, 60)), 40, 0)
    text = findings(made).get(COULD, "")
    assert "robust_floor (60.0% to 54.5%" in text


def test_of_each_class_as_many_are_attacked_as_of_its_other_cases() -> None:
    """All of the first class were attacked, of the second a quarter: of four left out of each, four and one."""
    label = np.arange(400) % 2
    attacked = (label == 0) | (np.arange(400) % 8 == 1)
    made = records(400)
    cases = replace(made.cases, attacked=attacked)
    lost = left_out(left_out(made, 4, 1), 4, 0).cohort.excluded
    assert np.array_equal(made.cases.label, label)
    worst = with_lost(cases, tuple(lost[-8:]), 0, 2)
    added = np.arange(len(worst.case)) >= 400
    assert [int((worst.attacked & added & (worst.label == k)).sum()) for k in (0, 1)] == [4, 1]
    unseen = with_lost(replace(cases, attacked=attacked & (label == 0)), tuple(lost[-8:]), 0, 2)
    assert int((unseen.attacked & added & (unseen.label == 1)).sum()) == 0


# --- where they come from ---------------------------------------------------------------------------------------------


def folder(root: Path, splits: tuple[str, ...]) -> Path:
    """Pictures of two classes, below splits or not; in each place the first of class b is cut short."""
    draw = np.random.default_rng(1)
    for split in splits or ("",):
        for label in "ab":
            place = root / split / label
            place.mkdir(parents=True)
            for n in range(12):
                Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8)).save(place / f"{n:02d}.png")
        cut = root / split / "b" / "00.png"
        cut.write_bytes(cut.read_bytes()[:40])
    return root


def loaded(source: Path, more: str = "") -> Cohort:
    return load_cohort(source, parse_protocol(RULES + more, "left.yaml"), key=KEY)


@pytest.mark.parametrize("splits", [("train", "val", "test"), ()])
def test_a_file_that_can_not_be_read_keeps_its_class_and_split_on_record(
    tmp_path: Path, splits: tuple[str, ...]
) -> None:
    record = loaded(folder(tmp_path / "data", splits)).record
    found = Counter((e.label, e.split, e.repeated) for e in record.excluded)
    assert found == {(1, split, False): 1 for split in (splits or ("",))}
    [finding] = [f for f in record.findings if f.code == "data.excluded"]
    assert finding.message.startswith(f"{len(splits) or 1} of {24 * (len(splits) or 1)} cases could not be used")


def test_rows_of_a_manifest_keep_what_they_say(tmp_path: Path) -> None:
    folder(tmp_path, ())
    lines = ["path,label,patient,split"]
    for n in range(1, 12):
        split = ("train", "val", "test")[n % 3]
        lines += [f"{label}/{n:02d}.png,{label},p{label}{n},{split}" for label in "ab"]
    lines += [
        "b/00.png,b,q0,test",  # cut short
        "b/99.png,b,q1,test",  # missing
        "a/01.png,a,pa1,val",  # twice
        ",a,q2,val",  # no path
        "a/00.png,,q3,train",  # no label
    ]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    record = loaded(tmp_path / "cases.csv").record
    said = {(e.label, e.split, e.repeated): e.reason for e in record.excluded if e.reason != "is listed twice"}
    assert said[(None, "train", False)] == "has no label"
    assert said[(0, "val", False)] == "has no path"
    assert Counter((e.label, e.split) for e in record.excluded if e.label == 1) == {(1, "test"): 2}
    assert [(e.label, e.split, e.repeated) for e in record.excluded if e.reason == "is listed twice"] == [
        (0, "val", True)
    ]
    assert len(record.lost) == len(record.excluded) - 1
    text = json.dumps([str(e) for e in record.excluded])
    assert not [name for name in ("b/00", "99.png", "q0", "q3") if name in text]


def test_pixels_under_two_labels_lose_both_with_their_labels(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", ("train", "val", "test"))
    (root / "test" / "a" / "same.png").write_bytes((root / "test" / "b" / "05.png").read_bytes())
    found = [e for e in loaded(root).record.excluded if "same pixels" in e.reason]
    assert {(e.label, e.split) for e in found} == {(0, "test"), (1, "test")}


# --- the report -------------------------------------------------------------------------------------------------------


def cohort(*excluded: ExcludedCase) -> CohortRecord:
    return replace(records(400).cohort, excluded=excluded)


def test_rows_have_class_split_reason_and_denominator() -> None:
    rows = excluded_rows(
        cohort(
            *(ExcludedCase(f"a{n}", 1, "test", "empty") for n in range(3)),
            ExcludedCase("b", 1, "test", "cut"),
            ExcludedCase("c", None, "train", "empty"),
            ExcludedCase("d", 0, "", "empty"),
        )
    )
    assert [(r.name, r.split, r.reason, r.cases, r.of) for r in rows] == [
        ("PNEUMONIA", "test", "empty", 3, 204),
        ("NORMAL", "not split yet", "empty", 1, 207),
        ("PNEUMONIA", "test", "cut", 1, 204),
        ("unknown", "train", "empty", 1, 7),
    ]
    assert rows[0].share == "3 of 204 (1.5%)"


def test_of_findings_the_row_names_them() -> None:
    made = left_out(left_out(run_of_findings(600), 2, (0, 1)), 1, ())
    assert [row.name for row in excluded_rows(made.cohort)] == ["Effusion, Hernia", "No finding"]


def test_ten_thousand_reasons_are_counted_in_a_moment() -> None:
    rows = excluded_rows(cohort(*(ExcludedCase(f"a{n}", n % 2, "test", f"reason {n}") for n in range(10_000))))
    assert len(rows) == 10_000


def test_the_report_shows_them(tmp_path: Path) -> None:
    from medharden.reporting import render

    reporting_records.make_run(tmp_path / "run")
    render(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Excluded cases, of all of that class and split" in page
    shown = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["cohort"]["excluded"]
    assert {(row["split"], row["reason"], row["cases"]) for row in shown} == {
        ("not split yet", "pixel data is truncated", 2),
        ("not split yet", "empty", 1),
    }
    assert all(row["of"] >= 1800 / 2 or row["class"] != "unknown" for row in shown)
