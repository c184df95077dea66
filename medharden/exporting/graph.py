"""The composite as one graph: input in [0, 1] to logits, probabilities, answer and referral."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from medharden.exporting.pairing import BySize, Paired, pair
from medharden.exporting.sharing import keep_low_rank, share_first, tie
from medharden.models import HardenedClassifier, answers, fuse, probabilities
from medharden.record import FusionRecord

__all__ = ["OUTPUTS", "Deployed", "deployed"]

OUTPUTS = ("logits", "probabilities", "answer", "refer")


class Apart(nn.Module):
    """(N, C, *spatial) in [0, 1] to (N, K) logits of the clean path and of the branch, each by itself.

    Either may be null: one that is never asked, and its logits.
    """

    def __init__(self, clean: nn.Module | None, robust: nn.Module | None) -> None:
        super().__init__()
        self.clean, self.robust = clean, robust

    def forward(self, inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """See the class."""
        clean, robust = (None if path is None else path(inputs) for path in (self.clean, self.robust))
        return clean, robust


class Deployed(nn.Module):
    """(N, C, *spatial) float32 in [0, 1] to what a reader is told.

    Outputs by name: `logits` (N, K) float32 as the composite gives them; `probabilities` (N, K) float32; `answer` (N,)
    int64, the class under the decision threshold, or (N, L) int64 of 0 and 1, whether each finding is there; `refer`
    (N,) bool, where a reader is told to look (all false but for `guarded`).
    """

    bias: Tensor

    def __init__(self, paths: Apart | Paired | BySize, fusion: FusionRecord, bias: Tensor, *, multilabel: bool) -> None:
        """Takes both paths, and how the composite answers."""
        super().__init__()
        self.paths = paths
        self.fusion, self.multilabel = fusion, multilabel
        self.register_buffer("bias", bias)
        self.eval().requires_grad_(False)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """See the class."""
        several = self.multilabel
        clean, robust = self.paths(inputs)
        assessed = fuse(clean, robust, self.fusion, self.bias, multilabel=several)
        decided = answers(assessed.logits + self.bias, multilabel=several)
        shares = probabilities(assessed.logits, multilabel=several)
        values = (assessed.logits, shares, decided, assessed.referred)
        return dict(zip(OUTPUTS, values, strict=True))


def deployed(model: HardenedClassifier, *, mode: str = "", paired: bool = False, shared: bool = True) -> Deployed:
    """A copy of the composite as a graph; what the two paths share is there once in it.

    A path that the fusion mode never asks is left out. Frozen weights under updates of low rank stay apart from them.

    Args:
        model: on any device; left as it was.
        mode: of fusion, in the place of the model's own: `clean` is the original alone.
        paired: answer a few cases by both paths in one pass, where the network bears it (`BySize`).
        shared: whether the paths share anything; false leaves each as it is in PyTorch, updates in its weights.
    """
    clean, robust = copy.deepcopy(model.clean_path).cpu(), copy.deepcopy(model.robust_branch).cpu()
    bias, several = model.decision_bias.detach().cpu().clone(), model.multilabel
    fusion = replace(model.fusion, mode=mode or model.fusion.mode)
    one: Paired | None = None
    if shared and fusion.mode in ("mixed", "guarded"):
        keep_low_rank(clean, robust)
        tie(clean, robust)
        if model.contract is not None:
            inputs = torch.rand((6, *model.contract.shape), generator=torch.Generator().manual_seed(0))
            if paired:
                one = pair(clean, robust, inputs, lambda logits: answers(logits + bias, multilabel=several))
            share_first(clean, robust, inputs[:2])
    each = Apart(None if fusion.mode == "robust" else clean, None if fusion.mode == "clean" else robust)
    return Deployed(each if one is None else BySize(one, each), fusion, bias, multilabel=several)
