"""The probe: what the branch is worth on validation after an epoch, and whether it has collapsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden import ranks
from medharden.data import Cohort
from medharden.hardening.adversary import CarriedAdversary
from medharden.hardening.allotting import ANSWER, GRADIENT, Account, Allotment
from medharden.hardening.choosing import gated_parts
from medharden.hardening.dealing import dealt_logits
from medharden.hardening.lifting import lifted
from medharden.hardening.perturbations import PerturbationFiles
from medharden.models import Classifier, DecisionView, answered_rightly, answers, task_loss
from medharden.protocol import Protocol
from medharden.record import MASKED
from medharden.rows import read_ahead, select
from medharden.stats import auroc
from medharden.stats.sampling import stratified_sample

__all__ = ["Probe", "ProbeResult", "collapsed"]

_KEPT_SHARE = 0.25
_STEP = 0.5  # of eps
_FALLEN = 0.85  # of the last epoch's
_LEARNED = 0.4  # below it, while the radius still rises, probe accuracy swings by itself


@dataclass(frozen=True)
class ProbeResult:
    """Validation after an epoch.

    Of a multi-label task `clean`, `robust` and `balanced` are means over findings of the AUROC: accuracy would reward
    a branch that answers every finding as absent.

    Attributes:
        clean: accuracy on the validation cases that are answered.
        robust: accuracy under the probe attack, on the probe's sample.
        gained, lost: cases that only the branch, or only the original, answers rightly.
        balanced: mean recall over classes, clean.
        within: whether accuracy, and each class's recall where recall is gated, has fallen by no more than its margin.
        constant: findings that the branch answers alike for all cases, and the original does not.
    """

    clean: float
    robust: float
    gained: int
    lost: int
    balanced: float
    within: bool
    constant: tuple[int, ...] = ()


class Probe:
    """Measures a branch on validation, against the original.

    Its attack carries a perturbation for each case of the sample from epoch to epoch, as that of training does.

    Attributes:
        original: the clean path's own result, not attacked.
        cases: how many are attacked.
        allotment: how many are answered and attacked, and of how much work.
        account: what was spent of it.
        unsure: probes whose attack was not gone on with, though accuracy had fallen: the rest of training's share is
            spoken for.
        classes: K, or 2 where each finding is present or not.
        measures: what `balanced` and `robust` are called in sentences.
        last_robust: of the last measurement; null before the first.
    """

    def __init__(
        self,
        original: Classifier,
        cohort: Cohort,
        protocol: Protocol,
        bias: Tensor,
        device: str,
        perturbation_files: PerturbationFiles | None = None,
        allotment: Allotment | None = None,
    ) -> None:
        """Draws the cases and runs the original once.

        Args:
            original: the clean path.
            cohort: its `val` split is used.
            protocol: threat, seed, and hardening, which says how much a probe may cost.
            bias: (K,) decision bias.
            device: where the models are.
            perturbation_files: where its perturbations lie; null keeps them in memory.
            allotment: how much it may look at; null is what training pays for.
        """
        self._protocol, self._bias, self._device = protocol, bias, device
        self._multilabel = protocol.task.multilabel
        self.classes = 2 if self._multilabel else len(cohort.classes)
        self.measures = ("mean AUROC",) * 2 if self._multilabel else ("balanced accuracy", "accuracy")
        val = cohort.indices("val")
        paid = Allotment.of(protocol.hardening, len(cohort.indices("train")), len(val))
        self.allotment = paid if allotment is None else allotment
        self.account, self.unsure = Account(self.allotment.of_probes), 0
        val = val[stratified_sample(cohort.labels(val).numpy(), self.allotment.answered, protocol.seed)]
        self._inputs, labels = cohort.stream(val, device), cohort.labels(val)
        self._labels = labels.to(device)
        rows = stratified_sample(labels.numpy(), self.allotment.attacked, protocol.seed)
        self._sample, self.cases = torch.as_tensor(rows, device=device), len(rows)
        ranks.require_enough(min(len(val), len(rows)), "validation cases of the probe")
        self._parts = gated_parts(labels, protocol, cohort.classes)
        self._original = self._answers(original)
        self.original = self._result(self._original, self._original[self._sample])
        shape = (len(rows), *self._inputs.shape[1:])
        self._codes = None if perturbation_files is None else perturbation_files.of("harden.probe", shape)
        self._adversary = CarriedAdversary(
            shape, threat=protocol.input_threat, step=_STEP, regulate=False, codes=self._codes
        )
        self._measured = 0
        self.last_robust: float | None = None

    @property
    def validation(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Labels of the validation cases, and the original's answers to them, as classes or as findings."""
        said = answers(self._original, multilabel=self._multilabel)
        return self._labels.nan_to_num(MASKED).long().cpu().numpy(), said.cpu().numpy()

    def measure(self, branch: Classifier) -> ProbeResult:
        """Clean accuracy on validation, attacked accuracy on the sample.

        The first attack climbs `probe_steps` steps from random starts. Each later one goes on from where the last one
        ended, with fewer; where accuracy has fallen since, or rather seems to, with the rest of them too, as far as
        the probes ahead leave work for it.
        """
        answered, steps = self._answers(branch), self._protocol.hardening.probe_steps
        self._measured += 1
        self._adversary.settle()
        if self._codes is not None:
            self._codes.turn(self._measured)
        few = steps if self.last_robust is None else self.allotment.steps_again(self._protocol.hardening)
        result = self._result(answered, self._attacked(branch, few))
        if self.last_robust is not None and result.robust < _FALLEN * self.last_robust and few < steps:
            if self._affords(steps - few):
                result = self._result(answered, self._attacked(branch, steps - few))
            else:
                self.unsure += 1
        self.last_robust = result.robust
        return result

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, beside the files: tensors and plain values."""
        self._adversary.exchange()
        spent = {"spent": self.account.spent, "unsure": self.unsure}
        return {
            "adversary": self._adversary.state(),
            "last_robust": self.last_robust,
            "measured": self._measured,
        } | spent

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave."""
        self._adversary.restore(state["adversary"])
        self.last_robust, self._measured = state["last_robust"], state["measured"]
        self.account.spent, self.unsure = state["spent"], state["unsure"]

    def intact(self, state: dict[str, Any]) -> bool:
        """Whether the files hold what a state goes on from."""
        rows = state["adversary"]["visited"].nonzero().flatten().tolist()
        return self._codes is None or self._codes.holds(state["measured"], rows)

    def flush(self) -> None:
        """Has the files lie on the disk."""
        if self._codes is not None:
            self._codes.flush()

    def remove(self) -> None:
        """Takes the files away."""
        if self._codes is not None:
            self._codes.remove()

    def _affords(self, steps: int) -> bool:
        """Whether the probes ahead leave work for so many more steps."""
        ahead = self.allotment.probes - self._measured
        kept = ahead * self.allotment.probe(self._protocol.hardening, first=False)
        return (GRADIENT * steps + ANSWER) * self.cases <= self.account.left - kept

    def _attacked(self, branch: Classifier, steps: int) -> Tensor:
        """(n, K) what the branch answers to the sample after so many more steps."""
        self.account.spend((GRADIENT * steps + ANSWER) * self.cases)
        rows, eps = torch.arange(len(self._sample)), self._protocol.input_threat.eps
        inputs, labels = select(self._inputs, self._sample), self._labels[self._sample]
        generator = torch.Generator().manual_seed(self._protocol.seed)
        view, size = DecisionView(branch, self._bias), self._protocol.hardening.batch_size
        batches = torch.split(rows, size)
        shares = [part for whole in batches if len(part := whole[ranks.share(len(whole))])]
        answers = []
        for step in range(steps + 1):
            clean_parts = read_ahead(lambda part: inputs[part], shares)
            for whole in batches:
                mine = ranks.share(len(whole))
                noise = self._adversary.noise(whole, inputs, generator)  # for all, whoever takes which cases
                part = whole[mine]
                if not len(part):
                    continue
                clean, truth = next(clean_parts), labels[part.to(labels.device)]
                noise = None if noise is None else noise[mine]
                points = self._adversary.attacked(branch, part, clean, truth, eps, noise)
                if step == steps:
                    with torch.no_grad():
                        answers.append(view(points))
                else:
                    gradient = _slope(view, points, truth)
                    self._adversary.update(part, clean, points.detach(), gradient, torch.empty(0), eps)
        return ranks.in_order(torch.cat(answers), torch.cat(shares))

    def _answers(self, model: Classifier) -> Tensor:
        view = DecisionView(model, self._bias)
        self.account.spend(ANSWER * len(self._inputs))
        return dealt_logits(view, self._inputs, self._protocol.hardening.batch_size)

    def _result(self, answered: Tensor, attacked: Tensor) -> ProbeResult:
        """What (N, K) clean answers to validation and (n, K) attacked ones to the sample come to."""
        right, before = (answered_rightly(z, self._labels) for z in (answered, self._original))
        gained, lost = int((right & ~before).sum()), int((~right & before).sum())
        change = right.int().cpu().numpy() - before.int().cpu().numpy()
        within = all(-change[part.rows].sum() <= part.margin * len(part.rows) for part in self._parts)
        labels = self._labels[self._sample]
        if self._multilabel:
            clean, robust = mean_auroc(answered, self._labels), mean_auroc(attacked, labels)
            alike = _answered_alike(answered) & ~_answered_alike(self._original)
            constant = tuple(alike.nonzero().flatten().tolist())
            return ProbeResult(clean, robust, gained, lost, balanced=clean, within=within, constant=constant)
        held = answered_rightly(attacked, labels) & right[self._sample]
        recalls = [right[self._labels == k].float().mean() for k in set(self._labels.tolist())]
        return ProbeResult(
            clean=float(right.float().mean()),
            robust=float(held.float().mean()),
            gained=gained,
            lost=lost,
            balanced=float(torch.stack(recalls).mean()),
            within=within,
        )


