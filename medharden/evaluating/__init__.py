"""`evaluate()`: clean and attacked outcome of every test case, for the original, the branch and what ships."""

from medharden.evaluating.artefact import evaluate_artefact
from medharden.evaluating.independent import evaluate_independent
from medharden.evaluating.run import evaluate

__all__ = ["evaluate", "evaluate_artefact", "evaluate_independent"]
