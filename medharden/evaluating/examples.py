"""A few attacked cases as pictures for the report."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors.torch import save
from torch import Tensor

from medharden import ranks
from medharden.attacks import SuiteResult
from medharden.evaluating.subjects import Subject
from medharden.rows import Cases

__all__ = ["examples_of"]

_EXAMPLES_A_CLASS = 2


@torch.no_grad()
def examples_of(
    subjects: tuple[Subject, ...], results: dict[str, SuiteResult], inputs: Cases, labels: Tensor, places: Tensor
) -> bytes:
    """A few cases a class as pictures, those first that fool the original and not the release.

    Args:
        subjects: original, branch and composite.
        results: over all attacked cases; their adversarial inputs are of this process's share.
        inputs: (n, C, *spatial) all attacked cases.
        labels: (n,) of the same.
        places: (m,) of the share among them.
    """
    original, composite = results["original"], results["composite"]
    telling = [a not in ("", "clean") and b == "" for a, b in zip(original.won_by, composite.won_by, strict=True)]
    order = sorted(range(len(labels)), key=lambda i: (not telling[i], i))
    chosen = [
        i for k in sorted(set(labels.tolist())) for i in [j for j in order if int(labels[j]) == k][:_EXAMPLES_A_CLASS]
    ]

    def answers(subject: Subject, images: Tensor) -> Tensor:
        columns: Callable[[Tensor], Tensor] = subject.view
        logits = columns(images)
        return logits.argmax(1).cpu()

    first, last = subjects[0], subjects[-1]
    clean = inputs[chosen]
    original_found, found = (_shown(result.adversarial, chosen, places) for result in (original, composite))
    tensors = {
        "clean": clean.cpu(),
        "adversarial_original": original_found.cpu(),
        "adversarial": found.cpu(),
        "label": labels[chosen].cpu(),
        "original_clean": answers(first, clean),
        "original_attacked": answers(first, original_found),
        "composite_clean": answers(last, clean),
        "composite_attacked": answers(last, found),
    }
    return save({k: v.contiguous() for k, v in tensors.items()})


def _shown(own: Cases, chosen: list[int], places: Tensor) -> Tensor:
    """(n, C, *spatial) the chosen cases, each from the process that has it."""
    mine = {int(place): row for row, place in enumerate(places)}
    here = [n for n, case in enumerate(chosen) if case in mine]
    rows = [mine[chosen[n]] for n in here]
    images = own[rows] if rows else torch.empty((0, *own.shape[1:]), dtype=own.dtype, device=own.device)
    return ranks.in_order(images, torch.tensor(here, dtype=torch.int64))
