"""`export()`: a hardened model in a form that other runtimes take, from a run that passed the gate."""

from medharden.exporting.run import FORMS, export
from medharden.exporting.standing import Standing, standing_of

__all__ = ["FORMS", "Standing", "export", "standing_of"]
