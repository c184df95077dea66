"""The exported form held against the composite in PyTorch before it is written under its name."""

from __future__ import annotations

import torch
from torch import Tensor

from medharden.errors import ModelError
from medharden.exporting.forms import Runner
from medharden.models import HardenedClassifier, answers
from medharden.record import Parity

__all__ = ["TOLERANCE", "compare", "require_parity"]

TOLERANCE = {"": 1e-4, "fp16": 1e-3}
"""Largest difference of a logit that a form may have, in shares of the largest logit where that is above 1.

Of int8 nothing is promised: what it answers is to be evaluated.
"""

_BATCHES = (1, 2, 5)


@torch.no_grad()
def compare(model: HardenedClassifier, run: Runner, shape: tuple[int, ...], given: Tensor | None = None) -> Parity:
    """Answers inputs by both, in batches of several sizes.

    Args:
        model: the composite, on the CPU.
        run: the exported form.
        shape: (C, *spatial) of a case.
        given: (N, C, *spatial) in [0, 1] to compare on; null draws a few of smooth and of rough noise.
    """
    inputs = _drawn(shape) if given is None else given
    largest, scale, changed, referred, start, turn = 0.0, 0.0, 0, 0, 0, 0
    while start < len(inputs):
        batch = inputs[start : start + _BATCHES[turn % len(_BATCHES)]]
        start, turn = start + len(batch), turn + 1
        ours, theirs = model.assess(batch), run(batch)
        largest = max(largest, float((ours.logits - theirs["logits"]).abs().max()))
        scale = max(scale, float(ours.logits.abs().max()))
        decided = answers(ours.logits + model.decision_bias, multilabel=model.multilabel)
        other = (decided != theirs["answer"]).reshape(len(batch), -1).any(1)
        changed += int(other.sum())
        referred += int((ours.referred != theirs["refer"]).sum())
    return Parity(len(inputs), largest, scale, changed, referred)


def require_parity(parity: Parity, form: str, quantised: str) -> None:
    """Refuses a form that answers otherwise than the composite.

    Raises:
        ModelError: a logit differs by more than the form may.
    """
    if quantised not in TOLERANCE:
        return
    if not parity.share <= TOLERANCE[quantised]:
        limit = TOLERANCE[quantised] * max(1.0, parity.scale)
        raise ModelError(
            f"the model written as {form} differs from the composite by up to {parity.largest:.3g} in a logit; "
            f"expected at most {limit:.3g}. Nothing was written: the network has a step that this form computes "
            "otherwise"
        )


def _drawn(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(20)
    rough = torch.rand((5, *shape), generator=generator)
    coarse = torch.rand((5, shape[0], *(max(1, size // 8) for size in shape[1:])), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="nearest")
    ends = torch.stack([torch.ones(shape), torch.zeros(shape), torch.full(shape, 0.5)])
    return torch.cat([ends, rough, smooth])
