"""Whether the signatures of a run directory are true, and the directory still what they were made over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medharden.audit import digest_bytes
from medharden.audit.envelopes import Envelope, read_bundle, read_envelope
from medharden.audit.inventory import ATTESTATIONS, LOG, SIGNATURES, digests_in_statement
from medharden.audit.keys import PublicKey
from medharden.errors import RunError
from medharden.verifying.logged import Logged
from medharden.verifying.outcome import Fault, SignatureFound
from medharden.verifying.records import read_json
from medharden.verifying.statements import PROVENANCE, TEST_RESULT

__all__ = ["Signed", "check_signatures", "signature_names"]


@dataclass
class Signed:
    """What the signatures of a run say.

    Attributes:
        covered: files that some signature lists.
        anchored: log lines up to the last one that a signature holds.
    """

    found: list[SignatureFound] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    anchored: int = 0


def signature_names(run: Path) -> tuple[str, ...]:
    """Names of the signature files, with forward slashes, in the order in which they were made."""
    return tuple(sorted(f"{SIGNATURES}/{p.name}" for p in (run / SIGNATURES).glob("*") if p.is_file()))


def check_signatures(run: Path, digests: Mapping[str, str], logged: Logged, keys: Sequence[PublicKey]) -> Signed:
    """Checks every signature and attestation.

    Args:
        run: the run directory.
        digests: name to SHA-256 of its files.
        logged: what its log says.
        keys: public keys to check under; a signature of another key is compared, and not verified.
    """
    signed = Signed()
    names = signature_names(run)
    for name in logged.signatures:
        if name not in names:
            signed.faults.append(Fault(name, "is missing; the log says that it was made"))
    payloads: dict[str, str] = {}
    for name in names:
        try:
            predicate = _check_one(signed, run / name, name, digests, logged, keys)
            payloads |= {str(n): str(d) for n, d in predicate["attestations"].items()}
        except RunError as error:
            signed.faults.append(Fault(name, str(error)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            signed.faults.append(Fault(name, f"lacks what a signature must say ({type(error).__name__})"))
    signers = [s.key for s in signed.found]
    for name in ATTESTATIONS:
        signed.faults += _attestation_faults(run, name, payloads.get(name, ""), digests, signers, keys)
    return signed


def _check_one(
    signed: Signed, path: Path, name: str, digests: Mapping[str, str], logged: Logged, keys: Sequence[PublicKey]
) -> dict[str, Any]:
    envelope = read_bundle(path.read_bytes())
    (key_id,) = envelope.signatures
    verified = _verified(envelope, key_id, keys)
    if verified is False:
        raise RunError("does not verify under the key given: it was altered, or made over something else")
    statement = envelope.statement
    listed = digests_in_statement(statement)
    predicate: dict[str, Any] = statement["predicate"]
    said = {field: str(predicate["signature"][field]) for field in ("name", "role", "meaning", "reason", "time")}
    signed.found.append(SignatureFound(file=name, key=key_id, verified=bool(verified), **said))
    signed.covered |= set(listed)
    signed.faults += _changed(listed, digests, name)
    events, head = int(predicate["log"]["events"]), str(predicate["log"]["head"])
    if not 0 < events <= len(logged.lines):
        reason = f"has {len(logged.lines)} readable lines, and {name} was made over {events}: its end was cut off"
        signed.faults.append(Fault(LOG, reason))
    elif digest_bytes(logged.lines[events - 1]) != head:
        signed.faults.append(Fault(LOG, f"line {events} is not the one that {name} was made over"))
    else:
        signed.anchored = max(signed.anchored, events)
    return predicate


def _verified(envelope: Envelope, key_id: str, keys: Sequence[PublicKey]) -> bool | None:
    """None where no key that was given claims the signature."""
    claimed = [key for key in keys if key.key_id == key_id]
    return envelope.signed_by(claimed[0]) if claimed else None


def _changed(listed: Mapping[str, str], digests: Mapping[str, str], name: str) -> Iterator[Fault]:
    for file, digest in listed.items():
        if file not in digests:
            yield Fault(file, f"is missing; {name} lists it")
        elif digests[file] != digest:
            yield Fault(file, f"is not the one that {name} was made over")


def _attestation_faults(
    run: Path,
    name: str,
    payload: str,
    digests: Mapping[str, str],
    signers: Sequence[str],
    keys: Sequence[PublicKey],
) -> Iterator[Fault]:
    """Faults of one attestation: its form, its signers, and what it says of the files.

    Args:
        run: the run directory.
        name: its file.
        payload: SHA-256 of the statement that the directory's signatures were made with; empty without signatures.
        digests: name to SHA-256 of the files.
        signers: keys of the directory's signatures, each of which must have signed here too.
        keys: public keys to check under.
    """
    if not (run / name).is_file():
        if payload:
            yield Fault(name, "is missing; the signatures were made with it")
        return
    try:
        envelope = read_envelope((run / name).read_bytes())
        statement = envelope.statement
        if payload and digest_bytes(envelope.payload) != payload:
            yield Fault(name, "holds another statement than the signatures were made with")
        for key_id in envelope.signatures:
            if _verified(envelope, key_id, keys) is False:
                yield Fault(name, "does not verify under the key given: it was altered, or made over something else")
        if set(envelope.signatures) != set(signers):
            yield Fault(name, "was not signed by the same keys as the directory")
        yield from _said(run, name, statement, digests)
    except RunError as error:
        yield Fault(name, str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield Fault(name, f"lacks what its kind must say ({type(error).__name__})")


def _said(run: Path, name: str, statement: dict[str, Any], digests: Mapping[str, str]) -> Iterator[Fault]:
    predicate = statement["predicate"]
    resources = list(statement["subject"])
    if name == ATTESTATIONS[0]:
        resources += predicate["configuration"]
        gate = read_json(run / "gate.json") or {}
        sound = statement["predicateType"] == TEST_RESULT and predicate["medharden"]["verdict"] == gate.get("verdict")
    else:
        resources += [r for r in predicate["buildDefinition"]["resolvedDependencies"] if r["name"] in digests]
        sound = statement["predicateType"] == PROVENANCE
    if not sound:
        yield Fault(name, "says another verdict than gate.json, or is of another kind")
    for resource in resources:
        if digests.get(resource["name"]) != resource["digest"]["sha256"]:
            yield Fault(str(resource["name"]), f"is not the one that {name} speaks of")
