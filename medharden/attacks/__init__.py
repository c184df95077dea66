"""White-box attacks for any class count, channel count and dimension, and the suite that runs them in turn."""

from medharden.attacks.apgd import apgd
from medharden.attacks.losses import cross_entropy, margin, safe_columns, succeeded
from medharden.attacks.pgd import pgd
from medharden.attacks.suite import SuiteResult, run_suite

__all__ = [
    "SuiteResult",
    "apgd",
    "cross_entropy",
    "margin",
    "pgd",
    "run_suite",
    "safe_columns",
    "succeeded",
]
