"""Records of an attack on stored values, whose images were written as files (`attack.json`)."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record.common import Environment, Finding
from medharden.record.evaluation import AttackOutcome

__all__ = ["AttackRecord", "AttackedCase"]


@dataclass(frozen=True)
class AttackedCase:
    """One case: what the model answers to its image, to the image that the search found, and to the file written.

    Attributes:
        case, patient: pseudonyms.
        clean: whether the answer was right, without attack.
        search: whether it stayed right on what the search found.
        file: whether it stayed right on the written file, read back.
        won_by: the attack that won in the search, `clean` where the answer was wrong without any, "" where none won.
        counts: the budget in stored counts.
        changed: how many stored values moved.
        largest: by how many counts at most.
        difference: largest absolute difference of a logit between the search's point and the file.
        name: the file, below the folder; "" where none was written since the clean answer was wrong already.
        digest: SHA-256 of the file, or "".
    """

    case: str
    patient: str
    clean: bool
    search: bool
    file: bool
    won_by: str
    counts: int
    changed: int
    largest: int
    difference: float
    name: str
    digest: str


@dataclass(frozen=True)
class AttackRecord:
    """What an attack on stored values came to (`attack.json`).

    Attributes:
        protocol: digest of the protocol.
        model: digest of the attacked weights with their buffers.
        subject: `original` for a classifier, `composite` for a hardened model as released.
        split: whose cases were attacked.
        classes: in the order of the model's outputs.
        threat: the threat in words and numbers, as attacked.
        decision_threshold: as in `Evaluation`.
        attacks: the suite, summed over the cases.
    """

    protocol: str
    model: str
    subject: str
    split: str
    classes: tuple[str, ...]
    threat: str
    decision_threshold: str
    cases: tuple[AttackedCase, ...]
    attacks: tuple[AttackOutcome, ...]
    environment: Environment
    started: str
    finished: str
    findings: tuple[Finding, ...] = ()

    @property
    def clean_correct(self) -> int:
        """Attacked cases that were answered rightly without attack."""
        return sum(c.clean for c in self.cases)

    @property
    def search_correct(self) -> int:
        """Those that stayed right on what the search found."""
        return sum(c.search for c in self.cases)

    @property
    def file_correct(self) -> int:
        """Those that stayed right on the files written, read back."""
        return sum(c.file for c in self.cases)
