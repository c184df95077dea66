"""The probe: what the branch is worth on validation after an epoch, and whether it has collapsed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medharden.attacks import pgd
from medharden.data import Cohort
from medharden.data.sampling import stratified_sample
from medharden.models import Classifier, DecisionView, logits_in_batches
from medharden.protocol import Protocol

__all__ = ["Probe", "ProbeResult", "collapsed"]

_KEPT_SHARE = 0.25


@dataclass(frozen=True)
class ProbeResult:
    """Validation after an epoch.

    Attributes:
        clean: accuracy on all validation cases.
        robust: accuracy under the probe attack, on the probe's sample.
        gained, lost: cases that only the branch, or only the original, answers rightly.
        balanced: mean recall over classes, clean.
    """

    clean: float
    robust: float
    gained: int
    lost: int
    balanced: float


class Probe:
    """Measures a branch on validation, against the original, with the same attack every time."""

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
        inputs, labels = cohort.batch(cohort.indices("val"))
        self._inputs, self._labels = inputs.to(device), labels.to(device)
        rows = stratified_sample(labels.numpy(), protocol.hardening.probe_cases, protocol.seed)
        self._sample = torch.as_tensor(rows, device=device)
        self._original_right = self._right(original)
        self.original = self.measure(original)

    def measure(self, branch: Classifier) -> ProbeResult:
        """Clean accuracy on all of validation, PGD accuracy on the sample."""
        right = self._right(branch)
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
        )
        with torch.no_grad():
            robust = (view(adversarial).argmax(1) == labels) & right[self._sample]
        return self._result(right, float(robust.float().mean()))

    def _right(self, model: Classifier) -> Tensor:
        view = DecisionView(model, self._bias)
        logits = logits_in_batches(view, self._inputs, self._protocol.hardening.batch_size)
        return torch.eq(logits.argmax(1), self._labels)

    def _result(self, right: Tensor, robust: float) -> ProbeResult:
        recalls = [right[self._labels == k].float().mean() for k in set(self._labels.tolist())]
        return ProbeResult(
            clean=float(right.float().mean()),
            robust=robust,
            gained=int((right & ~self._original_right).sum()),
            lost=int((~right & self._original_right).sum()),
            balanced=float(torch.stack(recalls).mean()),
        )


def collapsed(now: ProbeResult, original: ProbeResult, classes: int, best_robust: float) -> str | None:
    """Why an epoch can't be kept, or null.

    A constant answer is perfectly robust, and a branch that overfits its own attack looks robust to it; neither
    shows in the training loss.

    Args:
        now: after this epoch.
        original: the clean path on the same cases.
        classes: K.
        best_robust: best probe accuracy of earlier epochs.
    """
    chance = 1 / classes
    if now.balanced < chance + _KEPT_SHARE * (original.balanced - chance):
        return f"balanced accuracy on validation fell to {now.balanced:.3f} (original {original.balanced:.3f})"
    if best_robust > 0.2 and now.robust < 0.5 * best_robust:
        return f"accuracy under the probe attack fell from {best_robust:.3f} to {now.robust:.3f}"
    return None
