"""What attacks are searched on: a copy of the model that is faster and answers the same but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.attacks.laying_out import lay_out
from medharden.attacks.victim import refers
from medharden.pinning import loose_copy
from medharden.protocol import Precision

__all__ = ["searched", "with_surrogate_slopes"]

_SLOPE = 0.1  # added to an activation's own
_FLAT = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish)


def searched(model: nn.Module, dims: int, precision: Precision = "float32") -> nn.Module:
    """A faster copy of the model to search on; the model itself where there is none.

    A success on the copy is only a candidate: whoever searches asks the model itself.

    Args:
        model: to copy as it is.
        dims: spatial dimensions of its input.
        precision: `bfloat16` computes convolutions and matrix products in half the bits.
    """
    copied = _copied(model)
    if copied is None:
        return model
    lay_out(copied, dims, fast=True)
    return _HalfPrecision(copied) if precision == "bfloat16" else copied


def _copied(model: nn.Module) -> nn.Module | None:
    """A copy; null where there can't be one: of weights that carry a graph, or of a lock or a file that it holds."""
    try:
        return loose_copy(model)
    except (RuntimeError, TypeError):
        return None


class _HalfPrecision(nn.Module):
    """A model whose convolutions and matrix products are computed in bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.refers, self.training = model, refers(model), model.training

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            logits: Tensor = self.model(inputs)
        return logits.float()


def with_surrogate_slopes(model: nn.Module) -> nn.Module | None:
    """A copy that answers alike, and whose saturated activations have a slope in the backward pass.

    Backward pass differentiable approximation (Athalye et al. 2018): where every unit of a layer is saturated, the
    gradient is exactly zero, and an attack that follows it learns nothing, though the input may have a way out.

    Args:
        model: whose activations are modules (ReLU, ReLU6 and other pieces of straight lines).

    Returns:
        The copy; null where there is nothing to replace or the model can't be copied.
    """
    copied = _copied(model)
    if copied is None:
        return None
    flat = [
        (module, name, layer)
        for module in copied.modules()
        for name, layer in module.named_children()
        if type(layer) in _FLAT
    ]
    for module, name, layer in flat:
        setattr(module, name, _Sloped(layer))
    return copied if flat else None


class _Sloped(nn.Module):
    """An activation, exactly; its slope is steeper by `_SLOPE` in the backward pass."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.training = layer, layer.training
        layer.inplace = False  # type: ignore[assignment]  # all of these have it, and the input is needed once more

    def forward(self, inputs: Tensor) -> Tensor:
        line = _SLOPE * inputs
        outputs: Tensor = self.layer(inputs)
        return outputs + (line - line.detach())
