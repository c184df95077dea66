"""What can be forged in a signed run directory without a key, or with a key that nobody trusts: nothing unseen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import assert_clear, medharden
from verifying_runs import WHO, make_key, make_run, make_signed

from medharden.audit import AuditLog, RunFiles, digest_file, rendering_stack
from medharden.audit.envelopes import Envelope, bundle_bytes, envelope_bytes, read_envelope, sign_payload
from medharden.audit.inventory import ATTESTATIONS, file_digests, run_statement
from medharden.audit.keys import load_signing_key
from medharden.canonical import canonical_json
from medharden.errors import RunError
from medharden.reporting import report_files
from medharden.verifying import Signatory, Verification, sign, verify

SECOND = Signatory("Grace Hopper", "clinical lead", "review", "annual review")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A run directory that two signed, and both public keys."""
    folder = tmp_path_factory.mktemp("made")
    run, _, first = make_signed(folder)
    key, second = make_key(folder, "second.key")
    sign(run, key, SECOND, render=report_files)
    return run, first, second


@pytest.fixture
def signed(made: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run", made[1], made[2]


def required(run: Path, *keys: Path) -> Verification:
    return verify(run, public_keys=keys, require_signature=True, render=report_files)


def named(found: Verification) -> set[str]:
    return {fault.file for fault in found.faults}


def take_away(run: Path, number: int) -> str:
    """A signature's file and its entries in the attestations; its name."""
    path = sorted((run / "signatures").iterdir())[number]
    (key_id,) = (s["keyid"] for s in json.loads(path.read_bytes())["dsseEnvelope"]["signatures"])
    path.unlink()
    for name in ATTESTATIONS:
        held = read_envelope((run / name).read_bytes())
        rest = {k: s for k, s in held.signatures.items() if k != key_id}
        (run / name).write_bytes(envelope_bytes(Envelope(held.payload, rest)))
    return f"signatures/{path.name}"


# --- a signature taken away --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [("sign.superseded", {"signatures": ["signatures/01-quality-manager.sig.json"], "digests": {}})],
        [("sign.failed", {"error": "RunError"}), ("sign.failed", {"error": "RunError"})],
        [("sign.interrupted", {}), ("sign.interrupted", {})],
        [("sign.started", {"file": "signatures/03.sig.json"}), ("sign.failed", {}), ("sign.failed", {})],
        [("sign.superseded", {"signatures": "everything"})],
        [("log.torn_line_dropped", {"bytes": 1, "sha256": "0" * 64})],
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_signature_that_was_taken_away_is_missed_whatever_is_appended_to_the_log(
    signed: tuple[Path, Path, Path], number: int, lines: list[tuple[str, dict[str, object]]]
) -> None:
    run, *keys = signed
    gone = take_away(run, number)
    for event, data in lines:
        AuditLog(run / "audit.jsonl").append(event, **data)
    found = required(run, keys[1 - number])
    assert not found.verified
    if number == 0 or not lines:
        assert gone in named(found)
    if lines or number == 1:
        assert "audit.jsonl" in named(found), "the log goes on after the last verified signature"
    assert gone in named(verify(run)) or lines, "without a key only what the log says can be known"


def test_what_stands_after_the_last_verified_signature_is_named_and_with_require_signature_refused(
    signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run, *keys = signed
    assert required(run, *keys).verified
    assert required(run, keys[1]).verified, "the second signature holds the log's end"
    AuditLog(run / "audit.jsonl").append("gate.started")
    AuditLog(run / "audit.jsonl").append("gate.finished")
    found = required(run, *keys)
    assert named(found) == {"audit.jsonl"}
    assert "gate.started, gate.finished" in found.faults[0].reason
    loose = verify(run, public_keys=keys)
    assert loose.whole
    assert any("nothing of it was believed" in note and "gate.started" in note for note in loose.notes)
    said = medharden("verify", run, "--key", keys[0], "--key", keys[1], "--require-signature", cwd=tmp_path)
    assert_clear(said, 5, "goes on after the last verified signature", "gate.started", "not verified")


def test_of_two_signers_the_first_s_key_alone_does_not_answer_for_what_the_second_did(
    signed: tuple[Path, Path, Path],
) -> None:
    run, first, _ = signed
    found = required(run, first)
    assert named(found) == {"audit.jsonl"}
    assert "sign.started" in found.faults[0].reason


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("report.recorded", {"files": {"cases.parquet": "0" * 64}}),
        ("gate.decided", {"gate": "0" * 64, "description": "0" * 64}),
        ("harden.locked", {"protocol": "0" * 64, "cohort": "0" * 64}),
        ("evaluate.recorded", {"cases": "0" * 64, "record": "0" * 64}),
    ],
)
def test_no_later_line_changes_what_a_verified_signature_says_of_the_files(
    signed: tuple[Path, Path, Path], event: str, data: dict[str, object]
) -> None:
    run, *keys = signed
    AuditLog(run / "audit.jsonl").append(event, **data)
    found = verify(run, public_keys=keys)
    assert found.whole
    assert set(found.covered) == set(file_digests(RunFiles(run)))


