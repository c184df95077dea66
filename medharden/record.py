"""Frozen records of what was done and seen: the only thing the verbs hand to each other.

A record holds no patient data: cases and patients appear as keyed pseudonyms, files as digests. It is read
and written through `medharden.audit`. Every number is finite (a JSON record can't hold NaN).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = [
    "AttackOutcome",
    "BranchRecord",
    "CaseRecord",
    "CaseTable",
    "CohortRecord",
    "CostRecord",
    "Endpoint",
    "Environment",
    "EpochRecord",
    "Evaluation",
    "Finding",
    "FrontierPoint",
    "FusionRecord",
    "GateDecision",
    "HardenRecord",
    "Identity",
    "ModelRecord",
    "Progress",
    "SubjectOutcome",
    "SubjectTable",
    "Verdict",
]

Progress = Callable[[str, int, int], None]
"""What a long stage calls as it goes: the stage's name, units done, units in all."""


class Verdict(StrEnum):
    """What an endpoint, or the whole gate, came to. Order of gravity: PASS, INCONCLUSIVE, FAIL, INVALID."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"
    INVALID = "INVALID"


@dataclass(frozen=True)
class Finding:
    """Something a reader of the report must know.

    Attributes:
        code: a stable, dotted name, such as `hardening.collapse`.
        severity: `info`, `warning` or `critical`.
        message: one or two plain sentences.
    """

    code: str
    severity: str
    message: str


@dataclass(frozen=True)
class Environment:
    """What the run ran on; reproducibility is claimed for the same stack only."""

    medharden: str
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int


@dataclass(frozen=True)
class CaseRecord:
    """One case of a cohort.

    Attributes:
        case, patient: pseudonyms (keyed HMAC).
        split: `train`, `val` or `test`.
        label: index into the cohort's classes.
        pixels: SHA-256 of the decoded stored pixels with shape and data type.
    """

    case: str
    patient: str
    split: str
    label: int
    pixels: str


@dataclass(frozen=True)
class CohortRecord:
    """What data a run saw (`cohort.json`).

    Attributes:
        source: `folder`, `manifest` or `npz`.
        formats: file kinds and how many of each, such as `{"dicom": 60}`.
        splits_from: `given`, or `made` (by patient, from the protocol's seed).
        key_id: names the pseudonym key without revealing it.
        shape: one input's shape (C, *spatial).
        grouped_by: `patient` where the data name patients, `case` where each case stands for one.
        excluded: cases left out, with reasons (only where the protocol allows exclusion).
        preprocessing: SHA-256 of the preprocessing recipe and of the first case's model input.
    """

    classes: tuple[str, ...]
    source: str
    formats: dict[str, int]
    splits_from: str
    grouped_by: str
    key_id: str
    shape: tuple[int, ...]
    cases: tuple[CaseRecord, ...]
    excluded: tuple[tuple[str, str], ...]
    preprocessing: str
    findings: tuple[Finding, ...] = ()

    def split(self, name: str) -> tuple[CaseRecord, ...]:
        """The cases of one split, in their recorded order."""
        return tuple(c for c in self.cases if c.split == name)


@dataclass(frozen=True)
class ModelRecord:
    """A classifier as loaded: enough to build it again from its weights alone.

    Attributes:
        source: `timm`, `monai`, `bundle` or `python`.
        arch: the name within that source, such as `resnet18` or `DenseNet121`.
        arguments: constructor arguments beyond the number of classes and channels.
        classes, channels, dims: outputs, input channels, 2 or 3 spatial dimensions.
        mean, std: input normalisation, one value a channel, applied inside the model to [0, 1] input.
        one_logit: the network has one sigmoid output and is presented as two classes.
        file: SHA-256 of the file the weights came from.
        state: digest of parameters and buffers.
        parameters: how many weights.
    """

    source: str
    arch: str
    arguments: dict[str, object]
    classes: int
    channels: int
    dims: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    one_logit: bool
    file: str
    state: str
    parameters: int


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of hardening.

    Attributes:
        loss: mean training loss.
        radius: mean regulated radius as a fraction of eps.
        train_robust: share of training cases right on their carried perturbation.
        val_clean, val_robust: accuracy on validation, clean and under the probe attack.
        val_gained, val_lost: validation cases the branch got right and the original wrong, and the reverse.
        seconds: wall clock of the training steps alone.
        probe_seconds: wall clock of the probe.
        kept: whether this epoch's weights were the best so far.
    """

    epoch: int
    loss: float
    learning_rate: float
    radius: float
    train_robust: float
    val_clean: float
    val_robust: float
    val_gained: int
    val_lost: int
    seconds: float
    probe_seconds: float
    kept: bool


@dataclass(frozen=True)
class CostRecord:
    """What hardening cost, measured in the run.

    Attributes:
        steps: optimiser steps taken.
        passes: forward-and-backward passes a step.
        teacher_passes: forward passes of the clean path a case, in all.
        train_seconds: wall clock of all training steps.
        probe_seconds, calibration_seconds: wall clock beside training.
        epoch_seconds: median wall clock of one hardening epoch.
        clean_epoch_seconds: wall clock of one epoch of ordinary clean fine-tuning, timed in the same run.
        peak_memory_mib: peak resident memory of the process.
    """

    steps: int
    passes: int
    teacher_passes: int
    train_seconds: float
    probe_seconds: float
    calibration_seconds: float
    epoch_seconds: float
    clean_epoch_seconds: float
    peak_memory_mib: float


@dataclass(frozen=True)
class BranchRecord:
    """The robust branch: its form, what trained, what it costs to store."""

    form: str
    trained_parameters: int
    stored_parameters: int
    best_epoch: int


@dataclass(frozen=True)
class FrontierPoint:
    """One fusion weight tried on validation: clean change against the original, and robust accuracy."""

    weight: float
    gained: int
    lost: int
    cases: int
    lower: float
    robust: float


@dataclass(frozen=True)
class FusionRecord:
    """How the released model answers, calibrated on validation alone.

    Attributes:
        mode: `clean`, `robust`, `mixed` or `guarded`.
        weight: the robust branch's share in `mixed`, in (0, 1).
        clean_temperature, robust_temperature: fitted by likelihood on validation.
        referral_threshold: largest probability gap that `guarded` lets pass.
        referral_rate: share of clean validation cases that `guarded` refers.
        frontier: the fusion weights tried, with what each gave on validation.
    """

    mode: str
    weight: float
    clean_temperature: float
    robust_temperature: float
    referral_threshold: float
    referral_rate: float
    frontier: tuple[FrontierPoint, ...] = ()


@dataclass(frozen=True)
class HardenRecord:
    """What hardening did (`harden.json`)."""

    protocol: str
    cohort: str
    original: ModelRecord
    hardened: str
    branch: BranchRecord
    fusion: FusionRecord
    clean_state_before: str
    clean_state_after: str
    clean_logits_identical: bool
    epochs: tuple[EpochRecord, ...]
    cost: CostRecord
    environment: Environment
    seed: int
    started: str
    finished: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Whether the released clean path still is the original, on every test case.

    Attributes:
        against: `file` where the original was loaded anew, `none` where no file was given.
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
class AttackOutcome:
    """One attack on one subject: of `cases` attacked, `wins` changed a right answer into a wrong one."""

    name: str
    recipe: str
    cases: int
    wins: int
    seconds: float


@dataclass(frozen=True)
class SubjectOutcome:
    """One model under evaluation: the `original`, the `robust_branch` or the `composite` that ships.

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
class Evaluation:
    """Clean and attacked outcome of every subject (`evaluation.json`; per case in `cases.parquet`).

    Attributes:
        protocol, cohort, hardened, cases: digests of what was evaluated and of the per-case table.
        threat: the threat model in words and numbers, as attacked.
        decision_threshold: probability from which the positive class is answered (two classes), or `argmax`.
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
class SubjectTable:
    """What one subject answered, case by case; rows as in the `CaseTable` that holds it.

    Attributes:
        predicted: (N,) the answered class under the protocol's decision threshold.
        probabilities: (N, K) in [0, 1], clean input.
        robust: (N,) right under every attack; False where the case was not attacked.
        won_by: (N,) name of the attack that won, `clean` where the answer was wrong without any attack, else "".
        referred: (N,) flagged for referral on clean input (`guarded` only).
    """

    predicted: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    robust: npt.NDArray[np.bool_]
    won_by: tuple[str, ...]
    referred: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CaseTable:
    """Per-case outcomes on the evaluated split (`cases.parquet`).

    Attributes:
        case, patient: (N,) pseudonyms.
        label: (N,) index of the true class.
        attacked: (N,) whether the case was in the attacked sample.
        subjects: by name: `original`, `robust_branch`, `composite`.
    """

    case: tuple[str, ...]
    patient: tuple[str, ...]
    label: npt.NDArray[np.int64]
    attacked: npt.NDArray[np.bool_]
    subjects: dict[str, SubjectTable]


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of the gate, with the numbers behind its verdict.

    Attributes:
        name: such as `accuracy` or `recall:pneumonia`.
        kind: `noninferiority`, `identity`, `robust_floor`, `robust_gain` or `referral`.
        estimate, lower, upper: in proportion units (0.01 is one point); the limits at `level`.
        level: two-sided confidence level.
        limit: what `lower` (or `upper`, for `referral`) is held against: `-margin`, floor, 0 or budget.
        n, patients: cases and distinct patients behind it.
        table: paired 2x2 counts (both right, only hardened right, only original right, both wrong), or empty.
        smallest_margin: smallest margin that this n could show at its observed discordance, or null.
        needed: cases needed to show the margin with power .80 at the observed discordance, or null.
        method: the interval's name and source.
        justification: the protocol's clinical reason for the limit.
    """

    name: str
    kind: str
    verdict: Verdict
    estimate: float
    lower: float
    upper: float
    level: float
    limit: float
    n: int
    patients: int
    table: tuple[int, ...]
    smallest_margin: float | None
    needed: int | None
    method: str
    justification: str
    reason: str


@dataclass(frozen=True)
class GateDecision:
    """The verdict (`gate.json`)."""

    verdict: Verdict
    reasons: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    protocol: str
    protocol_name: str
    margins_justified: bool
    hardened: str
    evaluation: str
    decided: str = ""
    findings: tuple[Finding, ...] = field(default=())
