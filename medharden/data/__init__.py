"""DICOM, NIfTI, pictures and MedMNIST archives to a cohort split by patient; keyed pseudonyms; a phantom cohort."""

from medharden.data.cohort import Case, Cohort, SourceSummary, load_cohort
from medharden.data.groups import group_values
from medharden.data.phantom import write_phantom_cohort
from medharden.data.pseudonyms import load_pseudonym_key, pseudonym
from medharden.data.single import SingleCase, read_single
from medharden.data.sources.given import Given, given_cases
from medharden.data.sources.listing import locate_case
from medharden.patients import patient_identity

__all__ = [
    "Case",
    "Cohort",
    "Given",
    "SingleCase",
    "SourceSummary",
    "given_cases",
    "group_values",
    "load_cohort",
    "load_pseudonym_key",
    "locate_case",
    "patient_identity",
    "pseudonym",
    "read_single",
    "write_phantom_cohort",
]