# --- covered without a key ---------------------------------------------------------------------------------------


def test_covered_is_what_a_verified_signature_lists_and_no_line_of_the_log_adds_to_it(
    signed: tuple[Path, Path, Path],
) -> None:
    run, *keys = signed
    (run / "second-report.html").write_text("<h1>PASS</h1>")
    digest = digest_file(run / "second-report.html")
    AuditLog(run / "audit.jsonl").append("report.recorded", files={"second-report.html": digest})
    found = verify(run, public_keys=keys)
    assert "second-report.html" in found.uncovered
    assert "second-report.html" not in (*found.covered, *found.recorded)
    assert verify(run).covered == (), "no key was given"


def test_a_signature_of_a_key_that_nobody_trusts_covers_nothing(
    signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    run, *keys = signed
    (run / "forged.html").write_text("<h1>PASS</h1>")
    stranger, public = make_key(tmp_path, "stranger.key")
    said = {"name": "x", "role": "x", "meaning": "x", "reason": "x", "time": "x"}
    log = AuditLog(run / "audit.jsonl")
    head = log.append("sign.started", file="signatures/03-x.sig.json", key=stranger.public.key_id, **said)
    payloads = dict.fromkeys(ATTESTATIONS, "")
    for name in ATTESTATIONS:
        held = read_envelope((run / name).read_bytes())
        (run / name).write_bytes(envelope_bytes(sign_payload(held.payload, stranger, held.signatures)))
        payloads[name] = "0" * 64
    events = len(RunFiles(run).log().entries)
    extra = {"attestations": payloads, "log": {"events": events, "head": head}, "signature": said}
    payload = canonical_json(run_statement(file_digests(RunFiles(run)), extra))
    (run / "signatures" / "03-x.sig.json").write_bytes(bundle_bytes(sign_payload(payload, stranger)))
    found = verify(run, public_keys=keys)
    assert "forged.html" in found.uncovered
    assert [s.verified for s in found.signatures] == [True, True, False]
    assert not required(run, *keys).verified
    assert verify(run, public_keys=[public]).covered != (), "for who trusts that key it does"


def test_a_signature_s_file_that_the_log_knows_nothing_of_is_a_fault(signed: tuple[Path, Path, Path]) -> None:
    run, *keys = signed
    shutil.copy(run / "signatures" / "01-quality-manager.sig.json", run / "signatures" / "09-director.sig.json")
    found = verify(run, public_keys=keys)
    assert named(found) == {"signatures/09-director.sig.json"}


# --- reports that contradict the records -------------------------------------------------------------------------

REPORTS = ("report.json", "report.html", "report.pdf", "model-card.md", "gate.junit.xml", "bom.cdx.json")


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_that_contradicts_the_records_is_neither_verified_nor_signed_though_the_log_has_its_digest(
    tmp_path: Path, name: str
) -> None:
    run = make_run(tmp_path / "run")
    honest = verify(run, render=report_files)
    assert set(honest.rendered) == set(REPORTS)
    data = (run / name).read_bytes()
    (run / name).write_bytes(data.replace(b"PASS", b"FAIL") if b"PASS" in data else data + b"\n")
    AuditLog(run / "audit.jsonl").append(
        "report.recorded", files={name: digest_file(run / name)}, stack=rendering_stack()
    )
    assert verify(run).whole, "by its digest alone nothing is wrong"
    found = verify(run, render=report_files)
    assert named(found) == {name}
    assert "rendered anew" in found.faults[0].reason
    with pytest.raises(RunError, match=r"not signed.*rendered anew"):
        sign(run, make_key(tmp_path)[0], WHO, render=report_files)
    assert_clear(medharden("verify", "run", cwd=tmp_path), 5, name, "rendered anew")


def test_a_report_of_another_version_is_said_not_to_be_compared_and_is_not_signed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "report.html").write_bytes(b"<p>from another version</p>")
    digest = digest_file(run / "report.html")
    AuditLog(run / "audit.jsonl").append("report.recorded", files={"report.html": digest}, stack={"medharden": "9"})
    found = verify(run, render=report_files)
    assert found.whole
    assert "report.html" not in found.rendered
    assert any("another version" in note and "report.html" in note for note in found.notes)
    with pytest.raises(RunError, match=r"report\.html was rendered by another version"):
        sign(run, make_key(tmp_path)[0], WHO, render=report_files)


