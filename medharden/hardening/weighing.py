"""Each fusion weight on validation: which answers it changes, and how much of the branch's robustness it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medharden import ranks
from medharden.attacks import pgd, searched
from medharden.attacks.projections import random_start
from medharden.hardening.choosing import LEAST_CHOSEN
from medharden.hardening.dealing import dealt_logits
from medharden.models import DecisionView, HardenedClassifier, answered_rightly, logits_in_batches, mix, mix_findings
from medharden.protocol import Protocol
from medharden.record import FrontierPoint, Progress
from medharden.rows import Cases, copy_of, select
from medharden.stats import noninferiority_test
from medharden.stats.sampling import stratified_sample

__all__ = ["weigh"]

_WEIGHTS = (0.05, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
_MOST_ATTACKED = 512
_CERTAIN = 1e4  # a logit that no other answer's probability survives


def weigh(
    model: HardenedClassifier,
    inputs: Cases,
    labels: Tensor,
    clean: Tensor,
    robust: Tensor,
    patients: list[str],
    protocol: Protocol,
    progress: Progress | None,
) -> tuple[tuple[FrontierPoint, ...], dict[float, npt.NDArray[np.bool_]]]:
    """Clean change and end-to-end robust accuracy at each weight, and which cases it answers rightly.

    Weights that may be chosen are attacked on up to 512 cases, the others, which are drawn alone, on `probe_cases`.

    Args:
        model: its fusion's temperatures are set; the weight is moved.
        inputs: (N, C, *spatial) validation cases.
        labels: (N,) classes, or (N, L) findings.
        clean: (N, K) logits of the clean path.
        robust: (N, K) logits of the branch.
        patients: of the cases.
        protocol: threat, margins, alpha, the probe's steps and cases.
        progress: called with `calibrate`.
    """
    bias, blend = model.decision_bias, mix_findings if model.multilabel else mix
    margin = next(m.margin for m in protocol.endpoints.noninferiority if m.metric == "accuracy")
    right = answered_rightly(clean + bias, labels)
    many = _sample(labels, _MOST_ATTACKED, protocol)
    few = _sample(labels[many], protocol.hardening.probe_cases, protocol)
    done, parts = count(1), len(torch.split(many, protocol.hardening.batch_size)) + len(_WEIGHTS)

    def tick() -> None:
        if progress is not None:
            progress("calibrate", next(done), parts)

    if progress is not None:
        progress("calibrate", 0, parts)
    search = _Search(model, select(inputs, many), labels[many], protocol, tick)
    points, answered = [], {0.0: right.cpu().numpy()}
    for weight in reversed(_WEIGHTS):
        model.fusion = replace(model.fusion, weight=weight)
        now = answered_rightly(blend(clean, robust, model.fusion, bias) + bias, labels)
        answered[weight] = now.cpu().numpy()
        gained, lost = (now & ~right).cpu().numpy(), (~now & right).cpu().numpy()
        test = noninferiority_test(gained, lost, margin=margin, alpha=protocol.endpoints.alpha, patients=patients)
        rows = torch.arange(len(many), device=many.device) if weight >= LEAST_CHOSEN else few
        points.append(
            FrontierPoint(
                weight=weight,
                gained=int(gained.sum()),
                lost=int(lost.sum()),
                cases=len(labels),
                lower=test.interval[0],
                upper=test.interval[1],
                robust=search.standing(rows[now[many][rows]]) / len(rows),
                attacked=len(rows),
            )
        )
        tick()
    return tuple(reversed(points)), answered


def _sample(labels: Tensor, cases: int, protocol: Protocol) -> Tensor:
    return torch.as_tensor(stratified_sample(labels.cpu().numpy(), cases, protocol.seed), device=labels.device)


@dataclass
class _Search:
    """What holds under the probe attack at one weight after the other, from the largest down.

    The branch is attacked once. Where its answer carries the mixture whatever the clean path may say, a case stands;
    the others are attacked end to end, from where it, or the attack on the weight before, ended: on validation five
    such steps took what 20 from a random start did.

    Attributes:
        model: the release, at the weight in question.
        inputs: (n, C, *spatial).
        labels: of the cases.
        protocol: threat, seed and the probe's steps.
        tick: called after each batch of the attack on the branch.
    """

    model: HardenedClassifier
    inputs: Cases
    labels: Tensor
    protocol: Protocol
    tick: Callable[[], None]

    def __post_init__(self) -> None:
        """Attacks the branch."""
        branch, cases = self.model.robust_branch, len(self.inputs)
        self._own = torch.zeros(cases, dtype=torch.bool, device=self.labels.device)
        self._own[ranks.own(cases).to(self.labels.device)] = True
        self._tried = copy_of(self.inputs)
        self._start(DecisionView(branch, self.model.decision_bias))
        with torch.no_grad():
            self._reached = dealt_logits(branch, self._tried, self.protocol.hardening.batch_size)

    def standing(self, rows: Tensor) -> int:
        """How many of (n,) rows, whose clean answers are right, stay so; each is attacked by the process it is of."""
        rows = rows[self._own[rows]]
        view = DecisionView(self.model, self.model.decision_bias)
        carried = self._carried()[rows]
        open_ = self._unbeaten(view, rows[~carried])
        self._climb(view, open_)
        return int(ranks.total(torch.tensor(int(carried.sum()) + len(self._unbeaten(view, open_)))))

    def _carried(self) -> Tensor:
        """(n,) whether the branch, at its worst, gives the right answer even if the clean path is sure of another."""
        model, worst = self.model, self._reached
        if model.multilabel:
            said = [_CERTAIN * (1 - 2 * self.labels).nan_to_num(0.0)]  # a masked finding's answer does not matter
        else:
            said = [_CERTAIN * answer.expand_as(worst) for answer in torch.eye(worst.shape[1]).to(worst)]
        blend = mix_findings if model.multilabel else mix
        bias = model.decision_bias
        answers = [blend(clean.to(worst), worst, model.fusion, bias) + bias for clean in said]
        return torch.stack([answered_rightly(each, self.labels) for each in answers]).all(0)

    def _unbeaten(self, view: nn.Module, rows: Tensor) -> Tensor:
        """Those of the rows that are answered rightly at what was tried last."""
        if not len(rows):
            return rows
        with torch.no_grad():
            answers = logits_in_batches(view, select(self._tried, rows), self.protocol.hardening.batch_size)
        return rows[answered_rightly(answers, self.labels[rows])]

    def _start(self, view: nn.Module) -> None:
        """Puts where the probe attack on the branch ends into `_tried`, from starts drawn for whole batches."""
        fast, generator = self._fast(view), torch.Generator().manual_seed(self.protocol.seed)
        for part in torch.split(torch.arange(len(self.inputs), device=self.labels.device), self._size):
            mine = part[self._own[part]]
            start = None
            if len(mine) < len(part):
                shape = torch.Size((len(part), *self.inputs.shape[1:]))
                drawn = random_start(shape, self.protocol.input_threat, [generator], surface=False)
                start = self.inputs[mine] + drawn[self._own[part].cpu()].to(self.inputs.device)
            if len(mine):
                self._tried[mine] = self._pgd(fast, mine, generator, start)
            self.tick()

    def _climb(self, view: nn.Module, rows: Tensor) -> None:
        """Goes on from what was tried last."""
        fast, generator = self._fast(view), torch.Generator().manual_seed(self.protocol.seed)
        # a gradient through the release keeps both paths: half as many cases take the memory of a step of training
        for part in torch.split(rows, max(1, self._size // 2)) if len(rows) else ():
            self._tried[part] = self._pgd(fast, part, generator, self._tried[part])

    def _pgd(self, fast: nn.Module, rows: Tensor, generator: torch.Generator, start: Tensor | None) -> Tensor:
        inputs = self.inputs[rows]
        return pgd(
            fast,
            inputs,
            self.labels[rows],
            threat=self.protocol.input_threat,
            steps=self.protocol.hardening.probe_steps,
            restarts=1,
            loss="ce",
            generator=generator,
            start=start,
        )

    def _fast(self, view: nn.Module) -> nn.Module:
        return searched(view, self.inputs.dim() - 2)

    @property
    def _size(self) -> int:
        return self.protocol.hardening.batch_size
