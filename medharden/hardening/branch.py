"""The robust branch: a copy of the clean path, and which of its weights train."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.models import Classifier
from medharden.record import BranchRecord

__all__ = ["branch_form", "branch_record", "make_branch", "trained_state"]

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


def make_branch(clean_path: Classifier, form: str) -> Classifier:
    """Copies the clean path; only the returned copy's chosen weights require gradients.

    The branch stays in eval mode throughout: with batch statistics in the step and running statistics outside it,
    adversarial training does not carry over.

    Args:
        clean_path: the model as it came; nothing of it is shared.
        form: `full` trains every weight; `norm` trains normalisation layers' affine parameters and the classifier.
    """
    branch = copy.deepcopy(clean_path)
    branch.requires_grad_(form == "full")
    if form == "norm":
        for module in branch.modules():
            if _normalises(module):
                module.requires_grad_(True)
        _classifier_layer(branch).requires_grad_(True)
    return branch.eval()


def branch_form(clean_path: Classifier, wanted: str) -> str:
    """`full` or `norm`, with the protocol's `auto` settled by the network at hand.

    Raises:
        ModelError: `norm` is asked for and the network has no normalisation layer with weights.
    """
    found = any(_normalises(m) and any(True for _ in m.parameters()) for m in clean_path.modules())
    if wanted == "norm" and not found:
        raise ModelError(
            "hardening.branch is norm, but the network has no normalisation layer with weights; set it to full or auto"
        )
    return wanted if wanted != "auto" else "norm" if found else "full"


def _normalises(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or type(module).__name__.startswith("LayerNorm")


def _classifier_layer(branch: Classifier) -> nn.Module:
    """The last layer with a weight matrix: it makes the logits."""
    layers = [m for m in branch.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Conv3d))]
    return layers[-1]


def trained_state(branch: Classifier) -> dict[str, Tensor]:
    """Copies of the weights that train, by name."""
    return {n: p.detach().clone() for n, p in branch.named_parameters() if p.requires_grad}


def branch_record(branch: Classifier, form: str, best_epoch: int) -> BranchRecord:
    """What trained, and what the branch adds to the stored model."""
    trained = sum(p.numel() for p in branch.parameters() if p.requires_grad)
    return BranchRecord(form=form, trained_parameters=trained, stored_parameters=trained, best_epoch=best_epoch)
