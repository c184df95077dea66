"""White-box and black-box attacks for any class count, several findings, any channel count and dimension; the suite."""

from medharden.attacks.apgd import apgd
from medharden.attacks.criterion import Criterion, Objective, wrong_findings
from medharden.attacks.dispatch import passes
from medharden.attacks.fab import fab
from medharden.attacks.laying_out import lay_out
from medharden.attacks.losses import cross_entropy, margin, safe_columns, succeeded
from medharden.attacks.pgd import pgd
from medharden.attacks.searching import searched
from medharden.attacks.soundness import Signs
from medharden.attacks.soundness import findings as suite_findings
from medharden.attacks.square import square
from medharden.attacks.state import Keep, SuiteState
from medharden.attacks.suite import SuiteResult, run_suite
from medharden.attacks.targeted import apgd_targeted

__all__ = [
    "Criterion",
    "Keep",
    "Objective",
    "Signs",
    "SuiteResult",
    "SuiteState",
    "apgd",
    "apgd_targeted",
    "cross_entropy",
    "fab",
    "lay_out",
    "margin",
    "passes",
    "pgd",
    "run_suite",
    "safe_columns",
    "searched",
    "square",
    "succeeded",
    "suite_findings",
    "wrong_findings",
]
