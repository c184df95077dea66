"""An independent test: the same release evaluated by another person, signed, compared, and the worse of both taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import assert_clear, medharden
from released_runs import Released, copied, released
from tiny import ARCH
from verifying_runs import WHO, make_key

from medharden.audit import RunFiles, digest_file, read_cases, read_log, read_record, write_cases, write_record
from medharden.audit.independent import logged_tests, place_of
from medharden.errors import RunError
from medharden.evaluating import evaluate_independent
from medharden.exporting import export
from medharden.gating import check_decision, gate
from medharden.gating.independent import worse_of
from medharden.models import load_classifier, load_hardened
from medharden.record import Evaluation, GateDecision, Verdict
from medharden.reporting import render
from medharden.reporting.matrix import threat_matrix
from medharden.reporting.source import read_run
from medharden.verifying import sign, verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released(tmp_path_factory.mktemp("made"), "guarded")


@pytest.fixture(scope="module")
def held(made: Released, tmp_path_factory: pytest.TempPathFactory) -> tuple[Released, Path, str]:
    """A release with an independent test that no decision has taken in, the tester's public key, and its place."""
    folder = tmp_path_factory.mktemp("held")
    again = replace(made, run=copied(made, folder))
    key, public = make_key(folder, "tester.key")
    again_tested(again, folder, seed=7)
    return again, public, place_of(key.public.key_id)


def again_tested(made: Released, folder: Path, name: str = "tester.key", seed: int | None = None) -> Evaluation:
    from medharden.audit.keys import load_signing_key

    key = load_signing_key(folder / name)
    model, original = load_hardened(made.run, arch=ARCH), load_classifier(made.model, arch=ARCH)
    return evaluate_independent(
        model,
        made.cohort,
        made.protocol,
        made.run,
        name="Ada",
        role="laboratory",
        key=key,
        original=original,
        seed=seed,
    )


def test_both_evaluations_are_kept_and_the_second_is_another_draw(held: tuple[Released, Path, str]) -> None:
    made, _, place = held
    own, theirs = read_cases(made.run / "cases.parquet"), read_cases(made.run / place / "cases.parquet")
    record = read_record(made.run / place / "evaluation.json", Evaluation)
    assert record.tester is not None
    assert (record.tester.name, record.tester.role, record.tester.seed) == ("Ada", "laboratory", 7)
    assert own.case == theirs.case
    assert np.array_equal(own.subjects["composite"].predicted, theirs.subjects["composite"].predicted)
    assert (own.attacked != theirs.attacked).any()
    assert own.attacked.sum() == theirs.attacked.sum() == 60
    assert read_record(made.run / "evaluation.json", Evaluation).tester is None
    events = [e.event for e in read_log(made.run).entries if e.event.startswith("independent.")]
    assert events == [f"independent.{step}" for step in ("started", "test_split_opened", "recorded", "finished")]


def test_the_gate_takes_the_worse_of_both_for_every_endpoint_and_says_which(
    held: tuple[Released, Path, str], tmp_path: Path
) -> None:
    made, _, place = held
    run = copied(made, tmp_path)
    before, decision = read_record(run / "gate.json", GateDecision), gate(run)
    assert decision.verdict is Verdict.PASS, decision.reasons
    [test] = decision.independent
    assert (test.name, test.role, test.seed, test.answers_differ) == ("Ada", "laboratory", 7, 0)
    assert test.evaluation == digest_file(run / place / "evaluation.json")
    own, theirs = read_cases(run / "cases.parquet"), read_cases(run / place / "cases.parquet")
    both = own.attacked & theirs.attacked
    assert test.attacked == both.sum() == sum(test.robust)
    a, b = own.subjects["composite"].robust[both], theirs.subjects["composite"].robust[both]
    assert test.robust == ((a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum())
    earlier = {e.name: e for e in before.endpoints}
    assert {e.name for e in decision.endpoints} == set(earlier)
    moved = {e.name for e in decision.endpoints if e.tester}
    assert moved == set(test.decides)
    assert moved
    for e in decision.endpoints:
        if e.tester:
            assert "[independent test, Ada]" in e.reason
            assert e.lower <= earlier[e.name].lower or e.kind == "referral"
        else:
            assert e == earlier[e.name]
    assert "gate.independent_test" in {f.code for f in decision.findings}
    assert not check_decision(run).differences


def worsened(run: Path, place: str, change: Callable) -> None:
    """Rewrites the test as if its tester had seen this, with log and signature as they would be."""
    from medharden.audit import AuditLog, write_atomic
    from medharden.audit.independent import RELEASED, STATEMENT_FILE, signed_statement
    from medharden.audit.keys import load_signing_key

    table, record = change(
        read_cases(run / place / "cases.parquet"), read_record(run / place / "evaluation.json", Evaluation)
    )
    digest = write_cases(run / place / "cases.parquet", table)
    written = write_record(run / place / "evaluation.json", replace(record, cases=digest))
    own = {f"{place}/evaluation.json": written, f"{place}/cases.parquet": digest}
    key = load_signing_key(run.parent / "tester.key")
    files = RunFiles(run)
    statement = signed_statement(record.tester, {n: files.digest(n) for n in RELEASED} | own, key)
    own[f"{place}/{STATEMENT_FILE}"] = write_atomic(run / place / STATEMENT_FILE, statement)
    log = (run / "audit.jsonl").read_bytes().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(log) if b'"independent.recorded"' in line)
    (run / "audit.jsonl").write_bytes(b"".join(log[:cut]))
    AuditLog(run / "audit.jsonl").append("independent.recorded", key=record.tester.key, files=own)


