"""Less memory for a training step: what blocks of a network answer inside is computed again for the backward pass.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174), by torch's own `checkpoint`. The
gradients are the same: a branch trains in eval mode, so a block computes the same a second time.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["keep_all", "recompute"]


def recompute(network: nn.Module) -> int:
    """Has a network's blocks compute their inner values again instead of keeping them; returns how many blocks.

    Blocks are the outermost items of sequences and lists that are made of several layers themselves: the residual
    blocks of a ResNet, the dense blocks of a DenseNet, the blocks of a transformer. A network without any stays as is.

    Args:
        network: in place; its weights and its answers stay the same.
    """
    found = _blocks(network)
    for block in found:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    return len(found)


def keep_all(network: nn.Module) -> None:
    """Takes back what `recompute` did."""
    for block in _blocks(network):
        if "forward" in vars(block):
            del block.forward


def _blocks(network: nn.Module) -> list[nn.Module]:
    if isinstance(network, nn.Sequential | nn.ModuleList):
        composite = [item for item in network if any(True for _ in item.children())]
        if composite:
            return composite
    return [block for child in network.children() for block in _blocks(child)]
