"""A run directory: one writer at a time, plain files alone, each read once, and a log that a crash does not end."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest
from command import assert_clear, environment, medharden
from gating_factory import records, write_run
from verifying_runs import make_run, make_signed

from medharden import files as plain_files
from medharden.audit import AuditLog, RunFiles, audited, digest_file, exclusive, locking, read_log
from medharden.audit import log as log_module
from medharden.audit.locking import LOCK_FILES, holder
from medharden.canonical import canonical_json
from medharden.errors import MedHardenError, OutputError, RunError
from medharden.gating import check_decision, gate
from medharden.record import GateDecision, Verdict
from medharden.reporting import render
from medharden.verifying import compare, verify

HOLD = (
    "import sys, time; from pathlib import Path; from medharden.audit import exclusive\n"
    "with exclusive(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(120)\n"
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    write_run(path, records())
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def whole(made: Path, tmp_path: Path) -> Path:
    """A run directory with a verdict and reports."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def bytes_of(run: Path) -> dict[str, bytes]:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


@contextmanager
def held(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a run directory, and is killed in the end."""
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


# --- one writer --------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_at_once_with_process_and_host_of_the_first_and_readers_need_no_lock(
    run: Path, tmp_path: Path
) -> None:
    gate(run)
    before = bytes_of(run)
    with held(run) as process:
        for write in (gate, render, lambda path: audited(path, "x").__enter__()):
            with pytest.raises(RunError, match=rf"by process {process.pid} on \S+ since .*choose another --out"):
                write(run)
        assert_clear(medharden("gate", run, cwd=tmp_path), 1, f"process {process.pid}", os.uname().nodename)
        assert gate(run, read_only=True).verdict is Verdict.PASS
        assert not check_decision(run).differences
        assert verify(run).whole
        assert len(render(run, tmp_path / "elsewhere")) == 5
        assert {k: v for k, v in bytes_of(run).items() if k not in LOCK_FILES} == before


def test_the_lock_of_a_process_that_was_killed_is_taken_over(run: Path) -> None:
    with held(run) as process:
        process.send_signal(signal.SIGKILL)
    assert (run / LOCK_FILES[1]).exists(), "it had no time to take its word back"
    assert gate(run).verdict is Verdict.PASS
    assert not [name for name in LOCK_FILES if (run / name).exists()]


def test_six_gates_at_once_leave_a_whole_log_and_read_only_all_six_decide(run: Path, tmp_path: Path) -> None:
    def six(*options: str) -> list[subprocess.CompletedProcess[str]]:
        command = [sys.executable, "-m", "medharden", "gate", str(run), "--json", *options]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
            for _ in range(6)
        ]
        ended = [(p, *p.communicate(timeout=240)) for p in started]
        return [subprocess.CompletedProcess(command, p.returncode, out, err) for p, out, err in ended]

    written = six()
    assert {r.returncode for r in written} <= {0, 1}
    assert 0 in {r.returncode for r in written}
    for refused in (json.loads(r.stdout) for r in written if r.returncode == 1):
        assert "is being written by" in refused["error"]
    decided = [e.event for e in read_log(run).entries].count("gate.decided")
    assert decided == sum(r.returncode == 0 for r in written)
    before = bytes_of(run)
    assert [json.loads(r.stdout)["verdict"] for r in six("--read-only")] == ["PASS"] * 6
    assert bytes_of(run) == before


def test_a_thread_may_ask_again_and_another_thread_is_refused(run: Path) -> None:
    said: list[str] = []

    def other() -> None:
        with pytest.raises(RunError) as refused:
            gate(run)
        said.append(str(refused.value))

    with exclusive(run), exclusive(run):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert f"process {os.getpid()}" in holder(run)
    assert "another thread of this process" in said[0]
    assert gate(run).verdict is Verdict.PASS


def test_what_the_holder_says_of_itself_steers_nothing(run: Path) -> None:
    with held(run):
        for said in (b"{}", b"[" * 99999, b'{"host":"\xe2\x80\xae\\u001b[2J","process":1,"since":"x"}'):
            (run / LOCK_FILES[1]).write_bytes(said)
            with pytest.raises(RunError, match="is being written by") as refused:
                gate(run)
            assert str(refused.value).isprintable()


def elsewhere(run: Path, host: str = "another-node") -> Path:
    """What a process on another machine leaves that shares the folder and not the lock."""
    path = run / ".medharden.holder.json"
    path.write_bytes(canonical_json({"process": 4711, "host": host, "since": "2026-01-01T00:00:00+00:00"}))
    return path


def test_a_directory_that_a_process_on_another_machine_writes_is_refused_by_its_name(tmp_path: Path) -> None:
    path = elsewhere(tmp_path)
    with pytest.raises(RunError, match=r"process 4711 on another-node since 2026"), exclusive(tmp_path):
        pass
    assert path.exists()
    for away in (-200, 10_000):
        path = elsewhere(tmp_path)
        os.utime(path, (time.time() + away,) * 2)
        with exclusive(tmp_path):
            assert f"process {os.getpid()}" in holder(tmp_path)
        assert not path.exists()


def test_what_a_process_of_this_machine_left_as_it_died_holds_nobody_up(tmp_path: Path) -> None:
    elsewhere(tmp_path, socket.gethostname())
    with exclusive(tmp_path):
        assert f"process {os.getpid()}" in holder(tmp_path)


def test_two_machines_on_a_filesystem_that_shares_no_locks_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, *a, **k: (Path(self.lock_file).touch(), self)[1])
    with exclusive(tmp_path):
        monkeypatch.setattr(locking, "_held", {})
        monkeypatch.setattr(locking.socket, "gethostname", lambda: "the-other")
        with pytest.raises(RunError, match=f"process {os.getpid()} on "), exclusive(tmp_path):
            pass
        monkeypatch.undo()


def test_a_process_shows_that_it_is_alive_as_long_as_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_BEAT", 0.05)
    with exclusive(tmp_path):
        path = tmp_path / ".medharden.holder.json"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 2


# --- plain files alone -------------------------------------------------------------------------------------------

NAMES = (
    "protocol.yaml", "cohort.json", "hardened.safetensors", "hardened.json", "harden.json", "cases.parquet",
    "evaluation.json", "gate.json", "gate.junit.xml", "report.html", "report.pdf", "model-card.md", "report.json",
    "bom.cdx.json", "audit.jsonl", "attestation.dsse.json", "provenance.dsse.json", "signatures",
    "signatures/01-quality-manager.sig.json", "harden.checkpoint", "evaluate.original.partial",
)  # fmt: skip


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    run, _, public = make_signed(tmp_path_factory.mktemp("signed"))
    return run, public


@pytest.mark.parametrize("name", NAMES)
def test_each_file_as_a_link_is_refused_by_all_who_read_or_write_and_named_by_verify(
    signed: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(signed[0], run)
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.write_bytes(b"left by an interrupted stage")
    (run / name).symlink_to(outside)
    before = bytes_of(outside) if outside.is_dir() else outside.read_bytes()
    deeds = (
        lambda: gate(run, supersede=True),
        lambda: gate(run, read_only=True),
        lambda: check_decision(run),
        lambda: render(run),
        lambda: render(run, tmp_path / "elsewhere"),
        lambda: compare(run, signed[0]),
        lambda: audited(run, "evaluate").__enter__(),
    )
    for deed in deeds:
        with pytest.raises(RunError, match=rf"{re.escape(name)}.*plain file"):
            deed()
    assert name in {fault.file for fault in verify(run, public_keys=[signed[1]]).faults}
    assert (bytes_of(outside) if outside.is_dir() else outside.read_bytes()) == before


@pytest.mark.parametrize("kind", ["pipe", "socket", "dangling link", "link in a circle", "linked folder"])
def test_what_is_neither_file_nor_folder_is_refused_before_it_is_opened(whole: Path, tmp_path: Path, kind: str) -> None:
    odd = whole / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "socket":
        import socket

        here = Path.cwd()
        os.chdir(whole)  # a socket's path may have a hundred letters
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("odd")
        os.chdir(here)
    else:
        odd.symlink_to({"dangling link": "nowhere", "link in a circle": "odd", "linked folder": tmp_path}[kind])
    for deed in (lambda: gate(whole), lambda: render(whole), lambda: gate(whole, read_only=True)):
        with pytest.raises(RunError, match="odd: a run directory holds plain files alone"):
            deed()
    assert "odd" in {fault.file for fault in verify(whole).faults}


def test_a_log_with_another_name_elsewhere_is_not_written_to(run: Path, tmp_path: Path) -> None:
    os.link(run / "audit.jsonl", tmp_path / "elsewhere.jsonl")
    before = (tmp_path / "elsewhere.jsonl").read_bytes()
    with pytest.raises(RunError, match="another name elsewhere"):
        gate(run)
    assert (tmp_path / "elsewhere.jsonl").read_bytes() == before


def test_a_path_to_the_run_directory_may_be_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(run)
    assert gate(tmp_path / "latest").verdict is Verdict.PASS
    assert verify(tmp_path / "latest").whole


# --- read once ---------------------------------------------------------------------------------------------------


def test_each_file_is_opened_once_so_what_is_parsed_is_what_was_hashed(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: Counter[str] = Counter()
    real = plain_files.open_plain

    def counted(folder: Path, name: str, *flags: int):
        opened[name] += 1
        return real(folder, name, *flags)

    for module in ("medharden.files", "medharden.audit.runfiles", "medharden.audit.log"):
        monkeypatch.setattr(f"{module}.open_plain", counted)
    for read in (lambda: gate(whole, read_only=True), lambda: render(whole, tmp_path / "x")):
        opened.clear()
        read()
        assert opened["evaluation.json"] == opened["cases.parquet"] == opened["audit.jsonl"] == 1
        assert max(opened.values()) == 1, opened
    for name in ("cohort.json", "evaluation.json", "gate.json", "protocol.yaml", "cases.parquet"):
        opened.clear()
        verify(whole)
        assert opened[name] <= 2, "hashed, and read as a record whose digest is compared again"


def test_a_swap_between_hash_and_parse_gives_the_verdict_of_what_was_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, passing = tmp_path / "failing", tmp_path / "passing"
    for folder, made in ((failing, records(lost=30)), (passing, records())):
        folder.mkdir()
        write_run(folder, made)
    real = plain_files.read_plain

    def swapped(folder: Path, name: str, **more: int) -> bytes:
        data = real(folder, name, **more)
        if folder == failing and name in ("evaluation.json", "cases.parquet"):
            kept = (failing / name).read_bytes()
            (failing / name).write_bytes((passing / name).read_bytes())
            again = real(folder, name, **more)
            (failing / name).write_bytes(kept)
            assert again != data
        return data

    monkeypatch.setattr("medharden.audit.runfiles.read_plain", swapped)
    assert gate(failing).verdict is Verdict.FAIL


def test_a_file_that_changes_between_two_readings_is_noticed(whole: Path) -> None:
    files = RunFiles(whole)
    files.digest("gate.json")
    (whole / "gate.json").write_bytes(b"{}\n")
    with pytest.raises(RunError, match="changed while it was read"):
        files.data("gate.json")


# --- strict records ----------------------------------------------------------------------------------------------

RECORDS = ("cohort.json", "harden.json", "evaluation.json", "gate.json")
SPELLINGS = {
    "a number as text": lambda text: re.sub(r'"(seed|n|label)":(\d+)', r'"\1":"\2"', text, count=1),
    "a whole number with a point": lambda text: re.sub(r'"(seed|n|label)":(\d+)', r'"\1":\2.0', text, count=1),
    "a key twice": lambda text: text.replace("{", '{"a":1,"a":1,', 1),
    "a blank": lambda text: text.replace(":", ": ", 1),
    "another order": lambda text: json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")) + "\n",
    "no line's end": lambda text: text.rstrip("\n"),
    "two line's ends": lambda text: text + "\n",
    "something behind": lambda text: text.rstrip("\n") + "[]\n",
    "not a number": lambda text: re.sub(r'"(seed|n|label)":(\d+)', r'"\1":NaN', text, count=1),
    "another spelling of a letter": lambda text: text.replace('"', '"\\u0061', 1).replace("\\u0061a", "\\u0061", 1),
    "a byte order mark": lambda text: "\ufeff" + text,
    "very deep": lambda text: "[" * 200_000 + "\n",
    "a list": lambda text: "[" + text.rstrip("\n") + "]\n",
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", RECORDS)
def test_records_are_read_in_the_one_spelling_that_is_written(whole: Path, name: str, spelling: str) -> None:
    text = (whole / name).read_text(encoding="utf-8")
    changed = SPELLINGS[spelling](text)
    assert changed != text
    (whole / name).write_text(changed, encoding="utf-8")
    deeds = [lambda: render(whole)]
    deeds += [lambda: check_decision(whole)] if name == "gate.json" else []
    for deed in deeds:
        with pytest.raises(MedHardenError, match=re.escape(name)):
            deed()
    assert name in {fault.file for fault in verify(whole).faults}
    if name in ("harden.json", "evaluation.json"):
        with pytest.raises(MedHardenError, match=re.escape(name)):
            gate(whole)


WRONG = (None, True, 3, 2.5, "text", [], {}, [1], {"a": 1}, -1, 10**12)


@pytest.mark.parametrize("name", ["cohort.json", "harden.json", "evaluation.json", "gate.json"])
def test_every_field_of_a_record_with_each_type_of_wrong_value_is_a_clear_error(whole: Path, name: str) -> None:
    from medharden.audit.records import parse_record
    from medharden.canonical import canonical_json
    from medharden.record import CohortRecord, Evaluation, HardenRecord

    kinds = {"cohort.json": CohortRecord, "harden.json": HardenRecord, "evaluation.json": Evaluation}
    kind = kinds.get(name, GateDecision)
    fields = json.loads((whole / name).read_bytes())
    for key, value in fields.items():
        for wrong in WRONG:
            if type(wrong) is type(value) or (isinstance(wrong, int) and isinstance(value, float)):
                continue
            data = canonical_json({**fields, key: wrong}) + b"\n"
            if _may_be(wrong, kind, key):
                assert getattr(parse_record(name, data, kind), key) == wrong
                continue
            with pytest.raises(RunError, match=re.escape(name)):
                parse_record(name, data, kind)


def _may_be(wrong: object, kind: type, key: str) -> bool:
    """Whether a field's own type has this value: an empty text, list or number of no such field would be a mistake."""
    (field,) = (f for f in dataclasses.fields(kind) if f.name == key)
    return (wrong is None and "None" in str(field.type)) or (wrong == {} and str(field.type).startswith("dict"))


# --- a log that a crash does not end -----------------------------------------------------------------------------


def test_a_torn_last_line_is_dropped_on_record_and_the_run_goes_on(run: Path) -> None:
    events = [e.event for e in read_log(run).entries]
    gate(run)
    log = (run / "audit.jsonl").read_bytes()
    for cut in (1, 2, 40, len(log.splitlines()[-1])):
        (run / "audit.jsonl").write_bytes(log[:-cut])
        with pytest.raises(RunError, match="last line is torn"):
            gate(run, read_only=True)
        assert {f.file for f in verify(run).faults} >= {"audit.jsonl"}
        assert gate(run).verdict is Verdict.PASS
        entries = read_log(run).entries
        dropped = entries[len(events) + 2]
        assert (dropped.event, dropped.data["bytes"]) == (
            "log.torn_line_dropped",
            len(log.splitlines()[-1]) + 1 - cut,
        )
        assert [e.event for e in entries[len(events) + 3 :]] == ["gate.started", "gate.decided", "gate.finished"]


def test_a_torn_line_in_the_middle_is_an_altered_log(run: Path) -> None:
    gate(run)
    lines = (run / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (run / "audit.jsonl").write_bytes(b"".join([*lines[:2], lines[2][:-9], *lines[3:]]))
    before = bytes_of(run)
    with pytest.raises(RunError, match="line 3"):
        gate(run)
    assert bytes_of(run) == before


@pytest.mark.parametrize("room", [0, 1, 30, 200])
def test_where_the_disk_fills_within_a_line_the_part_is_taken_back(
    run: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    before = (run / "audit.jsonl").read_bytes()
    left, real = [room], os.write

    def full(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        done = real(handle, data[: left[0]])
        left[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(log_module.os, "write", full)
        with pytest.raises(OutputError, match="No space left on device"):
            AuditLog(run / "audit.jsonl").append("gate.started", text="x" * 300)
    assert (run / "audit.jsonl").read_bytes() == before
    assert gate(run).verdict is Verdict.PASS


@pytest.mark.parametrize("when", ["within a line", "behind a line", "once it is on the disk"])
def test_ctrl_c_while_the_first_line_is_written_lets_it_stand_and_says_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    write, sync, left = os.write, os.fsync, [1]

    def stop() -> None:
        if left:
            left.pop()
            raise KeyboardInterrupt

    def writing(handle: int, data: bytes) -> int:
        done = write(handle, data[:20] if when == "within a line" and left else data)
        if when != "once it is on the disk":
            stop()
        return done

    def syncing(handle: int) -> None:
        sync(handle)
        stop()

    monkeypatch.setattr(log_module.os, "write", writing)
    monkeypatch.setattr(log_module.os, "fsync", syncing)
    with pytest.raises(KeyboardInterrupt), audited(tmp_path, "run"):
        pytest.fail("it was stopped before")
    assert [entry.event for entry in read_log(tmp_path).entries] == ["run.started", "run.interrupted"]


def test_a_stage_that_fails_on_a_full_disk_says_why_and_not_that_its_last_line_failed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def stage() -> None:
        with audited(run, "gate"):
            monkeypatch.setattr(log_module.os, "write", full)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage()


# --- whose protocol ----------------------------------------------------------------------------------------------


def test_the_protocol_that_is_required_is_the_one_or_the_run_is_invalid(run: Path, tmp_path: Path) -> None:
    own = RunFiles(run).protocol().digest
    assert gate(run).protocol_required == ""
    assert gate(run, protocol=own).verdict is Verdict.PASS
    assert gate(run, protocol=own).protocol_required == own
    refused = gate(run, protocol="0" * 64)
    assert refused.verdict is Verdict.INVALID
    assert "requires 000000000000" in refused.reasons[0]
    shutil.copy(run / "protocol.yaml", tmp_path / "mine.yaml")
    for given in (own, own.upper(), "mine.yaml"):
        said = medharden("gate", "run", "--protocol", given, cwd=tmp_path)
        assert_clear(said, 0)
        assert said.stdout.splitlines()[0].endswith("as required")
        assert medharden("verify", "run", "--protocol", given, cwd=tmp_path).returncode == 0
    assert_clear(medharden("gate", "run", "--protocol", "default", cwd=tmp_path), 5, "not the one that is required")
    assert_clear(medharden("verify", "run", "--protocol", "default", cwd=tmp_path), 5, "protocol.yaml", "requires")
    assert_clear(medharden("gate", "run", "--protocol", "nowhere.yaml", cwd=tmp_path), 1, "there is no protocol")
    said = medharden("gate", "run", cwd=tmp_path)
    assert said.stdout.splitlines()[0].startswith("protocol: the run's own, toy, sha256 " + own[:12])


# --- a decision that stands --------------------------------------------------------------------------------------


def test_on_a_signed_run_the_gate_writes_nothing_and_says_whether_the_decision_stands(tmp_path: Path) -> None:
    run, _, public = make_signed(tmp_path)
    before = bytes_of(run)
    with pytest.raises(RunError, match="would break its signatures"):
        gate(run)
    said = medharden("gate", "run", cwd=tmp_path)
    assert_clear(said, 0, "the signed decision stands: decided anew it is PASS; nothing was written")
    assert bytes_of(run) == before
    assert verify(run, public_keys=[public], require_signature=True).verified
    assert_clear(medharden("gate", "run", "--supersede", cwd=tmp_path), 0)
    assert not verify(run, public_keys=[public]).verified
    assert_clear(medharden("gate", "run", "--supersede", "--check", cwd=tmp_path), 2, "write nothing")


def test_a_decision_that_contradicts_the_records_does_not_stand(tmp_path: Path) -> None:
    from medharden.canonical import canonical_json

    run = tmp_path / "run"
    run.mkdir()
    write_run(run, records(lost=30))
    gate(run)
    assert not check_decision(run).differences
    fields = json.loads((run / "gate.json").read_bytes())
    for change in ({"verdict": "PASS"}, {"endpoints": fields["endpoints"][1:]}, {"findings": []}, {"reasons": ["x"]}):
        if all(fields[key] == value for key, value in change.items()):
            continue
        (run / "gate.json").write_bytes(canonical_json({**fields, **change}) + b"\n")
        (name,) = change
        assert name in check_decision(run).differences[0]
    (run / "gate.json").write_bytes(canonical_json({**fields, "verdict": "PASS"}) + b"\n")
    said = medharden("gate", "run", "--check", cwd=tmp_path)
    assert_clear(said, 5, "does not stand", "'PASS'; decided anew it is 'FAIL'")
    assert digest_file(run / "gate.json")
