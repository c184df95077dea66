"""Assay sensitivity: to be no worse than a model that can't tell anything is worth nothing.

Where the protocol states floors of clean performance, the original and the release must both be shown to reach them.
Where it states none, the original must be shown to be better than chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medharden.errors import RangeError
from medharden.gating.groups import groups
from medharden.gating.scores import auroc_alone
from medharden.gating.shares import at_least, share_of
from medharden.gating.units import on_enough_units
from medharden.gating.words import apart, percent
from medharden.protocol import Margin, Protocol
from medharden.record import CaseTable, Endpoint
from medharden.stats import balanced_accuracy_difference

__all__ = ["chance_reason", "floor_endpoints"]

_WHOSE = {"original": "original_", "composite": ""}


def floor_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """Each stated floor of a clean metric, of the original and of the composite."""
    for wanted in protocol.endpoints.noninferiority:
        if wanted.floor is not None:
            for subject in _WHOSE:
                yield from map(on_enough_units, _floors(wanted, wanted.floor, subject, protocol, classes, cases))


def chance_reason(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> str:
    """Why nothing is shown by comparison with this original, or nothing."""
    if any(m.floor is not None for m in protocol.endpoints.noninferiority):
        return ""
    what, lower, chance = _against_chance(protocol, classes, cases)
    if lower > chance:
        return ""
    level = percent(1.0 - 2.0 * protocol.endpoints.alpha_per_look)
    held = apart(lower, "is not above", chance, "%")
    return (
        f"original: the lower {level} limit of its {what} {held}, which is chance: to be no worse than it shows "
        "nothing. State floors of clean performance (endpoints.noninferiority: floor), or take more cases"
    )


def _floors(
    wanted: Margin, floor: float, subject: str, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable
) -> Iterator[Endpoint]:
    alpha, whose, why = protocol.endpoints.alpha_per_look, _WHOSE[subject], wanted.justification or ""
    if wanted.metric == "auroc":
        endpoint = auroc_alone(f"{whose}auroc_floor", subject, floor, protocol, classes, cases)
        yield replace(endpoint, justification=why)
        return
    every = np.ones(len(cases.case), dtype=np.bool_)
    parts = [("accuracy_floor", "accuracy", every, cases.right(subject))]
    if wanted.metric == "recall":
        parts = [
            (_floor_name(group.name), group.title, group.rows, group.right(subject, cases))
            for group in groups(protocol, classes, cases)
        ]
    for name, what, rows, right in parts:
        share = share_of(right, rows, cases, alpha)
        yield at_least(f"{whose}{name}", "clean_floor", share, floor, what, "right", why)


def _floor_name(name: str) -> str:
    side, colon, of = name.partition(":")
    return f"{side}_floor{colon}{of}"


def _against_chance(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> tuple[str, float, float]:
    """What is held against chance, its lower limit, and what chance gives."""
    if cases.multilabel:
        endpoint = auroc_alone("auroc", "original", 0.5, protocol, classes, cases)
        return "mean AUROC", endpoint.lower, 0.5
    right = cases.right("original")
    none = np.zeros_like(right)
    level, chance = 1.0 - 2.0 * protocol.endpoints.alpha_per_look, 1.0 / len(classes)
    try:
        recall = balanced_accuracy_difference(right, none, cases.label, level=level, patients=cases.patient)
    except RangeError:
        return "balanced accuracy", 0.0, chance
    return "balanced accuracy", recall.interval[0], chance
