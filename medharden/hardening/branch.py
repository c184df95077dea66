"""The robust branch: a copy of the clean path, and which of its weights train."""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medharden.errors import ModelError
from medharden.models import Classifier, LowRank, updated
from medharden.record import BranchRecord

__all__ = [
    "branch_record",
    "check_form",
    "check_gradient",
    "classifier_layer",
    "make_branch",
    "merge",
    "rank_of",
    "trained_state",
]

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


_SHARE = 12  # an update takes at most a twelfth of the numbers of its weight


def rank_of(weight: Tensor, most: int) -> int:
    """The rank of a weight's update: as large as allowed, while it takes at most a twelfth of the weight; 1 at least.

    So a branch adds less than a tenth to what is stored, with what else trains: an update of rank 8 is a quarter of a
    3x3x3 convolution with 32 outputs, and more than a depthwise one.

    Args:
        weight: (outputs, ...).
        most: the protocol's rank.
    """
    outputs, rest = weight.flatten(1).shape
    return max(1, min(most, outputs, rest, weight.numel() // (_SHARE * (outputs + rest))))


class _LowRank(nn.Module):
    """Adds up @ down, of low rank, to a frozen weight as a matrix (outputs, rest); starts at zero (Hu et al. 2022)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, rest = weight.flatten(1).shape
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))
        self.down = nn.Parameter(weight.new_empty(rank, rest))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def make_branch(clean_path: Classifier, form: str, *, rank: int, seed: int) -> Classifier:
    """Copies the clean path; only the returned copy's chosen weights require gradients.

    The branch stays in eval mode throughout: with batch statistics in the step and running statistics outside it,
    adversarial training does not carry over.

    Args:
        clean_path: the model as it came; nothing of it is shared.
        form: `full` trains every weight; `norm` trains normalisation layers' affine parameters and the classifier;
            `lora` trains these and low-rank updates of convolutions and matrices, which `merge` adds up in the end.
        rank: of the updates, at most (`rank_of`).
        seed: of their start.
    """
    branch = copy.deepcopy(clean_path)
    branch.requires_grad_(form == "full")
    if form == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            whole = classifier_layer(branch)
            for layer in [m for m in branch.modules() if isinstance(m, _WEIGHTED) and m is not whole]:
                parametrize.register_parametrization(
                    layer, "weight", _LowRank(layer.weight, rank_of(layer.weight, rank))
                )
    if form in ("norm", "lora"):
        for module in branch.modules():
            if _normalises(module):
                module.requires_grad_(True)
        last = classifier_layer(branch)
        if last is not None:
            last.requires_grad_(True)
    return branch.eval()


def check_form(clean_path: Classifier, form: str) -> None:
    """Refuses a form that the network has nothing for.

    Raises:
        ModelError: `norm` is asked for and the network has no normalisation layer with weights, or `lora` and it has
            no layer to update.
    """
    found = any(_normalises(m) and any(True for _ in m.parameters()) for m in clean_path.modules())
    if form == "lora" and classifier_layer(clean_path) is None:
        raise ModelError(
            "hardening.branch is lora, but the network has no convolution or linear layer of torch's; set it to full"
        )
    if form == "norm" and not found:
        raise ModelError(
            "hardening.branch is norm, but the network has no normalisation layer with weights; set it to full"
        )


def check_gradient(branch: Classifier, inputs: Tensor) -> None:
    """Refuses a branch whose answer leads no gradient back to its weights.

    Args:
        branch: from `make_branch`.
        inputs: (N, C, *spatial) in [0, 1], on its device.

    Raises:
        ModelError: the network cuts the graph on its way to the logits.
    """
    if not branch(inputs).requires_grad:
        raise ModelError(
            "the network's answer has no gradient in its weights, so no branch can be trained: it takes an argmax, "
            "detaches its output or runs without gradients; expected logits as the last layer makes them"
        )


def _normalises(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or type(module).__name__.startswith("LayerNorm")


def merge(branch: Classifier) -> None:
    """Adds low-rank updates into the weights they belong to: the branch is then an ordinary network again.

    What was added stays at hand as `branch.low_rank`, and is what the model is stored with.
    """
    for name, module in list(branch.named_modules()):
        if parametrize.is_parametrized(module, "weight"):
            parts = list(cast("nn.ModuleList", module.parametrizations["weight"]))
            learned = parts[0]
            if len(parts) > 1 or not isinstance(learned, _LowRank):  # a network's own, such as a weight norm
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
                continue
            update = LowRank(learned.up.detach().clone(), learned.down.detach().clone())
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            weight = cast("nn.Parameter", module.weight)
            with torch.no_grad():
                weight.copy_(updated(weight, update))
            branch.low_rank[f"{name}.weight"] = LowRank(update.up.cpu(), update.down.cpu())


def classifier_layer(branch: Classifier) -> nn.Module | None:
    """The layer that makes the logits: the last with a weight for each of them, for a network may return more.

    Null where the network has no such layers, as one that calls functions on weights of its own.
    """
    outputs = 1 if branch.record.one_logit else branch.record.classes
    weighted = [m for m in branch.modules() if isinstance(m, _WEIGHTED)]
    fitting = [m for m in weighted if len(m.weight) == outputs] or weighted
    return fitting[-1] if fitting else None


def trained_state(branch: Classifier) -> dict[str, Tensor]:
    """Copies of the weights that train, by name."""
    return {n: p.detach().clone() for n, p in branch.named_parameters() if p.requires_grad}


def branch_record(clean_path: Classifier, branch: Classifier, form: str, trained: int, best_epoch: int) -> BranchRecord:
    """What trained, and what the branch adds to the stored model: tensors that differ, or their updates if smaller."""
    own = dict(branch.named_parameters())
    stored = sum(
        min(p.numel(), branch.low_rank[name].size) if name in branch.low_rank else p.numel()
        for name, p in clean_path.named_parameters()
        if not torch.equal(p, own[name])
    )
    ranks = [update.up.shape[1] for update in branch.low_rank.values()]
    return BranchRecord(
        form=form,
        trained_parameters=trained,
        stored_parameters=stored,
        best_epoch=best_epoch,
        ranks=(min(ranks), max(ranks)) if ranks else None,
    )
