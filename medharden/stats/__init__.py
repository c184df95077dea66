"""Intervals, paired comparisons by patient, and power. Needs NumPy alone to import."""

from medharden.stats.auroc import (
    FEWEST_PATIENTS,
    auroc,
    auroc_difference,
    class_patients,
    macro_auroc_difference,
)
from medharden.stats.balanced import balanced_accuracy_difference
from medharden.stats.bounded import Share, exact_p_value, gain_test, mean_limits, share_interval
from medharden.stats.clusters import (
    cluster_standard_error,
    design_effect,
    effective_cases,
    independent_standard_error,
    patient_weight,
)
from medharden.stats.difference import Difference
from medharden.stats.expected import MeanArea, case_areas, mean_area
from medharden.stats.hypotheses import clustered_mcnemar, holm, mcnemar
from medharden.stats.influence import influence_limits, unseen_share
from medharden.stats.means import brier_difference, cluster_t_difference, finding_brier_difference
from medharden.stats.noninferiority import NonInferiority, noninferiority_test
from medharden.stats.operating import threshold_at
from medharden.stats.ordinal import grade_error_difference, quadratic_kappa, quadratic_kappa_difference
from medharden.stats.paired import newcombe_interval, tango_interval, tango_statistic
from medharden.stats.power import cases_needed, fewest_cases, joint_power, power_to_show, smallest_margin
from medharden.stats.proportions import clopper_pearson_interval, mid_p_interval, wilson_interval
from medharden.stats.scores import ReliabilityBin, calibration_error, reliability, roc_curve
from medharden.stats.usefulness import Estimate, net_benefit_change, predictive_values, recalibration

__all__ = [
    "FEWEST_PATIENTS",
    "Difference",
    "Estimate",
    "MeanArea",
    "NonInferiority",
    "ReliabilityBin",
    "Share",
    "auroc",
    "auroc_difference",
    "balanced_accuracy_difference",
    "brier_difference",
    "calibration_error",
    "case_areas",
    "cases_needed",
    "class_patients",
    "clopper_pearson_interval",
    "cluster_standard_error",
    "cluster_t_difference",
    "clustered_mcnemar",
    "design_effect",
    "effective_cases",
    "exact_p_value",
    "fewest_cases",
    "finding_brier_difference",
    "gain_test",
    "grade_error_difference",
    "holm",
    "independent_standard_error",
    "influence_limits",
    "joint_power",
    "macro_auroc_difference",
    "mcnemar",
    "mean_area",
    "mean_limits",
    "mid_p_interval",
    "net_benefit_change",
    "newcombe_interval",
    "noninferiority_test",
    "patient_weight",
    "power_to_show",
    "predictive_values",
    "quadratic_kappa",
    "quadratic_kappa_difference",
    "recalibration",
    "reliability",
    "roc_curve",
    "share_interval",
    "smallest_margin",
    "tango_interval",
    "tango_statistic",
    "threshold_at",
    "unseen_share",
    "wilson_interval",
]
