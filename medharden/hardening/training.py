"""Training the robust branch: one forward and one backward pass a step, a probe an epoch, recovery from collapse."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medharden import ranks
from medharden.attacks import lay_out
from medharden.data import Cohort
from medharden.errors import HardeningError, RunError
from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.allotting import GRADIENT
from medharden.hardening.baselines import FreeAdversary, FreshAdversary
from medharden.hardening.branch import merge, trained_state
from medharden.hardening.margins import MarginAdversary
from medharden.hardening.perturbations import PerturbationFiles, TwoFiles
from medharden.hardening.probe import Probe, ProbeResult, collapsed
from medharden.hardening.recomputing import keep_all
from medharden.hardening.schedule import epochs_and_batches, learning_rate, radius_share
from medharden.hardening.state import EpochState, StepsSeen
from medharden.hardening.stepping import Adversary, Steps
from medharden.heap import give_back_freed_memory
from medharden.models import Classifier, logits_in_batches
from medharden.protocol import Protocol
from medharden.record import EpochRecord, Finding, Progress
from medharden.rows import joined, read_ahead
from medharden.transfers import held, sent, settled

__all__ = ["BranchTraining"]

_GRADIENTS_A_STEP = 1.5  # what a training step costs
_MOST_RECOVERIES = 3
_RATE_AFTER_COLLAPSE = 0.3
_RISEN = 0.5  # share of the radius before which probe accuracy rises and falls by itself


class _EnoughError(Exception):
    """Ends steps that are timed alone."""


class BranchTraining:
    """Trains a branch in place, epoch by epoch; `state` and `snapshot` are what a resumed run starts from."""

    def __init__(
        self,
        clean_path: Classifier,
        branch: Classifier,
        cohort: Cohort,
        protocol: Protocol,
        probe: Probe,
        device: str,
        perturbation_files: PerturbationFiles | None = None,
        precision: str = "fp32",
    ) -> None:
        """Prepares the optimiser, the carried adversary and, where there is a teacher, its logits.

        Args:
            clean_path: frozen; the teacher, one forward pass a case in all.
            branch: from `make_branch`, on the device, in eval mode.
            cohort: its `train` split is used.
            protocol: the settings.
            probe: measures each epoch on validation.
            device: where both models are.
            perturbation_files: where perturbations lie; null keeps them in memory.
            precision: of the branch's layers in training, see `Steps`.

        Raises:
            RunError: there are more processes than a batch has cases, or the method works in one alone.
        """
        self.branch, self.cohort, self.probe, self.device = branch, cohort, probe, device
        lay_out(branch, branch.record.dims, fast=True)  # until it is finished
        self.protocol, self.settings, self.threat = protocol, protocol.hardening, protocol.input_threat
        self.rows = cohort.indices("train")
        self.optimiser = torch.optim.AdamW(self._groups(), lr=1.0)
        self._codes: TwoFiles | None = None
        self.adversary = self._adversary(perturbation_files)
        self.epochs, self.batches = epochs_and_batches(self.settings, len(self.rows))
        self.teacher = self._teacher_logits(clean_path) if self.settings.teacher.weight > 0 else None
        self._require_dealable()
        self.steps = Steps(branch, self.adversary, self.settings, self.teacher, precision, device)
        self.state, self._seen = EpochState(good=trained_state(branch)), StepsSeen([], [])
        self._timed = False
        self.trained_parameters = sum(p.numel() for p in branch.parameters() if p.requires_grad)

    def _adversary(self, perturbation_files: PerturbationFiles | None) -> Adversary:
        if self.settings.method == "carried":
            shape = (len(self.rows), *self.cohort.inputs.shape[1:])
            step, regulate, held = self.settings.step, self.settings.regulate, self.settings.hold > 0
            self._codes = None if perturbation_files is None else perturbation_files.of("harden.carried", shape)
            return CarriedAdversary(
                shape, threat=self.threat, step=step, regulate=regulate, codes=self._codes, held=held
            )
        if self.settings.method == "ima":
            return MarginAdversary(len(self.rows), self.threat, self.settings)
        kind = FreeAdversary if self.settings.method == "free" else FreshAdversary
        return kind(self.threat, self.settings)

    def _require_dealable(self) -> None:
        ranks.require_enough(len(self.rows) // self.batches, "cases a batch")
        if ranks.count() > 1 and not self.adversary.divisible:
            raise RunError(
                "hardening.method free carries a perturbation for each place in a batch, which can't be dealt; "
                "expected one process, or another method"
            )

    def _groups(self) -> list[dict[str, Any]]:
        trained = [p for p in self.branch.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]

    @torch.no_grad()
    def _teacher_logits(self, clean_path: Classifier) -> Tensor:
        own = ranks.own(len(self.rows))
        groups = np.array_split(self.rows[own.numpy()], max(1, self.batches // ranks.count()))
        found = (
            logits_in_batches(clean_path, inputs.to(self.device), self.settings.batch_size).cpu()
            for inputs, _ in read_ahead(self.cohort.batch, groups)
        )
        return ranks.in_order(joined(found, len(own)).to(torch.float32), own)

    def run_epoch(self, progress: Progress | None, after_step: Callable[[], None] | None = None) -> None:
        """One pass over the training split, then the probe; keeps, or rolls back and goes on differently.

        Args:
            progress: called with `harden`.
            after_step: called after each step, when a snapshot can be taken.

        Raises:
            HardeningError: the branch collapsed more often than recovery is worth trying.
        """
        started = time.perf_counter() - self.state.under_way.get("seconds", 0.0)
        loss, rate, robust, radius = self._train(progress, after_step, started)
        trained = time.perf_counter()
        finite, measured = bool(np.isfinite(loss)), self.probe.allotment.probed(self.state.epoch)
        result = None
        if finite and measured:
            give_back_freed_memory()  # the probe's batches are of other sizes
            result = self.probe.measure(self.branch)
            give_back_freed_memory()
        probed = time.perf_counter()
        state = self.state
        reason = "" if finite else "the loss is no longer finite"
        if result is not None:
            best_robust = max((e.val_robust for e in state.history if e.probed and e.radius >= _RISEN), default=0.0)
            reason = collapsed(result, self.probe.original, self.probe.classes, best_robust, self.probe.measures) or ""
        reason = ranks.told(reason)  # one outcome for all: where one process goes back, all do
        if reason:
            self._recover(reason)
        elif result is not None:
            self._keep(result)
        shown = result or ProbeResult(clean=0.0, robust=0.0, gained=0, lost=0, balanced=0.0, within=False)
        last = state.history[-1] if finite and not measured and state.history else None
        state.history.append(
            EpochRecord(
                epoch=state.epoch,
                loss=loss if finite else -1.0,
                learning_rate=rate,
                radius=radius,
                train_robust=robust,
                val_clean=last.val_clean if last else shown.clean,
                val_robust=last.val_robust if last else shown.robust,
                val_gained=last.val_gained if last else shown.gained,
                val_lost=last.val_lost if last else shown.lost,
                seconds=trained - started,
                probe_seconds=probed - trained,
                kept=state.best_epoch == state.epoch,
                probed=measured,
            )
        )
        state.train_seconds += trained - started
        state.probe_seconds += probed - trained
        state.epoch, state.under_way = state.epoch + 1, {}
        if progress is not None:
            progress("harden", *self.progress())

    def progress(self, steps: int = 0) -> tuple[int, int]:
        """Steps done and in all, each probe counted as the steps that take about as long.

        Args:
            steps: of the epoch that is under way.
        """
        settings, allotment = self.settings, self.probe.allotment
        step = _GRADIENTS_A_STEP * settings.batch_size * self.adversary.replays
        first, later = (allotment.probe(settings, first=each) / GRADIENT / step for each in (True, False))
        done, whole = (
            round(e * self.batches + (first + later * (e // allotment.every - 1) if e >= allotment.every else 0.0))
            for e in (self.state.epoch, self.epochs)
        )
        return done + steps, whole

    def _train(
        self, progress: Progress | None, after_step: Callable[[], None] | None, started: float
    ) -> tuple[float, float, float, float]:
        """The steps of an epoch, or those that an interrupted one has left."""
        state, total = self.state, self.epochs * self.batches
        generator, order = self._order()
        seen = self._seen = StepsSeen(state.under_way.get("losses", []), state.under_way.get("rights", []))
        if state.under_way:
            generator.set_state(state.under_way["generator"])
        elif self._codes is not None:
            self._codes.turn(state.epoch + 1)
        rate, radius = state.under_way.get("rate", 0.0), state.under_way.get("radius", 0.0)
        left = torch.tensor_split(order, self.batches)[len(seen) :]
        for part, read in zip(left, read_ahead(self._read, left), strict=True):
            done = (state.epoch * self.batches + len(seen)) / total
            rate, radius = state.rate * learning_rate(self.settings, done), radius_share(self.settings, done)
            if self._timed:
                radius = 1.0  # what most steps take, not those before the ramp
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            inputs, labels = (sent(t, self.device) for t in read)
            outcomes = [
                self.steps.take(part, inputs, labels, self.threat.eps * radius, generator, self.optimiser)
                for _ in range(self.adversary.replays)
            ]
            seen.add(outcomes[-1])
            state.steps += len(outcomes)
            if progress is not None:
                progress("harden", *self.progress(len(seen)))
            if after_step is not None:
                state.under_way = {"losses": seen.losses, "rights": seen.rights, "rate": rate, "radius": radius}
                state.under_way |= {"seconds": time.perf_counter() - started, "generator": generator.get_state()}
                after_step()
        seen.read()
        self.adversary.exchange()
        for parameter in (p for p in self.branch.parameters() if p.requires_grad):
            ranks.from_first(parameter.data)  # equal already, unless devices of two kinds round differently
        return float(np.mean(seen.losses)), rate, float(np.mean(seen.rights)), radius

    def time_steps(self, most: float) -> list[float]:
        """Seconds of each step of an epoch, until it took so many; the branch is good for nothing else afterwards."""
        marks = [time.perf_counter()]

        def mark() -> None:
            settled(self.device)
            marks.append(time.perf_counter())
            if marks[-1] - marks[0] > most:
                raise _EnoughError

        self._timed = True
        with suppress(_EnoughError):
            self._train(None, mark, marks[0])
        return [after - before for before, after in itertools.pairwise(marks)]

    def _order(self) -> tuple[torch.Generator, Tensor]:
        """The generator of an epoch, and the order that it drew first."""
        generator = torch.Generator().manual_seed(self.protocol.seed + 1000 * self.state.epoch + self.state.recoveries)
        self.steps.seed_and_epoch = (self.protocol.seed, self.state.epoch)
        return generator, torch.randperm(len(self.rows), generator=generator)

    def _read(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """This process's share of a batch, and what its cases carry, ahead of their step and in another thread."""
        mine = part[ranks.share(len(part))]
        inputs, labels = self.cohort.batch(self.rows[mine.numpy()])
        self.adversary.fetch(mine)
        return held(inputs, self.device), labels

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
            raise HardeningError(
                f"none of {self.state.epoch} epochs gave a branch worth keeping; {self.state.findings[-1].message} "
                "Try a lower hardening.learning_rate, more epochs or a smaller threat.eps in the protocol"
            )
        if self.state.best_constant:
            names = ", ".join(self.cohort.classes[k] for k in self.state.best_constant)
            message = f"The robust branch answers these findings alike for every validation case: {names}."
            self.state.findings.append(Finding("hardening.constant_findings", "warning", message))
        self.state.findings += self.steps.findings()
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
        keep_all(self.branch)
        merge(self.branch)
        lay_out(self.branch, self.branch.record.dims, fast=False)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Copies trained weights into the branch."""
        with torch.no_grad():
            for name, parameter in ((n, p) for n, p in self.branch.named_parameters() if n in weights):
                parameter.copy_(weights[name])

    def snapshot(self) -> dict[str, Any]:
        """Tensors and plain values to go on from after this step or epoch, beside the files of perturbations."""
        state = self.state
        self._seen.read()
        self.adversary.exchange()
        return {
            "state": {k: v for k, v in vars(state).items() if k not in ("history", "findings")}
            | {"history": [vars(e) for e in state.history], "findings": [vars(f) for f in state.findings]},
            "weights": trained_state(self.branch),
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state(),
            "probe": self.probe.state(),
            "steps": self.steps.state(),
        }

    def flush(self) -> None:
        """Has the perturbations that a snapshot goes on from lie on the disk."""
        self.probe.flush()
        if self._codes is not None:
            self._codes.flush()

    def remove(self) -> None:
        """Takes the files of perturbations away."""
        self.probe.remove()
        if self._codes is not None:
            self._codes.remove()

    def intact(self, snapshot: dict[str, Any]) -> bool:
        """Whether the files of perturbations hold what a snapshot goes on from."""
        if not self.probe.intact(snapshot["probe"]):
            return False
        if self._codes is None:
            return True
        epoch, (now, before) = snapshot["state"]["epoch"], self._visits(snapshot)
        return self._codes.holds(epoch + 1, now) and self._codes.holds(epoch, before)

    def _visits(self, snapshot: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Which cases have a perturbation of the epoch under way, and which one of the epoch before."""
        saved = snapshot["state"]
        self.state.epoch, self.state.recoveries = saved["epoch"], saved["recoveries"]
        done = len(saved["under_way"].get("losses", ()))
        parts = torch.tensor_split(self._order()[1], self.batches)
        now = {row for part in parts[:done] for row in part.tolist()}
        visited = snapshot["adversary"]["visited"].nonzero().flatten().tolist()
        return [row for row in visited if row in now], [row for row in visited if row not in now]

    def resume(self, snapshot: dict[str, Any]) -> None:
        """Goes on from a snapshot of the same run, whose files of perturbations are intact."""
        if self._codes is not None:
            self._codes.resume(snapshot["state"]["epoch"] + 1, self._visits(snapshot)[0])
        saved = dict(snapshot["state"])
        history = [EpochRecord(**e) for e in saved.pop("history")]
        findings = [Finding(**f) for f in saved.pop("findings")]
        self.state = replace(EpochState(), **saved, history=history, findings=findings)
        self.load(snapshot["weights"])
        self.optimiser.load_state_dict(snapshot["optimiser"])
        self.adversary.restore(snapshot["adversary"])
        self.probe.restore(snapshot["probe"])
        self.steps.restore(snapshot["steps"])
