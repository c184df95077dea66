"""The unit of analysis (`record.by_unit`): how many it takes, what counts once, and whose cases name no patient.

A case that names no patient counts as one of its own, which only the protocol can state to be true; and limits that
rest on very few units are not believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medharden.gating.words import percent
from medharden.protocol import Protocol
from medharden.record import Clusters, CohortRecord, Endpoint, Finding, Verdict
from medharden.stats import FEWEST_PATIENTS

__all__ = ["on_enough_units", "unit_findings", "unnamed_reason"]

_MANY = 0.05
_MOST_SETS, _MOST_CASES = 5, 4


def on_enough_units(endpoint: Endpoint) -> Endpoint:
    """The endpoint, but INCONCLUSIVE where it would pass on fewer than 20 units.

    Limits from an estimated variance (AUROC, Brier) are too narrow on so few, and of those that count cases none is
    needed at margins that a protocol may state.
    """
    if endpoint.verdict is not Verdict.PASS or endpoint.patients >= FEWEST_PATIENTS:
        return endpoint
    reason = f"{endpoint.reason}; but {endpoint.patients} independent patients are too few: {FEWEST_PATIENTS} at least"
    return replace(endpoint, verdict=Verdict.INCONCLUSIVE, reason=reason)


def unnamed_reason(protocol: Protocol, cohort: CohortRecord) -> str:
    """Why nothing passes where cases name no patient and the protocol does not say whose they are; or nothing."""
    if not _any_unnamed(cohort) or protocol.splits.each_case:
        return ""
    return (
        f"patients: {_unnamed(cohort)}, so cases of one patient may count as several and lie in several splits; name "
        "the patients, or state in the protocol how it is known that there are no such cases (splits.patients: "
        "{unit: each_case, reason: ...})"
    )


def unit_findings(protocol: Protocol, cohort: CohortRecord, clusters: Clusters) -> Iterator[Finding]:
    """What counts as one, and on whose word; cases by pseudonym."""
    if _any_unnamed(cohort) and protocol.splits.each_case:
        message = (
            f"{_unnamed(cohort).capitalize()}; the protocol states that each is a patient of its own: "
            f"{protocol.splits.patients.reason}"
        )
        yield Finding("gate.each_case", "info", message)
    n = len(clusters.unit)
    if clusters.copies:
        copied = sum(map(len, clusters.copies))
        message = (
            f"{copied} of {n} test cases are copies: {len(clusters.copies)} sets that are identical "
            f"({clusters.identical} cases) or look like copies of one image. Each set counts once, with its patients: "
            f"{clusters.count} units of {clusters.patients} patients. {_listed(clusters.copies)}."
        )
        yield Finding("gate.copies", "warning", message)
    if clusters.largest > max(2.0, _MANY * n):
        message = (
            f"{clusters.largest} of {n} test cases ({percent(round(clusters.largest / n, 3))}) count as one, since "
            "copies join their patients, each to the next. Blank or very similar images do that too: look at them, and "
            "lower splits.near_duplicate_bits if they are different."
        )
        yield Finding("gate.large_cluster", "warning", message)


def _any_unnamed(cohort: CohortRecord) -> bool:
    return cohort.unnamed > 0 or cohort.grouped_by == "case"


def _unnamed(cohort: CohortRecord) -> str:
    if cohort.grouped_by == "case":
        return "the data name no patients"
    return f"{cohort.unnamed} of {len(cohort.cases)} cases name no patient"


def _listed(sets: tuple[tuple[str, ...], ...]) -> str:
    shown = [", ".join(s[:_MOST_CASES]) + (f" and {len(s) - _MOST_CASES} more" * (len(s) > _MOST_CASES)) for s in sets]
    more = f"; and {len(sets) - _MOST_SETS} more sets" if len(sets) > _MOST_SETS else ""
    return "; ".join(shown[:_MOST_SETS]) + more
