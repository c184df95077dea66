"""Records of what evaluation saw (`evaluation.json`, `cases.parquet`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from medharden.record.cohort import MASKED
from medharden.record.common import Environment, Finding
from medharden.record.curve import CurvePoint

__all__ = [
    "INDEPENDENT",
    "AttackOutcome",
    "CaseTable",
    "Evaluation",
    "FindingTable",
    "Identity",
    "IndependentTester",
    "OperatingThreshold",
    "SanityPoint",
    "ShiftPoint",
    "ShiftedAnswers",
    "SubjectOutcome",
    "SubjectTable",
]


INDEPENDENT = "independent"
"""Folder of a run directory that holds a folder for each independent test: evaluation, cases, the tester's statement.

It is named by the first 16 digits of the tester's key.
"""


@dataclass(frozen=True)
class IndependentTester:
    """Who evaluated a release again, apart from those who made it.

    Attributes:
        name, role: as the tester states them.
        key: SHA-256 of the public key under which the test is signed.
        public_key: that key, PEM.
        seed: of the tester's own draw: which cases are attacked, and from where.
    """

    name: str
    role: str
    key: str
    public_key: str
    seed: int


@dataclass(frozen=True)
class Identity:
    """Whether the released clean path still is the original, on every test case.

    Attributes:
        against: `file` where the original was loaded anew, `module` where it was given as a module in Python, `none`
            where neither was given.
        state_equal: parameters and buffers equal bit for bit.
        logits_equal: `torch.equal` over all test cases, same batches, device and data type.
        max_abs_difference: largest absolute difference of any logit.
        cases: test cases compared.
    """

    against: str
    state_equal: bool
    logits_equal: bool
    max_abs_difference: float
    cases: int


@dataclass(frozen=True)
class OperatingThreshold:
    """Where two models answer so that one side of two classes is as the protocol fixes it, on validation.

    Attributes:
        fixed: `specificity` or `sensitivity`.
        at: what it is to be at least.
        original, composite: probability of the positive class from which each calls it.
        cases: validation cases of the fixed side.
        original_reached, composite_reached: what the fixed side came to on these.
    """

    fixed: str
    at: float
    original: float
    composite: float
    cases: int
    original_reached: float
    composite_reached: float


@dataclass(frozen=True)
class AttackOutcome:
    """One attack on one subject: of `cases` attacked, `wins` changed a right answer into a wrong one."""

    name: str
    recipe: str
    cases: int
    wins: int
    seconds: float


@dataclass(frozen=True)
class SubjectOutcome:
    """One model under evaluation: `original`, `robust_branch`, the `composite` that ships, or an exported `artefact`.

    Attributes:
        n, clean_correct: test cases, and how many were answered rightly.
        attacked: test cases under attack (all, or the protocol's sample).
        robust_correct: attacked cases on which no attack won.
        referred: clean test cases that `guarded` referred; 0 for the others.
    """

    name: str
    n: int
    clean_correct: int
    attacked: int
    robust_correct: int
    referred: int
    attacks: tuple[AttackOutcome, ...]

    @property
    def clean_accuracy(self) -> float:
        """Share of test cases answered rightly."""
        return self.clean_correct / self.n

    @property
    def robust_accuracy(self) -> float:
        """Share of attacked cases that stay right under every attack; a case wrong when clean is not robust."""
        return self.robust_correct / self.attacked


@dataclass(frozen=True)
class SanityPoint:
    """One point of a sanity curve: of `cases`, `robust` stayed right under one PGD on the margin of logits.

    Attributes:
        subject: `original` or `composite`.
        sweep: what varies along the curve: `eps` or `steps`.
        ratio: the budget as a multiple of the protocol's.
        eps: the budget in input units.
        steps: gradient steps.
    """

    subject: str
    sweep: str
    ratio: float
    eps: float
    steps: int
    cases: int
    robust: int


@dataclass(frozen=True)
class ShiftPoint:
    """One corruption at one severity: of `cases`, how many are right, and how many only one of both answers rightly.

    Attributes:
        corruption, severity: as in the protocol's `shift`.
        original_correct: cases that the original answers rightly.
        gained, lost: cases that only the composite, or only the original, answers rightly.
        referred: cases that `guarded` refers; 0 for the others. Its answer counts here whether or not it refers.
    """

    corruption: str
    severity: int
    cases: int
    original_correct: int
    gained: int
    lost: int
    referred: int


@dataclass(frozen=True)
class Evaluation:
    """Clean and attacked outcome of every subject (`evaluation.json`; per case in `cases.parquet`).

    Attributes:
        protocol, cohort, hardened, cases: digests of what was evaluated and of the per-case table.
        threat: the threat model in words and numbers, as attacked.
        decision_threshold: probability from which the positive class is answered (two classes), or `argmax`.
        artefact: SHA-256 of the exported model that was evaluated (`artefacts/ID`); empty where the composite was.
        sanity: robust accuracy against budget and steps on a few cases; empty where the protocol asks for none.
        curve: of the attacked cases, how many stand at budgets below and above the protocol's; empty where the protocol
            asks for none.
        shift: clean answers under each corruption and severity of the protocol's `shift`; empty where it has none.
        operating_points: thresholds from validation, where the protocol asks for such endpoints.
        tester: who evaluated independently (`independent/KEY`); null of the run's own evaluation.
    """

    protocol: str
    cohort: str
    hardened: str
    cases: str
    split: str
    classes: tuple[str, ...]
    threat: str
    decision_threshold: str
    subjects: tuple[SubjectOutcome, ...]
    identity: Identity
    environment: Environment
    started: str
    finished: str
    findings: tuple[Finding, ...] = ()
    sanity: tuple[SanityPoint, ...] = ()
    artefact: str = ""
    shift: tuple[ShiftPoint, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    tester: IndependentTester | None = None
    operating_points: tuple[OperatingThreshold, ...] = ()

    def subject(self, name: str) -> SubjectOutcome:
        """The outcome of one subject.

        Raises:
            KeyError: no subject of that name.
        """
        for outcome in self.subjects:
            if outcome.name == name:
                return outcome
        raise KeyError(name)


@dataclass(frozen=True)
class FindingTable:
    """What attacks did to each finding of a multi-label task, whatever they did to the others.

    Attributes:
        robust: (N, L) the finding is answered rightly under every attack; False where the case was not attacked, or the
            finding is masked.
        attacked_probabilities: (N, L) in [0, 1], of the finding where an attack pushed it furthest to its wrong side
            without being referred; on clean input where the case was not attacked, or the finding is masked.
    """

    robust: npt.NDArray[np.bool_]
    attacked_probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True)
class SubjectTable:
    """What one subject answered, case by case; rows as in the `CaseTable` that holds it.

    Attributes:
        predicted: (N,) the answered class under the protocol's decision threshold; (N, L) in {0, 1} of findings.
        probabilities: (N, K) in [0, 1], clean input.
        robust: (N,) right under every attack; False where the case was not attacked.
        won_by: (N,) name of the attack that won, `clean` where the answer was wrong without any attack, else "".
        referred: (N,) flagged for referral on clean input (`guarded` only).
        findings: of a multi-label task, each finding under attack.
        referred_attacked: (N,) flagged for referral at the strongest input that the attacks found (`guarded` only, else
            null); False where the case was not attacked.
        withstands: (N,) the largest budget of the accuracy curve that the case withstands, in multiples of the
            protocol's (`CURVE_RATIOS`): 0 where it falls at the smallest, -1 where it is wrong without an attack or was
            not attacked; null where no curve was measured.
    """

    predicted: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    robust: npt.NDArray[np.bool_]
    won_by: tuple[str, ...]
    referred: npt.NDArray[np.bool_]
    findings: FindingTable | None = None
    referred_attacked: npt.NDArray[np.bool_] | None = None
    withstands: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class ShiftedAnswers:
    """What the test cases were answered under one corruption at one severity; rows as in the `CaseTable` that holds it.

    Attributes:
        corruption, severity: as in the protocol's `shift`.
        original, composite: (N,) the answered class, or (N, L) in {0, 1} of findings, as `SubjectTable.predicted`.
        referred: (N,) flagged for referral (`guarded` only).
    """

    corruption: str
    severity: int
    original: npt.NDArray[np.int64]
    composite: npt.NDArray[np.int64]
    referred: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CaseTable:
    """Per-case outcomes on the evaluated split (`cases.parquet`).

    Attributes:
        case, patient: (N,) pseudonyms.
        label: (N,) index of the true class, or (N, L) of 1, 0 and `MASKED`: the true findings of a multi-label task.
        attacked: (N,) whether the case was in the attacked sample.
        subjects: by name: `original`, `robust_branch`, `composite`.
        groups: by declared column: (N,) the case's group, such as `F` or `40 to 59`.
        shift: the answers under each corruption and severity of the protocol's `shift`.
    """

    case: tuple[str, ...]
    patient: tuple[str, ...]
    label: npt.NDArray[np.int64]
    attacked: npt.NDArray[np.bool_]
    subjects: dict[str, SubjectTable]
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shift: tuple[ShiftedAnswers, ...] = ()

    @property
    def multilabel(self) -> bool:
        """Whether a case has several findings, or none."""
        return self.label.ndim == 2

    def right(self, name: str) -> npt.NDArray[np.bool_]:
        """(N,) whether a subject's clean answer is right, with every finding that is known."""
        equal: npt.NDArray[np.bool_] = self.subjects[name].predicted == self.label
        return np.all(equal | ~self.known, axis=1) if self.multilabel else equal

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N, L) which findings of a multi-label task count in which case: those that are not masked."""
        known: npt.NDArray[np.bool_] = self.label != MASKED
        return known
