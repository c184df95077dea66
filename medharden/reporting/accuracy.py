"""Accuracy of each model, clean and under attack, with one interval for one number: that by which the gate decides."""

from __future__ import annotations

import numpy as np

from medharden.reporting.source import RunRecords
from medharden.stats import clopper_pearson_interval, share_interval

__all__ = ["clean_limits", "robust_limits"]

Limits = tuple[float, float]


def clean_limits(records: RunRecords, name: str) -> Limits:
    """Exact limits of a model's clean accuracy by patient, at the gate's level."""
    outcome, cases = records.evaluation.subject(name), records.cases
    if cases is None or name not in cases.subjects:
        return clopper_pearson_interval(outcome.clean_correct, outcome.n, level=_level(records))
    return share_interval(cases.right(name), cases.patient, level=_level(records)).interval


def robust_limits(records: RunRecords, name: str) -> Limits:
    """Exact limits of a model's robust accuracy by patient; those of the endpoint for the model that ships."""
    for endpoint in records.decision.endpoints:
        if name == "composite" and endpoint.name == "robust_floor":
            return endpoint.lower, endpoint.upper
    outcome, cases = records.evaluation.subject(name), records.cases
    if cases is None or name not in cases.subjects:
        return clopper_pearson_interval(outcome.robust_correct, outcome.attacked, level=_level(records))
    patients = np.asarray(cases.patient)[cases.attacked].tolist()
    return share_interval(cases.subjects[name].robust[cases.attacked], patients, level=_level(records)).interval


def _level(records: RunRecords) -> float:
    return 1.0 - 2.0 * records.protocol.endpoints.alpha
