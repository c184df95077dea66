"""Whether the records of a run agree with each other: the digests that one holds of another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medharden.errors import ProtocolError
from medharden.protocol import content_digest, read_content
from medharden.verifying.outcome import Fault

__all__ = ["protocol_faults", "read_json", "record_faults"]

_REFERENCES = (
    ("harden.json", "cohort", "cohort.json"),
    ("harden.json", "hardened", "hardened.safetensors"),
    ("harden.json", "description", "hardened.json"),
    ("evaluation.json", "cohort", "cohort.json"),
    ("evaluation.json", "hardened", "hardened.safetensors"),
    ("evaluation.json", "cases", "cases.parquet"),
    ("gate.json", "hardened", "hardened.safetensors"),
    ("gate.json", "evaluation", "evaluation.json"),
)
_UNDER_PROTOCOL = ("harden.json", "evaluation.json", "gate.json")


def record_faults(run: Path, digests: Mapping[str, str]) -> Iterator[Fault]:
    """One fault for each file that is not the one a record was made from.

    Args:
        run: the run directory.
        digests: name to SHA-256 of its files.
    """
    records = {name: read_json(run / name) for name in dict.fromkeys(r for r, _, _ in _REFERENCES) if name in digests}
    for name, record in records.items():
        if record is None:
            yield Fault(name, "can't be read as a record")
    for name, field, file in _REFERENCES:
        recorded = (records.get(name) or {}).get(field)
        if recorded is not None and file not in digests:
            yield Fault(file, f"is missing; {name} was made with it")
        elif recorded is not None and recorded != digests[file]:
            yield Fault(file, f"is not the one that {name} was made with")


def protocol_faults(run: Path, locked: str) -> Iterator[Fault]:
    """Faults of `protocol.yaml`: unreadable, or not what was locked and what the records were made under.

    It is told by its own fields, so a run stays what it was where this version's schema is another.
    """
    if not (run / "protocol.yaml").is_file():
        return
    try:
        digest = content_digest(read_content(run / "protocol.yaml"))
    except ProtocolError:
        yield Fault("protocol.yaml", "can't be read as a protocol")
        return
    held = {"audit.jsonl": locked} | {n: str((read_json(run / n) or {}).get("protocol", "")) for n in _UNDER_PROTOCOL}
    for name, recorded in held.items():
        if recorded and recorded != digest:
            yield Fault("protocol.yaml", f"is not the protocol that {name} records")
            return


def read_json(path: Path) -> dict[str, Any] | None:
    """A record's fields; None where there is no readable object."""
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