def _slope(view: DecisionView, points: Tensor, labels: Tensor) -> Tensor:
    """(n, C, *spatial) gradient of the loss, lifted, with respect to the points."""
    points = points.requires_grad_()
    loss = task_loss(view(points), labels, reduction="sum")
    return torch.autograd.grad(lifted(loss), points, materialize_grads=True)[0]


def mean_auroc(logits: Tensor, labels: Tensor) -> float:
    """The mean AUROC of the findings that have cases with and without them; one half where none has.

    Args:
        logits: (N, L).
        labels: (N, L) in {0, 1}, NaN where a case says nothing of a finding.
    """
    truth, scores = labels.cpu().numpy(), logits.cpu().numpy()
    areas = []
    for has, score in zip(truth.T, scores.T, strict=True):
        known = ~np.isnan(has)
        if 0 < has[known].sum() < known.sum():
            areas.append(auroc(score[known], has[known] > 0.5))
    return float(np.mean(areas)) if areas else 0.5


def _answered_alike(logits: Tensor) -> Tensor:
    """(L,) whether a finding is answered alike for all cases."""
    present = logits > 0
    return present.all(0) | ~present.any(0)


def collapsed(
    now: ProbeResult,
    original: ProbeResult,
    classes: int,
    best_robust: float,
    measures: tuple[str, ...] = ("balanced accuracy", "accuracy"),
) -> str | None:
    """Why an epoch can't be kept, or null.

    A constant answer is perfectly robust, and a branch that overfits its own attack looks robust to it; neither
    shows in the training loss.

    Args:
        now: after this epoch.
        original: the clean path on the same cases.
        classes: K, or 2 for findings; a constant answer comes to 1 / classes.
        best_robust: best probe accuracy of earlier epochs that can be compared.
        measures: names of the clean and the attacked measure.
    """
    chance = 1 / classes
    # an original below chance has nothing to lose to a constant answer: a branch falls where it falls below that
    if now.balanced < min(original.balanced, chance + _KEPT_SHARE * (original.balanced - chance)):
        return f"{measures[0]} on validation fell to {now.balanced:.3f} (original {original.balanced:.3f})"
    if best_robust > _LEARNED and now.robust < 0.5 * best_robust:
        return f"{measures[1]} under the probe attack fell from {best_robust:.3f} to {now.robust:.3f}"
    return None
