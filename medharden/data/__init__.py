"""DICOM, NIfTI, pictures and MedMNIST archives to a cohort split by patient; keyed pseudonyms; a phantom cohort."""

from medharden.data.cohort import Case, Cohort, SourceSummary, load_cohort
from medharden.data.phantom import write_phantom_cohort
from medharden.data.pseudonyms import load_pseudonym_key, pseudonym

__all__ = [
    "Case",
    "Cohort",
    "SourceSummary",
    "load_cohort",
    "load_pseudonym_key",
    "pseudonym",
    "write_phantom_cohort",
]
