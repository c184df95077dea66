"""`sign()`: a person's signature over a whole run directory, its verdict and its provenance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medharden.audit import (
    AuditLog,
    RunFiles,
    audited,
    canonical_json,
    digest_bytes,
    digest_file,
    exclusive,
    read_log,
    write_atomic,
)
from medharden.audit.envelopes import Envelope, bundle_bytes, envelope_bytes, read_envelope, sign_payload
from medharden.audit.inventory import ATTESTATIONS, SIGNATURES, file_digests, list_files, run_statement
from medharden.audit.keys import SigningKey
from medharden.audit.log import LOG
from medharden.errors import RunError
from medharden.text import neutral
from medharden.verifying.check import check_run
from medharden.verifying.logged import logged_of
from medharden.verifying.rendered import Render
from medharden.verifying.signed import signature_names
from medharden.verifying.statements import provenance_statement, verdict_statement

__all__ = ["Signatory", "sign"]

_LONGEST = 400
_MEANINGS = ("authorship", "review", "approval", "responsibility")


@dataclass(frozen=True)
class Signatory:
    """Who signs, as what, why, and what the signature means.

    Attributes:
        meaning: `authorship`, `review`, `approval` or `responsibility` (21 CFR 11.50(a)(3)).
    """

    name: str
    role: str
    meaning: str
    reason: str


def sign(run: Path, key: SigningKey, who: Signatory, *, render: Render | None, supersede: bool = False) -> Path:
    """Signs a run directory; several may, one after the other.

    The signature lists every file with its digest and holds the head of the log, in which it is begun first. The
    attestations of verdict and provenance get a signature of the same key.

    Args:
        run: the run directory, with a verdict.
        key: the signer's.
        who: name, role, meaning and reason, which everybody who gets the directory can read.
        render: renders the reports anew (`medharden.reporting.report_files`), so that none is signed that contradicts
            the records; None signs reports as they lie there, unread.
        supersede: drop the signatures of an earlier state; the log keeps that there were any.

    Returns:
        The signature's path.

    Raises:
        RunError: the directory is not as it was recorded, holds no verdict, a report that is not what its records give
            here, or a signature of this key already; or another process writes there.
        OutputError: it can't be written to.
    """
    _require_words(who)
    if not (run / "gate.json").is_file():
        raise RunError(f"{run.name} holds no verdict to sign; run `medharden gate` first")
    with exclusive(run):
        return _sign(run, key, who, render, supersede=supersede)


def _sign(run: Path, key: SigningKey, who: Signatory, render: Render | None, *, supersede: bool) -> Path:
    _require_names(run)
    earlier = signature_names(RunFiles(run))
    _require_sound(run, key, earlier, render, supersede=supersede)
    number = 1 if supersede else len(earlier) + 1
    taken = {Path(name).name for name in earlier}
    target = next(n for n in (f"{k:02d}-{_slug(who.role)}.sig.json" for k in range(number, 1000)) if n not in taken)
    name = f"{SIGNATURES}/{target}"
    if supersede:
        _drop(run, earlier)
    said = asdict(who) | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    with audited(run, "sign", closed=False, file=name, key=key.public.key_id, **said):
        files = RunFiles(run)
        digests, written = file_digests(files), files.whole_log()
        attested = {n: _attest(files, n, digests, key) for n in ATTESTATIONS}
        head = {"events": len(written.entries), "head": written.head}
        extra = {"attestations": attested, "log": head, "signature": said}
        payload = canonical_json(run_statement(digests, extra))
        write_atomic(run / name, bundle_bytes(sign_payload(payload, key)))
    return run / name


def _require_words(who: Signatory) -> None:
    for field, text in (("name", who.name), ("role", who.role), ("reason", who.reason)):
        if not text.strip() or len(text) > _LONGEST or neutral(text) != text:
            raise RunError(
                f"the signer's {field} must be one line of 1 to {_LONGEST} characters, all of which are seen"
            )
    if who.meaning not in _MEANINGS:
        raise RunError(f"a signature means one of {', '.join(_MEANINGS)}; found {who.meaning!r}")


def _require_names(run: Path) -> None:
    """A statement lists every file by name, and JSON holds text alone."""
    for name in list_files(run):
        shown = name.encode("utf-8", "replace").decode()
        if shown != name:
            raise RunError(f"{run.name} holds a file whose name is no UTF-8 text, {shown!r}; rename or remove it")


def _require_sound(
    run: Path, key: SigningKey, earlier: tuple[str, ...], render: Render | None, *, supersede: bool
) -> None:
    """A signature says that the directory is whole, so it is checked first; what is superseded is not held against.

    But for the log: no later stage shortens it or writes it anew, so a signature that says so is heard to the last.
    """
    found = check_run(run, render=render)
    faults = [
        f
        for f in found.faults
        if f.file == LOG
        or not (supersede and (f.file in ATTESTATIONS or f.file.startswith(SIGNATURES) or SIGNATURES in f.reason))
    ]
    if faults:
        shown = "; ".join(f"{f.file} {f.reason}" for f in faults[:5])
        hint = "" if supersede or not earlier else " (--supersede drops signatures of an earlier state)"
        raise RunError(f"{run.name} was not signed, since it is not as it was recorded: {shown}{hint}")
    if found.elsewhere:
        raise RunError(
            f"{run.name} was not signed: {', '.join(found.elsewhere)} was rendered by another version of medharden or "
            "its libraries, so nothing here shows that it is what the records give; run `medharden report` first"
        )
    if not supersede and key.public.key_id in {s.key for s in found.signatures}:
        raise RunError("this key has signed this state already; another signer needs a key of their own")


def _drop(run: Path, names: tuple[str, ...]) -> None:
    """Deletes what is superseded, after the log says so."""
    gone = [n for n in (*names, *ATTESTATIONS) if (run / n).is_file()]
    begun = logged_of(read_log(run).entries).signatures  # of one whose writing was cut off there is no file
    AuditLog(run / LOG).append("sign.superseded", signatures=begun, digests={n: digest_file(run / n) for n in gone})
    for name in gone:
        (run / name).unlink()


def _attest(files: RunFiles, name: str, digests: Mapping[str, str], key: SigningKey) -> str:
    """Adds a signature to an attestation, or makes it; returns the SHA-256 of its statement."""
    if files.has(name):
        earlier = read_envelope(files.data(name))
    else:
        earlier = Envelope(canonical_json(_statement(files, name, digests)), {})
    write_atomic(files.run / name, envelope_bytes(sign_payload(earlier.payload, key, earlier.signatures)))
    return digest_bytes(earlier.payload)


def _statement(files: RunFiles, name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    return (verdict_statement if name == ATTESTATIONS[0] else provenance_statement)(files, digests)


def _slug(role: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", role.lower()).strip("-")[:40] or "signer"
