"""Updates of low rank over frozen weights: what a `lora` branch learned, kept apart so that it is stored so.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from medharden.errors import ModelError
from medharden.text import neutral

__all__ = ["LowRank", "read_low_rank", "updated"]

_UP, _DOWN = ".low_rank.up", ".low_rank.down"


@dataclass(frozen=True, eq=False)
class LowRank:
    """An update up @ down of a weight that is seen as a matrix (outputs, rest).

    Attributes:
        up: (outputs, rank) float32.
        down: (rank, rest) float32.
    """

    up: Tensor
    down: Tensor

    def entries(self, key: str) -> dict[str, Tensor]:
        """Both factors under the names that a file has them by."""
        return {key + _UP: self.up, key + _DOWN: self.down}

    @property
    def size(self) -> int:
        """Numbers that it holds."""
        return self.up.numel() + self.down.numel()


def updated(weight: Tensor, update: LowRank) -> Tensor:
    """The weight plus its update: the same bits on every machine, so that a digest of the sum holds everywhere.

    Products of two float32 are exact in float64, and are added up in order of rank; a library's matrix product adds in
    whichever order is fast.

    Args:
        weight: (outputs, ...) float32.
        update: of as many outputs and as many further entries.
    """
    total = weight.detach().cpu().flatten(1).double()
    up, down = update.up.detach().cpu().double(), update.down.detach().cpu().double()
    for column, row in zip(up.unbind(1), down.unbind(0), strict=True):
        total += column[:, None] * row[None, :]
    return total.to(weight.dtype).view_as(weight).to(weight.device)


def read_low_rank(state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> tuple[dict[str, LowRank], set[str]]:
    """Branch weights that a file holds as factors.

    Args:
        state: tensors of the file, by name.
        weights: by the branch's name of a weight, that of the clean path which it updates.

    Returns:
        The factors by the name of the weight, and the names in `state` that they were read from.

    Raises:
        ModelError: factors of another shape or type, or larger than the weight itself.
    """
    found: dict[str, LowRank] = {}
    read: set[str] = set()
    for key in sorted(name.removesuffix(_UP) for name in state if name.endswith(_UP)):
        base, up, down = weights.get(key), state[key + _UP], state.get(key + _DOWN)
        fits = (
            base is not None
            and down is not None
            and base.ndim >= 2
            and up.ndim == down.ndim == 2
            and {up.dtype, down.dtype, base.dtype} == {torch.float32}
            and up.shape[1] == down.shape[0] > 0
            and (up.shape[0], down.shape[1]) == (base.shape[0], base[0].numel())
            and up.numel() + down.numel() < base.numel()
        )
        if not fits or base is None or down is None:
            raise ModelError(
                f"hardened.safetensors: the update of {neutral(key)[:100]} does not fit the clean path's weight; "
                "expected float32 factors (outputs, rank) and (rank, rest), smaller than the weight"
            )
        found[key] = LowRank(up, down)
        read |= {key + _UP, key + _DOWN}
    return found, read
