"""`check_run()`: everything about a run directory that can be checked without running the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from medharden.audit import digest_bytes, digest_file
from medharden.audit.inventory import LOG, SIGNATURES, list_files
from medharden.audit.keys import PublicKey
from medharden.errors import RunError
from medharden.verifying.logged import Logged, read_logged
from medharden.verifying.outcome import Fault, Verification
from medharden.verifying.records import protocol_faults, read_json, record_faults
from medharden.verifying.signed import Signed, check_signatures

__all__ = ["check_run"]


def check_run(run: Path, keys: Sequence[PublicKey] = (), *, require_signature: bool = False) -> Verification:
    """Holds every file against the log, the records, the signatures and the attestations; reads only, imports no torch.

    Args:
        run: the run directory.
        keys: public keys to check signatures under.
        require_signature: whether it is a fault that none was checked.

    Raises:
        RunError: there is no run directory.
    """
    if not run.is_dir() or not any((run / name).exists() for name in (LOG, "protocol.yaml", "harden.json")):
        raise RunError(f"{run.name or run} is no run directory; expected the folder that `medharden harden` wrote")
    files, others = list_files(run)
    faults = [Fault(name, "is a link or no plain file; a run directory holds files alone") for name in others]
    digests: dict[str, str] = {}
    for name in files:
        try:
            digests[name] = digest_file(run / name)
        except RunError as error:
            faults.append(Fault(name, str(error)))
    logged = read_logged(run)
    faults += logged.faults
    faults += _against_log(logged, digests)
    faults += protocol_faults(run, logged.protocol)
    faults += record_faults(run, digests)
    signed = check_signatures(run, digests, logged, keys)
    faults += signed.faults
    faults += _about_keys(signed, keys, require_signature=require_signature)
    covered = {*logged.digests, *signed.covered} & set(digests)
    return Verification(
        faults=_first_of_each(faults),
        signatures=tuple(signed.found),
        covered=tuple(sorted(covered)),
        uncovered=tuple(sorted({*digests, *_below_signatures(run)} - covered)),
        notes=tuple(_notes(logged, signed, keys)),
        verdict=str((read_json(run / "gate.json") or {}).get("verdict", "")),
        events=len(logged.lines),
        head=digest_bytes(logged.lines[-1]) if logged.lines else "",
    )


def _below_signatures(run: Path) -> Iterable[str]:
    """Files in folders of the signatures' folder, where nothing belongs and nothing is looked for."""
    deeper = (run / SIGNATURES).glob("*/**/*")
    return (path.relative_to(run).as_posix() for path in deeper if path.is_file())


def _against_log(logged: Logged, digests: dict[str, str]) -> Iterable[Fault]:
    for name, digest in logged.digests.items():
        if name not in digests:
            yield Fault(name, "is missing; the log recorded it")
        elif digests[name] != digest:
            yield Fault(name, "is not the one that the log recorded")


def _about_keys(signed: Signed, keys: Sequence[PublicKey], *, require_signature: bool) -> Iterable[Fault]:
    present = {s.key for s in signed.found}
    broken = any(fault.file.startswith("signatures/") for fault in signed.faults)
    for key in keys:
        if key.key_id not in present and not broken:
            yield Fault("signatures", f"there is no signature by the key {key.key_id[:16]} that was given")
    if require_signature and not any(s.verified for s in signed.found):
        yield Fault("signatures", "a signature is required, and none could be verified; give the signer's --key")


def _notes(logged: Logged, signed: Signed, keys: Sequence[PublicKey]) -> Iterable[str]:
    if not signed.found:
        yield (
            "nothing is signed: integrity rests on the digests alone, and whoever can write to the directory can write "
            "all of them anew"
        )
    elif not keys:
        yield "signatures were compared with the files, but without --key nothing shows who made them"
    elif not all(s.verified for s in signed.found):
        yield "some signatures are of keys that were not given; they were compared, not verified"
    if signed.found and len(logged.lines) > signed.anchored > 0:
        yield (
            f"{len(logged.lines) - signed.anchored} events were logged after the last signature; no signature shows "
            "whether more were cut off"
        )
    unfinished = [stage for stage in logged.open if stage != "sign"]
    if unfinished:
        yield f"stages that began and never ended, killed perhaps: {', '.join(unfinished)}"


def _first_of_each(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """One fault a file, the first one found, which names what recorded the file."""
    by_file: dict[str, Fault] = {}
    for fault in faults:
        by_file.setdefault(fault.file, fault)
    return tuple(by_file[name] for name in sorted(by_file))
