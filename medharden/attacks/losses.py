"""What attacks on classes maximise, over the columns of the logits that do not count as a success.

A column is safe where answering it is no harm: the true class, and `referred to a human` where the model has such
a column. With one safe column these losses are the usual cross-entropy and the usual difference of logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medharden.errors import RangeError

__all__ = ["cross_entropy", "margin", "safe_columns", "spread", "succeeded"]


def safe_columns(labels: Tensor, columns: int, *, refers: bool, reach: int = 1) -> Tensor:
    """Marks the answers that do not count as a success.

    Args:
        labels: (N,) integer class indices.
        columns: of the logits: the classes, and one more where the model refers.
        refers: whether the last column means `referred to a human`.
        reach: of ordered grades, how many the answer must be off to count as a success.

    Returns:
        (N, columns) bool: the true class with those nearer than `reach`, and the last column where `refers`.

    Raises:
        RangeError: fewer than two classes, a label that is no class, or so far a reach that a grade has none beyond it.
    """
    classes = columns - int(refers)
    if classes < 2:
        referral = " beside the referral column" if refers else ""
        raise RangeError(
            f"a model must return at least 2 logits{referral}, got {classes}; present one sigmoid output as two classes"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise RangeError(f"labels must lie in 0..{classes - 1}, the model's classes, got {low}..{high}")
    if reach > 1 and classes < 2 * reach:
        raise RangeError(f"of {classes} grades not each has another {reach} away; it takes {2 * reach}")
    safe = (torch.arange(columns, device=labels.device) - labels[:, None]).abs() < reach
    if refers:
        safe[:, -1] = True
    return safe


def cross_entropy(logits: Tensor, safe: Tensor) -> Tensor:
    """Cross-entropy of the safe columns: logsumexp(all) - logsumexp(safe).

    It is computed as softplus(logsumexp(unsafe) - logsumexp(safe)), which is the same number, but which neither
    rounds to zero nor loses its gradient where the softmax saturates.

    Args:
        logits: (N, columns) finite.
        safe: (N, columns) bool; every row holds both values.

    Returns:
        (N,) values >= 0.
    """
    unsafe_mass = logits.masked_fill(safe, -torch.inf).logsumexp(1)
    safe_mass = logits.masked_fill(~safe, -torch.inf).logsumexp(1)
    return functional.softplus(unsafe_mass - safe_mass)


def margin(logits: Tensor, safe: Tensor) -> Tensor:
    """Largest unsafe logit less the largest safe one (the loss of Carlini & Wagner 2017 without its floor).

    Args:
        logits: (N, columns) finite.
        safe: (N, columns) bool; every row holds both values.

    Returns:
        (N,) values; above 0 the attack has succeeded, below 0 it has not.
    """
    return logits.masked_fill(safe, -torch.inf).amax(1) - logits.masked_fill(~safe, -torch.inf).amax(1)


def succeeded(logits: Tensor, safe: Tensor) -> Tensor:
    """Whether the answer, the first largest logit, is an unsafe column.

    Args:
        logits: (N, columns).
        safe: (N, columns) bool.

    Returns:
        (N,) bool.
    """
    return ~safe.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)


def spread(logits: Tensor, *, targeted: bool) -> Tensor:
    """What the difference of logits ratio divides by (Croce & Hein 2020, section 4), so that scale does not matter.

    Args:
        logits: (N, columns).
        targeted: z_1 - (z_3 + z_4) / 2, from four columns on; else z_1 - z_3, from three columns on.

    Returns:
        (N,) values above 0; 1 with fewer columns than that.
    """
    if logits.shape[1] < (4 if targeted else 3):
        return torch.ones_like(logits[:, 0])
    top = logits.topk(4 if targeted else 3, dim=1).values
    low = (top[:, 2] + top[:, 3]) / 2 if targeted else top[:, 2]
    return top[:, 0] - low + 1e-12
