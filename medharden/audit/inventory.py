"""The files of a run directory with their digests, and the statement over them in the form of OpenSSF model signing.

The predicate `https://model_signing/signature/v1.0` lists every file with its digest; the subject's digest is SHA-256
over these digests in the order of the list. Its verifiers pass over further fields of the predicate; medharden puts
there who signed, and the head of the log.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medharden.audit.envelopes import STATEMENT
from medharden.audit.locking import LOCK_FILES
from medharden.audit.log import LOG
from medharden.audit.runfiles import RunFiles
from medharden.errors import RunError

__all__ = [
    "ATTESTATIONS",
    "LOG",
    "MODEL_SIGNING",
    "SIGNATURES",
    "digests_in_statement",
    "file_digests",
    "is_signed",
    "list_files",
    "run_statement",
]

SIGNATURES = "signatures"
ATTESTATIONS = ("attestation.dsse.json", "provenance.dsse.json")
MODEL_SIGNING = "https://model_signing/signature/v1.0"
# the log grows, the attestations and signatures carry signatures of their own, and a lock is no part of the run
_APART = (LOG, SIGNATURES, *ATTESTATIONS, *LOCK_FILES)
_SUBJECT = "medharden-run"


def list_files(run: Path) -> tuple[str, ...]:
    """Names of the plain files below the run directory, with forward slashes, in order.

    The log, the attestations, the signatures and a writer's lock are not among them; of links and the like,
    `medharden.files.irregular` tells.
    """
    files = []
    for here, _, names in os.walk(run):
        for name in names:
            path = Path(here) / name
            relative = path.relative_to(run).as_posix()
            if relative.split("/", 1)[0] not in _APART and stat.S_ISREG(path.lstat().st_mode):
                files.append(relative)
    return tuple(sorted(files))


def file_digests(files: RunFiles) -> dict[str, str]:
    """SHA-256 of every file that `list_files` lists.

    Raises:
        RunError: a file can't be read.
    """
    return {name: files.digest(name) for name in list_files(files.run)}


def is_signed(run: Path) -> bool:
    """Whether a signature or an attestation lies in a run directory, true or not."""
    folder = run / SIGNATURES
    return any((run / name).exists() for name in ATTESTATIONS) or (folder.is_dir() and any(folder.iterdir()))


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
