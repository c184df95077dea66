"""Signs run directories, checks them offline, and tells two apart; imports torch only to run the clean path."""

from medharden.verifying.bom import write_bom
from medharden.verifying.check import check_run
from medharden.verifying.comparing import Change, Comparison, compare
from medharden.verifying.outcome import CleanPath, Fault, SignatureFound, Verification
from medharden.verifying.rendered import Render
from medharden.verifying.run import verify
from medharden.verifying.signing import Signatory, sign

__all__ = [
    "Change",
    "CleanPath",
    "Comparison",
    "Fault",
    "Render",
    "Signatory",
    "SignatureFound",
    "Verification",
    "check_run",
    "compare",
    "sign",
    "verify",
    "write_bom",
]
