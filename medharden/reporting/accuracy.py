"""Accuracy of each model, clean and under attack, with one interval for one number: that by which the gate decides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medharden.record import CaseTable, by_unit, clusters_of
from medharden.reporting.source import RunRecords
from medharden.stats import Share, clopper_pearson_interval, share_interval

__all__ = ["clean_limits", "exact_share", "gate_level", "robust_limits", "unit_table"]

Flags = npt.NDArray[np.bool_]
Limits = tuple[float, float]


def unit_table(records: RunRecords) -> CaseTable | None:
    """The per-case table by the gate's unit; as it is where it is not that of the cohort's test split."""
    cases, cohort = records.cases, records.cohort
    if cases is None or sorted(cases.case) != sorted(case.case for case in cohort.split("test")):
        return cases
    return by_unit(cases, cohort, clusters_of(cohort, records.protocol.splits.is_copy))


def exact_share(hits: Flags, among: Flags, cases: CaseTable, level: float) -> Share:
    """A share of the chosen cases by patient, as the gate counts it.

    Args:
        hits: (N,) bool.
        among: (N,) which cases count.
        cases: names the patients.
        level: two-sided.
    """
    patients = np.asarray(cases.patient)[among].tolist()
    return share_interval(hits[among], patients, level=level)


def clean_limits(records: RunRecords, name: str) -> Limits:
    """Exact limits of a model's clean accuracy by patient, at the gate's level."""
    outcome, cases = records.evaluation.subject(name), unit_table(records)
    if cases is None or name not in cases.subjects:
        return clopper_pearson_interval(outcome.clean_correct, outcome.n, level=gate_level(records))
    return share_interval(cases.right(name), cases.patient, level=gate_level(records)).interval


def robust_limits(records: RunRecords, name: str) -> Limits:
    """Exact limits of a model's robust accuracy by patient; those of the endpoint for the model that ships."""
    for endpoint in records.decision.endpoints:
        if name == "composite" and endpoint.name == "robust_floor":
            return endpoint.lower, endpoint.upper
    outcome, cases = records.evaluation.subject(name), unit_table(records)
    if cases is None or name not in cases.subjects:
        return clopper_pearson_interval(outcome.robust_correct, outcome.attacked, level=gate_level(records))
    patients = np.asarray(cases.patient)[cases.attacked].tolist()
    return share_interval(cases.subjects[name].robust[cases.attacked], patients, level=gate_level(records)).interval


def gate_level(records: RunRecords) -> float:
    """The two-sided level of the gate's limits."""
    return 1.0 - 2.0 * records.protocol.endpoints.alpha_per_look
