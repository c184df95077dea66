"""Weights that a graph stores in parts, put together once when it is loaded: TorchScript's and `torch.export`'s."""

# Annotations are read by TorchScript's compiler, which knows no postponed ones.

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medharden.exporting.halving import Widened
from medharden.exporting.pairing import BySize
from medharden.exporting.sharing import Added

__all__ = ["choose_by_size", "fold_constants", "fold_when_loaded"]


class _Whole(nn.Module):
    """base + up @ down in single precision; a file holds the three, and their sum is taken when it is loaded."""

    base: Tensor
    up: Tensor
    down: Tensor
    weight: Tensor
    training: bool

    def __init__(self, base: Tensor, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.base, self.up, self.down = base, up, down
        self.weight = torch.addmm(base.float().flatten(1), up, down).view_as(base)

    def forward(self, base: Tensor) -> Tensor:
        return self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, Tensor, bool]:
        return (self.base, self.up, self.down, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, Tensor, bool]) -> None:
        self.base, self.up, self.down = state[0], state[1], state[2]
        self.training = state[3]
        self.weight = torch.addmm(self.base.float().flatten(1), self.up, self.down).view_as(self.base)


def fold_when_loaded(graph: nn.Module) -> None:
    """Has TorchScript put together what is stored in parts when the file is loaded, not at each pass.

    Args:
        graph: to be traced; changed in place.
    """
    for layer in list(graph.modules()):
        if not parametrize.is_parametrized(layer, "weight"):
            continue
        parts = cast("parametrize.ParametrizationList", layer.parametrizations["weight"])  # type: ignore[index]
        if not all(isinstance(part, (Added, Widened)) for part in parts):  # a network's own, such as a weight norm
            continue
        base = parts.original.detach()
        update = next((part for part in parts if isinstance(part, Added)), None)
        rank = 0 if update is None else update.up.shape[1]
        up = base.new_zeros((len(base), 0), dtype=torch.float32) if update is None else update.up
        down = up.new_zeros((rank, base[0].numel())) if update is None else update.down
        del parts[1:]
        parts[0] = torch.jit.script(_Whole(base, up, down))


class _Chosen(nn.Module):
    """`BySize` of two traced ways; a trace alone would hold the one that its example took."""

    def __init__(self, one: nn.Module, each: nn.Module, most: int) -> None:
        super().__init__()
        self.one, self.each, self.most = one, each, most

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if inputs.size(0) <= self.most:
            clean, robust = self.one(inputs)
        else:
            clean, robust = self.each(inputs)
        return clean, robust


def choose_by_size(graph: nn.Module, inputs: Tensor) -> None:
    """Has TorchScript choose between one pass and two when it runs.

    Args:
        graph: to be traced; changed in place.
        inputs: (N, C, *spatial) to trace each way on.
    """
    for layer in list(graph.modules()):
        for name, part in layer.named_children():
            if isinstance(part, BySize):
                one, each = (
                    torch.jit.trace(way, (inputs,), check_trace=False)  # type: ignore[no-untyped-call]
                    for way in (part.one, part.each)
                )
                setattr(layer, name, torch.jit.script(_Chosen(one, each, part.most)))


def fold_constants(program: nn.Module) -> None:
    """Computes once what a loaded program would compute of its weights alone at each pass.

    Args:
        program: `torch.export.load(FILE).module()`; changed in place.
    """
    from torch._inductor.constant_folding import constant_fold  # heavy, and needed here alone

    constant_fold(cast("torch.fx.GraphModule", program))