def none_robust(table, record):
    released = table.subjects["composite"]
    right = table.right("composite")
    won = tuple(
        "apgd-ce" if ok and hit else by for ok, hit, by in zip(right, table.attacked, released.won_by, strict=True)
    )
    fallen = replace(released, robust=np.zeros_like(released.robust), won_by=won)
    subjects = tuple(replace(s, robust_correct=0) if s.name == "composite" else s for s in record.subjects)
    return replace(table, subjects=table.subjects | {"composite": fallen}), replace(record, subjects=subjects)


def other_answers(table, record):
    released = table.subjects["composite"]
    rows = np.flatnonzero(table.right("composite") & ~table.attacked)[:9]
    probabilities, predicted = released.probabilities.copy(), released.predicted.copy()
    probabilities[rows] = probabilities[rows, ::-1]
    predicted[rows] = 1 - predicted[rows]
    won = tuple("clean" if n in set(rows.tolist()) else by for n, by in enumerate(released.won_by))
    moved = replace(released, probabilities=probabilities, predicted=predicted, won_by=won)
    correct = int((predicted == table.label).sum())
    subjects = tuple(replace(s, clean_correct=correct) if s.name == "composite" else s for s in record.subjects)
    return replace(table, subjects=table.subjects | {"composite": moved}), replace(record, subjects=subjects)


def test_a_release_that_fails_the_independent_test_alone_fails(
    held: tuple[Released, Path, str], tmp_path: Path
) -> None:
    made, public, place = held
    run = copied(made, tmp_path)
    (tmp_path / "tester.key").write_bytes((public.parent / "tester.key").read_bytes())
    (tmp_path / "tester.key").chmod(0o600)
    assert read_record(run / "gate.json", GateDecision).verdict is Verdict.PASS
    worsened(run, place, none_robust)
    decision = gate(run)
    assert decision.verdict is Verdict.FAIL
    assert decision.independent[0].verdict is Verdict.FAIL
    assert "robust_floor" in decision.independent[0].decides
    assert any(reason.startswith("independent test (Ada)") for reason in decision.reasons)


def test_clean_answers_that_differ_are_a_finding_with_their_number(
    held: tuple[Released, Path, str], tmp_path: Path
) -> None:
    made, public, place = held
    run = copied(made, tmp_path)
    (tmp_path / "tester.key").write_bytes((public.parent / "tester.key").read_bytes())
    (tmp_path / "tester.key").chmod(0o600)
    worsened(run, place, other_answers)
    decision = gate(run)
    assert decision.independent[0].answers_differ == 9
    finding = next(f for f in decision.findings if f.code == "gate.independent_answers_differ")
    assert "of 120 test cases 9 of the release and 0 of the original" in finding.message


def deleted(run: Path, place: str) -> None:
    for path in (run / place).iterdir():
        path.unlink()


def edited(run: Path, place: str) -> None:
    path = run / place / "evaluation.json"
    record = read_record(path, Evaluation)
    write_record(path, replace(record, tester=replace(record.tester, name="Bob")))


