"""Whether the signatures of a run directory are true, and the directory still what they were made over.

What a key that was given vouches for is believed: the files that its signature lists, and the log up to the line that
it holds. Nothing that stands in the log after the last such line changes what is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medharden.audit import RunFiles, digest_bytes
from medharden.audit.envelopes import Envelope, read_bundle, read_envelope
from medharden.audit.inventory import ATTESTATIONS, SIGNATURES, digests_in_statement
from medharden.audit.keys import PublicKey
from medharden.audit.log import LOG, Log
from medharden.errors import RunError
from medharden.verifying.outcome import Fault, SignatureFound
from medharden.verifying.statements import PROVENANCE, TEST_RESULT

__all__ = ["Signed", "attestation_faults", "check_signatures", "signature_names", "unmatched_signatures"]

_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


@dataclass
class Signed:
    """What the signatures of a run say.

    Attributes:
        found: those that are signatures, checked or not.
        faults: what is wrong with them, or with what they were made over.
        covered: files that some verified signature lists.
        anchored: log lines up to the last one that any signature holds.
        verified: log lines up to the last one that a verified signature holds.
        payloads: attestation to the SHA-256 of the statement that the signatures were made with.
    """

    found: list[SignatureFound] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    anchored: int = 0
    verified: int = 0
    payloads: dict[str, str] = field(default_factory=dict)


def signature_names(files: RunFiles) -> tuple[str, ...]:
    """Names of the signature files, with forward slashes, in the order in which they were made."""
    folder = files.run / SIGNATURES
    return tuple(sorted(f"{SIGNATURES}/{p.name}" for p in folder.glob("*") if not p.is_symlink() and p.is_file()))


def check_signatures(files: RunFiles, digests: Mapping[str, str], log: Log, keys: Sequence[PublicKey]) -> Signed:
    """Checks every signature.

    Args:
        files: the run directory.
        digests: name to SHA-256 of its files.
        log: its log.
        keys: public keys to check under; a signature of another key is compared, and not verified.
    """
    signed = Signed()
    for name in signature_names(files):
        try:
            _check_one(signed, name, read_bundle(files.data(name)), digests, log, keys)
        except RunError as error:
            signed.faults.append(Fault(name, str(error)))
        except _MALFORMED as error:
            signed.faults.append(Fault(name, f"lacks what a signature must say ({type(error).__name__})"))
    return signed


def unmatched_signatures(files: RunFiles, believed: Sequence[str], said: Sequence[str]) -> Iterator[Fault]:
    """One fault for each signature that is not there and was made, or that is there and was not.

    Args:
        files: the run directory.
        believed: names that the log holds up to what a verified signature vouches for; nothing later takes one back.
        said: names that the whole log holds.
    """
    names = signature_names(files)
    for name in dict.fromkeys((*believed, *said)):
        if name not in names:
            yield Fault(name, "is missing; the log says that it was made")
    for name in names:
        if name not in (*believed, *said):
            yield Fault(name, "is there, and the log says nothing of its making")


def _check_one(
    signed: Signed,
    name: str,
    envelope: Envelope,
    digests: Mapping[str, str],
    log: Log,
    keys: Sequence[PublicKey],
) -> None:
    (key_id,) = envelope.signatures
    verified = _verified(envelope, key_id, keys)
    if verified is False:
        raise RunError("does not verify under the key given: it was altered, or made over something else")
    statement = envelope.statement
    listed = digests_in_statement(statement)
    predicate: dict[str, Any] = statement["predicate"]
    said = {field: str(predicate["signature"][field]) for field in ("name", "role", "meaning", "reason", "time")}
    payloads = {str(n): str(d) for n, d in predicate["attestations"].items()}
    events, head = int(predicate["log"]["events"]), str(predicate["log"]["head"])
    signed.found.append(SignatureFound(file=name, key=key_id, verified=bool(verified), **said))
    signed.faults += _changed(listed, digests, name)
    if not 0 < events <= len(log.entries):
        reason = f"has {len(log.entries)} readable lines, and {name} was made over {events}: its end was cut off"
        signed.faults.append(Fault(LOG, reason))
    elif log.entries[events - 1].line != head:
        signed.faults.append(Fault(LOG, f"line {events} is not the one that {name} was made over"))
    else:
        signed.anchored = max(signed.anchored, events)
        signed.verified = max(signed.verified, events if verified else 0)
    if verified:
        signed.covered |= {file for file, digest in listed.items() if digests.get(file) == digest}
        signed.payloads |= payloads
    else:
        signed.payloads = payloads | signed.payloads


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


def attestation_faults(
    files: RunFiles, digests: Mapping[str, str], signed: Signed, keys: Sequence[PublicKey]
) -> Iterator[Fault]:
    """Faults of both attestations: their form, their signers, and what they say of the files.

    Args:
        files: the run directory.
        digests: name to SHA-256 of its files.
        signed: what the directory's signatures say; each of their keys must have signed here too.
        keys: public keys to check under.
    """
    signers = [s.key for s in signed.found]
    for name in ATTESTATIONS:
        payload = signed.payloads.get(name, "")
        if not files.has(name):
            if payload:
                yield Fault(name, "is missing; the signatures were made with it")
            continue
        try:
            yield from _attestation(files, name, payload, digests, signers, keys)
        except RunError as error:
            yield Fault(name, str(error))
        except _MALFORMED as error:
            yield Fault(name, f"lacks what its kind must say ({type(error).__name__})")


def _attestation(
    files: RunFiles,
    name: str,
    payload: str,
    digests: Mapping[str, str],
    signers: Sequence[str],
    keys: Sequence[PublicKey],
) -> Iterator[Fault]:
    envelope = read_envelope(files.data(name))
    statement = envelope.statement
    if payload and digest_bytes(envelope.payload) != payload:
        yield Fault(name, "holds another statement than the signatures were made with")
    for key_id in envelope.signatures:
        if _verified(envelope, key_id, keys) is False:
            yield Fault(name, "does not verify under the key given: it was altered, or made over something else")
    if set(envelope.signatures) != set(signers):
        yield Fault(name, "was not signed by the same keys as the directory")
    yield from _said(files, name, statement, digests)


def _said(files: RunFiles, name: str, statement: dict[str, Any], digests: Mapping[str, str]) -> Iterator[Fault]:
    predicate = statement["predicate"]
    resources = list(statement["subject"])
    if name == ATTESTATIONS[0]:
        resources += predicate["configuration"]
        gate = files.fields("gate.json") or {}
        sound = statement["predicateType"] == TEST_RESULT and predicate["medharden"]["verdict"] == gate.get("verdict")
    else:
        resources += [r for r in predicate["buildDefinition"]["resolvedDependencies"] if r["name"] in digests]
        sound = statement["predicateType"] == PROVENANCE
    if not sound:
        yield Fault(name, "says another verdict than gate.json, or is of another kind")
    for resource in resources:
        if digests.get(resource["name"]) != resource["digest"]["sha256"]:
            yield Fault(str(resource["name"]), f"is not the one that {name} speaks of")
