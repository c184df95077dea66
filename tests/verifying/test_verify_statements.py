"""Bill of materials, attestations and signature bundle, held against their specifications and other tools."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path

import pytest
from gating_factory import records
from verifying_runs import WHO, make_key, make_run, make_signed

from medharden.audit import RunFiles, digest_file, verify_log
from medharden.audit.keys import load_public_key
from medharden.verifying import sign, verify, write_bom
from medharden.verifying.bom import bill_of_materials


def statement(path: Path) -> dict:
    return json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))


def test_the_bill_of_materials_is_valid_names_its_ancestor_and_is_written_alike_again(tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    run = make_run(tmp_path / "run")
    first = write_bom(run).read_bytes()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(first.decode()) is None
    assert write_bom(run).read_bytes() == first
    model = json.loads(first)["metadata"]["component"]
    harden = json.loads((run / "harden.json").read_text())
    (ancestor,) = model["pedigree"]["ancestors"]
    assert ancestor["hashes"][0]["content"] == harden["original"]["file"]
    assert model["hashes"][0]["content"] == digest_file(run / "hardened.safetensors")
    assert not verify(run).faults
    (run / "bom.cdx.json").write_bytes(first + b" ")
    assert {f.file for f in verify(run).faults} == {"bom.cdx.json"}


def test_the_validator_sees_a_field_that_does_not_exist(tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = bill_of_materials(RunFiles(make_run(tmp_path / "run")))
    document["metadata"]["component"]["modelCrad"] = {}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is not None


@pytest.mark.parametrize(("lost", "result"), [(0, "PASSED"), (7, "FAILED"), (30, "FAILED")])
def test_the_verdict_is_attested_of_the_released_weights_and_only_a_pass_has_passed(
    tmp_path: Path, lost: int, result: str
) -> None:
    run = make_run(tmp_path / "run", records(lost=lost))
    sign(run, make_key(tmp_path)[0], WHO, render=None)
    said = statement(run / "attestation.dsse.json")
    assert (said["_type"], said["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://in-toto.io/attestation/test-result/v0.1",
    )
    assert {s["name"]: s["digest"]["sha256"] for s in said["subject"]} == {
        name: digest_file(run / name) for name in ("hardened.safetensors", "hardened.json")
    }
    assert said["predicate"]["result"] == result
    gate = json.loads((run / "gate.json").read_text())
    assert said["predicate"]["medharden"]["verdict"] == gate["verdict"]
    tests = {*said["predicate"]["passedTests"], *said["predicate"]["failedTests"]}
    assert tests == {endpoint["name"] for endpoint in gate["endpoints"]}
    assert bool(said["predicate"]["failedTests"]) == (result == "FAILED")


def test_provenance_leads_from_original_data_code_and_protocol_to_the_weights(tmp_path: Path) -> None:
    run, _, _ = make_signed(tmp_path)
    said = statement(run / "provenance.dsse.json")
    harden = json.loads((run / "harden.json").read_text())
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {"buildDefinition", "runDetails"} == set(said["predicate"])
    build = said["predicate"]["buildDefinition"]
    found = {d["name"]: d.get("digest", {}).get("sha256") for d in build["resolvedDependencies"]}
    assert found["original model"] == harden["original"]["file"]
    assert found["cohort.json"] == digest_file(run / "cohort.json")
    assert "medharden" in found
    assert build["externalParameters"]["protocol"]["digest"] == harden["protocol"]


def test_the_signature_lists_every_file_and_holds_the_log_s_head_and_who_signed(tmp_path: Path) -> None:
    run, _, public = make_signed(tmp_path)
    bundle = json.loads((run / "signatures" / "01-quality-manager.sig.json").read_text())
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert bundle["verificationMaterial"]["publicKey"]["hint"] == load_public_key(public).key_id
    said = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert said["predicateType"] == "https://model_signing/signature/v1.0"
    predicate = said["predicate"]
    assert predicate["log"] == dict(zip(("events", "head"), verify_log(run / "audit.jsonl"), strict=True))
    assert {r["name"] for r in predicate["resources"]} >= {
        "hardened.safetensors",
        "report.html",
        "card.md",
        "gate.json",
    }
    signature = predicate["signature"]
    assert (signature["name"], signature["meaning"]) == ("Ada Lovelace", "approval")
    assert signature["time"].endswith("+00:00")


def test_the_reference_verifier_of_model_signing_takes_a_signature_of_an_ecdsa_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from medharden.audit.keys import load_signing_key

    absent = [name for name in ("model_signing", "OpenSSL") if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"model-signing and pyOpenSSL are not both installed: no module {absent[0]}")
    import model_signing

    private = ec.generate_private_key(ec.SECP256R1())
    path, public = tmp_path / "ec.key", tmp_path / "ec.pub"
    kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, *kinds))
    path.chmod(0o600)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, form))
    run = make_run(tmp_path / "run")
    signature = sign(run, load_signing_key(path), WHO, render=None)
    checker = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
    checker.verify(run, signature)
    (run / "report.html").write_bytes(b"replaced")
    with pytest.raises(ValueError, match=r"report\.html"):
        checker.verify(run, signature)
