"""The gate on a run directory: files, digests, the log, and how little it needs to start."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from gating_factory import protocol, records, write_run

from medharden.audit import AuditLog, digest_file, read_record, verify_log
from medharden.errors import MedHardenError, OutputError, RunError
from medharden.gating import gate
from medharden.record import GateDecision, Verdict

FILES = (
    "protocol.yaml",
    "cohort.json",
    "harden.json",
    "hardened.safetensors",
    "hardened.json",
    "evaluation.json",
    "cases.parquet",
)
LOGGED = 4  # events of hardening and evaluation


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path, records())
    return tmp_path


def test_the_decision_is_written_dated_and_logged(run: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    decision = gate(run, progress=lambda *step: stages.append(step))
    assert decision.verdict is Verdict.PASS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", decision.decided)
    assert read_record(run / "gate.json", GateDecision) == decision
    assert decision.evaluation == digest_file(run / "evaluation.json")
    assert stages == [("gate", done, 3) for done in range(4)]
    events = [json.loads(line) for line in (run / "audit.jsonl").read_bytes().splitlines()]
    assert [e["event"] for e in events[LOGGED:]] == ["gate.started", "gate.decided", "gate.finished"]
    decided = events[LOGGED + 1]["data"]
    files = {
        "cohort": "cohort.json",
        "harden": "harden.json",
        "hardened": "hardened.safetensors",
        "description": "hardened.json",
        "cases": "cases.parquet",
        "evaluation": "evaluation.json",
        "gate": "gate.json",
    }
    of_files = {name: digest_file(run / file) for name, file in files.items()}
    assert decided == of_files | {"verdict": "PASS", "authorised": "", "protocol": protocol().digest}


def test_the_same_run_gets_the_same_verdict_again_and_the_log_keeps_both(run: Path) -> None:
    first, second = gate(run), gate(run)
    assert replace(first, decided="") == replace(second, decided="")
    assert verify_log(run / "audit.jsonl")[0] == LOGGED + 6


@pytest.mark.parametrize("name", ["cohort.json", "hardened.safetensors", "hardened.json", "cases.parquet"])
@pytest.mark.parametrize("position", [0, 1, -2])
def test_one_changed_byte_is_invalid_and_names_the_file(run: Path, name: str, position: int) -> None:
    data = bytearray((run / name).read_bytes())
    data[position] ^= 1
    (run / name).write_bytes(bytes(data))
    decision = gate(run)
    assert decision.verdict is Verdict.INVALID
    assert any(reason.startswith(name) for reason in decision.reasons)
    assert read_record(run / "gate.json", GateDecision) == decision


@pytest.mark.parametrize(
    ("name", "old", "new", "named"),
    [
        ("protocol.yaml", "margin: 0.02", "margin: 0.03", "protocol.yaml"),
        ("harden.json", '"cohort":"', '"cohort":"0', "cohort.json"),
        ("harden.json", '"hardened":"', '"hardened":"0', "hardened.safetensors"),
        ("evaluation.json", '"protocol":"', '"protocol":"0', "protocol.yaml"),
        ("evaluation.json", '"cases":"', '"cases":"0', "cases.parquet"),
        ("evaluation.json", '"robust_correct":240', '"robust_correct":241', "evaluation.json"),
        ("evaluation.json", '"threat":"linf', '"threat":"l2', "evaluation.json"),
        ("harden.json", '"train_seconds":1', '"train_seconds":2', "harden.json"),
    ],
)
def test_one_changed_value_of_a_record_is_invalid(run: Path, name: str, old: str, new: str, named: str) -> None:
    text = (run / name).read_text(encoding="utf-8")
    assert old in text
    (run / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    decision = gate(run)
    assert decision.verdict is Verdict.INVALID
    assert any(named in reason for reason in decision.reasons)


@pytest.mark.parametrize("name", ["protocol.yaml", "harden.json", "evaluation.json"])
def test_a_record_that_is_none_any_more_is_an_error(run: Path, name: str) -> None:
    (run / name).write_bytes(b"[" + (run / name).read_bytes())
    with pytest.raises(MedHardenError, match=name):
        gate(run)
    assert not (run / "gate.json").exists()
    assert verify_log(run / "audit.jsonl")[0] == LOGGED + 2


def test_a_comment_in_the_protocol_changes_nothing(run: Path) -> None:
    rules = yaml.safe_load((run / "protocol.yaml").read_text(encoding="utf-8"))
    (run / "protocol.yaml").write_text("# a note\n" + yaml.safe_dump(rules, sort_keys=True), encoding="utf-8")
    assert gate(run).verdict is Verdict.PASS


@pytest.mark.parametrize("name", FILES)
def test_a_missing_record_is_an_error_and_no_verdict(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(RunError, match=rf"lacks {name}; run `medharden (harden|evaluate)` first"):
        gate(run)
    assert not (run / "gate.json").exists()
    assert verify_log(run / "audit.jsonl")[0] == LOGGED


def test_all_that_is_missing_is_named_with_what_writes_it(run: Path) -> None:
    for name in ("harden.json", "cases.parquet", "hardened.json"):
        (run / name).unlink()
    with pytest.raises(RunError) as caught:
        gate(run)
    assert str(caught.value) == (
        "the run directory lacks harden.json, hardened.json, cases.parquet; run `medharden harden` and "
        "`medharden evaluate` first"
    )


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        gate(tmp_path / "absent")
    assert str(caught.value) == "absent is no run directory; expected the folder that `medharden harden` wrote"


def test_a_verdict_that_cannot_be_written_is_an_error_and_stays_in_the_log(run: Path) -> None:
    (run / "gate.json").mkdir()
    with pytest.raises(OutputError, match="writable"):
        gate(run)
    events = [json.loads(line)["event"] for line in (run / "audit.jsonl").read_bytes().splitlines()]
    assert events[LOGGED:] == ["gate.started", "gate.decided", "gate.failed"]
    assert sorted(p.name for p in run.iterdir()) == sorted([*FILES, "gate.json", "audit.jsonl"])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_unwritable_directory_is_an_error(run: Path) -> None:
    run.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="writable"):
            gate(run)
    finally:
        run.chmod(0o700)


def test_a_broken_log_stops_the_gate(run: Path) -> None:
    gate(run)
    lines = (run / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (run / "audit.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(RunError, match="chain is broken"):
        gate(run)


def test_a_run_without_a_log_is_invalid(run: Path) -> None:
    (run / "audit.jsonl").unlink()
    decision = gate(run)
    assert decision.verdict is Verdict.INVALID
    assert any("no lock" in reason for reason in decision.reasons)


def test_a_protocol_edited_after_the_lock_is_invalid_even_where_the_records_were_edited_with_it(run: Path) -> None:
    records_now, wide = records(), protocol(margins=(0.2, 0.3))
    log = (run / "audit.jsonl").read_bytes()
    (run / "audit.jsonl").unlink()
    write_run(run, records(rules=wide))
    (run / "audit.jsonl").write_bytes(log)
    decision = gate(run)
    assert decision.verdict is Verdict.INVALID
    expected = (
        f"protocol.yaml is not the one that audit.jsonl locked: expected sha256 {records_now.protocol.digest[:12]}"
    )
    assert any(expected in reason for reason in decision.reasons)


def test_a_look_beyond_the_budget_is_invalid(run: Path) -> None:
    log, asked = AuditLog(run / "audit.jsonl"), dict.fromkeys(("protocol", "cohort", "hardened"), "0" * 64)
    log.append("evaluate.test_split_opened", cases=400, **asked)
    for _ in range(2):  # whether or not anything came of it
        decision = gate(run)
        assert decision.verdict is Verdict.INVALID
        assert "looked at 2 times" in decision.reasons[0]
        log.append("evaluate.recorded", cases="", record=digest_file(run / "evaluation.json"))


def test_a_log_whose_events_say_too_little_is_an_error(run: Path) -> None:
    AuditLog(run / "audit.jsonl").append("harden.locked", protocol="")
    with pytest.raises(RunError, match="holds an event that lacks 'cohort'"):
        gate(run)


def test_a_run_that_fails_says_so_without_pseudonyms(tmp_path: Path) -> None:
    write_run(tmp_path, records(lost=30, rules=protocol(justified=False)))
    decision = gate(tmp_path)
    assert decision.verdict is Verdict.FAIL
    written = (tmp_path / "gate.json").read_text(encoding="utf-8")
    assert "case000" not in written
    assert "patient000" not in written


def test_the_gate_is_light_and_fast(tmp_path: Path) -> None:
    write_run(tmp_path, records(5000, gained=40, lost=40, cases_a_patient=2))
    code = (
        "import sys; from pathlib import Path; from medharden.gating import gate; gate(Path(sys.argv[1]));"
        "print(sorted({'torch', 'statsmodels', 'pandas', 'monai'} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(2):  # the better of two, in time of the processor: the machine may be busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stdout.strip() == "[]"
    assert min(seconds) < 2.0
