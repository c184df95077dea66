"""The files of a run directory with their digests, and the statement over them in the form of OpenSSF model signing.

The predicate `https://model_signing/signature/v1.0` lists every file with its digest; the subject's digest is SHA-256
over these digests in the order of the list. Its verifiers pass over further fields of the predicate; medharden puts
there who signed, and the head of the log.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medharden.audit.envelopes import STATEMENT
from medharden.audit.files import digest_file
from medharden.errors import RunError

__all__ = [
    "ATTESTATIONS",
    "LOG",
    "MODEL_SIGNING",
    "SIGNATURES",
    "digests_in_statement",
    "file_digests",
    "list_files",
    "run_statement",
]

LOG = "audit.jsonl"
SIGNATURES = "signatures"
ATTESTATIONS = ("attestation.dsse.json", "provenance.dsse.json")
MODEL_SIGNING = "https://model_signing/signature/v1.0"
_APART = (LOG, SIGNATURES, *ATTESTATIONS)  # the log grows, the others carry signatures of their own
_SUBJECT = "medharden-run"


def list_files(run: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names below the run directory, with forward slashes, in order: of its files, and of links and the like.

    The log, the attestations and the signatures are not among them.
    """
    files: list[str] = []
    others: list[str] = []
    for here, folders, names in os.walk(run):
        for name in (*names, *(f for f in folders if (Path(here) / f).is_symlink())):
            path = Path(here) / name
            relative = path.relative_to(run).as_posix()
            if relative.split("/", 1)[0] not in _APART:
                (files if path.is_file() and not path.is_symlink() else others).append(relative)
    return tuple(sorted(files)), tuple(sorted(others))


def file_digests(run: Path) -> dict[str, str]:
    """SHA-256 of every file that `list_files` lists.

    Raises:
        RunError: a file can't be read.
    """
    return {name: digest_file(run / name) for name in list_files(run)[0]}


def run_statement(digests: Mapping[str, str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The statement that a signature of a run directory is made over.

    Args:
        digests: name to SHA-256.
        extra: further fields of the predicate.
    """
    resources = [{"algorithm": "sha256", "digest": digests[name], "name": name} for name in sorted(digests)]
    return {
        "_type": STATEMENT,
        "predicateType": MODEL_SIGNING,
        "subject": [{"name": _SUBJECT, "digest": {"sha256": _root(resources)}}],
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(_APART),
            },
            "resources": resources,
            **extra,
        },
    }


def digests_in_statement(statement: Mapping[str, Any]) -> dict[str, str]:
    """Name to SHA-256 of every file that a statement lists.

    Raises:
        RunError: it is no such statement, or its digests don't add up to the subject's.
    """
    try:
        resources = statement["predicate"]["resources"]
        digests = {str(r["name"]): str(r["digest"]) for r in resources}
        sound = (
            statement["predicateType"] == MODEL_SIGNING
            and all(r["algorithm"] == "sha256" for r in resources)
            and statement["subject"][0]["digest"]["sha256"] == _root(resources)
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise RunError(f"holds no list of files ({type(error).__name__})") from error
    if not sound:
        raise RunError("holds a list of files that does not agree with its subject")
    return digests


def _root(resources: list[dict[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
