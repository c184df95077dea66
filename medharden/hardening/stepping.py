"""One step of training: its batch dealt to processes and, where memory is short, to passes; the same step throughout.

Random draws are made for the whole batch, in one order, and sliced. Losses are weighted by cases, gradients added up
over passes and processes and then clipped; the gradients of inputs stay where their cases are.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medharden import ranks
from medharden.errors import HardeningError
from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.augmentation import Changes, augment
from medharden.hardening.baselines import FreeAdversary, FreshAdversary
from medharden.hardening.lifting import lifted, lower
from medharden.hardening.margins import MarginAdversary
from medharden.hardening.recomputing import recompute
from medharden.models import Classifier, answered_rightly, divergence, probability_of_truth, task_loss
from medharden.protocol import Hardening
from medharden.record import Finding
from medharden.shortage import no_memory
from medharden.text import counted
from medharden.transfers import sent

__all__ = ["Adversary", "Steps"]

Adversary = CarriedAdversary | FreshAdversary | FreeAdversary | MarginAdversary

_FIRST_SCALE = 2.0**12  # the usual 2^16 overflows for some steps, each of which would be lost
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class _Passed:
    """What one pass left: attacked inputs, their gradient, probability of the truth, loss and right answers, weighted.

    Rows are those of the pass; the last three are on the device, and not read by the host.
    """

    start: int
    attacked: Tensor
    gradient: Tensor | None
    own: Tensor
    seen: Tensor


class Steps:
    """Takes steps with one branch and one adversary.

    Attributes:
        passes: how many a step is made of in this process; more once memory was short.
        recomputed: blocks of the branch that keep no inner values, since one case alone did not fit.
    """

    def __init__(
        self,
        branch: Classifier,
        adversary: Adversary,
        settings: Hardening,
        teacher: Tensor | None,
        precision: str,
        device: str,
    ) -> None:
        """Takes what does not change from step to step.

        Args:
            branch: in eval mode, on the device.
            adversary: attacks the batch.
            settings: method, teacher, augmentation, clipping.
            teacher: (N, K) logits of the clean path by training row, or null.
            precision: `fp32`, or `bf16` or `fp16` for the branch's layers; losses, weights and optimiser stay in fp32.
            device: where the branch is.
        """
        self.branch, self.adversary, self.settings, self.teacher = branch, adversary, settings, teacher
        self.passes, self.recomputed = 1, 0
        self.seed_and_epoch = (0, 0)
        """Of the protocol, and the one that is under way."""
        self._type, self._kind = _TYPES.get(precision), torch.device(device).type
        self._scaler = torch.amp.GradScaler(self._kind, init_scale=_FIRST_SCALE) if precision == "fp16" else None

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        scaler = self._scaler.state_dict() if self._scaler is not None else {}
        return {"passes": self.passes, "recomputed": self.recomputed > 0, "scaler": scaler}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.passes = state["passes"]
        if state["recomputed"] and not self.recomputed:
            self.recomputed = recompute(self.branch)
        if self._scaler is not None and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])

    def findings(self) -> list[Finding]:
        """Whether memory was short, in any process."""
        passes, recomputed = max(ranks.heard(self.passes)), max(ranks.heard(self.recomputed))
        if passes == 1 and not recomputed:
            return []
        message = f"Memory was short: steps were taken in up to {passes} passes a process, with the same cases"
        message += f"; {recomputed} blocks of the branch computed their inner values twice" if recomputed else ""
        return [Finding("hardening.smaller_passes", "info", f"{message}.")]

    def take(
        self,
        rows: Tensor,
        inputs: Tensor,
        labels: Tensor,
        radius: float,
        generator: torch.Generator,
        optimiser: torch.optim.Optimizer,
    ) -> Tensor:
        """One optimiser step; its one backward pass gives both the weights' and the inputs' gradients.

        Args:
            rows: (n,) training rows of the whole batch.
            inputs: (m, C, *spatial) of this process's share of them.
            labels: of the same.
            radius: common radius, in input units.
            generator: of this epoch's draws.
            optimiser: of the branch's weights.

        Returns:
            (2,) loss, and share of what was attacked that was answered rightly, of the whole batch; not read by the
            host.

        Raises:
            HardeningError: one case alone does not fit into memory.
        """
        noise = self.adversary.noise(rows, inputs, generator)
        changes = Changes.drawn(len(rows), inputs.ndim - 2, self.settings, generator)
        if self.settings.method == "carried":
            changes = changes.held(rows, *self.seed_and_epoch)
        left_clean, mine = int(self.settings.clean_share * len(rows)), ranks.share(len(rows))
        while True:
            optimiser.zero_grad()
            short = ""
            try:
                done = [
                    self._pass(rows, start, stop, mine.start, inputs, labels, radius, noise, changes, left_clean)
                    for start, stop in self._bounds(mine)
                ]
            except (RuntimeError, MemoryError) as error:
                short = no_memory(error)
                if not short:
                    raise
            if not short:
                break
            self._shorten(inputs, short)  # not while the error holds what it failed on
        if self._scaler is None:
            lower(_trained(optimiser))
        seen = self._reduce(optimiser, torch.stack([each.seen for each in done]).sum(0))
        self._move(optimiser)
        for each in done:
            self._carry(each, rows, inputs[each.start - mine.start :], left_clean, radius)
        return seen

    def _bounds(self, mine: slice) -> list[tuple[int, int]]:
        cases = mine.stop - mine.start
        cuts = [mine.start + cases * n // self.passes for n in range(self.passes + 1)]
        return [(a, b) for a, b in itertools.pairwise(cuts) if b > a]

    def _pass(
        self,
        rows: Tensor,
        start: int,
        stop: int,
        offset: int,
        inputs: Tensor,
        labels: Tensor,
        radius: float,
        noise: Tensor | None,
        changes: Changes,
        left_clean: int,
    ) -> _Passed:
        """Forward and backward on cases [start, stop) of the batch; gradients of weights add up."""
        here, cases = slice(start - offset, stop - offset), len(rows)
        part, clean, truth = rows[start:stop], inputs[here], labels[here]
        with self._lower():
            attacked = self.adversary.attacked(
                self.branch, part, clean, truth, radius, None if noise is None else noise[start:stop]
            )
        kept = min(max(left_clean - start, 0), len(part))
        attacked[:kept] = clean[:kept]
        attacked.requires_grad_(True)
        with self._lower():
            logits = self.branch(augment(attacked, changes.of(start, stop)))
        logits = logits.float()
        loss = self._loss(logits, clean, truth, part)
        if len(part) < cases:
            loss = loss * (len(part) / cases)
        (lifted(loss) if self._scaler is None else self._scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        right = answered_rightly(logits, truth)[kept:].to(loss.dtype).sum() / max(1, cases - left_clean)
        own = probability_of_truth(logits.detach(), truth)
        return _Passed(start, attacked.detach(), attacked.grad, own, torch.stack([loss.detach(), right]))

    def _loss(self, logits: Tensor, inputs: Tensor, labels: Tensor, part: Tensor) -> Tensor:
        multilabel = labels.ndim == 2
        known = ~labels.isnan() if multilabel else None
        if self.settings.method == "trades":
            with self._lower():
                clean = self.branch(inputs)
            apart = divergence(logits, clean.float(), multilabel=multilabel, known=known)
            return task_loss(clean.float(), labels) + self.settings.trades_beta * apart
        loss = task_loss(logits, labels)
        if self.settings.method == "ima":  # half of it clean, so that what is not attacked counts as in training
            with self._lower():
                clean = self.branch(inputs)
            loss = (loss + task_loss(clean.float(), labels)) / 2
        if self.teacher is None:
            return loss
        weight, temperature = self.settings.teacher.weight, self.settings.teacher.temperature
        taught = sent(self.teacher[part], logits.device).to(logits.dtype) / temperature
        apart = divergence(logits / temperature, taught, multilabel=multilabel, known=known)
        return (1 - weight) * loss + weight * temperature**2 * apart

    def _reduce(self, optimiser: torch.optim.Optimizer, seen: Tensor) -> Tensor:
        """Adds up gradients, and what was seen, over all processes, in one message."""
        if ranks.count() == 1:
            return seen
        gradients = [p.grad for p in _trained(optimiser) if p.grad is not None]
        flat = ranks.total(torch.cat([*(g.flatten() for g in gradients), seen.to(gradients[0])]))
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        return flat[-2:]

    def _move(self, optimiser: torch.optim.Optimizer) -> None:
        if self._scaler is not None:
            self._scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(_trained(optimiser), self.settings.grad_clip)
        if self._scaler is None:
            optimiser.step()
        else:
            self._scaler.step(optimiser)
            self._scaler.update()

    def _carry(self, done: _Passed, rows: Tensor, inputs: Tensor, left_clean: int, radius: float) -> None:
        """Moves the perturbations of the pass's cases, once all of the step has gone well."""
        cases = len(done.attacked)
        part, kept = rows[done.start : done.start + cases], min(max(left_clean - done.start, 0), cases)
        moves = done.gradient is not None and kept < cases
        self.adversary.leave(part[:kept] if moves else part)
        if done.gradient is not None and moves:
            on = slice(kept, None)
            self.adversary.update(
                part[on], inputs[kept:cases], done.attacked[on], done.gradient[on], done.own[on], radius
            )

    def _lower(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._type is None else torch.autocast(self._kind, self._type)

    def _shorten(self, inputs: Tensor, said: str) -> None:
        """Twice as many passes; where each has one case already, blocks that compute their inner values again.

        Raises:
            HardeningError: they do so already, or the network has no blocks.
        """
        if self._kind == "cuda":
            torch.cuda.empty_cache()
        if self.passes >= len(inputs) or not self.adversary.divisible:
            if not self.recomputed:
                self.recomputed = recompute(self.branch)
                if self.recomputed:
                    return
            shape, cases = "x".join(map(str, inputs.shape[1:])), -(-len(inputs) // self.passes)
            raise HardeningError(
                f"out of memory in a pass of {counted(cases, 'case')} of {shape} values, the least that can be tried: "
                f"{said}; expected a device with more memory free, a smaller input.size or another hardening.branch in "
                "the protocol. What was finished is kept"
            )
        self.passes = min(2 * self.passes, len(inputs))


def _trained(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimiser.param_groups for p in group["params"]]
