"""Whether a decision on record stands: the gate decides anew, writes nothing, and compares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medharden.audit import RunFiles
from medharden.gating.run import gate
from medharden.record import GateDecision, Progress

__all__ = ["Standing", "check_decision"]

_NOT_COMPARED = ("decided", "ledger", "protocol_required")  # when, beside what and for whom it was decided
_LOOKS = ("gate.ledger_not_read", "gate.repeated_look")  # a ledger grows
_TOLERANCE = 1e-9  # other versions of the numerical libraries round otherwise


@dataclass(frozen=True)
class Standing:
    """A decision made anew beside the one on record.

    Attributes:
        decision: made now, from the records.
        recorded: as `gate.json` has it.
        differences: one sentence for each field in which they differ; none means that the recorded one stands.
    """

    decision: GateDecision
    recorded: GateDecision
    differences: tuple[str, ...]


def check_decision(
    run: Path,
    *,
    protocol: str = "",
    authorised: Path | None = None,
    ledger: Path | None = None,
    progress: Progress | None = None,
) -> Standing:
    """Decides anew and compares with `gate.json`; arguments and errors as `gate`.

    Raises:
        RunError: as `gate`; or there is no decision on record.
    """
    recorded = RunFiles(run).record("gate.json", GateDecision)
    decision = gate(run, protocol=protocol, authorised=authorised, ledger=ledger, read_only=True, progress=progress)
    return Standing(decision, recorded, tuple(_differences(_compared(recorded), _compared(decision))))


def _compared(decision: GateDecision) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(decision).items() if name not in _NOT_COMPARED}
    return fields | {"findings": [f for f in fields["findings"] if f["code"] not in _LOOKS]}


def _differences(recorded: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name, value in now.items():
        if _equal(recorded[name], value):
            continue
        if isinstance(value, str):
            yield f"gate.json says {name} {str(recorded[name])[:40]!r}; decided anew it is {str(value)[:40]!r}"
        else:
            yield f"the {name} of gate.json are not those of a decision made anew"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
