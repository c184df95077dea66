"""What a run's log says its files should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medharden.audit import verify_log
from medharden.audit.inventory import LOG
from medharden.errors import RunError
from medharden.verifying.outcome import Fault

__all__ = ["Logged", "read_logged"]

_FILES = {
    "harden.locked": {"cohort": "cohort.json"},
    "harden.recorded": {"hardened": "hardened.safetensors", "record": "harden.json"},
    "evaluate.recorded": {"cases": "cases.parquet", "record": "evaluation.json"},
    "gate.decided": {"gate": "gate.json"},
}
# what the gate found there: not what it should have found, so it counts only where no stage recorded the file
_FOUND_BY_GATE = {"description": "hardened.json"}


@dataclass
class Logged:
    """What a log says.

    Attributes:
        lines: the log's lines.
        digests: file name to the SHA-256 that was last recorded for it.
        protocol: the digest that was locked last, or empty.
        signatures: names of the signature files that were begun, and neither failed nor were superseded.
        open: stages that were begun and never ended.
        faults: the log itself, where its chain is broken.
    """

    lines: list[bytes] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    protocol: str = ""
    signatures: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_logged(run: Path) -> Logged:
    """Reads a log as far as it can be read; what is wrong with it is a fault, not an error."""
    logged = Logged()
    try:
        verify_log(run / LOG)
        logged.lines = (run / LOG).read_bytes().splitlines()
        for line in logged.lines:
            _apply(logged, json.loads(line))
    except RunError as error:
        logged.faults.append(Fault(LOG, str(error).removeprefix(LOG).lstrip(":, ")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logged.faults.append(Fault(LOG, f"holds an event that can't be read ({type(error).__name__})"))
    return logged


def _apply(logged: Logged, entry: dict[str, Any]) -> None:
    event, data = str(entry["event"]), entry["data"]
    logged.digests |= dict(_digests(event, data))
    if event == "gate.decided":
        for name, file in _FOUND_BY_GATE.items():
            logged.digests.setdefault(file, str(data[name]))
    if event == "harden.locked":
        logged.protocol = str(data["protocol"])
    stage, _, step = event.partition(".")
    if step == "started":
        logged.open.append(stage)
    elif step in ("finished", "failed", "interrupted") and stage in logged.open:
        logged.open.remove(stage)
    if stage == "sign":
        _apply_signature(logged, step, data)


def _apply_signature(logged: Logged, step: str, data: dict[str, Any]) -> None:
    if step == "superseded":
        for name in data["signatures"]:
            if name in logged.signatures:
                logged.signatures.remove(name)
    elif step == "started":
        logged.signatures.append(str(data["file"]))
    elif step in ("failed", "interrupted"):
        logged.signatures.pop()


def _digests(event: str, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, file in _FILES.get(event, {}).items():
        yield file, str(data[key])
    for file, digest in data.get("files", {}).items():
        yield str(file), str(digest)
