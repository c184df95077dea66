"""Whether the records of a run agree with each other: the digests that one holds of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from medharden.audit import RunFiles
from medharden.errors import MedHardenError
from medharden.protocol import content_digest
from medharden.record import ARTEFACTS, EXPORTS
from medharden.verifying.outcome import Fault

__all__ = ["protocol_digest", "protocol_faults", "record_faults"]

_REFERENCES = (
    ("harden.json", "cohort", "cohort.json"),
    ("harden.json", "hardened", "hardened.safetensors"),
    ("harden.json", "description", "hardened.json"),
    ("evaluation.json", "cohort", "cohort.json"),
    ("evaluation.json", "hardened", "hardened.safetensors"),
    ("evaluation.json", "cases", "cases.parquet"),
    ("gate.json", "hardened", "hardened.safetensors"),
    ("gate.json", "evaluation", "evaluation.json"),
    ("stability.json", "cohort", "cohort.json"),
    ("stability.json", "hardened", "hardened.safetensors"),
)
_UNDER_PROTOCOL = ("harden.json", "evaluation.json", "gate.json", "stability.json")
_RECORDS = ("cohort.json", "hardened.json", "harden.json", "evaluation.json", "gate.json", "stability.json")


def record_faults(files: RunFiles, digests: Mapping[str, str]) -> Iterator[Fault]:
    """One fault for each file that is no record, or not the one that a record was made from.

    Args:
        files: the run directory.
        digests: name to SHA-256 of its files.
    """
    records = {name: files.fields(name) for name in _RECORDS if name in digests}
    for name, record in records.items():
        if record is None:
            yield Fault(name, "can't be read as a record")
    for name, field, file in (*_REFERENCES, *_of_exports(files, digests)):
        recorded = (records.get(name) or files.fields(name) or {}).get(field) if name in digests else None
        if recorded is not None and file not in digests:
            yield Fault(file, f"is missing; {name} was made with it")
        elif recorded is not None and recorded != digests[file]:
            yield Fault(file, f"is not the one that {name} was made with")


def _of_exports(files: RunFiles, digests: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """What the records of exports, and of exported models that were evaluated, hold of other files.

    Of an export its decision may be an earlier one that the log holds: another `gate.json` alone is no fault.
    """
    for name in digests:
        folder, _, last = name.rpartition("/")
        if folder == EXPORTS and last.endswith(".json"):
            yield name, "hardened", "hardened.safetensors"
            yield name, "description", "hardened.json"
        elif folder.startswith(f"{ARTEFACTS}/") and last == "evaluation.json":
            yield name, "hardened", "hardened.safetensors"
            yield name, "cohort", "cohort.json"
            yield name, "cases", f"{folder}/cases.parquet"
        elif folder.startswith(f"{ARTEFACTS}/") and last == "gate.json":
            yield name, "evaluation", f"{folder}/evaluation.json"


def protocol_faults(files: RunFiles, locked: str, required: str = "") -> Iterator[Fault]:
    """Faults of `protocol.yaml`: unreadable, or not what was locked, what the records were made under or is required.

    It is told by its own fields, so a run stays what it was where this version's schema is another.

    Args:
        files: the run directory.
        locked: the digest that the log locked, or empty.
        required: the digest that whoever verifies requires; empty takes any.
    """
    if not files.has("protocol.yaml"):
        if required:
            yield Fault("protocol.yaml", "is missing; a protocol is required")
        return
    try:
        digest = protocol_digest(files)
    except MedHardenError:
        yield Fault("protocol.yaml", "can't be read as a protocol")
        return
    if required and required != digest:
        yield Fault("protocol.yaml", f"is sha256 {digest[:12]}; whoever verifies requires {required[:12]}")
    held = {"audit.jsonl": locked} | {n: str((files.fields(n) or {}).get("protocol", "")) for n in _UNDER_PROTOCOL}
    for name, recorded in held.items():
        if recorded and recorded != digest:
            yield Fault("protocol.yaml", f"is not the protocol that {name} records")
            return


def protocol_digest(files: RunFiles) -> str:
    """The protocol's digest by its own fields.

    Raises:
        RunError: it can't be read.
        ProtocolError: it is none.
    """
    return content_digest(files.protocol_content())
