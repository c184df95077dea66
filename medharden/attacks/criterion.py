"""What an attack is after: the answers that count as a success, and the losses that lead there.

Multi-class labels are (N,) class indices, and any answer but the true class, or a referral, is a success. Multi-label
labels are (N, L) of 0 and 1, and finding j is answered as present where logit j is above 0; a success is a wrong answer
to any finding, to one named finding, or to all of them at once. A label of NaN is unknown: no answer to it is a
success, and no loss has a slope there. A model that refers has one column more: the larger answer in the first case, a
value above 0 in the second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medharden.attacks.losses import cross_entropy, margin, safe_columns, spread, succeeded
from medharden.errors import RangeError

__all__ = ["Criterion", "Objective", "check_objective", "wrong_findings"]

Objective = int | Literal["any", "all"]
"""Which finding of a multi-label model is to be changed; `any` for multi-class models."""

_HOPELESS = -1.0  # the margin of a case of which nothing that is sought is known: no success, and no slope


@dataclass(frozen=True)
class Criterion:
    """Labels, and what an attack wants of the answers to them.

    Attributes:
        labels: (N,) class indices, or (N, L) floating point of 0, 1 and NaN.
        finding: `any`, `all`, or the index of one finding; multi-class has `any` alone.
        refers: whether the last column means `referred to a human`.
        targets: (N,) the class, or the finding, that losses push towards; null pushes towards the nearest. What counts
            as a success is the same with or without targets.
        reach: of ordered grades, how many the answer must be off to be a success; any wrong answer is one at 1.
    """

    labels: Tensor
    finding: Objective = "any"
    refers: bool = False
    targets: Tensor | None = None
    reach: int = 1

    @property
    def exact(self) -> Criterion:
        """The criterion under which any wrong answer is a success."""
        return replace(self, reach=1)

    @property
    def multilabel(self) -> bool:
        """Whether each case has several findings."""
        return self.labels.dim() == 2

    def of(self, rows: Tensor) -> Criterion:
        """The same criterion for some of the cases."""
        return replace(self, labels=self.labels[rows], targets=None if self.targets is None else self.targets[rows])

    def toward(self, targets: Tensor) -> Criterion:
        """The same criterion with losses that push towards (N,) classes or findings."""
        return replace(self, targets=targets)

    def won(self, logits: Tensor) -> Tensor:
        """(N,) bool: whether the answers are a success; exact, ties included.

        Raises:
            RangeError: the logits have not the columns that the labels ask for.
        """
        if not self.multilabel:
            return succeeded(logits, self._safe(logits))
        wrong = wrong_findings(self._findings(logits), self.labels)
        if self.finding == "any":
            found = wrong.any(1)
        else:
            found = self._all(wrong) if self.finding == "all" else wrong[:, self.finding]
        return found & (logits[:, -1] <= 0) if self.refers else found

    def margin(self, logits: Tensor) -> Tensor:
        """(N,) difference of logits: above 0 is a success, below 0 is none; with targets, their own difference."""
        if not self.multilabel:
            safe = self._safe(logits)
            if self.targets is None:
                return margin(logits, safe)
            return logits.gather(1, self.targets[:, None]).squeeze(1) - logits.masked_fill(~safe, -torch.inf).amax(1)
        wrongness = self._wrongness(logits)
        if self.targets is not None:
            found = wrongness.gather(1, self.targets[:, None]).squeeze(1)
        elif self.finding == "any":
            found = wrongness.amax(1)
        else:
            found = wrongness.amin(1) if self.finding == "all" else wrongness[:, self.finding]
        found = found.masked_fill(found.isinf(), _HOPELESS)
        return torch.minimum(found, -logits[:, -1]) if self.refers else found

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """(N,) cross-entropy of the safe answers; multi-label: binary cross-entropy, added over what is sought.

        Where all findings are sought it is the log-likelihood of all of them being wrong, which works on those that
        are still right; cross-entropy would work on those that are wrong already.
        """
        if not self.multilabel:
            return cross_entropy(logits, self._safe(logits))
        wrongness = self._wrongness(logits)
        referral = functional.softplus(logits[:, -1]) if self.refers else 0.0
        if self.targets is not None:
            return functional.softplus(wrongness.gather(1, self.targets[:, None]).squeeze(1)) - referral
        if self.finding == "any":
            return functional.softplus(wrongness).sum(1) - referral
        if self.finding == "all":
            return -functional.softplus(-wrongness).sum(1) - referral
        return functional.softplus(wrongness[:, self.finding]) - referral

    def dlr(self, logits: Tensor) -> Tensor:
        """(N,) difference of logits ratio: the margin over the spread of the largest logits (Croce & Hein 2020).

        (max unsafe - max safe) / (z_1 - z_3) with logits z_1 >= z_2 >= ...; with targets
        (z_t - max safe) / (z_1 - (z_3 + z_4) / 2). Too few columns for these, or several findings: the margin.
        """
        found = self.margin(logits)
        if self.multilabel:
            return found
        return found / spread(logits, targeted=self.targets is not None)

    def rivals(self, logits: Tensor, most: int) -> Tensor:
        """(N, T) the targets of each case, nearest first, `most` at most; T = 0 where there is nothing to choose."""
        if not self.multilabel:
            safe = self._safe(logits)
            nearest = logits.masked_fill(safe, -torch.inf).argsort(1, descending=True)
            return nearest[:, : min(most, int((~safe).sum(1).min()))]
        if self.finding != "any":
            return torch.empty((len(logits), 0), dtype=torch.long, device=logits.device)
        return self._wrongness(logits).argsort(1, descending=True)[:, :most]

    def _safe(self, logits: Tensor) -> Tensor:
        return safe_columns(self.labels, logits.shape[1], refers=self.refers, reach=self.reach)

    def _findings(self, logits: Tensor) -> Tensor:
        findings = logits[:, :-1] if self.refers else logits
        if findings.shape[1] != self.labels.shape[1]:
            raise RangeError(
                f"a model must return one logit a finding: the labels have {self.labels.shape[1]}, "
                f"the logits {findings.shape[1]}"
            )
        return findings

    def _wrongness(self, logits: Tensor) -> Tensor:
        """(N, L) each finding's logit with the sign under which above 0 is wrong; an unknown one never decides.

        It is the least where one wrong answer is sought, the greatest where all are.
        """
        findings = self._findings(logits)
        never = torch.inf if self.finding == "all" and self.targets is None else -torch.inf
        return torch.where(self.labels > 0.5, -findings, findings).masked_fill(self.labels.isnan(), never)

    def _all(self, wrong: Tensor) -> Tensor:
        """(N,) bool: whether every known finding is wrong, of those cases that have one."""
        unknown = self.labels.isnan()
        return (wrong | unknown).all(1) & ~unknown.all(1)


def wrong_findings(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, L) bool: which findings are answered wrongly; present is a logit above 0, and an unknown one is never wrong.

    Args:
        logits: (N, L).
        labels: (N, L) of 0, 1 and NaN.
    """
    return ((logits > 0) != (labels > 0.5)) & ~labels.isnan()


def check_objective(labels: Tensor, finding: Objective) -> None:
    """Refuses a finding that the labels have not.

    Raises:
        RangeError: `finding` is no index of a finding, or names one although the labels are classes.
    """
    if finding == "any" or (finding == "all" and labels.dim() == 2):
        return
    if labels.dim() == 1:
        raise RangeError(f"finding {finding!r} needs labels (N, L) of several findings; class indices have 'any' alone")
    if isinstance(finding, str) or not 0 <= finding < labels.shape[1]:
        raise RangeError(f"finding must be 'any', 'all' or an index in 0..{labels.shape[1] - 1}, got {finding!r}")
