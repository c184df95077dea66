"""Keys for signatures: Ed25519 or ECDSA on NIST curves, in PEM files; a private key is read and never copied."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from medharden.audit.files import digest_bytes
from medharden.errors import KeyFileError, OutputError

__all__ = ["PublicKey", "SigningKey", "load_public_key", "load_signing_key", "parse_public_key", "write_key_pair"]

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_KINDS = "Ed25519 or ECDSA on P-256, P-384 or P-521"


@dataclass(frozen=True)
class PublicKey:
    """Who can be told by a signature.

    Attributes:
        key_id: SHA-256 of the public key's PEM text, as OpenSSF model signing names keys.
        key: as securesystemslib holds it.
        pem: as text, which `parse_public_key` reads.
    """

    key_id: str
    key: SSlibKey
    pem: str

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made a signature over a message."""
        try:
            self.key.verify_signature(Signature(self.key_id, signature.hex()), message)
        except (UnverifiedSignatureError, VerificationError):
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key with its public half; `repr` shows neither secret."""

    public: PublicKey
    signer: CryptoSigner

    def sign(self, message: bytes) -> bytes:
        """The signature over a message."""
        return bytes.fromhex(self.signer.sign(message).signature)


def load_signing_key(path: Path, passphrase: bytes | None = None) -> SigningKey:
    """Reads a private key in PEM form (PKCS #8), encrypted or not.

    Raises:
        KeyFileError: missing, readable by others, of another kind, encrypted under another passphrase or without one
            given.
    """
    data = _read(path)
    if b"PUBLIC KEY" in data and b"PRIVATE" not in data:
        raise KeyFileError(
            f"{path.name} is a public key, and only the private one signs; expected the file that `medharden keygen` "
            f"wrote beside it{f': {path.stem}' if path.suffix == '.pub' else ''}"
        )
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"the private key {path.name} can be read by others; run `chmod 600` on it")
    try:
        private = serialization.load_pem_private_key(data, passphrase)
    except TypeError:
        wanted = "is encrypted: set its passphrase" if passphrase is None else "is not encrypted: give no passphrase"
        raise KeyFileError(f"the private key {path.name} {wanted} (MEDHARDEN_SIGNING_PASSPHRASE)") from None
    except (ValueError, UnsupportedAlgorithm, InternalError):
        raise KeyFileError(
            f"{path.name} can't be read as a private key: expected PEM of {_KINDS}, and the passphrase where it is "
            "encrypted; `medharden keygen` makes one"
        ) from None
    if not isinstance(private, (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyFileError(f"{path.name} holds a key of another kind; expected {_KINDS}")
    public = _public(private.public_key(), path.name)
    return SigningKey(public, CryptoSigner(private, public.key))


def load_public_key(path: Path) -> PublicKey:
    """Reads a public key in PEM form.

    Raises:
        KeyFileError: missing, or no such key.
    """
    return parse_public_key(_read(path), path.name)


def parse_public_key(data: bytes, name: str) -> PublicKey:
    """A public key from the text of `name`; as `load_public_key`."""
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm, InternalError):
        private = " (this is a private key: keep it where you sign, and give its public half)" * (b"PRIVATE" in data)
        raise KeyFileError(f"{name} can't be read as a public key{private}: expected PEM of {_KINDS}") from None
    if not isinstance(key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)):
        raise KeyFileError(f"{name} holds a key of another kind; expected {_KINDS}")
    return _public(key, name)


def write_key_pair(path: Path) -> tuple[Path, PublicKey]:
    """Makes an Ed25519 key pair: `path` for its owner alone to read, and `path` with `.pub` for everybody.

    Returns:
        The public key's path, and the key.

    Raises:
        OutputError: a file is there already, or can't be written.
    """
    private = ed25519.Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    beside = path.with_name(path.name + ".pub")
    for target, data, mode in ((path, secret, 0o600), (beside, _pem(private.public_key()), 0o644)):
        try:
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
        except OSError as error:
            raise OutputError(
                f"{target.name} could not be written: {error.strerror}; a key is never overwritten, choose another name"
            ) from None
    return beside, _public(private.public_key(), beside.name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"the key {path.name} can't be read: {error.strerror}") from None


def _public(key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey, name: str) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        raise KeyFileError(f"{name} holds a key on the curve {key.curve.name}; expected {_KINDS}")
    pem = _pem(key)
    key_id = digest_bytes(pem)
    return PublicKey(key_id, SSlibKey.from_crypto(key, keyid=key_id), pem.decode())


def _pem(key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
