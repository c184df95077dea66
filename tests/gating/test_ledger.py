"""The ledger of looks: what several run directories share, what counts, and what the gate makes of it."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from command import assert_clear, medharden
from gating_factory import Records, counted_look, protocol, records, write_run

from medharden.audit import (
    AuditLog,
    Ledger,
    Look,
    RunHistory,
    digest_bytes,
    digest_file,
    look_at,
    read_history,
    read_ledger,
    read_record,
    record_look,
    verify_log,
)
from medharden.errors import OutputError, RunError
from medharden.gating import decide, gate
from medharden.record import CohortRecord, GateDecision, Verdict

PASS, INVALID = Verdict.PASS, Verdict.INVALID
COHORT = records().cohort


def look(opened: str = "e", **changes: object) -> Look:
    return replace(counted_look(records(), opened), **changes)  # type: ignore[arg-type]


def add(path: Path, *looks: Look) -> list[str]:
    return [record_look(path, one, COHORT, 99) for one in looks]


def decision_of(made: Records, *looks: Look) -> GateDecision:
    parts = (made.protocol, made.cohort, made.harden, made.evaluation, made.cases)
    return decide(*parts, digests=made.digests, history=made.history, ledger=Ledger(looks, "head"))


OWN = records().history.look


def test_a_look_names_the_64_smallest_digests_of_the_test_split() -> None:
    of = {"look": "line", "protocol": "p", "cohort": "c", "hardened": "weights", "original": "state"}
    found = look_at(COHORT, **of)
    assert found.images == tuple(sorted(c.pixels for c in COHORT.split("test"))[:64])
    assert {name: getattr(found, name) for name in of} == of
    assert found.key_id == "k"
    assert look_at(records(4).cohort, **of).images == tuple(f"pixels-case{n:05d}" for n in range(4))


@pytest.mark.parametrize(
    ("others", "counted"),
    [
        ((), 1),
        ((look("a"),), 2),
        ((look("a"), look("b")), 3),
        ((look("a", hardened="other weights"),), 2),
        ((look("a", original="another original"),), 2),
        ((look("a", original="another original", protocol="another", cohort="another", hardened="other"),), 2),
        ((look("a", images=("elsewhere",)),), 1),
        ((look("a", images=("elsewhere", "pixels-case00399")),), 2),
        ((look("a", images=("pixels-train0",)),), 1),
    ],
)
def test_looks_that_share_a_test_image_count_whatever_the_model(others: tuple[Look, ...], counted: int) -> None:
    for budget in (1, 2, 3):
        made = records(rules=protocol(looks=budget, margins=(0.05, 0.1)))
        decision = decision_of(made, *others, counted_look(made, OWN))
        assert decision.verdict is (PASS if counted <= budget else INVALID), decision.reasons
        if counted > budget:
            assert f"this evaluation is look {counted} at images of this test split" in decision.reasons[0]
            assert decision.reasons[0].endswith(f"endpoints.looks allows {budget}")
        told = [f.message for f in decision.findings if f.code == "gate.repeated_look"]
        assert len(told) == (counted > 1)
        assert all(f"was looked at {counted} times" in message for message in told)


def test_looks_that_came_later_do_not_count_against_an_earlier_one() -> None:
    decision = decision_of(records(), look(OWN), look("a"), look("b"))
    assert (decision.verdict, decision.findings, decision.ledger) == (PASS, (), "head")


def test_an_evaluation_that_is_not_in_the_ledger_is_invalid() -> None:
    decision = decision_of(records(), look("a"))
    assert decision.verdict is INVALID
    assert decision.reasons == (
        "the look at the test split that evaluation.json came of is not in the ledger: it was not counted",
    )


@pytest.mark.parametrize("name", ["protocol", "cohort", "hardened", "original", "images"])
def test_a_look_at_something_else_does_not_stand_in_for_this_one(name: str) -> None:
    other = ("elsewhere",) if name == "images" else "0" * 63
    assert decision_of(records(), look(OWN, **{name: other})).verdict is INVALID


def test_an_evaluation_that_nothing_was_opened_for_is_in_no_ledger() -> None:
    made = records()
    made = replace(made, history=replace(made.history, look=""))
    assert decision_of(made, look("")).verdict is INVALID


def test_the_larger_of_both_counts_is_told() -> None:
    made = records(rules=protocol(looks=5))
    made = replace(made, history=replace(made.history, opened=4, looks=4, finished=4))
    [_, finding] = decision_of(made, look("a"), counted_look(made, OWN)).findings
    assert "was looked at 4 times, of 5 that the protocol plans" in finding.message
    assert "each look is decided at alpha 0.005" in finding.message


def test_a_ledger_that_was_not_given_is_said() -> None:
    made = records()
    made = replace(made, history=replace(made.history, in_ledger=True))
    [finding] = made.decide().findings
    assert (finding.code, finding.severity) == ("gate.ledger_not_read", "warning")
    assert made.decide().ledger == ""
    assert decision_of(made, look(OWN)).findings == ()
    assert not RunHistory().in_ledger


# --- the file ----------------------------------------------------------------------------------------------------


def test_looks_are_appended_and_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "looks.jsonl"
    heads = add(path, *(look(name) for name in "abc"))
    found = read_ledger(path, key_id="k")
    assert [past.look for past in found.looks] == ["a", "b", "c"]
    assert found.looks[0] == look("a")
    assert found.head == heads[-1] == digest_bytes(path.read_bytes().splitlines()[-1])
    assert len(set(heads)) == 3
    assert (found.holds(look("b")), found.holds(look("d"))) == (True, False)


def test_a_look_is_added_once_and_none_beyond_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    head = record_look(path, look("a"), COHORT, 1)
    assert record_look(path, look("a"), COHORT, 1) == head
    with pytest.raises(RunError, match=r"looks\.jsonl holds 1 looks at images of this test split"):
        record_look(path, look("b"), COHORT, 1)
    assert record_look(path, look("b", images=("elsewhere",)), COHORT, 2) != head
    assert [past.look for past in read_ledger(path, key_id="k").looks] == ["a", "b"]


def test_writers_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    writers = [threading.Thread(target=record_look, args=(path, look(str(n)), COHORT, 8)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert verify_log(path)[0] == 8
    assert {past.look for past in read_ledger(path, key_id="k").looks} == {str(n) for n in range(8)}


def test_a_ledger_that_is_missing_altered_or_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    with pytest.raises(RunError, match=r"looks\.jsonl can't be read"):
        read_ledger(path, key_id="k")
    assert read_ledger(path, key_id="k", writing=True) == Ledger()
    add(path, look("a"), look("b"))
    whole = path.read_bytes()
    path.write_bytes(whole.splitlines(keepends=True)[1])
    with pytest.raises(RunError, match="chain is broken"):
        read_ledger(path, key_id="k")
    with pytest.raises(RunError, match="chain is broken"):
        add(path, look("c"))
    path.write_bytes(whole)
    AuditLog(path).append("harden.started")
    with pytest.raises(RunError, match="no ledger of looks"):
        read_ledger(path, key_id="k")
    other = tmp_path / "other.jsonl"
    AuditLog(other).append("look", **(asdict(look()) | {"images": "pixels"}))
    with pytest.raises(RunError, match="no ledger of looks"):
        read_ledger(other, key_id="k", writing=True)
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    assert read_ledger(empty, key_id="k").looks == ()


def test_a_ledger_is_of_one_pseudonym_key(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    add(path, look("a"))
    with pytest.raises(RunError, match=r"another pseudonym key \(k\)"):
        read_ledger(path, key_id="other")
    with pytest.raises(RunError, match="use the key of the ledger, or another ledger"):
        add(path, look("b", key_id="other"))
    assert verify_log(path)[0] == 1


def test_a_ledger_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"looks\.jsonl can't be written"):
        add(tmp_path / "file" / "looks.jsonl", look())


def test_a_ledger_that_another_process_holds_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr("medharden.audit.ledger._WAIT_SECONDS", 0.05)
    path = tmp_path / "looks.jsonl"
    with FileLock(f"{path}.lock"), pytest.raises(OutputError, match="held by another process"):
        add(path, look())
    assert not path.exists()


# --- run directories ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", records())
    return tmp_path / "run"


def counted(run: Path, ledger: Path, opened: str = "") -> None:
    cohort, state = read_record(run / "cohort.json", CohortRecord), records().harden.original.state
    of = {"protocol": protocol().digest, "cohort": digest_file(run / "cohort.json"), "original": state}
    of |= {"look": opened or read_history(run).look, "hardened": digest_file(run / "hardened.safetensors")}
    record_look(ledger, look_at(cohort, **of), cohort, 2)


def test_the_gate_reads_the_ledger_and_leaves_it_as_it_is(run: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "looks.jsonl"
    counted(run, ledger)
    before = ledger.read_bytes()
    decision = gate(run, ledger=ledger)
    assert decision.verdict is PASS
    assert decision.ledger == verify_log(ledger)[1]
    assert ledger.read_bytes() == before
    assert read_record(run / "gate.json", GateDecision) == decision
    assert {p.name for p in tmp_path.iterdir()} == {"run", "looks.jsonl", "looks.jsonl.lock"}


def test_a_second_run_on_the_same_images_is_a_second_look(run: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "looks.jsonl"
    counted(run, ledger, "the first run's line")
    counted(run, ledger)
    result = medharden("gate", run, "--ledger", ledger, "--json", cwd=tmp_path)
    assert (result.returncode, json.loads(result.stdout)["verdict"]) == (5, "INVALID")
    assert "this evaluation is look 2" in json.loads(result.stdout)["reasons"][0]
    assert_clear(medharden("gate", run, "--ledger", tmp_path / "absent", cwd=tmp_path), 1, "absent can't be read")


def test_the_log_says_that_an_evaluation_was_counted(run: Path) -> None:
    evaluation = digest_file(run / "evaluation.json")
    assert gate(run).findings == ()
    AuditLog(run / "audit.jsonl").append("evaluate.recorded", cases="", record=evaluation, ledger="7" * 64)
    found = [f.code for f in gate(run).findings]
    assert found == []  # the budget of one look is used up: INVALID before anything else is read
    assert read_history(run).in_ledger
