"""A few attacked cases as pictures for the report."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors.torch import save
from torch import Tensor

from medharden.attacks import SuiteResult
from medharden.evaluating.subjects import Subject
from medharden.rows import Cases

__all__ = ["examples_of"]

_EXAMPLES_A_CLASS = 2


@torch.no_grad()
def examples_of(subjects: tuple[Subject, ...], results: dict[str, SuiteResult], inputs: Cases, labels: Tensor) -> bytes:
    """A few cases a class as pictures, those first that fool the original and not the release."""
    original, composite = results["original"], results["composite"]
    telling = [a not in ("", "clean") and b == "" for a, b in zip(original.won_by, composite.won_by, strict=True)]
    order = sorted(range(len(labels)), key=lambda i: (not telling[i], i))
    chosen = [
        i for k in sorted(set(labels.tolist())) for i in [j for j in order if int(labels[j]) == k][:_EXAMPLES_A_CLASS]
    ]

    def answers(subject: Subject, images: Cases) -> Tensor:
        columns: Callable[[Tensor], Tensor] = subject.view
        logits = columns(images[chosen])
        return logits.argmax(1).cpu()

    first, last = subjects[0], subjects[-1]
    tensors = {
        "clean": inputs[chosen].cpu(),
        "adversarial_original": original.adversarial[chosen].cpu(),
        "adversarial": composite.adversarial[chosen].cpu(),
        "label": labels[chosen].cpu(),
        "original_clean": answers(first, inputs),
        "original_attacked": answers(first, original.adversarial),
        "composite_clean": answers(last, inputs),
        "composite_attacked": answers(last, composite.adversarial),
    }
    return save({k: v.contiguous() for k, v in tensors.items()})
