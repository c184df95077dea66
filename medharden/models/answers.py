"""What logits mean: one class a case, or any number of findings; their answers, probabilities and losses.

Labels tell which: (N,) int64 are classes, (N, L) floating point of 0 and 1 are findings. A class is answered by the
largest logit, a finding by a logit above 0, both after the decision bias has been added.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = [
    "answered_rightly",
    "answers",
    "calibrated",
    "divergence",
    "probabilities",
    "probability_of_truth",
    "task_loss",
]


def answers(logits: Tensor, *, multilabel: bool) -> Tensor:
    """(N,) the class of each case, or (N, L) whether each finding is present, as int64."""
    return (logits > 0).long() if multilabel else logits.argmax(1)


def answered_rightly(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) bool: the right class, or every finding right."""
    if labels.ndim == 1:
        return logits.argmax(1) == labels
    return ((logits > 0) == (labels > 0.5)).all(1)


def probabilities(logits: Tensor, *, multilabel: bool) -> Tensor:
    """(N, K) that add up to 1, or (N, L) each by itself."""
    return logits.sigmoid() if multilabel else logits.softmax(1)


def probability_of_truth(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) of the true class; of findings, of the least probable truth, for one that is wrong is enough."""
    if labels.ndim == 1:
        return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    return (logits * (2 * labels - 1)).sigmoid().amin(1)


def calibrated(logits: Tensor, temperature: float, bias: Tensor) -> Tensor:
    """(N, K) logits over their temperature, about the decision threshold: (z + b) / T - b, which changes no answer.

    About 0, as in Guo et al. 2017, a temperature would move probabilities past a threshold other than one half.

    Args:
        logits: (N, K) of classes, or (N, L) of findings.
        temperature: above 0.
        bias: (K,) decision bias, added to what is returned before it is answered.
    """
    return (logits + bias) / temperature - bias


def task_loss(logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy; of findings, binary cross-entropy, averaged over findings and cases unless added up."""
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, reduction=reduction)
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction=reduction)


def divergence(logits: Tensor, target: Tensor, *, multilabel: bool, reduction: str = "batchmean") -> Tensor:
    """Kullback-Leibler divergence of the answers from those of other logits.

    Args:
        logits: (N, K) whose probabilities q are moved.
        target: (N, K) whose probabilities p are held to: sum of p log(p / q) over classes, or over both states of each
            finding.
        multilabel: whether the columns are findings.
        reduction: `batchmean` averages over cases, and over findings; `sum` adds up.
    """
    if not multilabel:
        # From logarithms: p itself may be 0, and the slope of p log p is infinite there.
        return functional.kl_div(logits.log_softmax(1), target.log_softmax(1), reduction=reduction, log_target=True)
    p = target.sigmoid()
    present = p * (functional.logsigmoid(target) - functional.logsigmoid(logits))
    absent = (1 - p) * (functional.logsigmoid(-target) - functional.logsigmoid(-logits))
    added = (present + absent).sum()
    return added / logits.numel() if reduction == "batchmean" else added
