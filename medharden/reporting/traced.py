"""Values of a run's records with their places in them, and what several rows of the threat matrix say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medharden.record import Endpoint, SanityPoint
from medharden.reporting.naming import endpoint_name
from medharden.reporting.source import RunRecords

__all__ = ["Evidence", "curve", "gated", "of_points", "verdicts"]


@dataclass(frozen=True)
class Evidence:
    """One value behind a row, and the record that holds it.

    Attributes:
        file: in the run directory.
        field: JSON pointer into it (RFC 6901).
        value: found there.
    """

    file: str
    field: str
    value: str | int | float | bool


def curve(records: RunRecords, sweep: str, chosen: Callable[[SanityPoint], bool]) -> list[tuple[int, SanityPoint]]:
    """The released model's points of one curve, with their places in the record, by growing budget."""
    points = [
        (k, p)
        for k, p in enumerate(records.evaluation.sanity)
        if p.subject == "composite" and p.sweep == sweep and chosen(p)
    ]
    return sorted(points, key=lambda point: point[1].eps)


def of_points(points: list[tuple[int, SanityPoint]]) -> tuple[Evidence, ...]:
    """What these points of a curve say, with their places."""
    return tuple(
        Evidence("evaluation.json", f"/sanity/{k}/{part}", getattr(p, part))
        for k, p in points
        for part in ("ratio", "robust", "cases")
    )


def gated(records: RunRecords, start: str) -> tuple[Evidence, ...]:
    """Names and verdicts of these endpoints, and the limits of robust accuracy."""
    found: list[Evidence] = []
    for k, e in enumerate(records.decision.endpoints):
        if e.name.startswith(start):
            place = f"/endpoints/{k}"
            found += [Evidence("gate.json", f"{place}/name", e.name)]
            found += [Evidence("gate.json", f"{place}/verdict", e.verdict.value)]
        if e.name == "robust_floor":
            found += [Evidence("gate.json", f"{place}/{part}", getattr(e, part)) for part in ("lower", "upper")]
    return tuple(found)


def verdicts(records: RunRecords, start: str) -> str:
    """What the gate made of the endpoints under attack, the gravest first."""
    found: dict[str, list[Endpoint]] = {}
    for e in records.decision.endpoints:
        if e.name.startswith(start):
            found.setdefault(e.verdict.value, []).append(e)
    order = ("INVALID", "FAIL", "INCONCLUSIVE", "PASS")
    labels = {verdict: "; ".join(endpoint_name(e.name, records) for e in held) for verdict, held in found.items()}
    said = [f"{verdict} for {labels[verdict]}" for verdict in order if verdict in found]
    return f"The gate says {'. It says '.join(said)}" if said else "The gate decided on no endpoint under attack"
