"""What logits mean: one class a case, or any number of findings; their answers, probabilities and losses.

Labels tell which: (N,) int64 are classes, (N, L) floating point of 0 and 1 are findings, NaN where nobody knows: such a
finding counts nowhere in its case. A class is answered by the largest logit, a finding by a logit above 0, both after
the decision bias has been added.
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
    """(N,) bool: the right class, or every finding right of which anything is known."""
    if labels.ndim == 1:
        return logits.argmax(1) == labels
    return (((logits > 0) == (labels > 0.5)) | labels.isnan()).all(1)


def probabilities(logits: Tensor, *, multilabel: bool) -> Tensor:
    """(N, K) that add up to 1, or (N, L) each by itself."""
    return logits.sigmoid() if multilabel else logits.softmax(1)


def probability_of_truth(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) of the true class; of findings, of the least probable truth, for one that is wrong is enough."""
    if labels.ndim == 1:
        return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
    return (logits * (2 * labels - 1)).sigmoid().masked_fill(labels.isnan(), 1.0).amin(1)


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
    """Cross-entropy; of findings, binary cross-entropy, averaged over each case's known findings and cases, or added.

    The mean is one of cases, not of findings, so that a batch in parts adds up to the whole however much is masked.
    """
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, reduction=reduction)
    weight = _weights(~labels.isnan(), logits, reduction)
    return functional.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), weight, reduction=reduction)


def _weights(known: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """(N, L) what each finding counts: 0 where masked, else 1, or L over the case's known findings for a mean."""
    weight = known.to(logits.dtype)
    return weight if reduction == "sum" else weight * (known.shape[1] / known.sum(1, keepdim=True).clamp(min=1))


def divergence(
    logits: Tensor, target: Tensor, *, multilabel: bool, known: Tensor | None = None, reduction: str = "batchmean"
) -> Tensor:
    """Kullback-Leibler divergence of the answers from those of other logits.

    Args:
        logits: (N, K) whose probabilities q are moved.
        target: (N, K) whose probabilities p are held to: sum of p log(p / q) over classes, or over both states of each
            finding.
        multilabel: whether the columns are findings.
        known: (N, L) bool: which findings count; null where all do.
        reduction: `batchmean` averages over cases, and over the findings that count of each; `sum` adds up.
    """
    if not multilabel:
        # From logarithms: p itself may be 0, and the slope of p log p is infinite there.
        return functional.kl_div(logits.log_softmax(1), target.log_softmax(1), reduction=reduction, log_target=True)
    p = target.sigmoid()
    present = p * (functional.logsigmoid(target) - functional.logsigmoid(logits))
    absent = (1 - p) * (functional.logsigmoid(-target) - functional.logsigmoid(-logits))
    each = present + absent if known is None else (present + absent) * _weights(known, logits, reduction)
    added = each.sum()
    return added / logits.numel() if reduction == "batchmean" else added
