"""Training the robust branch: one forward and one backward pass a step, a probe an epoch, recovery from collapse."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medharden.attacks import lay_out
from medharden.data import Cohort
from medharden.errors import HardeningError
from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.augmentation import augment
from medharden.hardening.baselines import FreeAdversary, FreshAdversary
from medharden.hardening.branch import merge, trained_state
from medharden.hardening.probe import Probe, ProbeResult, collapsed
from medharden.hardening.schedule import learning_rate, radius_share
from medharden.models import (
    Classifier,
    answered_rightly,
    divergence,
    logits_in_batches,
    probability_of_truth,
    task_loss,
)
from medharden.protocol import Protocol
from medharden.record import EpochRecord, Finding, Progress

__all__ = ["BranchTraining", "EpochState"]

Adversary = CarriedAdversary | FreshAdversary | FreeAdversary

_MOST_RECOVERIES = 3
_RATE_AFTER_COLLAPSE = 0.3
_RISEN = 0.5  # share of the radius before which probe accuracy rises and falls by itself


@dataclass
class EpochState:
    """All that a resumed run needs, as it stands after an epoch; plain values and tensors alone."""

    epoch: int = 0
    rate: float = 1.0
    recoveries: int = 0
    train_seconds: float = 0.0
    probe_seconds: float = 0.0
    steps: int = 0
    best_epoch: int = -1
    best_score: tuple[bool, float] = (False, -1.0)
    best_constant: tuple[int, ...] = ()
    best: dict[str, Tensor] = field(default_factory=dict)
    good: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class BranchTraining:
    """Trains a branch in place, epoch by epoch; `state` and `snapshot` are what a resumed run starts from."""

    def __init__(
        self, clean_path: Classifier, branch: Classifier, cohort: Cohort, protocol: Protocol, probe: Probe, device: str
    ) -> None:
        """Prepares the optimiser, the carried adversary and, where there is a teacher, its logits.

        Args:
            clean_path: frozen; the teacher, one forward pass a case in all.
            branch: from `make_branch`, on the device, in eval mode.
            cohort: its `train` split is used.
            protocol: the settings.
            probe: measures each epoch on validation.
            device: where both models are.
        """
        self.branch, self.cohort, self.probe, self.device = branch, cohort, probe, device
        lay_out(branch, branch.record.dims, fast=True)  # until it is finished
        self.protocol, self.settings, self.threat = protocol, protocol.hardening, protocol.input_threat
        self.multilabel = protocol.task.multilabel
        self.rows = cohort.indices("train")
        self.batches = max(1, len(self.rows) // self.settings.batch_size)
        self.optimiser = torch.optim.AdamW(self._groups(), lr=1.0)
        self.adversary = self._adversary()
        steps = max(self.settings.epochs * self.batches, self.settings.min_steps)
        self.epochs = -(-steps // (self.batches * self.adversary.replays))
        self.teacher = self._teacher_logits(clean_path) if self.settings.teacher.weight > 0 else None
        self.state = EpochState(good=trained_state(branch))
        self.trained_parameters = sum(p.numel() for p in branch.parameters() if p.requires_grad)

    def _adversary(self) -> Adversary:
        if self.settings.method == "carried":
            shape = (len(self.rows), *self.cohort.inputs.shape[1:])
            step, regulate = self.settings.step, self.settings.regulate
            return CarriedAdversary(shape, threat=self.threat, step=step, regulate=regulate)
        kind = FreeAdversary if self.settings.method == "free" else FreshAdversary
        return kind(self.threat, self.settings)

    def _groups(self) -> list[dict[str, Any]]:
        trained = [p for p in self.branch.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]

    @torch.no_grad()
    def _teacher_logits(self, clean_path: Classifier) -> Tensor:
        inputs, _ = self.cohort.batch(self.rows[:1])
        parts = [
            logits_in_batches(clean_path, self.cohort.batch(part)[0].to(self.device), self.settings.batch_size).cpu()
            for part in np.array_split(self.rows, self.batches)
        ]
        return torch.cat(parts).to(inputs.dtype)

    def run_epoch(self, progress: Progress | None) -> None:
        """One pass over the training split, then the probe; keeps, or rolls back and goes on differently.

        Raises:
            HardeningError: the branch collapsed more often than recovery is worth trying.
        """
        started = time.perf_counter()
        loss, rate, robust, radius = self._train(progress)
        trained = time.perf_counter()
        result = self.probe.measure(self.branch) if np.isfinite(loss) else None
        probed = time.perf_counter()
        state = self.state
        reason = "the loss is no longer finite"
        if result is not None:
            best_robust = max((e.val_robust for e in state.history if e.radius >= _RISEN), default=0.0)
            reason = collapsed(result, self.probe.original, self.probe.classes, best_robust, self.probe.measures) or ""
        if result is None or reason:
            self._recover(reason)
        else:
            self._keep(result)
        shown = result or ProbeResult(clean=0.0, robust=0.0, gained=0, lost=0, balanced=0.0, within=False)
        state.history.append(
            EpochRecord(
                epoch=state.epoch,
                loss=loss if np.isfinite(loss) else -1.0,
                learning_rate=rate,
                radius=radius,
                train_robust=robust,
                val_clean=shown.clean,
                val_robust=shown.robust,
                val_gained=shown.gained,
                val_lost=shown.lost,
                seconds=trained - started,
                probe_seconds=probed - trained,
                kept=state.best_epoch == state.epoch,
            )
        )
        state.train_seconds += trained - started
        state.probe_seconds += probed - trained
        state.epoch += 1

    def _train(self, progress: Progress | None) -> tuple[float, float, float, float]:
        state, total = self.state, self.epochs * self.batches
        generator = torch.Generator().manual_seed(self.protocol.seed + 1000 * state.epoch + state.recoveries)
        order = torch.randperm(len(self.rows), generator=generator)
        losses: list[float] = []
        rates: list[float] = []
        rights: list[float] = []
        radii: list[float] = []
        for part in torch.tensor_split(order, self.batches):
            done = (state.epoch * self.batches + len(losses)) / total
            rates.append(state.rate * learning_rate(self.settings, done))
            radii.append(radius_share(self.settings, done))
            for group in self.optimiser.param_groups:
                group["lr"] = rates[-1]
            outcomes = [self._step(part, self.threat.eps * radii[-1], generator) for _ in range(self.adversary.replays)]
            losses.append(outcomes[-1][0])
            rights.append(outcomes[-1][1])
            state.steps += len(outcomes)
            if progress is not None:
                progress("harden", state.epoch * self.batches + len(losses), total)
        return float(np.mean(losses)), rates[-1], float(np.mean(rights)), radii[-1]

    def _step(self, part: Tensor, radius: float, generator: torch.Generator) -> tuple[float, float]:
        """One optimiser step; its one backward pass gives both the weights' and the inputs' gradients."""
        settings = self.settings
        inputs, labels = (t.to(self.device) for t in self.cohort.batch(self.rows[part.numpy()]))
        attacked = self.adversary.attacked(self.branch, part, inputs, labels, radius, generator)
        left_clean = int(settings.clean_share * len(part))
        attacked[:left_clean] = inputs[:left_clean]
        attacked.requires_grad_(True)
        logits = self.branch(augment(attacked, settings, generator))
        loss = self._loss(logits, inputs, labels, part)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, settings.grad_clip)
        self.optimiser.step()
        own = probability_of_truth(logits.detach(), labels)
        gradient = attacked.grad
        if gradient is not None and left_clean < len(part):
            kept = slice(left_clean, None)
            self.adversary.update(part[kept], inputs[kept], attacked.detach()[kept], gradient[kept], own[kept], radius)
        return float(loss.detach()), float(answered_rightly(logits, labels)[left_clean:].float().mean())

    def _loss(self, logits: Tensor, inputs: Tensor, labels: Tensor, part: Tensor) -> Tensor:
        if self.settings.method == "trades":
            clean = self.branch(inputs)
            apart = divergence(logits, clean, multilabel=self.multilabel)
            return task_loss(clean, labels) + self.settings.trades_beta * apart
        loss = task_loss(logits, labels)
        if self.teacher is None:
            return loss
        weight, temperature = self.settings.teacher.weight, self.settings.teacher.temperature
        taught = self.teacher[part].to(logits) / temperature
        apart = divergence(logits / temperature, taught, multilabel=self.multilabel)
        return (1 - weight) * loss + weight * temperature**2 * apart

    def _keep(self, result: ProbeResult) -> None:
        """Best: clean losses within the margins; of these the latest within one standard error of the most robust.

        The highest of many measurements on a few cases is chance for the most part, and a later epoch has trained at
        a lower learning rate. A finding that the branch alone answers alike for all cases is beyond the margins.
        """
        state = self.state
        state.good = trained_state(self.branch)
        usable, (usable_before, highest) = result.within and not result.constant, state.best_score
        if usable < usable_before:
            return
        highest = result.robust if usable > usable_before else max(highest, result.robust)
        state.best_score = (usable, highest)
        if result.robust >= highest - math.sqrt(highest * (1 - highest) / self.probe.cases):
            state.best_epoch, state.best, state.best_constant = state.epoch, state.good, result.constant

    def _recover(self, reason: str) -> None:
        """Back to the last good weights, on with a lower learning rate and other draws."""
        state = self.state
        state.recoveries += 1
        state.findings.append(
            Finding(
                "hardening.collapse",
                "warning",
                f"Epoch {state.epoch + 1}: {reason}; rolled back, learning rate times {_RATE_AFTER_COLLAPSE:g}.",
            )
        )
        if state.recoveries > _MOST_RECOVERIES:
            raise HardeningError(
                f"the branch collapsed {state.recoveries} times, last because {reason}; "
                "try a lower hardening.learning_rate, a longer hardening.ramp or a smaller threat.eps in the protocol"
            )
        state.rate *= _RATE_AFTER_COLLAPSE
        self.load(state.good)
        self.optimiser = torch.optim.AdamW(self._groups(), lr=1.0)

    def finish(self) -> None:
        """Puts the best epoch's weights into the branch.

        Raises:
            HardeningError: no epoch could be kept.
        """
        if not self.state.best:
            raise HardeningError("no epoch gave a branch worth keeping; see the findings in the audit log")
        if self.state.best_constant:
            names = ", ".join(self.cohort.classes[k] for k in self.state.best_constant)
            message = f"The robust branch answers these findings alike for every validation case: {names}."
            self.state.findings.append(Finding("hardening.constant_findings", "warning", message))
        if not self.state.best_score[0]:
            self.state.findings.append(
                Finding(
                    "hardening.clean_loss",
                    "warning",
                    "No epoch of the robust branch kept clean validation accuracy, and each gated recall, within the "
                    "margin on its own.",
                )
            )
        self.load(self.state.best)
        merge(self.branch)
        lay_out(self.branch, self.branch.record.dims, fast=False)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Copies trained weights into the branch."""
        with torch.no_grad():
            for name, parameter in self.branch.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values to go on from after this epoch."""
        state = self.state
        return {
            "state": {k: v for k, v in vars(state).items() if k not in ("history", "findings")}
            | {"history": [vars(e) for e in state.history], "findings": [vars(f) for f in state.findings]},
            "weights": trained_state(self.branch),
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state(),
            "probe": self.probe.state(),
        }

    def resume(self, snapshot: dict[str, Any]) -> None:
        """Goes on from a snapshot of the same run."""
        saved = dict(snapshot["state"])
        history = [EpochRecord(**e) for e in saved.pop("history")]
        findings = [Finding(**f) for f in saved.pop("findings")]
        self.state = replace(EpochState(), **saved, history=history, findings=findings)
        self.load(snapshot["weights"])
        self.optimiser.load_state_dict(snapshot["optimiser"])
        self.adversary.restore(snapshot["adversary"])
        self.probe.restore(snapshot["probe"])
