"""Rows on the same protocol under other seeds: each seed's outcome on validation, and the spread."""

from __future__ import annotations

import statistics

from medharden.audit import RunFiles
from medharden.record import StabilityRecord
from medharden.reporting.numbers import count, percent, points

__all__ = ["read_stability", "stability_rows"]

_FILE = "stability.json"


def read_stability(files: RunFiles, hardened: str) -> StabilityRecord | None:
    """The record beside a run; none where there is none, or it is of other weights.

    Raises:
        RunError: it is unreadable.
    """
    if not files.has(_FILE):
        return None
    record = files.record(_FILE, StabilityRecord)
    return record if record.hardened == hardened else None


def stability_rows(record: StabilityRecord | None) -> tuple[tuple[str, str, str, str, str], ...]:
    """Seed, clean accuracy, its change, share that stands, referred; the last row is the spread."""
    if record is None:
        return ()
    rows = []
    for one in record.seeds:
        name = f"{one.seed} (released)" if one.released else str(one.seed)
        changed = f"{points((one.gained - one.lost) / record.cases)} ({one.gained} gained, {one.lost} lost)"
        clean, robust = percent(one.clean_correct / record.cases), percent(one.robust / record.attacked)
        rows.append((name, clean, changed, robust, count(one.referred)))
    changes = [(one.gained - one.lost) / record.cases for one in record.seeds]
    shares = {
        "clean": [one.clean_correct / record.cases for one in record.seeds],
        "robust": [one.robust / record.attacked for one in record.seeds],
    }
    spread = {name: f"{percent(min(v))} to {percent(max(v))}" for name, v in shares.items()}
    deviation = f"standard deviation {100 * statistics.stdev(changes):.2f}"
    referred = [one.referred for one in record.seeds]
    rows.append(
        (
            "spread",
            spread["clean"],
            f"{points(min(changes))} to {points(max(changes))}, {deviation}",
            spread["robust"],
            f"{min(referred)} to {max(referred)}",
        )
    )
    return tuple(rows)
