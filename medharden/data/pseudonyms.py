"""Keyed pseudonyms: a record names cases and patients by them, and nobody without the key can try names out."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from medharden.errors import DataError, OutputError

__all__ = ["key_id", "keyed_digest", "load_pseudonym_key", "pseudonym", "seal_key"]

_VARIABLE = "MEDHARDEN_PSEUDONYM_KEY"
_FILE_VARIABLE = "MEDHARDEN_PSEUDONYM_KEY_FILE"
_SHORTEST = 16


def pseudonym(key: bytes, kind: str, text: str) -> str:
    """First 16 hexadecimal digits of HMAC-SHA256 over `kind:text`.

    Args:
        key: at least 16 secret bytes.
        kind: `case` or `patient`, so that a case and a patient of the same name differ.
        text: a case's path below the data's root, or a patient identifier.
    """
    return keyed_digest(key, kind, text)[:16]


def keyed_digest(key: bytes, kind: str, text: str) -> str:
    """HMAC-SHA256 over `kind:text` in hexadecimal; whoever lacks the key can't tell which text it stands for.

    Args:
        key: at least 16 secret bytes.
        kind: what the text is, so that equal texts of two kinds differ.
        text: any text; for pixels, their own digest, so that who has an image can't find it in a record.
    """
    return hmac.new(key, f"{kind}:{text}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def key_id(key: bytes) -> str:
    """Twelve hexadecimal digits that name a key without revealing it."""
    return hmac.new(key, b"medharden key id", hashlib.sha256).hexdigest()[:12]


def seal_key(key: bytes) -> bytes:
    """The key under which files are sealed that an unfinished stage goes on from."""
    return hmac.new(key, b"medharden files to go on from", hashlib.sha256).digest()


def load_pseudonym_key(path: Path | None = None) -> bytes:
    """The secret key of the pseudonyms.

    Taken from the file `path`, else from the environment variable MEDHARDEN_PSEUDONYM_KEY, else from the file that
    MEDHARDEN_PSEUDONYM_KEY_FILE names, else from `~/.config/medharden/pseudonym.key` (below XDG_CONFIG_HOME where
    that is set), which is made on first use for its owner alone to read.

    Raises:
        DataError: the key is missing where it was said to be, unreadable or too short.
        OutputError: the user's key file can't be made.
    """
    if path is None and (text := os.environ.get(_VARIABLE)):
        return _parse(text, f"the environment variable {_VARIABLE}")
    if path is None and (named := os.environ.get(_FILE_VARIABLE)):
        path = Path(named)
    if path is None:
        home = os.environ.get("XDG_CONFIG_HOME")
        path = (Path(home) if home else Path.home() / ".config") / "medharden" / "pseudonym.key"
        if not path.exists():
            _create(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the pseudonym key file {path.name} can't be read ({type(error).__name__}); expected a text file "
            f"with at least {_SHORTEST} characters, or the key in {_VARIABLE}"
        ) from None
    return _parse(text, f"the pseudonym key file {path.name}")


def _parse(text: str, where: str) -> bytes:
    """Hexadecimal where it reads as such, else the text's own bytes."""
    text = text.strip()
    key = text.encode()
    if len(text) >= 2 * _SHORTEST:
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = text.encode()
    if len(key) < _SHORTEST:
        raise DataError(f"{where} holds {len(key)} bytes; expected a secret of at least {_SHORTEST}")
    return key


def _create(path: Path) -> None:
    """Writes beside and links into place, so that two first uses at once agree on one key."""
    beside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, beside = tempfile.mkstemp(prefix=".pseudonym.", dir=path.parent)  # mkstemp gives mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(secrets.token_hex(32) + "\n")
        os.link(beside, path)
    except FileExistsError:
        return
    except OSError as error:
        raise OutputError(
            f"the pseudonym key could not be written ({error.strerror}); set {_VARIABLE} or {_FILE_VARIABLE}"
        ) from None
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)
