"""What both paths of an exported graph share: one tensor where weights are equal, one pass through the first layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medharden.models import Classifier, LowRank

__all__ = ["UPDATE", "Added", "first_shared", "keep_low_rank", "share_first", "tie"]

UPDATE = ".parametrizations."
"""What names of a graph's tensors hold that belong to an update."""

_LARGE = 256  # numbers behind an output: at 27, 49 and 147 sharing took longer or as long, at 343 less
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def tie(clean: nn.Module, robust: nn.Module) -> None:
    """Puts the clean path's tensors in the place of the branch's that equal them bit for bit."""
    own = {name: tensor for name, tensor, _, _ in _tensors(clean)}
    for name, tensor, place, key in list(_tensors(robust)):
        if _equal(own.get(name), tensor):
            place[key] = own[name]


class Added(nn.Module):
    """A frozen weight plus up @ down, computed where the graph runs; a runtime that folds constants does it once."""

    up: Tensor
    down: Tensor

    def __init__(self, update: LowRank) -> None:
        super().__init__()
        self.register_buffer("up", update.up.detach().cpu().clone())
        self.register_buffer("down", update.down.detach().cpu().clone())

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, ...) the sum."""
        return torch.addmm(weight.flatten(1), self.up, self.down).view_as(weight)


def keep_low_rank(clean: Classifier, robust: Classifier) -> None:
    """Has the branch hold the clean path's own weights and its updates, in the place of their sums.

    Args:
        clean: whose tensors are used as they are.
        robust: a copy of the branch; changed in place.
    """
    for name, update in robust.low_rank.items():
        place, _, key = name.rpartition(".")
        layer, base = robust.get_submodule(place), clean.get_parameter(name)
        weight = layer.get_parameter(key)
        if update.size < weight.numel() and torch.allclose(Added(update)(base), weight, atol=1e-5, rtol=1e-5):
            layer.register_parameter(key, base)
            parametrize.register_parametrization(layer, key, Added(update), unsafe=True)


class _Own(nn.Module):
    """A first layer with half its weights on twice its input: the same bits, and no runtime takes it for another's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        self.layer.register_parameter("weight", nn.Parameter(cast("Tensor", layer.weight) / 2, requires_grad=False))

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.layer(inputs * 2)
        return found


class _Keeping(nn.Module):
    """The clean path's first layer, whose output the branch takes too."""

    def __init__(self, layer: nn.Module, kept: list[Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.__dict__["kept"] = kept  # between the two, and no part of either's state

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.layer(inputs)
        self.__dict__["kept"][:] = [found]
        return found


class _Taking(nn.Module):
    """The branch's first layer: what the clean path's gave for the same input."""

    def __init__(self, kept: list[Tensor]) -> None:
        super().__init__()
        self.__dict__["kept"] = kept

    def forward(self, inputs: Tensor) -> Tensor:
        (found,) = self.__dict__["kept"]
        return cast("Tensor", found)


@torch.no_grad()
def first_shared(clean: Classifier, robust: Classifier, inputs: Tensor) -> str | None:
    """The name of the layer that both paths go through first, where that is the same layer on the same input.

    That layer, a convolution or a linear layer, must take the network's input itself, be called once a pass, and have
    the same weights in both; nothing may write to its output. Under an update of low rank each path has its own: two
    narrow convolutions and a sum took longer than one that is folded (docs/production.md).

    Args:
        clean: path whose tensors the branch holds where they are equal.
        robust: the branch.
        inputs: (N, C, *spatial) in [0, 1] to find that out on.
    """
    name = _first(clean, inputs)
    if name is None or name != _first(robust, inputs) or clean.record != robust.record:
        return None
    one, other = clean.get_submodule(name), robust.get_submodule(name)
    same = not parametrize.is_parametrized(other, "weight") and other.weight is one.weight and other.bias is one.bias
    return name if same and clean.mean is robust.mean and clean.std is robust.std else None


@torch.no_grad()
def share_first(clean: Classifier, robust: Classifier, inputs: Tensor) -> None:
    """Has both paths go through a first layer that they share once, where it is large, and else each by itself.

    A runtime folds normalisation into a convolution that nothing else reads, which saves more than a small one costs.

    Args:
        clean: path whose tensors the branch holds where they are equal; changed in place.
        robust: a copy of the branch; changed in place.
        inputs: (N, C, *spatial) in [0, 1] to find that out on.
    """
    name, kept = first_shared(clean, robust, inputs), list[Tensor]()
    if name is None:
        return
    layer = clean.get_submodule(name)
    if cast("Tensor", layer.weight)[0].numel() < _LARGE:
        _put(robust, name, _Own(layer))
    else:
        _put(clean, name, _Keeping(layer, kept))
        _put(robust, name, _Taking(kept))


def _put(path: nn.Module, name: str, layer: nn.Module) -> None:
    place, _, key = name.rpartition(".")
    setattr(path.get_submodule(place), key, layer)


def _first(path: Classifier, inputs: Tensor) -> str | None:
    """The layer that the network's input goes into, where it is one that can be shared."""
    calls: list[tuple[str, Tensor, Tensor, int]] = []
    names = {id(m): name for name, m in path.named_modules() if isinstance(m, (*_CONVOLUTIONS, nn.Linear))}

    def note(layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        calls.append((names[id(layer)], given[0], found, found._version))

    hooks = [m.register_forward_hook(note) for m in path.modules() if id(m) in names]
    try:
        path(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or not torch.equal(calls[0][1], path.prepared(inputs)):
        return None
    name, _, found, version = calls[0]
    once = sum(call[0] == name for call in calls) == 1
    return name if once and found._version == version else None


def _equal(one: Tensor | None, other: Tensor) -> bool:
    """Of their bytes: -0.0 equals 0.0, and NaN nothing."""
    if one is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(first, second)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, dict[str, Any], str]]:
    """Every parameter and buffer with its name, and where it is held under which key."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        for held in (part._parameters, part._buffers):
            for key, tensor in held.items():
                if tensor is not None:
                    yield f"{prefix}.{key}", tensor, held, key
