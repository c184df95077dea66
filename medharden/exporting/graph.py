"""The composite as one graph: input in [0, 1] to logits, probabilities, answer and referral."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from medharden.exporting.sharing import keep_low_rank, share_first, tie
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


def deployed(model: HardenedClassifier, *, mode: str = "") -> Deployed:
    """A copy of the composite as a graph; what the two paths share is there once in it.

    A path that the fusion mode never asks is left out. Frozen weights under updates of low rank stay apart from them.

    Args:
        model: on any device; left as it was.
        mode: of fusion, in the place of the model's own: `clean` is the original alone.
    """
    clean, robust = copy.deepcopy(model.clean_path).cpu(), copy.deepcopy(model.robust_branch).cpu()
    fusion = replace(model.fusion, mode=mode or model.fusion.mode)
    mode = fusion.mode
    if mode in ("mixed", "guarded"):
        keep_low_rank(clean, robust)
        tie(clean, robust)
        if model.contract is not None:
            generator = torch.Generator().manual_seed(0)
            share_first(clean, robust, torch.rand((2, *model.contract.shape), generator=generator))
    paths = (None if mode == "robust" else clean, None if mode == "clean" else robust)
    return Deployed(paths, fusion, model.decision_bias.detach().cpu().clone(), multilabel=model.multilabel)