def other_key(run: Path, place: str) -> None:
    path = run / place / "statement.dsse.json"
    text = json.loads(path.read_text())
    text["signatures"][0]["sig"] = text["signatures"][0]["sig"][::-1]
    path.write_text(json.dumps(text, separators=(",", ":"), sort_keys=True) + "\n")


@pytest.mark.parametrize("change", [deleted, edited, other_key], ids=lambda f: f.__name__)
def test_a_test_that_is_removed_or_altered_makes_the_run_invalid_and_unverified(
    held: tuple[Released, Path, str], tmp_path: Path, change: Callable
) -> None:
    made, _, place = held
    run = copied(made, tmp_path)
    gate(run)
    change(run, place)
    assert gate(run, read_only=True).verdict is Verdict.INVALID
    assert any(fault.file.startswith(place) for fault in verify(run).faults)


def test_a_verdict_from_before_the_test_neither_verifies_nor_exports(
    held: tuple[Released, Path, str], tmp_path: Path
) -> None:
    made, public, _ = held
    run = copied(made, tmp_path)
    assert [f.file for f in verify(run).faults] == ["gate.json"]
    with pytest.raises(RunError, match="independent test"):
        export(load_hardened(run, arch=ARCH), run, to="onnx")
    gate(run)
    found = verify(run, public_keys=[public])
    assert not found.faults
    assert any("signed by Ada, laboratory" in note and "whose key was given" in note for note in found.notes)
    _, stranger = make_key(tmp_path, "stranger.key")
    assert [f.file for f in verify(run, public_keys=[stranger]).faults] == ["signatures"]


def test_a_tester_has_one_test_and_a_signed_run_is_not_tested_in_silence(
    held: tuple[Released, Path, str], tmp_path: Path
) -> None:
    made, public, _ = held
    again = replace(made, run=copied(made, tmp_path))
    with pytest.raises(RunError, match="tested this release already"):
        again_tested(again, public.parent)
    make_key(tmp_path, "second.key")
    with pytest.raises(RunError, match="protocol's own"):
        again_tested(again, tmp_path, "second.key", seed=made.protocol.seed)
    gate(again.run)
    key, _ = make_key(tmp_path)
    sign(again.run, key, WHO, render=None)
    with pytest.raises(RunError, match="is signed"):
        again_tested(again, tmp_path, "second.key")
    assert len(logged_tests(RunFiles(again.run).log())) == 1


def test_the_report_and_the_matrix_show_who_tested(held: tuple[Released, Path, str], tmp_path: Path) -> None:
    made, _, _ = held
    run = copied(made, tmp_path)
    decision = gate(run)
    render(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Who tested" in page
    assert "laboratory; seed 7" in page
    row = next(r for r in threat_matrix(read_run(RunFiles(run))) if r.threat == "evasion_white_box")
    assert "Ada (independent test)" in row.tester
    test = decision.independent[0]
    assert f"In an independent test {test.robust_correct} of {test.attacked_here} stand" in row.result
    for e in row.evidence:
        value = json.loads((run / e.file).read_text())
        for part in e.field.split("/")[1:]:
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert value == e.value
    assert not verify(run).faults


def test_the_worse_of_two_limits_counts_where_verdicts_are_alike() -> None:
    from gating_factory import records

    from medharden.gating import decide  # noqa: F401 - the factory decides by it

    made = records()
    own = made.decide().endpoints
    better = tuple(replace(e, lower=e.lower + 0.01, upper=e.upper - 0.01) for e in own)
    assert worse_of(own, better, "Ada") == (own, ())
    found, decides = worse_of(better, own, "Ada")
    assert set(decides) == {e.name for e in own}
    assert [e.lower for e in found] == [e.lower for e in own]


def test_the_command_tests_signs_and_tells_what_to_do_next(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    make_key(tmp_path, "tester.key")
    options = ("--data", made.archive, "--independent", "--arch", ARCH, "--json")
    done = medharden("evaluate", run, *options, cwd=tmp_path)
    assert_clear(done, 1, "lacks --by, --role, --key, --model")
    options += ("--by", "Ada", "--role", "laboratory", "--key", tmp_path / "tester.key", "--model", made.model)
    done = medharden("evaluate", run, *options, cwd=tmp_path)
    assert_clear(done, 0)
    said = json.loads(done.stdout)
    assert (run / said["place"] / "statement.dsse.json").is_file()
    assert gate(run).independent[0].key == said["key"]
