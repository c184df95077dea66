"""Signed envelopes: in-toto statements in DSSE, and the bundle form of OpenSSF model signing around one.

An envelope is accepted only where its bytes are exactly those that its content would be written as, so that a changed
byte is a changed envelope whatever a lenient reader makes of it.

Sources: DSSE v1.0 (secure-systems-lab/dsse); in-toto Attestation Framework v1; Sigstore bundle v0.3.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.dsse import Envelope as Dsse

from medharden.audit.keys import PublicKey, SigningKey
from medharden.canonical import canonical_json, parse_canonical
from medharden.errors import RunError

__all__ = ["STATEMENT", "Envelope", "bundle_bytes", "envelope_bytes", "read_bundle", "read_envelope", "sign_payload"]

STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True)
class Envelope:
    """A payload with its signatures.

    Attributes:
        payload: the statement's bytes.
        signatures: key identifier to signature.
    """

    payload: bytes
    signatures: Mapping[str, bytes]

    @property
    def statement(self) -> dict[str, Any]:
        """The in-toto statement inside.

        Raises:
            RunError: the payload is none.
        """
        try:
            statement = parse_canonical(self.payload)
            if not isinstance(statement, dict) or statement["_type"] != STATEMENT:
                raise RunError(f"holds another payload than an in-toto statement ({STATEMENT})")
        except (ValueError, KeyError) as error:
            raise RunError("holds a payload that is no in-toto statement") from error
        return statement

    def signed_by(self, key: PublicKey) -> bool:
        """Whether a key's signature is there and true."""
        signature = self.signatures.get(key.key_id)
        return signature is not None and key.verifies(signature, _message(self.payload))


def sign_payload(payload: bytes, key: SigningKey, others: Mapping[str, bytes] | None = None) -> Envelope:
    """An envelope with one more signature over its payload.

    Args:
        payload: canonical JSON of a statement.
        key: the signer's.
        others: signatures that are there already.
    """
    return Envelope(payload, {**(others or {}), key.public.key_id: key.sign(_message(payload))})


def envelope_bytes(envelope: Envelope) -> bytes:
    """A DSSE envelope as it lies in a file."""
    return canonical_json(_fields(envelope)) + b"\n"


def bundle_bytes(envelope: Envelope) -> bytes:
    """The bundle form of model signing around an envelope of one signature."""
    (key_id,) = envelope.signatures
    fields = {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key_id}, "tlogEntries": []},
        "dsseEnvelope": _fields(envelope),
    }
    return canonical_json(fields) + b"\n"


def read_envelope(data: bytes) -> Envelope:
    """Reads what `envelope_bytes` wrote.

    Raises:
        RunError: anything else, a single changed byte included.
    """
    return _exact(data, lambda fields: fields, envelope_bytes)


def read_bundle(data: bytes) -> Envelope:
    """Reads what `bundle_bytes` wrote.

    Raises:
        RunError: anything else, a single changed byte included.
    """
    return _exact(data, lambda fields: fields["dsseEnvelope"], bundle_bytes)


def _exact(data: bytes, inner: Any, write: Any) -> Envelope:
    try:
        fields = inner(parse_canonical(data.removesuffix(b"\n")))
        signatures = {str(s["keyid"]): base64.b64decode(s["sig"], validate=True) for s in fields["signatures"]}
        envelope = Envelope(base64.b64decode(fields["payload"], validate=True), signatures)
        if write(envelope) == data:
            return envelope
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"can't be read as a signed envelope ({type(error).__name__})") from error
    raise RunError("is no signed envelope as medharden writes it")


def _fields(envelope: Envelope) -> dict[str, Any]:
    signatures = sorted(envelope.signatures.items())
    return {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id, "sig": base64.b64encode(sig).decode()} for key_id, sig in signatures],
    }


def _message(payload: bytes) -> bytes:
    message: bytes = Dsse(payload, _PAYLOAD_TYPE, {}).pae()
    return message
