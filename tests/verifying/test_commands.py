"""`keygen`, `sign`, `verify` and `diff` as a user or a build meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import assert_clear, environment, medharden
from verifying_runs import make_run

from medharden.canonical import canonical_json

SIGN = ("--name", "Ada Lovelace", "--role", "QA", "--meaning", "approval", "--reason", "release")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_key_is_made_a_run_signed_and_verified_and_a_changed_file_named(run: Path, tmp_path: Path) -> None:
    made = medharden("keygen", "my.key", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["key"]
    assert_clear(medharden("keygen", "my.key", cwd=tmp_path), 1, "never overwritten")
    assert_clear(medharden("sign", "run", "--key", "my.key", *SIGN, cwd=tmp_path), 0, "signed by Ada Lovelace", key)
    verified = medharden("verify", "run", "--key", "my.key.pub", "--require-signature", cwd=tmp_path)
    assert_clear(verified, 0, "Ada Lovelace", "approval", "verified", "the verdict on record is PASS")
    (run / "report.html").write_bytes(b"replaced")
    named = medharden("verify", "run", "--key", "my.key.pub", "--format", "json", cwd=tmp_path)
    found = json.loads(named.stdout)
    assert (named.returncode, found["verified"], found["exit_code"]) == (5, False, 5)
    assert [fault["file"] for fault in found["faults"]] == ["report.html"]
    assert_clear(medharden("verify", "run", cwd=tmp_path), 5, "report.html", "not verified")


def test_an_unsigned_run_is_verified_by_its_digests_and_says_so(run: Path, tmp_path: Path) -> None:
    said = medharden("verify", "run", cwd=tmp_path)
    assert_clear(said, 0, "nothing is signed", "digests alone", "protocol: the run's own")
    last = said.stdout.rstrip().splitlines()[-1]
    assert last == "the files are whole; nobody's signature was checked · the verdict on record is PASS"
    assert_clear(medharden("verify", "run", "--require-signature", cwd=tmp_path), 5, "a signature is required")


def test_a_private_key_inside_the_run_directory_is_refused(run: Path, tmp_path: Path) -> None:
    assert medharden("keygen", "run/my.key", cwd=tmp_path).returncode == 0
    assert_clear(medharden("sign", "run", "--key", "run/my.key", *SIGN, cwd=tmp_path), 1, "keep it elsewhere")
    assert not (run / "signatures").exists()


def test_diff_is_a_table_for_people_and_an_object_for_machines(run: Path, tmp_path: Path) -> None:
    from gating_factory import records

    make_run(tmp_path / "other", records(lost=30))
    assert_clear(medharden("diff", "run", "other", cwd=tmp_path), 0, "accuracy.estimate", "verdict PASS -> FAIL")
    shown = json.loads(medharden("diff", "run", "other", "--json", cwd=tmp_path).stdout)
    assert (shown["identical"], shown["verdicts"]) == (False, ["PASS", "FAIL"])
    assert {"part", "field", "first", "second"} == set(shown["changes"][0])


def test_names_and_records_of_others_steer_no_terminal_and_add_no_line(run: Path, tmp_path: Path) -> None:
    lie = "\x1b[2Kx\x9b1A\u202e\nverified [red]all"
    (run / lie).write_text("x")
    fields = json.loads((run / "gate.json").read_text())
    (run / "gate.json").write_bytes(canonical_json({**fields, "verdict": lie}) + b"\n")
    make_run(tmp_path / "other")
    for command in (("verify", "run"), ("diff", "other", "run")):
        said = medharden(*command, cwd=tmp_path).stdout
        assert "verified [red]all" in said
        assert "\nverified" not in said
        assert not {"\x1b", "\x9b", "\u202e"} & set(said)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are no text")
def test_a_file_name_that_is_no_text_is_named_in_json_that_every_reader_takes_and_not_signed(
    run: Path, tmp_path: Path
) -> None:
    with open(os.path.join(os.fsencode(run), b"\xff.txt"), "wb"):
        pass
    shown = subprocess.run(
        [sys.executable, "-m", "medharden", "verify", "run", "--json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=True,
    ).stdout
    assert "\udcff.txt" in json.loads(shown.decode("utf-8", "strict"))["uncovered"]
    before = (run / "audit.jsonl").read_bytes()
    assert medharden("keygen", "my.key", cwd=tmp_path).returncode == 0
    assert_clear(
        medharden("sign", "run", "--key", "my.key", *SIGN, cwd=tmp_path), 1, "no UTF-8 text, '?.txt'", "rename"
    )
    assert (run / "audit.jsonl").read_bytes() == before


def test_a_record_that_is_none_is_a_clear_error_of_diff(run: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "other")
    (run / "gate.json").write_text('{"endpoints":[{"estimate":1}],"verdict":"PASS"}\n')
    assert_clear(medharden("diff", "other", "run", cwd=tmp_path), 1, "a record that can't be read")


@pytest.mark.parametrize("command", ["verify RUN", "diff RUN RUN"])
def test_these_commands_import_no_torch(run: Path, command: str) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['medharden', *{command.replace('RUN', str(run)).split()!r}]\n"
        "from medharden.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "assert 'torch' not in sys.modules and 'monai' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)


def test_data_without_a_model_is_a_clear_error(run: Path, tmp_path: Path) -> None:
    assert_clear(medharden("verify", "run", "--data", "x", cwd=tmp_path), 1, "expected --model")
