"""The ledger of looks: what several run directories share, what counts, and what the gate makes of it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from command import assert_clear, medharden
from gating_factory import Records, protocol, records, write_run

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
STATE = records().harden.original.state


def look(evaluation: str = "e", **changes: object) -> Look:
    return replace(look_at(COHORT, STATE, "w", evaluation), **changes)  # type: ignore[arg-type]


def decision_of(made: Records, *looks: Look) -> GateDecision:
    parts = (made.protocol, made.cohort, made.harden, made.evaluation, made.cases)
    return decide(*parts, digests=made.digests, history=made.history, ledger=Ledger(looks, "head"))


OWN = look(records().digests.evaluation)


def test_a_look_names_the_64_smallest_digests_of_the_test_split() -> None:
    found = look_at(COHORT, "state", "weights", "evaluation")
    assert found.images == tuple(sorted(c.pixels for c in COHORT.split("test"))[:64])
    assert (found.original, found.hardened, found.evaluation, found.key_id) == ("state", "weights", "evaluation", "k")
    assert look_at(records(4).cohort, "state", "weights").images == tuple(f"pixels-case{n:05d}" for n in range(4))


@pytest.mark.parametrize(
    ("others", "counted"),
    [
        ((), 1),
        ((look("a"),), 2),
        ((look("a"), look("b")), 3),
        ((look("a", hardened="other weights"),), 2),
        ((look("a", original="another original"),), 1),
        ((look("a", images=("elsewhere",)),), 1),
        ((look("a", images=("elsewhere", "pixels-case00399")),), 2),
        ((look("a", images=("pixels-train0",)),), 1),
    ],
)
def test_looks_for_the_same_original_that_share_a_test_image_count(others: tuple[Look, ...], counted: int) -> None:
    for budget in (1, 2, 3):
        decision = decision_of(records(rules=protocol(looks=budget)), *others, OWN)
        assert decision.verdict is (PASS if counted <= budget else INVALID), decision.reasons
        if counted > budget:
            assert f"this evaluation is look {counted} at images of this test split" in decision.reasons[0]
            assert decision.reasons[0].endswith(f"endpoints.looks allows {budget}")
        told = [f.message for f in decision.findings if f.code == "gate.repeated_look"]
        assert len(told) == (counted > 1)
        assert all(f"was evaluated {counted} times" in message for message in told)


def test_looks_that_came_later_do_not_count_against_an_earlier_one() -> None:
    decision = decision_of(records(), OWN, look("a"), look("b"))
    assert (decision.verdict, decision.findings, decision.ledger) == (PASS, (), "head")


def test_an_evaluation_that_is_not_in_the_ledger_is_invalid() -> None:
    decision = decision_of(records(), look("a"))
    assert decision.verdict is INVALID
    assert decision.reasons == ("evaluation.json is not in the ledger: its look at the test split was not counted",)


def test_the_larger_of_both_counts_is_told() -> None:
    made = records(rules=protocol(looks=5))
    made = replace(made, history=replace(made.history, opened=4, finished=4))
    [finding] = decision_of(made, look("a"), OWN).findings
    assert "was evaluated 4 times" in finding.message
    assert "chance of up to 0.1 an endpoint" in finding.message


def test_a_ledger_that_was_not_given_is_said() -> None:
    made = records()
    made = replace(made, history=replace(made.history, in_ledger=True))
    [finding] = made.decide().findings
    assert (finding.code, finding.severity) == ("gate.ledger_not_read", "warning")
    assert made.decide().ledger == ""
    assert decision_of(made, OWN).findings == ()
    assert not RunHistory().in_ledger


# --- the file ----------------------------------------------------------------------------------------------------


def test_looks_are_appended_and_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "looks.jsonl"
    heads = [record_look(path, look(name)) for name in "abc"]
    found = read_ledger(path, key_id="k")
    assert [past.evaluation for past in found.looks] == ["a", "b", "c"]
    assert found.looks[0] == look("a")
    assert found.head == heads[-1] == digest_bytes(path.read_bytes().splitlines()[-1])
    assert len(set(heads)) == 3
    assert (found.holds("b"), found.holds("d")) == (True, False)


def test_writers_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    writers = [threading.Thread(target=record_look, args=(path, look(str(n)))) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert verify_log(path)[0] == 8
    assert {past.evaluation for past in read_ledger(path, key_id="k").looks} == {str(n) for n in range(8)}


def test_a_ledger_that_is_missing_altered_or_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    with pytest.raises(RunError, match=r"looks\.jsonl can't be read"):
        read_ledger(path, key_id="k")
    assert read_ledger(path, key_id="k", writing=True) == Ledger()
    record_look(path, look("a"))
    record_look(path, look("b"))
    whole = path.read_bytes()
    path.write_bytes(whole.splitlines(keepends=True)[1])
    with pytest.raises(RunError, match="chain is broken"):
        read_ledger(path, key_id="k")
    with pytest.raises(RunError, match="chain is broken"):
        record_look(path, look("c"))
    path.write_bytes(whole)
    AuditLog(path).append("harden.started")
    with pytest.raises(RunError, match="no ledger of looks"):
        read_ledger(path, key_id="k")
    other = tmp_path / "other.jsonl"
    AuditLog(other).append("look", evaluation="a", original="", hardened="", key_id="k", images="pixels")
    with pytest.raises(RunError, match="no ledger of looks"):
        read_ledger(other, key_id="k", writing=True)
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    assert read_ledger(empty, key_id="k").looks == ()


def test_a_ledger_is_of_one_pseudonym_key(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    record_look(path, look("a"))
    with pytest.raises(RunError, match=r"another pseudonym key \(k\)"):
        read_ledger(path, key_id="other")
    with pytest.raises(RunError, match="use the key of the ledger, or another ledger"):
        record_look(path, look("b", key_id="other"))
    assert verify_log(path)[0] == 1


def test_a_ledger_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"looks\.jsonl can't be written"):
        record_look(tmp_path / "file" / "looks.jsonl", look())


def test_a_ledger_that_another_process_holds_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr("medharden.audit.ledger._WAIT_SECONDS", 0.05)
    path = tmp_path / "looks.jsonl"
    with FileLock(f"{path}.lock"), pytest.raises(OutputError, match="held by another process"):
        record_look(path, look())
    assert not path.exists()


# --- run directories ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", records())
    return tmp_path / "run"


def counted(run: Path, ledger: Path, evaluation: str = "") -> None:
    cohort = read_record(run / "cohort.json", CohortRecord)
    hardened = digest_file(run / "hardened.safetensors")
    record_look(ledger, look_at(cohort, STATE, hardened, evaluation or digest_file(run / "evaluation.json")))


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
    counted(run, ledger, "the first run's evaluation")
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
