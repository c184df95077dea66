"""What an answer means to whoever reads it: predictive values and net benefit, here and in the intended population."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medharden.record import CaseTable, Endpoint
from medharden.reporting.accuracy import exact_share, gate_level, unit_table
from medharden.reporting.numbers import percent, percent_interval
from medharden.reporting.source import COMPARED, RunRecords
from medharden.stats import Estimate, net_benefit_change, predictive_values

__all__ = ["UsefulAt", "useful_rows", "usefulness"]


@dataclass(frozen=True)
class UsefulAt:
    """Predictive values of both compared models at one prevalence of the positive class, and the change in net benefit.

    Attributes:
        population: `test split` or `intended use`.
        prevalence: in (0, 1).
        positive: by model: of all called positive, the share that is, with limits at the gate's level; null where none
            is called so.
        negative: by model: of all called negative, the share that is.
        threshold: the probability from which the positive class is answered, which net benefit goes by.
        net_benefit: released minus original, in true positives a case; null where the gate has no such endpoints.
    """

    population: str
    prevalence: float
    positive: dict[str, Estimate | None]
    negative: dict[str, Estimate | None]
    threshold: float
    net_benefit: Estimate | None


def usefulness(records: RunRecords) -> tuple[UsefulAt, ...]:
    """At the test split's prevalence, and at the intended one where the protocol states it; of two classes alone."""
    cases, classes, task = unit_table(records), records.evaluation.classes, records.protocol.task
    if cases is None or cases.multilabel or len(classes) != 2 or task.positive not in classes:
        return ()
    truth = cases.label == classes.index(task.positive)
    if truth.all() or not truth.any():
        return ()
    places = [("test split", float(truth.mean()))]
    if records.protocol.report.prevalence is not None:
        places.append(("intended use", records.protocol.report.prevalence))
    people = np.asarray(cases.patient)
    shared = bool(set(people[truth].tolist()) & set(people[~truth].tolist()))
    return tuple(_at(records, cases, truth, place, prevalence, shared) for place, prevalence in places)


def _at(
    records: RunRecords,
    cases: CaseTable,
    truth: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    place: str,
    prevalence: float,
    shared: bool,
) -> UsefulAt:
    level, task = gate_level(records), records.protocol.task
    positive, negative = {}, {}
    for name in COMPARED:
        right = cases.right(name)
        shares = exact_share(right, truth, cases, level), exact_share(right, ~truth, cases, level)
        positive[name], negative[name] = predictive_values(*shares, prevalence, shared=shared)
    changes = {e.name: e for e in records.decision.endpoints if e.comparator == "original"}
    threshold, benefit = task.threshold_of(task.positive or ""), None
    if {"sensitivity", "specificity"} <= set(changes):
        both = (_estimate(changes["sensitivity"]), _estimate(changes["specificity"]))
        benefit = net_benefit_change(*both, prevalence, threshold, shared=shared)
    return UsefulAt(place, prevalence, positive, negative, threshold, benefit)


def _estimate(endpoint: Endpoint) -> Estimate:
    return Estimate(endpoint.estimate, endpoint.lower, endpoint.upper)


def useful_rows(found: tuple[UsefulAt, ...]) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """Where and what, and for each model the share with its limits; the change in net benefit stands in the second."""
    rows: list[tuple[str, str, tuple[tuple[str, str], ...]]] = []
    for at in found:
        where = f"{at.population.capitalize()}, prevalence {percent(at.prevalence)}"
        for what, values in (("positive predictive value", at.positive), ("negative predictive value", at.negative)):
            rows.append((where, what, tuple(_shown(values[name]) for name in COMPARED)))
        if at.net_benefit is not None:
            benefit = at.net_benefit
            limits = ", ".join(_per_thousand(x) for x in (benefit.lower, benefit.upper))
            change = (_per_thousand(benefit.value), f"[{limits}]")
            rows.append((where, "change in net benefit, true positives in 1000", (("", ""), change)))
    return tuple(rows)


def _shown(value: Estimate | None) -> tuple[str, str]:
    if value is None:
        return "never answered", ""
    return percent(value.value), percent_interval((value.lower, value.upper))


def _per_thousand(value: float) -> str:
    return f"{1000 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