# --- a green line that says too much -----------------------------------------------------------------------------


def test_the_last_line_says_no_more_than_what_was_checked(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run, first, second = signed
    last = medharden("verify", run, cwd=tmp_path).stdout.rstrip().splitlines()[-1]
    assert last == "the files are whole; nobody's signature was checked · the verdict on record is PASS"
    both = ("--key", first, "--key", second)
    last = medharden("verify", run, *both, cwd=tmp_path).stdout.rstrip().splitlines()[-1]
    assert last == "verified · the verdict on record is PASS"
    assert json.loads(medharden("verify", run, "--json", cwd=tmp_path).stdout)["verified"] is False
    assert json.loads(medharden("verify", run, *both, "--json", cwd=tmp_path).stdout)["verified"] is True


def test_on_a_tampered_run_no_row_says_verified(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run, first, second = signed
    (run / "cohort.json").write_bytes((run / "cohort.json").read_bytes().replace(b"case00000", b"case99999"))
    said = medharden("verify", run, "--key", first, "--key", second, cwd=tmp_path)
    assert_clear(said, 5, "of this key, over other files", "not verified")
    assert "verified" not in said.stdout.replace("not verified", "").replace("nothing could be verified", "")


# --- odd events --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("sign.failed", {}),
        ("sign.started", {}),
        ("sign.started", {"file": 3}),
        ("sign.superseded", {}),
        ("sign.superseded", {"signatures": None}),
        ("report.recorded", {"files": [1]}),
        ("report.recorded", {"files": {"a": 1}, "stack": []}),
        ("harden.locked", {}),
        ("gate.decided", {"gate": "x"}),
        ("", {}),
        (".", {"files": None}),
    ],
)
def test_an_event_that_cannot_be_is_a_fault_of_the_log_and_no_defect(
    tmp_path: Path, event: str, data: dict[str, object]
) -> None:
    run = make_run(tmp_path / "run")
    AuditLog(run / "audit.jsonl").append(event, **data)
    found = verify(run)
    assert named(found) <= {"audit.jsonl", "gate.json", "a", "3", "signatures/3"}
    assert_clear(medharden("verify", "run", cwd=tmp_path), 5 if found.faults else 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]\n", b"[" * 200_000, b'{"a":' * 200_000, b"\xff\xfe", b"null\n", b'{"dsseEnvelope":{}}\n'],
)
@pytest.mark.parametrize(
    "name", ["signatures/01-quality-manager.sig.json", "attestation.dsse.json", "audit.jsonl", "gate.json"]
)
def test_hostile_bytes_in_place_of_evidence_are_named(signed: tuple[Path, Path, Path], name: str, data: bytes) -> None:
    run, *keys = signed
    (run / name).write_bytes(data)
    assert name in named(required(run, *keys))


def test_a_payload_of_any_depth_under_a_true_signature_is_a_fault(tmp_path: Path) -> None:
    run, _, public = make_signed(tmp_path)
    path = run / "signatures" / "01-quality-manager.sig.json"
    for payload in (b"[" * 100_000, b"{}", b"null", canonical_json({"_type": "x", "predicate": 3})):
        path.write_bytes(bundle_bytes(sign_payload(payload, load_signing_key(public.with_suffix("")))))
        assert path.name in {Path(name).name for name in named(verify(run, public_keys=[public]))}
