"""What a run's log says its files should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from medharden.audit import RunFiles
from medharden.audit.log import LOG, Entry, Log
from medharden.errors import RunError
from medharden.verifying.outcome import Fault

__all__ = ["Logged", "logged_of", "read_log_of"]

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
    """What a log says, up to some event.

    Attributes:
        digests: file name to the SHA-256 that was last recorded for it.
        stacks: name of a rendered file to what it was rendered with.
        protocol: the digest that was locked last, or empty.
        signatures: names of the signature files that were begun, and neither failed nor were superseded.
        open: stages that were begun and never ended.
        faults: the log itself, where an event can't be read.
    """

    digests: dict[str, str] = field(default_factory=dict)
    stacks: dict[str, dict[str, str]] = field(default_factory=dict)
    protocol: str = ""
    signatures: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_log_of(files: RunFiles) -> tuple[Log, tuple[Fault, ...]]:
    """A run's log; what is wrong with it is a fault, not an error."""
    try:
        return files.whole_log(), ()
    except RunError as error:
        return Log(), (Fault(LOG, str(error).removeprefix(LOG).lstrip(":, ")),)


def logged_of(entries: Iterable[Entry]) -> Logged:
    """What the events say together."""
    logged = Logged()
    for number, entry in enumerate(entries, start=1):
        try:
            _apply(logged, entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            said = f"line {number} holds an event that can't be read ({type(error).__name__})"
            logged.faults.append(Fault(LOG, said))
            break
    return logged


def _apply(logged: Logged, entry: Entry) -> None:
    event, data = entry.event, entry.data
    found = dict(_digests(event, data))
    logged.digests |= found
    if "stack" in data:
        stack = {str(k): str(v) for k, v in data["stack"].items()}
        logged.stacks |= dict.fromkeys(found, stack)
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
        logged.signatures.pop()  # of none that was started: an event that can't be


def _digests(event: str, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, file in _FILES.get(event, {}).items():
        yield file, str(data[key])
    for file, digest in data.get("files", {}).items():
        yield str(file), str(digest)
