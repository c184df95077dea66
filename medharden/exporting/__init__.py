"""`export()`: a hardened model in a form that other runtimes take, from a run that passed the gate."""

from medharden.exporting.run import EXPORTS, FORMS, export
from medharden.exporting.standing import Standing, standing_of

__all__ = ["EXPORTS", "FORMS", "Standing", "export", "standing_of"]
