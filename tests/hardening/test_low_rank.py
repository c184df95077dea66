"""How large an update of low rank may be, and what a release with such a branch takes to store."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from deployable import composite
from safetensors.torch import save

from medharden.hardening.branch import rank_of
from medharden.models import hardened_bytes, load_classifier
from medharden.protocol import ModelSpec


@pytest.mark.parametrize(
    ("shape", "most", "rank"),
    [
        ((32, 128, 3, 3, 3), 8, 2),  # a 3x3x3 convolution of a DenseNet
        ((1280, 320, 1, 1), 8, 8),
        ((1280, 320, 1, 1), 1000, 21),
        ((64, 64), 8, 2),
        ((960, 1, 3, 3), 8, 1),  # depthwise
        ((2, 2), 8, 1),
    ],
)
def test_an_update_takes_a_twelfth_of_its_weight_at_most_and_has_a_rank(
    shape: tuple[int, ...], most: int, rank: int
) -> None:
    weight = torch.zeros(shape)
    assert rank_of(weight, most) == rank
    size = rank * (shape[0] + weight[0].numel())
    assert size <= weight.numel() / 12 or rank == 1


def test_a_release_of_a_network_of_volumes_is_a_tenth_larger_at_most(tmp_path: Path) -> None:
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)
    torch.save(network.state_dict(), tmp_path / "d.pt")
    clean = load_classifier(tmp_path / "d.pt", spec=ModelSpec(arch="monai:DenseNet121"), dims=3)
    model = composite(clean, (1, 32, 32, 32), "mixed", "lora", rank=8)
    assert len(hardened_bytes(model, b"")) <= 1.1 * len(save(network.state_dict()))
