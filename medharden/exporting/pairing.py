"""Both paths of an exported graph in one pass over twice the cases, where few of their layers differ.

A case's values on both paths lie side by side in the batch: row 2n is the clean path's, row 2n + 1 the branch's. A
layer that both hold runs once over all rows. Seen as (N, 2 C, ...), both rows of a case are channels of one, so that
batch normalisation of each path's own is one of twice the channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medharden.errors import ModelError
from medharden.exporting.sharing import Added, first_shared
from medharden.models import Classifier

__all__ = ["BySize", "Paired", "pair"]

_Module = TypeVar("_Module", bound=nn.Module)

_SMALL = 2  # cases up to which one pass over both paths' rows took less time than two passes, see docs/production.md
_CLOSE = 1e-5  # of the largest logit, where that is above 1
# what a network raises that is given more rows than it has in mind, or another layer than its own
_UNFIT = (ModelError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


class Paired(nn.Module):
    """(N, C, *spatial) in [0, 1] to (N, K) logits of the clean path and of the branch, in one pass."""

    def __init__(self, both: Classifier, *, stem: bool) -> None:
        """Takes the network over rows of both, and whether its first layer is given each case once."""
        super().__init__()
        self.both, self.stem = both, stem

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        prepared = self.both.prepared(inputs)
        rows = prepared if self.stem else _rows(prepared, prepared)
        logits = self.both.answered(rows, rows=2 if self.stem else 1)
        clean, robust = _cases(logits).unbind(1)
        return clean, robust


class BySize(nn.Module):
    """Both paths in one pass for a few cases, and in a pass each for many; what it answers is the same."""

    most = _SMALL

    def __init__(self, one: Paired, each: nn.Module) -> None:
        """Takes the two ways, which hold what they can together."""
        super().__init__()
        self.one, self.each = one, each

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, *spatial) in [0, 1] to (N, K) logits of the clean path and of the branch."""
        answered: tuple[Tensor, Tensor] = (self.one if len(inputs) <= self.most else self.each)(inputs)
        return answered


@torch.no_grad()
def pair(clean: Classifier, robust: Classifier, inputs: Tensor, decided: Callable[[Tensor], Tensor]) -> Paired | None:
    """Both paths as one network, where they differ in few numbers and that network answers as they do.

    It does not where cases of a batch touch one another, or the network's own code reaches into its layers.

    Args:
        clean: path whose tensors the branch holds where they are equal (`tie`).
        robust: the branch.
        inputs: (6, C, *spatial) in [0, 1] to hold the answers against each other on, in batches of 1, 2 and 3.
        decided: logits to answers; those of the clean path must be the very same.

    Returns:
        The network, which holds their tensors, or null where each path is to answer by itself.
    """
    held, own = ({id(p): p.numel() for p in path.parameters()} for path in (clean, robust))
    same = sum(size for key, size in held.items() if key in own)
    low_rank = any(isinstance(part, Added) for part in robust.modules())  # slower so, see docs/production.md
    if low_rank or 2 * same < sum(held.values()) or clean.record != robust.record or not _same(clean, robust):
        return None
    for first in dict.fromkeys((first_shared(clean, robust, inputs), None)):
        try:
            paired = Paired(_joined(clean, robust, first), stem=first is not None)
            if all(_agree(paired, clean, robust, part, decided) for part in torch.split(inputs, [1, 2, 3])):
                return paired
        except _UNFIT:  # what the network says of a batch that it wasn't given is not for who exports
            continue
    return None


def _agree(
    paired: Paired, clean: Classifier, robust: Classifier, inputs: Tensor, decided: Callable[[Tensor], Tensor]
) -> bool:
    expected, found = (clean(inputs), robust(inputs)), paired(inputs)
    near = (
        one.shape == other.shape and float((one - other).abs().max()) <= _CLOSE * max(1.0, float(one.abs().max()))
        for one, other in zip(expected, found, strict=True)
    )
    return all(near) and torch.equal(decided(expected[0]), decided(found[0]))


def _joined(clean: Classifier, robust: Classifier, first: str | None) -> Classifier:
    """The clean path with a layer for both in the place of each that differs; that of `first` makes the rows."""
    both, replaced = _copied(clean), [" "]
    constants: dict[int, tuple[Tensor, Tensor]] = {}
    for name, layer in clean.named_modules():
        other = robust.get_submodule(name)
        if name.startswith(tuple(replaced)) or (name != first and _same(layer, other)):
            continue
        if name == first:
            made: nn.Module = _Stem(layer)
        elif isinstance(layer, _BatchNorm) and layer.affine and layer.running_mean is not None:
            made = _Wide(layer, cast("_BatchNorm", other), constants)
        else:
            made = _Each(layer, other)
        place, _, key = name.rpartition(".")
        setattr(both.get_submodule(place), key, made)
        replaced.append(f"{name}.")
    return both.eval().requires_grad_(False)


class _Stem(nn.Module):
    """The first layer, given each case once, and both paths' rows of what it found."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.layer(inputs)
        return _rows(found, found)


class _Wide(nn.Module):
    """Batch normalisation, and what the layer does behind it, of both rows of a case as channels of one."""

    def __init__(self, layer: _BatchNorm, other: _BatchNorm, constants: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Takes each path's layer, and zeros and ones by their number, which layers hold together."""
        super().__init__()
        self.channels, scales, shifts = layer.num_features, [], []
        for part in (layer, other):
            mean, variance = cast("Tensor", part.running_mean).double(), cast("Tensor", part.running_var).double()
            scales.append(part.weight.double() / (variance + part.eps).sqrt())
            shifts.append(part.bias.double() - mean * scales[-1])
        wide = _copied(layer)
        wide.weight, wide.bias = (nn.Parameter(torch.cat(parts).float()) for parts in (scales, shifts))
        zeros, ones = torch.zeros_like(wide.bias.data), torch.ones_like(wide.bias.data)
        wide.running_mean, wide.running_var = constants.setdefault(len(zeros), (zeros, ones))
        wide.eps, wide.num_features = 1e-12, 2 * self.channels  # nothing beside a variance of 1; PyTorch may refuse 0
        self.layer = wide

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.layer(_cases(rows).flatten(1, 2))
        return torch.unflatten(found, 1, (2, self.channels)).flatten(0, 1)


class _Each(nn.Module):
    """Each path's own layer over its rows."""

    def __init__(self, layer: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.layer, self.other = layer, other

    def forward(self, rows: Tensor) -> Tensor:
        clean, robust = _cases(rows).unbind(1)
        return _rows(self.layer(clean), self.other(robust))


def _rows(clean: Tensor, robust: Tensor) -> Tensor:
    """(N, ...) twice to (2 N, ...)."""
    return torch.stack([clean, robust], 1).flatten(0, 1)


def _cases(rows: Tensor) -> Tensor:
    """(2 N, ...) to (N, 2, ...)."""
    return torch.unflatten(rows, 0, (-1, 2))


def _copied(layer: _Module) -> _Module:
    """A copy that holds the same tensors."""
    return copy.deepcopy(layer, {id(t): t for t in (*layer.parameters(), *layer.buffers())})


def _same(layer: nn.Module, other: nn.Module) -> bool:
    """Whether two layers themselves hold the same tensors."""
    own, others = (
        {key: id(t) for held in (part._parameters, part._buffers) for key, t in held.items()} for part in (layer, other)
    )
    return own == others
