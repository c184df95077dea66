"""Intervals, paired non-inferiority by patient, and power. Needs NumPy alone to import."""

from medharden.stats.clusters import (
    cluster_standard_error,
    design_effect,
    effective_cases,
    independent_standard_error,
)
from medharden.stats.noninferiority import NonInferiority, noninferiority_test
from medharden.stats.paired import newcombe_interval, tango_interval, tango_statistic
from medharden.stats.power import cases_needed, smallest_margin
from medharden.stats.proportions import clopper_pearson_interval, wilson_interval

__all__ = [
    "NonInferiority",
    "cases_needed",
    "clopper_pearson_interval",
    "cluster_standard_error",
    "design_effect",
    "effective_cases",
    "independent_standard_error",
    "newcombe_interval",
    "noninferiority_test",
    "smallest_margin",
    "tango_interval",
    "tango_statistic",
    "wilson_interval",
]
