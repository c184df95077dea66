"""Whatever is changed in a run directory is found and named, and what nothing vouches for is said to be so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tampering import missed_changes
from verifying_runs import WHO, make_key, make_run, make_signed

from medharden.audit import AuditLog, RunFiles, digest_file
from medharden.audit.keys import load_public_key
from medharden.errors import KeyFileError, RunError
from medharden.verifying import Signatory, check_run, sign, verify
from medharden.verifying.records import protocol_faults


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed run directory, not to be touched, and the public key."""
    run, _, public = make_signed(tmp_path_factory.mktemp("made"))
    return run, public


@pytest.fixture
def signed(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of it."""
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run", made[1]


def wrong(run: Path, *public: Path) -> set[str]:
    return {fault.file for fault in verify(run, public_keys=public).faults}


def every_file(run: Path) -> list[Path]:
    return sorted(p for p in run.rglob("*") if p.is_file())


# --- what is whole -----------------------------------------------------------------------------------------------


def test_a_signed_directory_is_verified_and_says_who_signed_as_what_and_why(made: tuple[Path, Path]) -> None:
    run, public = made
    found = verify(run, public_keys=[public], require_signature=True)
    assert (found.verified, found.signed, found.faults, found.uncovered, found.notes) == (True, True, (), (), ())
    (signature,) = found.signatures
    assert (signature.name, signature.role, signature.meaning, signature.reason) == (
        "Ada Lovelace",
        "quality manager",
        "approval",
        "release 1.0",
    )
    assert signature.key == load_public_key(public).key_id
    apart = {"audit.jsonl", "attestation.dsse.json", "provenance.dsse.json", "01-quality-manager.sig.json"}
    assert set(found.covered) == {p.name for p in every_file(run)} - apart
    assert found.recorded == ()
    assert found.verdict == "PASS"


def test_an_unsigned_directory_is_consistent_and_says_that_digests_are_all_it_rests_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = verify(run)
    assert found.whole
    assert not found.signed
    assert not found.verified, "nobody vouches for it"
    assert found.covered == ()
    assert any("nothing is signed" in note and "digests alone" in note for note in found.notes)
    assert {f.file for f in verify(run, require_signature=True).faults} == {"signatures"}


def test_signatures_that_no_key_was_given_for_are_not_called_verified(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = made
    found = verify(run)
    assert found.whole
    assert not found.signed
    assert found.covered == ()
    assert any("without --key" in note for note in found.notes)
    _, stranger = make_key(tmp_path)
    assert wrong(run, stranger) == {"signatures"}
    assert not verify(run, require_signature=True).verified


def test_verification_writes_nothing(signed: tuple[Path, Path]) -> None:
    run, public = signed
    before = {p: p.read_bytes() for p in every_file(run)}
    verify(run, public_keys=[public])
    assert {p: p.read_bytes() for p in every_file(run)} == before


# --- what is not -------------------------------------------------------------------------------------------------


def test_a_thousand_random_changes_of_one_byte_are_all_caught_and_the_file_named(signed: tuple[Path, Path]) -> None:
    run, public = signed
    keys = [load_public_key(public)]
    assert not missed_changes(run, keys)
    assert check_run(run, keys).verified


def test_a_byte_of_an_unsigned_directory_is_caught_by_the_log(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for path in every_file(run):
        data = path.read_bytes()
        place = len(data) // 2
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert path.name in wrong(run)
        path.write_bytes(data)
    assert not wrong(run)


@pytest.mark.parametrize("name", ["hardened.safetensors", "cases.parquet", "report.html", "card.md", "protocol.yaml"])
def test_a_file_that_is_missing_is_named(signed: tuple[Path, Path], name: str) -> None:
    run, public = signed
    (run / name).unlink()
    assert wrong(run, public) == {name}


@pytest.mark.parametrize(
    "name", ["attestation.dsse.json", "provenance.dsse.json", "signatures/01-quality-manager.sig.json"]
)
def test_a_signature_or_attestation_that_is_missing_is_named(signed: tuple[Path, Path], name: str) -> None:
    run, public = signed
    (run / name).unlink()
    assert name in wrong(run, public)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], *lines[3:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0].replace(b"harden", b"HARDEN"), *lines[1:]],
        lambda lines: lines[:-1],
        lambda lines: [],
    ],
    ids=["first deleted", "middle deleted", "reordered", "edited", "last dropped", "emptied"],
)
def test_a_tampered_log_is_named(signed: tuple[Path, Path], tamper) -> None:
    run, public = signed
    lines = tamper((run / "audit.jsonl").read_bytes().splitlines())
    (run / "audit.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert "audit.jsonl" in wrong(run, public)


def test_a_log_that_is_gone_or_written_anew_is_named(signed: tuple[Path, Path]) -> None:
    run, public = signed
    events = [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]
    (run / "audit.jsonl").unlink()
    assert "audit.jsonl" in wrong(run, public)
    log = AuditLog(run / "audit.jsonl")
    for event in events:
        log.append(event["event"], **event["data"])
    assert wrong(run, public) == {"audit.jsonl"}, "an intact chain, and not the one that was signed"


def test_swapped_weights_with_records_made_to_fit_are_named_by_the_signature(signed: tuple[Path, Path]) -> None:
    run, public = signed
    (run / "hardened.safetensors").write_bytes(b"other weights")
    for name in ("harden.json", "evaluation.json", "gate.json"):
        fields = json.loads((run / name).read_text())
        fields["hardened"] = digest_file(run / "hardened.safetensors")
        (run / name).write_text(json.dumps(fields))
    assert {"hardened.safetensors", "harden.json", "evaluation.json", "gate.json"} <= wrong(run, public)


def test_another_s_signature_in_place_of_the_signer_s_is_no_signature_of_theirs(
    signed: tuple[Path, Path], tmp_path: Path
) -> None:
    run, public = signed
    (run / "report.html").write_bytes(b"<p>another</p>")
    thief, _ = make_key(tmp_path, "thief.key")
    (run / "signatures" / "01-quality-manager.sig.json").unlink()
    with pytest.raises(RunError, match=r"report\.html"):
        sign(run, thief, WHO, render=None)
    AuditLog(run / "audit.jsonl").append("run.recorded", files={"report.html": digest_file(run / "report.html")})
    sign(run, thief, WHO, supersede=True, render=None)
    assert not verify(run).faults, "nobody can tell without the signer's key"
    assert wrong(run, public) == {"signatures"}


def test_what_nothing_vouches_for_is_named_and_no_fault(signed: tuple[Path, Path]) -> None:
    run, public = signed
    (run / "notes.txt").write_text("added later")
    (run / "export").mkdir()
    (run / "export" / "model.onnx").write_bytes(b"x")
    (run / "signatures" / "deep").mkdir()
    (run / "signatures" / "deep" / "x").write_bytes(b"x")
    found = verify(run, public_keys=[public])
    assert found.verified
    assert found.uncovered == ("export/model.onnx", "notes.txt", "signatures/deep/x")


def test_a_link_in_place_of_a_file_is_a_fault(signed: tuple[Path, Path], tmp_path: Path) -> None:
    run, public = signed
    (tmp_path / "elsewhere").write_bytes((run / "card.md").read_bytes())
    (run / "card.md").unlink()
    (run / "card.md").symlink_to(tmp_path / "elsewhere")
    assert wrong(run, public) == {"card.md"}


def test_a_protocol_of_a_version_with_other_fields_is_told_by_its_own(tmp_path: Path) -> None:
    from medharden.protocol import content_digest, load_protocol

    content = {**load_protocol("default").model_dump(mode="json"), "field_of_another_version": 3}
    (tmp_path / "protocol.yaml").write_text(yaml.safe_dump(content))
    assert not list(protocol_faults(RunFiles(tmp_path), content_digest(content)))
    for changed in ({"field_of_another_version": 4}, {"seed": content["seed"] + 1}):
        (tmp_path / "protocol.yaml").write_text(yaml.safe_dump(content | changed))
        assert [fault.file for fault in protocol_faults(RunFiles(tmp_path), content_digest(content))] == [
            "protocol.yaml"
        ]
    for broken in ("a: 2026-11-22", "a: .nan", "- a", "a: 1\na: 2"):
        (tmp_path / "protocol.yaml").write_text(broken)
        assert [fault.file for fault in protocol_faults(RunFiles(tmp_path), content_digest(content))] == [
            "protocol.yaml"
        ]


def test_events_after_the_last_signature_are_said_to_be_unsigned(signed: tuple[Path, Path]) -> None:
    run, public = signed
    AuditLog(run / "audit.jsonl").append("evaluate.started")
    found = verify(run, public_keys=[public])
    assert found.whole
    assert any("after the last verified signature" in note and "evaluate.started" in note for note in found.notes)
    assert any("never ended" in note and "evaluate" in note for note in found.notes)


def test_a_folder_that_is_no_run_is_an_error_and_no_fault(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run directory"):
        verify(tmp_path)


# --- signing -----------------------------------------------------------------------------------------------------


def test_several_people_sign_one_after_the_other_and_each_is_verified(
    signed: tuple[Path, Path], tmp_path: Path
) -> None:
    run, public = signed
    key, second = make_key(tmp_path, "second.key")
    path = sign(run, key, Signatory("Grace Hopper", "clinical lead", "review", "annual review"), render=None)
    assert path.name == "02-clinical-lead.sig.json"
    found = verify(run, public_keys=[public, second])
    assert (found.faults, [s.verified for s in found.signatures]) == ((), [True, True])
    assert [s.role for s in found.signatures] == ["quality manager", "clinical lead"]
    one = verify(run, public_keys=[second], require_signature=True)
    assert one.verified
    assert any("keys that were not given" in note for note in one.notes)
    path.unlink()
    assert path.relative_to(run).as_posix() in wrong(run, public, second), "the log says that there was a second one"
    with pytest.raises(RunError, match="was not signed"):
        sign(run, key, WHO, render=None)


def test_one_key_signs_a_state_once(signed: tuple[Path, Path], made: tuple[Path, Path]) -> None:
    from medharden.audit.keys import load_signing_key

    run, public = signed
    key = load_signing_key(public.with_suffix(""))
    with pytest.raises(RunError, match="signed this state already"):
        sign(run, key, WHO, render=None)
    sign(run, key, WHO, supersede=True, render=None)
    assert not wrong(run, public)
    assert "sign.superseded" in (run / "audit.jsonl").read_text()


@pytest.mark.parametrize("log", ["cut", "anew"])
def test_a_log_that_the_signature_shows_to_be_cut_or_written_anew_is_not_superseded(
    signed: tuple[Path, Path], log: str
) -> None:
    from medharden.audit.keys import load_signing_key

    run, public = signed
    AuditLog(run / "audit.jsonl").append("evaluate.test_split_opened", protocol="", cohort="", hardened="")
    key = load_signing_key(public.with_suffix(""))
    sign(run, key, WHO, supersede=True, render=None)
    lines = (run / "audit.jsonl").read_bytes().splitlines(keepends=True)
    events = [json.loads(line) for line in lines]
    looked = next(n for n, event in enumerate(events) if event["event"] == "evaluate.test_split_opened")
    (run / "audit.jsonl").write_bytes(b"".join(lines[:looked]))
    if log == "anew":
        for event in events[looked + 1 :]:
            AuditLog(run / "audit.jsonl").append(event["event"], **event["data"])
    with pytest.raises(RunError, match=r"was not signed.*audit\.jsonl"):
        sign(run, key, WHO, supersede=True, render=None)


def test_a_directory_that_is_not_whole_or_has_no_verdict_is_not_signed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    key, _ = make_key(tmp_path)
    (run / "report.html").write_bytes(b"replaced")
    with pytest.raises(RunError, match=r"report\.html is not the one that the log recorded"):
        sign(run, key, WHO, render=None)
    (run / "gate.json").unlink()
    with pytest.raises(RunError, match="no verdict to sign"):
        sign(run, key, WHO, render=None)
    assert not (run / "signatures").exists()


@pytest.mark.parametrize(
    "who",
    [
        Signatory("", "r", "review", "x"),
        Signatory("a\nb", "r", "review", "x"),
        Signatory("a", "r", "review", " "),
        Signatory("a", "r", "liking", "x"),
    ],
)
def test_a_signature_says_who_as_what_and_why(tmp_path: Path, who: Signatory) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"must be one line|means one of"):
        sign(run, make_key(tmp_path)[0], who, render=None)


def test_a_signing_that_failed_leaves_its_trace_and_no_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    key, public = make_key(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            "medharden.verifying.signing.bundle_bytes", lambda envelope: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            sign(run, key, WHO, render=None)
    events = [json.loads(line)["event"] for line in (run / "audit.jsonl").read_text().splitlines()]
    assert events[-2:] == ["sign.started", "sign.interrupted"]
    sign(run, key, WHO, supersede=True, render=None)
    assert not wrong(run, public)


# --- keys --------------------------------------------------------------------------------------------------------


def test_a_private_key_is_its_owner_s_alone_and_never_overwritten_or_read_by_others(tmp_path: Path) -> None:
    from medharden.audit.keys import load_signing_key, write_key_pair
    from medharden.errors import OutputError

    path = tmp_path / "a.key"
    write_key_pair(path)
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_bytes()
    with pytest.raises(OutputError, match="never overwritten"):
        write_key_pair(path)
    assert path.read_bytes() == secret
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_signing_key(path)
    with pytest.raises(KeyFileError, match="this is a private key"):
        load_public_key(path)


@pytest.mark.parametrize("algorithm", [("ed25519",), ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")])
def test_keys_that_openssl_made_sign_too_encrypted_or_not(tmp_path: Path, algorithm: tuple[str, ...]) -> None:
    from medharden.audit.keys import load_signing_key

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    plain, locked, public = tmp_path / "plain.key", tmp_path / "locked.key", tmp_path / "key.pub"

    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    openssl("genpkey", "-algorithm", *algorithm, "-out", plain)
    openssl("pkey", "-in", plain, "-pubout", "-out", public)
    openssl("pkey", "-in", plain, "-aes256", "-passout", "pass:secret words", "-out", locked)
    for path in (plain, locked):
        path.chmod(0o600)
    with pytest.raises(KeyFileError, match="encrypted"):
        load_signing_key(locked)
    with pytest.raises(KeyFileError, match="can't be read as a private key"):
        load_signing_key(locked, b"wrong")
    run = make_run(tmp_path / "run")
    sign(run, load_signing_key(locked, b"secret words"), WHO, render=None)
    assert verify(run, public_keys=[public], require_signature=True).verified
    assert b"PRIVATE" not in b"".join(p.read_bytes() for p in every_file(run))


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP256K1()).public_key()
    path = tmp_path / "k1.pub"
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyFileError, match="curve secp256k1"):
        load_public_key(path)


def test_verification_imports_no_torch(made: tuple[Path, Path]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom medharden.verifying import verify\n"
        f"assert verify(Path({str(made[0])!r}), public_keys=[Path({str(made[1])!r})]).signed\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
