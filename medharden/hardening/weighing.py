"""Each fusion weight on validation: which answers it changes, and how much of the branch's robustness it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from medharden import ranks
from medharden.attacks import pgd, searched
from medharden.attacks.projections import random_start
from medharden.hardening.allotting import ANSWER, GRADIENT, LEAST, MOST_SEARCHED, PATHS, Account, Counted
from medharden.hardening.choosing import LEAST_CHOSEN
from medharden.heap import give_back_freed_memory
from medharden.models import DecisionView, HardenedClassifier, answered_rightly, logits_in_batches, mix, mix_findings
from medharden.protocol import Protocol
from medharden.record import FrontierPoint, FusionRecord, Progress
from medharden.rows import Cases, copy_of, select
from medharden.stats import noninferiority_test
from medharden.stats.sampling import stratified_order

__all__ = ["weigh"]

_WEIGHTS = (0.05, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
_KEPT_TO_DRAW = 1 / 2  # of what the account has left, at most: for the weights that are drawn and not chosen
_CERTAIN = 1e4  # a logit that no other answer's probability survives


def weigh(
    model: HardenedClassifier,
    inputs: Cases,
    labels: Tensor,
    clean: Tensor,
    robust: Tensor,
    patients: list[str],
    protocol: Protocol,
    account: Account,
    progress: Progress | None,
) -> tuple[tuple[FrontierPoint, ...], dict[float, npt.NDArray[np.bool_]]]:
    """Clean change and end-to-end robust accuracy at each weight, and which cases it answers rightly.

    Weights that may be chosen are attacked on the same cases: up to 512 drawn by class, as many as the account pays
    for, and `LEAST` if it does not pay for those. Others, which are drawn alone, on up to `probe_cases` of them; a
    part of the account is kept for them, and those that it does not pay for are left out.

    Args:
        model: its fusion's temperatures are set; the weight is moved.
        inputs: (N, C, *spatial) validation cases.
        labels: (N,) classes, or (N, L) findings.
        clean: (N, K) logits of the clean path.
        robust: (N, K) logits of the branch.
        patients: of the cases.
        protocol: threat, margins, alpha, the probe's steps and cases.
        account: what may be spent.
        progress: called with `calibrate`, cases done and in all.
    """
    bias, blend = model.decision_bias, mix_findings if model.multilabel else mix
    margin = next(m.margin for m in protocol.endpoints.noninferiority if m.metric == "accuracy")
    before = answered_rightly(clean + bias, labels)
    order = torch.as_tensor(stratified_order(labels.cpu().numpy(), protocol.seed)[:MOST_SEARCHED])
    order = order.to(labels.device)
    right = {w: answered_rightly(blend(clean, robust, _at(model.fusion, w), bias) + bias, labels) for w in _WEIGHTS}
    search = _Search(model, select(inputs, order), labels[order], protocol, account)
    held = search.attack({w: r[order] for w, r in right.items()}, progress)
    points, answered = [], {0.0: before.cpu().numpy()}
    for weight in _WEIGHTS:
        answered[weight] = right[weight].cpu().numpy()
        gained, lost = (right[weight] & ~before).cpu().numpy(), (~right[weight] & before).cpu().numpy()
        test = noninferiority_test(gained, lost, margin=margin, alpha=protocol.endpoints.alpha, patients=patients)
        if weight not in held:
            continue
        standing, attacked = held[weight]
        points.append(
            FrontierPoint(
                weight=weight,
                gained=int(gained.sum()),
                lost=int(lost.sum()),
                cases=len(labels),
                lower=test.interval[0],
                upper=test.interval[1],
                robust=standing / attacked,
                attacked=attacked,
            )
        )
    return tuple(points), answered


def _at(fusion: FusionRecord, weight: float) -> FusionRecord:
    return replace(fusion, weight=weight)


@dataclass
class _Search:
    """What holds under the probe attack at one weight after the other, batch by batch.

    The branch is attacked once. Where its answer carries the mixture whatever the clean path may say, a case stands;
    the others are attacked end to end, from where it, or the attack on the weight before, ended: on validation five
    such steps took what 20 from a random start did. What these attacks may take at most is known before the first of
    them, so that no more cases are begun than the account pays for.

    Attributes:
        model: the release; its weight is moved.
        inputs: (n, C, *spatial), drawn in an order of which each beginning is a sample.
        labels: of the cases.
        protocol: threat, seed and the probe's steps, cases and batch.
        account: what may be spent.
    """

    model: HardenedClassifier
    inputs: Cases
    labels: Tensor
    protocol: Protocol
    account: Account

    def __post_init__(self) -> None:
        """Nothing is attacked yet."""
        cases, device = len(self.inputs), self.labels.device
        self._own = torch.zeros(cases, dtype=torch.bool, device=device)
        self._own[ranks.own(cases).to(device)] = True
        self._tried = copy_of(self.inputs)
        self._reached = torch.zeros((cases, len(self.model.decision_bias)), device=device)
        self._before, self._kept = self.account.spent, 0
        self._spent = 0  # by this process, since all told each other
        self._generator = torch.Generator().manual_seed(self.protocol.seed)
        fast = searched(DecisionView(self.model, self.model.decision_bias), self.inputs.dim() - 2)
        self._copies = [part for part in fast.modules() if isinstance(part, HardenedClassifier)]
        branch = DecisionView(self._copies[0].robust_branch, self.model.decision_bias)
        self._branch, self._release = Counted(branch, 1, self._note), Counted(fast, PATHS, self._note)

    def attack(self, right: Mapping[float, Tensor], progress: Progress | None = None) -> dict[float, tuple[int, int]]:
        """How many cases stand at each weight, and of how many that were attacked.

        Args:
            right: (n,) bool for each weight: whether the clean answer is right.
            progress: called with `calibrate`.
        """
        cases, report = len(self.inputs), progress or (lambda stage, done, total: None)
        report("calibrate", 0, cases + 1)
        chosen = [w for w in sorted(right, reverse=True) if w >= LEAST_CHOSEN]
        drawn = sorted(set(right) - set(chosen))  # the smallest first: what is left out is not the frontier's end
        few = min(cases, self.protocol.hardening.probe_cases)
        self._kept = min(int(_KEPT_TO_DRAW * self.account.left), self._of_release * few * len(drawn))
        standing, done = dict.fromkeys(chosen, 0), 0
        while done < cases:
            begun = self._begin(done, len(chosen))
            taken = self._paid(begun, chosen, right, least=min(LEAST, cases) - done)
            for weight in chosen:
                standing[weight] += self._standing(*self._transferred(weight, taken[right[weight][taken]]))
            done += len(taken)
            if len(taken) < len(begun) or not len(begun):
                break
            report("calibrate", done, cases + 1)
        held = {weight: (standing[weight], done) for weight in chosen}
        self._kept, few = 0, min(done, few)
        for left, weight in zip(range(len(drawn), 0, -1), drawn, strict=True):
            share = self.account.left // (left * self._of_release)
            rows = torch.arange(min(few, max(share, LEAST)), device=self.labels.device)
            carried, open_ = self._transferred(weight, rows[right[weight][rows]])
            if int(ranks.total(torch.tensor(len(open_)))) * self._of_release <= self.account.left:
                held[weight] = (self._standing(carried, open_), len(rows))
        report("calibrate", cases + 1, cases + 1)
        return held

    @property
    def _of_branch(self) -> int:
        """What attacking the branch on a case takes."""
        return GRADIENT * (self.protocol.hardening.probe_steps + 1) + ANSWER

    @property
    def _of_release(self) -> int:
        """What attacking the release at a weight takes on a case that withstands it."""
        return PATHS * (GRADIENT * (self.protocol.hardening.probe_steps + 1) + 2 * ANSWER)

    @property
    def _left(self) -> int:
        return self.account.left - self._kept

    def _begin(self, done: int, weights: int) -> Tensor:
        """(b,) the next batch that the account pays for at so many weights, with the branch attacked on it.

        The first is taken at any price, and is small enough to be paid for if each case is attacked at each weight.
        """
        a_case = self._of_branch + weights * self._of_release
        if done:
            a_case = max(self._of_branch, -(-(self.account.spent - self._before) // done))  # what a case took so far
        size = min(self._size, len(self.inputs) - done, max(self._left // a_case, LEAST - done))
        rows = torch.arange(done, done + max(0, size), device=self.labels.device)
        self._start(rows)
        self._told()
        return rows

    def _paid(self, rows: Tensor, weights: Sequence[float], right: Mapping[float, Tensor], least: int = 0) -> Tensor:
        """The first of (b,) rows for which the account pays at these weights, or at least so many."""
        cost = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for weight in weights:
            cost += self._of_release * (right[weight][rows] & ~self._carried(weight, rows))
        affordable = int((cost.cumsum(0) <= self._left).sum())
        return rows[: max(affordable, least)]

    def _told(self) -> None:
        """Takes what all processes spent to account."""
        self.account.spend(int(ranks.total(torch.tensor(self._spent))))
        self._spent = 0

    def _note(self, work: int) -> None:
        self._spent += work

    def _transferred(self, weight: float, rows: Tensor) -> tuple[int, Tensor]:
        """Sets a weight; of (n,) rows whose clean answers are right, how many the branch carries and which are open.

        Open are those that stay right at what was tried at the weight before. Each process counts those of its own.
        """
        rows, view = rows[self._own[rows]], DecisionView(self.model, self.model.decision_bias)
        for model in (self.model, *self._copies):
            model.fusion = _at(model.fusion, weight)
        carried = self._carried(weight, rows)
        open_ = self._unbeaten(view, rows[~carried])
        self._told()
        return int(carried.sum()), open_

    def _standing(self, carried: int, open_: Tensor) -> int:
        """How many cases of all processes stand: those that are carried, and of those open the ones not beaten now."""
        self._climb(open_)
        held = carried + len(self._unbeaten(DecisionView(self.model, self.model.decision_bias), open_))
        self._told()
        return int(ranks.total(torch.tensor(held)))

    def _carried(self, weight: float, rows: Tensor) -> Tensor:
        """(n,) whether the branch, at its worst, gives the right answer even if the clean path is sure of another."""
        model, worst, labels = self.model, self._reached[rows], self.labels[rows]
        if model.multilabel:
            said = [_CERTAIN * (1 - 2 * labels).nan_to_num(0.0)]  # a masked finding's answer does not matter
        else:
            said = [_CERTAIN * answer.expand_as(worst) for answer in torch.eye(worst.shape[1]).to(worst)]
        blend = mix_findings if model.multilabel else mix
        bias = model.decision_bias
        answers = [blend(clean.to(worst), worst, _at(model.fusion, weight), bias) + bias for clean in said]
        return torch.stack([answered_rightly(each, labels) for each in answers]).all(0)

    def _unbeaten(self, view: nn.Module, rows: Tensor) -> Tensor:
        """Those of the rows that are answered rightly at what was tried last."""
        if not len(rows):
            return rows
        with torch.no_grad():
            answers = logits_in_batches(view, select(self._tried, rows), self._size)
        self._note(PATHS * ANSWER * len(rows))
        return rows[answered_rightly(answers, self.labels[rows])]

    def _start(self, rows: Tensor) -> None:
        """Attacks the branch on a batch, from starts drawn for all of it; puts the points into `_tried`."""
        mine = rows[self._own[rows]]
        start = None
        if len(mine) < len(rows):
            shape = torch.Size((len(rows), *self.inputs.shape[1:]))
            drawn = random_start(shape, self.protocol.input_threat, [self._generator], surface=False)
            start = self.inputs[mine] + drawn[self._own[rows].cpu()].to(self.inputs.device)
        answers = self._reached[mine]
        if len(mine):
            give_back_freed_memory()
            self._tried[mine] = self._pgd(self._branch, mine, start)
            with torch.no_grad():
                answers = logits_in_batches(self.model.robust_branch, select(self._tried, mine), self._size)
            self._note(ANSWER * len(mine))
        if len(rows):
            self._reached[rows] = ranks.in_order(answers, mine - rows[0])

    def _climb(self, rows: Tensor) -> None:
        """Goes on from what was tried last, against the release at the weight that it has."""
        # a gradient through the release keeps both paths: half as many cases take the memory of a step of training
        for part in torch.split(rows, max(1, self._size // 2)) if len(rows) else ():
            give_back_freed_memory()
            self._tried[part] = self._pgd(self._release, part, self._tried[part])

    def _pgd(self, fast: nn.Module, rows: Tensor, start: Tensor | None) -> Tensor:
        inputs = self.inputs[rows]
        return pgd(
            fast,
            inputs,
            self.labels[rows],
            threat=self.protocol.input_threat,
            steps=self.protocol.hardening.probe_steps,
            restarts=1,
            loss="ce",
            generator=self._generator,
            start=start,
        )

    @property
    def _size(self) -> int:
        return self.protocol.hardening.batch_size
