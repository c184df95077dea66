"""The probe: what the branch is worth on validation after an epoch, and whether it has collapsed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medharden.attacks import pgd
from medharden.data import Cohort
from medharden.data.sampling import stratified_sample
from medharden.models import Classifier, DecisionView, answered_rightly, logits_in_batches
from medharden.protocol import Protocol
from medharden.stats import auroc

__all__ = ["Probe", "ProbeResult", "collapsed"]

_KEPT_SHARE = 0.25
_LEARNED = 0.4  # below it, while the radius still rises, probe accuracy swings by itself


@dataclass(frozen=True)
class ProbeResult:
    """Validation after an epoch.

    Of a multi-label task `clean`, `robust` and `balanced` are means over findings of the AUROC: accuracy would reward
    a branch that answers every finding as absent.

    Attributes:
        clean: accuracy on all validation cases.
        robust: accuracy under the probe attack, on the probe's sample.
        gained, lost: cases that only the branch, or only the original, answers rightly.
        balanced: mean recall over classes, clean.
        constant: findings that the branch answers alike for all cases, and the original does not.
    """

    clean: float
    robust: float
    gained: int
    lost: int
    balanced: float
    constant: tuple[int, ...] = ()


class Probe:
    """Measures a branch on validation, against the original, with the same attack every time.

    Attributes:
        original: the clean path's own result.
        classes: K, or 2 where each finding is present or not.
        measures: what `balanced` and `robust` are called in sentences.
    """

    def __init__(self, original: Classifier, cohort: Cohort, protocol: Protocol, bias: Tensor, device: str) -> None:
        """Draws the sample and runs the original once.

        Args:
            original: the clean path.
            cohort: its `val` split is used.
            protocol: threat, seed, `probe_steps`, `probe_cases`, batch size.
            bias: (K,) decision bias.
            device: where the models are.
        """
        self._protocol, self._bias, self._device = protocol, bias, device
        self._multilabel = protocol.task.multilabel
        self.classes = 2 if self._multilabel else len(cohort.classes)
        self.measures = ("mean AUROC",) * 2 if self._multilabel else ("balanced accuracy", "accuracy")
        inputs, labels = cohort.batch(cohort.indices("val"))
        self._inputs, self._labels = inputs.to(device), labels.to(device)
        rows = stratified_sample(labels.numpy(), protocol.hardening.probe_cases, protocol.seed)
        self._sample = torch.as_tensor(rows, device=device)
        self._original = self._answers(original)
        self.original = self.measure(original)

    def measure(self, branch: Classifier) -> ProbeResult:
        """Clean accuracy on all of validation, PGD accuracy on the sample."""
        answered = self._answers(branch)
        right = answered_rightly(answered, self._labels)
        settings = self._protocol.hardening
        view = DecisionView(branch, self._bias)
        inputs, labels = self._inputs[self._sample], self._labels[self._sample]
        adversarial = pgd(
            view,
            inputs,
            labels,
            threat=self._protocol.input_threat,
            steps=settings.probe_steps,
            restarts=1,
            loss="ce",
            generator=torch.Generator().manual_seed(self._protocol.seed),
            finding="all" if self._multilabel else "any",
        )
        with torch.no_grad():
            attacked = view(adversarial)
        if self._multilabel:
            return self._of_findings(answered, right, mean_auroc(attacked, labels))
        return self._result(right, float((answered_rightly(attacked, labels) & right[self._sample]).float().mean()))

    def _answers(self, model: Classifier) -> Tensor:
        view = DecisionView(model, self._bias)
        return logits_in_batches(view, self._inputs, self._protocol.hardening.batch_size)

    def _changed(self, right: Tensor) -> tuple[int, int]:
        before = answered_rightly(self._original, self._labels)
        return int((right & ~before).sum()), int((~right & before).sum())

    def _result(self, right: Tensor, robust: float) -> ProbeResult:
        recalls = [right[self._labels == k].float().mean() for k in set(self._labels.tolist())]
        gained, lost = self._changed(right)
        return ProbeResult(
            clean=float(right.float().mean()),
            robust=robust,
            gained=gained,
            lost=lost,
            balanced=float(torch.stack(recalls).mean()),
        )

    def _of_findings(self, answered: Tensor, right: Tensor, robust: float) -> ProbeResult:
        gained, lost = self._changed(right)
        clean = mean_auroc(answered, self._labels)
        alike = _answered_alike(answered) & ~_answered_alike(self._original)
        constant = tuple(alike.nonzero().flatten().tolist())
        return ProbeResult(clean, robust, gained, lost, balanced=clean, constant=constant)


def mean_auroc(logits: Tensor, labels: Tensor) -> float:
    """The mean AUROC of the findings that have cases with and without them; one half where none has.

    Args:
        logits: (N, L).
        labels: (N, L) in {0, 1}.
    """
    truth, scores = labels.cpu().numpy() > 0.5, logits.cpu().numpy()
    both = [k for k in range(truth.shape[1]) if 0 < truth[:, k].sum() < len(truth)]
    return float(np.mean([auroc(scores[:, k], truth[:, k]) for k in both])) if both else 0.5


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
    if now.balanced < chance + _KEPT_SHARE * (original.balanced - chance):
        return f"{measures[0]} on validation fell to {now.balanced:.3f} (original {original.balanced:.3f})"
    if best_robust > _LEARNED and now.robust < 0.5 * best_robust:
        return f"{measures[1]} under the probe attack fell from {best_robust:.3f} to {now.robust:.3f}"
    return None
