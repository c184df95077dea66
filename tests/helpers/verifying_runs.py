"""A small run directory with a verdict and reports, and its signature: all that verification reads but a model."""

from __future__ import annotations

from pathlib import Path

from gating_factory import records, write_run

from medharden.audit import AuditLog, digest_file, write_atomic
from medharden.audit.inventory import list_files
from medharden.audit.keys import SigningKey, load_signing_key, write_key_pair
from medharden.gating import gate
from medharden.reporting import render, report_files
from medharden.verifying import Signatory, sign, write_bom

WHO = Signatory("Ada Lovelace", "quality manager", "approval", "release 1.0")


def make_run(run: Path, made=None) -> Path:
    """Records, verdict, reports and one more file, with the digests that the log records."""
    run.mkdir(parents=True)
    write_run(run, made or records())
    gate(run)
    render(run)
    write_bom(run)
    write_atomic(run / "card.md", b"# A file that no stage writes\n")
    AuditLog(run / "audit.jsonl").append(
        "run.recorded", files={name: digest_file(run / name) for name in list_files(run)}
    )
    return run


def make_key(folder: Path, name: str = "signer.key") -> tuple[SigningKey, Path]:
    """A key pair: the private key, and the public one's path."""
    public, _ = write_key_pair(folder / name)
    return load_signing_key(folder / name), public


def make_signed(folder: Path) -> tuple[Path, SigningKey, Path]:
    """A signed run directory, the signer's key, and the public key's path."""
    run = make_run(folder / "run")
    key, public = make_key(folder)
    sign(run, key, WHO, render=report_files)
    return run, key, public
