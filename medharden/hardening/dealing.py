"""Answers to many cases, each given by one process and known to all."""

from __future__ import annotations

from torch import Tensor, nn

from medharden import ranks
from medharden.models import logits_in_batches
from medharden.rows import Cases, select

__all__ = ["dealt_logits"]


def dealt_logits(model: nn.Module, inputs: Cases, batch_size: int) -> Tensor:
    """(N, K) logits; in one process as `logits_in_batches`.

    Args:
        model: (N, C, *spatial) in [0, 1] to (N, K) logits.
        inputs: (N, C, *spatial), at least as many as there are processes.
        batch_size: cases a forward pass.
    """
    if ranks.count() == 1:
        return logits_in_batches(model, inputs, batch_size)
    rows = ranks.own(len(inputs))
    return ranks.in_order(logits_in_batches(model, select(inputs, rows), batch_size), rows)
