"""The composite as one graph: input in [0, 1] to logits, probabilities, answer and referral."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from medharden.models import HardenedClassifier, answers, assess, probabilities
from medharden.record import FusionRecord

__all__ = ["OUTPUTS", "Deployed", "deployed"]

OUTPUTS = ("logits", "probabilities", "answer", "refer")


class Deployed(nn.Module):
    """(N, C, *spatial) float32 in [0, 1] to what a reader is told.

    Outputs by name: `logits` (N, K) float32 as the composite gives them; `probabilities` (N, K) float32; `answer` (N,)
    int64, the class under the decision threshold, or (N, L) int64 of 0 and 1, whether each finding is there; `refer`
    (N,) bool, where a reader is told to look (all false but for `guarded`).
    """

    bias: Tensor

    def __init__(
        self, paths: tuple[nn.Module | None, nn.Module | None], fusion: FusionRecord, bias: Tensor, *, multilabel: bool
    ) -> None:
        """Takes both paths, or null for one that is never asked, and how the composite answers."""
        super().__init__()
        self.clean, self.robust = paths
        self.fusion, self.multilabel = fusion, multilabel
        self.register_buffer("bias", bias)
        self.eval().requires_grad_(False)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """See the class."""
        several = self.multilabel
        assessed = assess((self.clean, self.robust), inputs, self.fusion, self.bias, multilabel=several)
        decided = answers(assessed.logits + self.bias, multilabel=several)
        shares = probabilities(assessed.logits, multilabel=several)
        values = (assessed.logits, shares, decided, assessed.referred)
        return dict(zip(OUTPUTS, values, strict=True))


class _Half(nn.Module):
    """A network that computes in half precision, between float32 input and output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, inputs: Tensor) -> Any:
        def widened(part: Any) -> Any:
            return part.float() if isinstance(part, Tensor) and part.is_floating_point() else part

        return tree_map(widened, self.network(inputs.half()))


def deployed(model: HardenedClassifier, *, half: bool = False, mode: str = "") -> Deployed:
    """A copy of the composite as a graph; what the two paths share is one tensor in it.

    A path that the fusion mode never asks is left out.

    Args:
        model: on any device; left as it was.
        mode: of fusion, in the place of the model's own: `clean` is the original alone.
        half: whether both networks compute in half precision; normalisation and fusion stay in single.
    """
    clean, robust = copy.deepcopy(model.clean_path).cpu(), copy.deepcopy(model.robust_branch).cpu()
    if half:
        clean.network, robust.network = _Half(clean.network), _Half(robust.network)
    _tie(clean, robust)
    fusion = replace(model.fusion, mode=mode or model.fusion.mode)
    mode = fusion.mode
    paths = (None if mode == "robust" else clean, None if mode == "clean" else robust)
    return Deployed(paths, fusion, model.decision_bias.detach().cpu().clone(), multilabel=model.multilabel)


def _tie(clean: nn.Module, robust: nn.Module) -> None:
    """Puts the clean path's tensors in the place of the branch's that equal them bit for bit."""
    own = {name: tensor for name, tensor, _, _ in _tensors(clean)}
    for name, tensor, place, key in list(_tensors(robust)):
        twin = own.get(name)
        if twin is not None and twin.dtype == tensor.dtype and twin.shape == tensor.shape and _equal(twin, tensor):
            place[key] = twin


def _equal(one: Tensor, other: Tensor) -> bool:
    """Of their bytes: -0.0 equals 0.0, and NaN nothing."""
    first, second = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(first, second)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, dict[str, Any], str]]:
    """Every parameter and buffer with its name, and where it is held under which key."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        for held in (part._parameters, part._buffers):
            for key, tensor in held.items():
                if tensor is not None:
                    yield f"{prefix}.{key}", tensor, held, key
