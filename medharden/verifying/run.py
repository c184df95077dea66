"""`verify()`: a run directory against its own records, signatures and, where given, the original model and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medharden.audit.keys import load_public_key
from medharden.errors import RunError
from medharden.record import Progress
from medharden.sizes import MAX_DECODED
from medharden.verifying.check import check_run
from medharden.verifying.outcome import Verification
from medharden.verifying.rendered import Render

__all__ = ["verify"]


def verify(
    run: Path,
    *,
    public_keys: Sequence[Path] = (),
    require_signature: bool = False,
    protocol: str = "",
    render: Render | None = None,
    model: Path | None = None,
    data: Path | None = None,
    arch: str | None = None,
    pseudonym_key: bytes | None = None,
    workers: int = 2,
    max_decoded: int = MAX_DECODED,
    progress: Progress | None = None,
) -> Verification:
    """Checks a run directory offline; writes nothing.

    Args:
        run: the run directory.
        public_keys: files of the keys to check signatures under.
        require_signature: whether it is a fault that none could be checked, or that the log goes on after those that
            were.
        protocol: the digest of the protocol that the run must be under; empty takes any.
        render: renders the reports anew (`medharden.reporting.report_files`), to be compared; None leaves them to their
            digests.
        model: the original's file, to compare the clean path with bit for bit.
        data: the run's data, to run both on.
        arch: as for hardening.
        pseudonym_key: the run's, needed with data.
        workers: threads that read files.
        max_decoded: bytes of memory that reading one file may take.
        progress: called with `read` and `compare`.

    Raises:
        RunError: there is no run directory, or data were given without a model.
        KeyFileError: a key can't be read.
        MedHardenError: model or data can't be loaded.
    """
    if data is not None and (model is None or pseudonym_key is None):
        raise RunError("--data runs the clean path beside the original: expected --model with it")
    keys = [load_public_key(path) for path in public_keys]
    found = check_run(run, keys, require_signature=require_signature, protocol=protocol, render=render)
    if model is None:
        return found
    from medharden.verifying.clean_path import check_clean_path

    broken = {f.file for f in found.faults} & {"hardened.safetensors", "hardened.json", "harden.json", "protocol.yaml"}
    if broken:
        skipped = "the clean path was not run: its files are not what they should be"
        return replace(found, notes=(*found.notes, skipped))
    clean_path, faults = check_clean_path(
        run, model, data, arch=arch, key=pseudonym_key, workers=workers, max_decoded=max_decoded, progress=progress
    )
    return replace(found, clean_path=clean_path, faults=(*found.faults, *faults))
