"""The last authorised release as a second comparator: bound, on the same cases, and never left out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import assert_clear, medharden
from gating_changes import in_order, scored
from gating_factory import Records, protocol, records, write_run
from gating_releases import OLD, UNFIT, decision_of, released

from medharden.audit import AuditLog, digest_file, read_record
from medharden.errors import RunError
from medharden.gating import Release, gate
from medharden.record import GateDecision, Verdict

PASS, INCONCLUSIVE, FAIL, INVALID = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID


def test_both_comparators_have_every_clean_endpoint() -> None:
    rules = protocol(more=(("auroc", 0.1), ("brier", 0.1)))
    made = records(1000, rules=rules, lost=2)
    decision = decision_of(made, released(records(1000, rules=rules, gained=4)))
    assert decision.verdict is PASS
    assert decision.authorised == OLD
    own = [e for e in decision.endpoints if e.comparator == "original"]
    other = [e for e in decision.endpoints if e.comparator == "authorised"]
    clean = ["accuracy", "specificity", "sensitivity", "auroc", "brier"]
    assert [e.name for e in own][:6] == ["identity", *clean]
    assert all(e.name.startswith("robust_") for e in own[6:])
    assert [e.name for e in other] == [f"authorised:{name}" for name in clean]
    assert {e.name: e.table for e in decision.endpoints}["accuracy"] == (948, 0, 2, 50)
    # wrong under both are the first 50; the old release is right on all others, the new one wrong on two of them
    assert {e.name: e.table for e in decision.endpoints}["authorised:accuracy"] == (948, 0, 2, 50)
    assert "authorised:sensitivity (PNEUMONIA): " in {e.name: e.reason for e in other}["authorised:sensitivity"]
    assert [e.limit for e in other] == [-0.02, -0.05, -0.05, -0.1, 0.1]


def test_losses_that_add_up_from_release_to_release_are_seen() -> None:
    """Each step stays within the margin of the one before; the original tells, and so does the authorised release."""
    original_kept = records(gained=6, lost=6)
    better_before = released(records(gained=12))
    decision = decision_of(original_kept, better_before)
    by_name = {e.name: e for e in decision.endpoints}
    assert by_name["accuracy"].estimate == 0.0
    assert by_name["authorised:accuracy"].estimate < -0.0
    assert by_name["authorised:accuracy"].table == (374, 0, 6, 20)
    assert decision.verdict is INCONCLUSIVE
    assert any(reason.startswith("authorised:accuracy: ") for reason in decision.reasons)
    worse = decision_of(records(lost=8, wrong=0, rules=protocol(margins=(0.03, 0.1))), released(records(wrong=0)))
    assert {e.name: e.estimate for e in worse.endpoints}["authorised:accuracy"] == -0.02


def test_a_loss_to_the_authorised_release_alone_fails() -> None:
    """The release before gained 12 cases on the original, and the new one gives them back."""
    decision = decision_of(records(wrong=32), released(records(wrong=20, gained=12)))
    by_name = {e.name: e for e in decision.endpoints}
    assert by_name["accuracy"].verdict is PASS
    assert by_name["authorised:accuracy"].verdict is FAIL
    assert by_name["authorised:accuracy"].estimate == pytest.approx(-0.03)
    assert decision.verdict is FAIL


def test_the_cases_are_matched_by_pseudonym_whatever_their_order() -> None:
    old = records(gained=3, lost=1)
    shuffled = in_order(old.cases, np.random.default_rng(1).permutation(400))
    rules = protocol(more=(("auroc", 0.05), ("brier", 0.05)))
    made = scored("composite", -0.1)(records(rules=rules, lost=2))
    assert decision_of(made, released(old, cases=shuffled)) == decision_of(made, released(old))


def test_another_original_and_other_preprocessing_are_said() -> None:
    made, old = records(), records()
    harden = replace(old.harden, original=replace(old.harden.original, state="7" * 64), hardened=OLD)
    cohort = replace(old.cohort, preprocessing="7" * 64)
    decision = decision_of(made, released(old, harden=harden, cohort=cohort))
    assert [f.code for f in decision.findings] == [
        "gate.authorised_other_original",
        "gate.authorised_other_preprocessing",
    ]
    assert decision.verdict is PASS
    assert decision_of(made, released(old)).findings == ()


@pytest.mark.parametrize(("make", "reason"), [u[1:] for u in UNFIT], ids=[u[0] for u in UNFIT])
def test_a_release_that_can_not_be_compared_with_is_invalid(make: Callable[[Records], Release], reason: str) -> None:
    made = records()
    decision = decision_of(made, make(made))
    assert decision.verdict is INVALID
    assert any(reason in r for r in decision.reasons), decision.reasons
    assert decision.endpoints == ()


@pytest.mark.parametrize(
    ("locked", "logged", "given", "reason"),
    [
        (OLD, "", True, ""),
        ("", OLD, True, ""),
        (OLD, "", False, "give that release's run as --authorised"),
        (
            "2" * 64,
            "",
            True,
            f"the authorised run released sha256 {OLD[:12]}; the protocol's endpoints.authorised is 2",
        ),
        ("", OLD, False, "held against the authorised release sha256 0000"),
        ("", "2" * 64, True, "held against the authorised release sha256 2222"),
    ],
)
def test_the_release_is_the_one_that_protocol_or_log_name(locked: str, logged: str, given: bool, reason: str) -> None:
    rules = protocol(authorised=locked or None)
    made = records(rules=rules)
    made = replace(made, history=replace(made.history, authorised=logged))
    decision = decision_of(made, released(records(rules=rules)) if given else None)
    assert decision.verdict is (INVALID if reason else PASS), decision.reasons
    assert all(reason in r for r in decision.reasons)


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    for name, made in (("old", records(gained=2)), ("new", records())):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, made, weights=name.encode())
    assert gate(tmp_path / "old").verdict is PASS
    return tmp_path / "old", tmp_path / "new"


def test_run_directories_are_compared_and_the_old_one_stays_as_it_is(two_runs: tuple[Path, Path]) -> None:
    old, new = two_runs
    before = {p.name: digest_file(p) for p in old.iterdir()}
    decision = gate(new, authorised=old)
    assert decision.verdict is PASS
    assert decision.authorised == digest_file(old / "hardened.safetensors")
    assert {p.name: digest_file(p) for p in old.iterdir()} == before
    assert read_record(new / "gate.json", GateDecision) == decision
    decided = [json.loads(line) for line in (new / "audit.jsonl").read_bytes().splitlines()][-2]["data"]
    assert decided["authorised"] == decision.authorised


def test_a_comparator_is_not_dropped_once_it_was_used(two_runs: tuple[Path, Path]) -> None:
    old, new = two_runs
    gate(new, authorised=old)
    alone = gate(new)
    assert alone.verdict is INVALID
    assert "give that run as --authorised again" in alone.reasons[0]
    assert gate(new, authorised=old).verdict is PASS


def test_a_release_whose_log_was_altered_or_whose_records_are_missing_is_an_error(two_runs: tuple[Path, Path]) -> None:
    old, new = two_runs
    log = (old / "audit.jsonl").read_bytes()
    (old / "audit.jsonl").write_bytes(log.replace(b"PASS", b"FAIL"))
    with pytest.raises(RunError, match="chain is broken"):
        gate(new, authorised=old)
    (old / "audit.jsonl").write_bytes(log)
    (old / "cases.parquet").unlink()
    with pytest.raises(RunError, match=r"lacks cases\.parquet"):
        gate(new, authorised=old)


def test_a_release_that_was_evaluated_again_after_its_pass_is_none(two_runs: tuple[Path, Path]) -> None:
    old, new = two_runs
    text = (old / "evaluation.json").read_text()
    (old / "evaluation.json").write_text(text.replace('"threat":"linf', '"threat":"l2'))
    AuditLog(old / "audit.jsonl").append("evaluate.recorded", cases="", record=digest_file(old / "evaluation.json"))
    decision = gate(new, authorised=old)
    assert decision.verdict is INVALID
    assert any("looked at 2 times" in reason for reason in decision.reasons)
    assert any("an authorised release has a PASS" in reason for reason in decision.reasons)


def test_the_command_compares_with_the_authorised_release(two_runs: tuple[Path, Path]) -> None:
    old, new = two_runs
    result = medharden("gate", new, "--authorised", old, cwd=new)
    assert_clear(result, 0, "authorised:accuracy", "PASS")
    result = medharden("gate", new, "--authorised", new, cwd=new)
    assert_clear(result, 5, "the very weights that are to be decided on")
