"""Weights of an exported graph stored in half precision, as many as its answers bear; arithmetic stays in single."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Widened", "halve"]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_ROUNDS = 6


class Widened(nn.Module):
    """A weight in half precision, as single."""

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, ...) float32."""
        return weight.float()


@torch.no_grad()
def halve(graph: nn.Module, apart: Callable[[], float], limit: float) -> tuple[int, int]:
    """Stores weights of convolutions and linear layers in half precision, the largest first.

    All of them, where that keeps answers near enough; else as many as do, found by halving the number in doubt. One
    that two layers share stays shared. Rounding alone changes answers: normalisation, pooling, fusion and every product
    are computed as before.

    Args:
        graph: changed in place.
        apart: how far the graph's answers are from what they should be, as it is at the time.
        limit: of that.

    Returns:
        Numbers stored in half precision, and numbers in all such weights.
    """
    held: dict[int, list[tuple[nn.Module, Tensor]]] = {}
    for layer in list(_layers(graph)):
        weight = _stored(layer)
        held.setdefault(id(weight), []).append((layer, weight))
    groups = sorted(held.values(), key=lambda group: -group[0][1].numel())
    low, high, now = 0, len(groups), 0
    for turn in range(_ROUNDS):
        tried = high if turn == 0 else (low + high) // 2
        for number in range(min(now, tried), max(now, tried)):
            _set(groups[number], half=tried > now)
        now = tried
        low, high = (tried, high) if apart() <= limit else (low, tried)
        if low == high or (turn > 0 and high - low <= 1):
            break
    for number in range(low, now):
        _set(groups[number], half=False)
    sizes = [group[0][1].numel() for group in groups]
    return sum(sizes[:low]), sum(sizes)


def _layers(graph: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in graph.modules() if isinstance(layer, _LAYERS))


def _stored(layer: nn.Module) -> Tensor:
    """The weight as the layer holds it; behind an update of low rank the frozen one."""
    if parametrize.is_parametrized(layer, "weight"):
        return cast("Tensor", layer.parametrizations["weight"].original)  # type: ignore[index,union-attr]
    return cast("Tensor", layer.weight)


def _set(group: list[tuple[nn.Module, Tensor]], *, half: bool) -> None:
    """Puts one weight into half precision in every layer that holds it, or back as it was."""
    kept = nn.Parameter(group[0][1].half(), requires_grad=False) if half else None
    for layer, weight in group:
        updates = []
        if parametrize.is_parametrized(layer, "weight"):
            parts = cast("nn.ModuleList", layer.parametrizations["weight"])  # type: ignore[index]
            updates = [part for part in parts if not isinstance(part, Widened)]
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        layer.register_parameter("weight", cast("nn.Parameter", weight if kept is None else kept))
        for part in ([] if kept is None else [Widened()]) + updates:
            parametrize.register_parametrization(layer, "weight", part, unsafe=True)
