"""`check_run()`: everything about a run directory that can be checked without running the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medharden.audit import RunFiles
from medharden.audit.inventory import SIGNATURES, list_files
from medharden.audit.keys import PublicKey
from medharden.audit.log import LOG, Log
from medharden.errors import MedHardenError, RunError
from medharden.files import irregular
from medharden.verifying.logged import Logged, logged_of, read_log_of
from medharden.verifying.outcome import Fault, Verification
from medharden.verifying.records import protocol_digest, protocol_faults, record_faults
from medharden.verifying.rendered import Render, Rendered, render_anew
from medharden.verifying.signed import Signed, attestation_faults, check_signatures, unmatched_signatures
from medharden.verifying.tested import testers_of

__all__ = ["check_run"]

_RENDERED_FROM = (
    "protocol.yaml", "cohort.json", "harden.json", "evaluation.json", "cases.parquet", "gate.json",
    "examples.safetensors", LOG,
)  # fmt: skip


def check_run(
    run: Path,
    keys: Sequence[PublicKey] = (),
    *,
    require_signature: bool = False,
    protocol: str = "",
    render: Render | None = None,
) -> Verification:
    """Holds every file against the log, the records, the signatures and the attestations; reads only, imports no torch.

    Args:
        run: the run directory.
        keys: public keys to check signatures under.
        require_signature: whether it is a fault that none was checked, or that the log goes on after those that were.
        protocol: the digest of the protocol that the run must be under; empty takes any.
        render: renders the reports anew, to be compared; None leaves them to their digests.

    Raises:
        RunError: there is no run directory.
    """
    if not run.is_dir() or not any((run / name).exists() for name in (LOG, "protocol.yaml", "harden.json")):
        raise RunError(f"{run.name or run} is no run directory; expected the folder that `medharden harden` wrote")
    files = RunFiles(run)
    faults = [Fault(name, "is a link or no plain file; a run directory holds files alone") for name in irregular(run)]
    digests, unreadable = _digests(files)
    log, broken = read_log_of(files)
    signed = check_signatures(files, digests, log, keys)
    said = logged_of(log.entries)
    believed = logged_of(log.entries[: signed.verified]) if signed.verified else said
    faults += [*unreadable, *broken, *said.faults, *_against_log(believed, digests)]
    faults += protocol_faults(files, believed.protocol, protocol)
    faults += record_faults(files, digests)
    faults += [*signed.faults, *unmatched_signatures(files, believed.signatures, said.signatures)]
    faults += attestation_faults(files, digests, signed, keys)
    testers = testers_of(files, log)
    faults += testers.faults
    faults += _about_keys(signed, keys, log, testers.names, require_signature=require_signature)
    blocked = any(f.file in _RENDERED_FROM and SIGNATURES not in f.reason for f in faults)
    rendered = Rendered() if render is None or blocked else render_anew(files, render, believed.stacks)
    faults += rendered.faults
    covered = signed.covered
    recorded = {n for n in digests if n not in covered and believed.digests.get(n) == digests[n]}
    return Verification(
        faults=_first_of_each(faults),
        signatures=tuple(signed.found),
        covered=tuple(sorted(covered)),
        recorded=tuple(sorted(recorded)),
        uncovered=tuple(sorted({*digests, *_below_signatures(run)} - covered - recorded)),
        rendered=rendered.same,
        elsewhere=rendered.elsewhere,
        notes=(*_notes(said, signed, keys, log, rendered), *testers.notes(keys)),
        verdict=str((files.fields("gate.json") or {}).get("verdict", "")) if files.has("gate.json") else "",
        protocol=_protocol(files),
        protocol_required=protocol,
        events=len(log.entries),
        head=log.head if log.entries else "",
    )


def _digests(files: RunFiles) -> tuple[dict[str, str], list[Fault]]:
    digests, faults = {}, []
    for name in list_files(files.run):
        try:
            digests[name] = files.digest(name)
        except RunError as error:
            faults.append(Fault(name, str(error)))
    return digests, faults


def _protocol(files: RunFiles) -> str:
    try:
        return protocol_digest(files)
    except MedHardenError:
        return ""


def _below_signatures(run: Path) -> Iterable[str]:
    """Files in folders of the signatures' folder, where nothing belongs and nothing is looked for."""
    if (run / SIGNATURES).is_symlink():
        return ()
    deeper = (run / SIGNATURES).glob("*/**/*")
    return (path.relative_to(run).as_posix() for path in deeper if path.is_file() and not path.is_symlink())


def _against_log(logged: Logged, digests: dict[str, str]) -> Iterable[Fault]:
    for name, digest in logged.digests.items():
        if name not in digests:
            yield Fault(name, "is missing; the log recorded it")
        elif digests[name] != digest:
            yield Fault(name, "is not the one that the log recorded")


def _about_keys(
    signed: Signed, keys: Sequence[PublicKey], log: Log, testers: Iterable[str], *, require_signature: bool
) -> Iterable[Fault]:
    present = {*(s.key for s in signed.found), *testers}
    broken = any(fault.file.startswith("signatures/") for fault in signed.faults)
    for key in keys:
        if key.key_id not in present and not broken:
            yield Fault("signatures", f"there is no signature by the key {key.key_id[:16]} that was given")
    if not require_signature:
        return
    if not any(s.verified for s in signed.found):
        yield Fault("signatures", "a signature is required, and none could be verified; give the signer's --key")
    elif signed.verified < len(log.entries):
        yield Fault(LOG, f"{_tail(log, signed.verified)}; give the --key of who signed later, or have it signed anew")


def _tail(log: Log, anchored: int) -> str:
    """What stands in the log after a line, by kind of event."""
    kinds = Counter(entry.event for entry in log.entries[anchored:])
    listed = ", ".join(f"{event} ({count})" if count > 1 else event for event, count in kinds.items())
    return f"goes on after the last verified signature, by what nobody vouches for: {listed}"


def _notes(logged: Logged, signed: Signed, keys: Sequence[PublicKey], log: Log, rendered: Rendered) -> Iterable[str]:
    if not signed.found:
        yield (
            "nothing is signed: integrity rests on the digests alone, and whoever can write to the directory can write "
            "all of them anew"
        )
    elif not keys:
        yield "signatures were compared with the files, but without --key nothing shows who made them"
    elif not all(s.verified for s in signed.found):
        yield "some signatures are of keys that were not given; they were compared, not verified"
    if 0 < signed.verified < len(log.entries):
        yield f"the log {_tail(log, signed.verified)}; nothing of it was believed"
    elif signed.found and len(log.entries) > signed.anchored > 0:
        yield (
            f"{len(log.entries) - signed.anchored} events were logged after the last signature; no signature shows "
            "whether more were cut off"
        )
    if rendered.elsewhere:
        yield (
            "rendered by another version of medharden or its libraries, or by some that are not installed here, so not "
            "compared with the records: " + ", ".join(rendered.elsewhere)
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
