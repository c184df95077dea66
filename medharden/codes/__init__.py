"""What codes mean and what a verdict's reasons ask to be done: one text for terminal, report and documentation."""

from medharden.codes.advice import Step, gravest_first, may_be_released, steps
from medharden.codes.table import Code, all_codes, code_of, codes_page

__all__ = ["Code", "Step", "all_codes", "code_of", "codes_page", "gravest_first", "may_be_released", "steps"]
