"""What no file says of a model is assumed in the open, until the protocol confirms it; and hints that users meet."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.models import load_classifier, timm_module
from medharden.models.building import require_fit
from medharden.models.timm_import import monai_networks
from medharden.protocol import ModelSpec

timm = timm_module()
vision = importlib.import_module("torchvision.models.vision_transformer")
STATED = ModelSpec(mean=(0.5,), std=(0.5,))


class Net(nn.Module):
    """A class of the user's own."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


def vit(size: int = 160, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model("test_vit", num_classes=2, img_size=size, **more)
    return network


def test_a_fine_tuned_foundation_model_says_no_mean_and_std_so_both_are_a_finding(tmp_path: Path) -> None:
    """As RETFound's fine-tuning saves it: weights, optimiser, scaler and arguments, of which none is a normaliser."""
    arguments = argparse.Namespace(model="RETFound_mae", input_size=160, nb_classes=2, drop_path=0.2, global_pool=True)
    content = {"model": vit().state_dict(), "optimizer": {}, "epoch": 7, "scaler": {}, "args": arguments}
    torch.save(content, tmp_path / "checkpoint-best.pth")
    spec = ModelSpec(arguments={"img_size": 160})
    record = load_classifier(tmp_path / "checkpoint-best.pth", arch="timm:test_vit", spec=spec).record
    [said] = [text for text in record.assumed if "mean" in text]
    assert "state model.mean and model.std in the protocol" in said
    assert "assumed" in record.origins["mean"]
    stated = STATED.model_copy(update={"arguments": {"img_size": 160}})
    assert load_classifier(tmp_path / "checkpoint-best.pth", arch="timm:test_vit", spec=stated).record.assumed == ()


def test_code_of_the_user_s_own_says_no_mean_and_std_so_both_are_a_finding(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "m.pt")
    arch = f"python:{__name__}:Net"
    record = load_classifier(tmp_path / "m.pt", arch=arch).record
    assert any("mean 0 (nothing says) and std 1 (nothing says)" in text for text in record.assumed)
    assert load_classifier(tmp_path / "m.pt", arch=arch, spec=STATED).record.assumed == ()
    ranged = load_classifier(tmp_path / "m.pt", arch=arch, spec=ModelSpec(range=(-1.0, 1.0))).record
    assert (ranged.mean, ranged.std, ranged.assumed) == ((0.5,), (0.5,), ())


def test_a_config_of_something_else_is_said_to_be_left_alone(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"learning_rate": 0.1}))
    record = load_classifier(tmp_path / "model.safetensors", arch="test_resnet").record
    assert any("config.json beside the weights is not of timm: not read" in text for text in record.origins.values())
    assert any("another normalisation is another model" in text for text in record.assumed)


def test_a_config_of_another_architecture_than_the_named_one_is_not_read_and_said(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.9] * 3, "std": [0.1] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    record = load_classifier(tmp_path / "model.safetensors", arch="test_resnet").record
    assert any("config.json is of timm:resnet18" in text for text in record.origins.values())
    assert record.mean != (0.9,) * 3


def test_a_transformer_of_another_image_size_is_refused_with_the_size_that_fits(tmp_path: Path) -> None:
    torch.save(vit(96).state_dict(), tmp_path / "m.pt")
    said = r"96 pixels.*model\.arguments: \{img_size: 96\}.*input\.size: \[96, 96\]"
    with pytest.raises(ModelError, match=said):
        load_classifier(tmp_path / "m.pt", arch="timm:test_vit", spec=ModelSpec(arguments={"img_size": 160}))


def _of_monai(size: int) -> nn.Module:
    nets = monai_networks()
    network: nn.Module = nets.ViT(
        in_channels=1, img_size=(size, size), patch_size=(16, 16), hidden_size=24, mlp_dim=24, num_layers=1,
        num_heads=2, proj_type="conv", spatial_dims=2, classification=True,
    )  # fmt: skip
    return network


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda size: vision.VisionTransformer(size, 16, 1, 2, 24, 24), r"48 pixels.*\{image_size: 48\}"),
        (_of_monai, r"48 pixels.*\{img_size: \[48, 48\]\}"),
    ],
    ids=["torchvision", "monai"],
)
def test_each_library_s_own_argument_is_named(make: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        require_fit(make(32), make(48).state_dict(), "a transformer")


def test_embeddings_of_no_square_are_refused_without_a_guess(tmp_path: Path) -> None:
    state = vit(96).state_dict()
    state["pos_embed"] = torch.rand(1, 34, 64)
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"img_size: \.\.\.\} as it was trained"):
        load_classifier(tmp_path / "m.pt", arch="timm:test_vit", spec=ModelSpec(arguments={"img_size": 160}))


@pytest.mark.parametrize("unnamed", [{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, {"label_names": []}])
def test_names_that_name_nothing_are_none(tmp_path: Path, unnamed: dict[str, Any]) -> None:
    torch.save({"state_dict": vit().state_dict(), **unnamed}, tmp_path / "m.pt")
    spec = STATED.model_copy(update={"arguments": {"img_size": 160}})
    record = load_classifier(tmp_path / "m.pt", arch="timm:test_vit", spec=spec).record
    assert record.class_names == ()
    assert record.origins["class order"].endswith("assumed")
