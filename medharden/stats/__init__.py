"""Intervals, paired comparisons by patient, and power. Needs NumPy alone to import."""

from medharden.stats.auroc import auroc, auroc_difference, macro_auroc_difference
from medharden.stats.balanced import balanced_accuracy_difference
from medharden.stats.clusters import (
    cluster_standard_error,
    design_effect,
    effective_cases,
    independent_standard_error,
)
from medharden.stats.difference import Difference
from medharden.stats.hypotheses import clustered_mcnemar, holm, mcnemar
from medharden.stats.means import brier_difference, cluster_t_difference, finding_brier_difference
from medharden.stats.noninferiority import NonInferiority, noninferiority_test
from medharden.stats.paired import newcombe_interval, tango_interval, tango_statistic
from medharden.stats.power import cases_needed, power_to_show, smallest_margin
from medharden.stats.proportions import clopper_pearson_interval, wilson_interval
from medharden.stats.scores import ReliabilityBin, calibration_error, reliability, roc_curve

__all__ = [
    "Difference",
    "NonInferiority",
    "ReliabilityBin",
    "auroc",
    "auroc_difference",
    "balanced_accuracy_difference",
    "brier_difference",
    "calibration_error",
    "cases_needed",
    "clopper_pearson_interval",
    "cluster_standard_error",
    "cluster_t_difference",
    "clustered_mcnemar",
    "design_effect",
    "effective_cases",
    "finding_brier_difference",
    "holm",
    "independent_standard_error",
    "macro_auroc_difference",
    "mcnemar",
    "newcombe_interval",
    "noninferiority_test",
    "power_to_show",
    "reliability",
    "roc_curve",
    "smallest_margin",
    "tango_interval",
    "tango_statistic",
    "wilson_interval",
]
