"""Records of what hardening did: epochs, cost, branch, fusion (`harden.json`)."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record.cohort import ModelRecord
from medharden.record.common import Environment, Finding
from medharden.record.parity import SourceParity

__all__ = ["BranchRecord", "CostRecord", "EpochRecord", "FrontierPoint", "FusionRecord", "HardenRecord"]
__all__ += ["ValidationRecord"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of hardening.

    Attributes:
        loss: mean training loss.
        radius: mean regulated radius as a fraction of eps.
        train_robust: share of training cases right on their carried perturbation.
        val_clean, val_robust: accuracy on validation, clean and under the probe attack; of a multi-label task the mean
            AUROC over findings.
        val_gained, val_lost: validation cases the branch got right and the original wrong, and the reverse.
        seconds: wall clock of the training steps alone.
        probe_seconds: wall clock of the probe.
        kept: whether this epoch's weights were the best so far.
        probed: whether validation was measured after it; if not, what stands here is of the epoch measured last.
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
    probed: bool = True


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
        clean_epoch_seconds: wall clock of one epoch of ordinary clean fine-tuning, timed in the same run: an epoch's
            number of steps times their median; the mean of up to 20 steps before training and 20 after, the first of
            each left aside.
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
class ValidationRecord:
    """What probes and calibration looked at, and what it took beside training.

    Work is counted in forward passes of one case through one network; a backward pass counts one for the gradient of
    the inputs and one for that of the weights.

    Attributes:
        cases: of the validation split.
        probes: how many there were; each epoch ends in one unless an epoch is a few steps.
        answered, attacked: by each probe.
        calibrated: answered by calibration.
        searched: attacked by it at each weight that may be chosen; 0 where no weight is.
        shortened: probes whose attack was not gone on with, though accuracy had fallen.
        work: of probes and calibration.
        training_work: of training.
    """

    cases: int
    probes: int
    answered: int
    attacked: int
    calibrated: int
    searched: int
    shortened: int
    work: int
    training_work: int


@dataclass(frozen=True)
class BranchRecord:
    """The robust branch.

    Attributes:
        form: `full`, `norm` or `lora`.
        trained_parameters: numbers that trained.
        stored_parameters: numbers that it adds to the stored model.
        best_epoch: whose weights were released.
        ranks: smallest and largest rank of the updates of `lora`; null of the others.
    """

    form: str
    trained_parameters: int
    stored_parameters: int
    best_epoch: int
    ranks: tuple[int, int] | None = None


@dataclass(frozen=True)
class FrontierPoint:
    """One fusion weight tried on validation: clean change against the original, and robust accuracy.

    Attributes:
        weight: the branch's share.
        gained, lost: of `cases`, those that only the mixture, or only the original, answers rightly.
        lower, upper: limits of the change in accuracy, by patient, at the protocol's level.
        robust, attacked: accuracy under the probe attack, end to end, and of how many cases.
    """

    weight: float
    gained: int
    lost: int
    cases: int
    lower: float
    upper: float
    robust: float
    attacked: int


@dataclass(frozen=True)
class FusionRecord:
    """How the released model answers, calibrated on validation alone.

    Attributes:
        mode: `clean`, `robust`, `mixed` or `guarded`.
        weight: the robust branch's share in `mixed`, in (0, 1).
        clean_temperature, robust_temperature: fitted by likelihood on validation.
        referral_threshold: `guarded` refers where the branch's calibrated probability of the answer is below it.
            The decision threshold is shifted to one half in it.
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
    """What hardening did (`harden.json`).

    Attributes:
        protocol, cohort: digests of what it was given.
        hardened, description: SHA-256 of `hardened.safetensors` and of `hardened.json`.
        clean_state_before, clean_state_after: digests of the clean path's parameters and buffers.
        clean_logits_identical: `torch.equal` of its logits on a fixed batch, before and after.
        parity: whether the model was fed as its source says; null where nobody looked.
        validation: what probes and calibration looked at; null where a version before this was counted wrote it.
    """

    protocol: str
    cohort: str
    original: ModelRecord
    hardened: str
    description: str
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
    parity: SourceParity | None = None
    validation: ValidationRecord | None = None

    @property
    def epoch_ratio(self) -> float | None:
        """An epoch's duration in epochs of clean fine-tuning; null where none was timed."""
        cost = self.cost
        return cost.epoch_seconds / cost.clean_epoch_seconds if cost.clean_epoch_seconds > 0 else None

    @property
    def whole_ratio(self) -> float | None:
        """Training, probes and calibration in clean fine-tunings of as many epochs; null where none was timed."""
        cost, clean = self.cost, len(self.epochs) * self.cost.clean_epoch_seconds
        return (cost.train_seconds + cost.probe_seconds + cost.calibration_seconds) / clean if clean > 0 else None
