"""torchvision's weights, named behind their architecture: answers as through their own `weights.transforms()`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_timm_view import ours, pictures

from medharden.errors import ModelError
from medharden.models import load_classifier, timm_module
from medharden.models.torchvision_view import torchvision_view
from medharden.protocol import Input, ModelSpec

timm_module()
models = importlib.import_module("torchvision.models")
NAMES = (
    "resnet50.IMAGENET1K_V2",  # 232 to 224
    "resnet18.IMAGENET1K_V1",  # 256 to 224
    "efficientnet_b0.IMAGENET1K_V1",  # bicubic
    "efficientnet_b1.IMAGENET1K_V2",  # 255 to 240
    "vit_b_32.IMAGENET1K_V1",
    "convnext_tiny.IMAGENET1K_V1",
    "swin_t.IMAGENET1K_V1",  # bicubic, 232 to 224
    "mobilenet_v3_small.IMAGENET1K_V1",
    "inception_v3.IMAGENET1K_V1",  # 342 to 299, and an input that it normalises itself
    "maxvit_t.IMAGENET1K_V1",  # 224 to 224
)


def network_of(name: str) -> Any:
    """As torchvision makes it for these weights, with random ones and three outputs."""
    torch.manual_seed(0)
    base = name.partition(".")[0]
    more = {"transform_input": True, "init_weights": False} if base == "inception_v3" else {}
    network = models.get_model_builder(base)(weights=None, num_classes=3, **more)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 2.0)
    return network.eval()


def fed(name: str) -> Input:
    view = torchvision_view(name)
    assert view is not None
    return view.input


@pytest.mark.parametrize("name", NAMES)
def test_named_weights_of_torchvision_answer_as_through_their_own_transforms(tmp_path: Path, name: str) -> None:
    network, base = network_of(name), name.partition(".")[0]
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    model = load_classifier(tmp_path / "model.safetensors", arch=f"torchvision:{name}", fed=fed(name))
    assert model.record.assumed == ()
    assert model.record.origins["std"] == "torchvision's weights"
    transform = models.get_model_weights(base)[name.partition(".")[2]].transforms()
    for file in pictures(tmp_path):
        with torch.no_grad():
            expected = network(transform(Image.open(file).convert("RGB"))[None])
        assert (expected - ours(model, fed(name), file)).abs().max() < 1e-4, file.name


def test_named_weights_that_are_fed_otherwise_are_refused_with_the_lines_that_feed_them_rightly(tmp_path: Path) -> None:
    save_file(network_of("resnet18").state_dict(), tmp_path / "model.safetensors")
    given: dict[str, Any] = {"path": tmp_path / "model.safetensors", "arch": "torchvision:resnet18.IMAGENET1K_V1"}
    with pytest.raises(ModelError, match=r"torchvision's weights says.*size: \[256, 256\], mode: bilinear.*224, 224"):
        load_classifier(**given, fed=Input(size=(224, 224)))
    with pytest.raises(ModelError, match=r"otherwise than the protocol's model\.mean"):
        load_classifier(**given, fed=fed("resnet18.IMAGENET1K_V1"), spec=ModelSpec(mean=(0.5,), std=(0.5,)))
    load_classifier(**given, fed=Input(size=(224, 224)), spec=ModelSpec(view="protocol"))
    with pytest.raises(ModelError, match=r"no weights 'IMAGENET1K_V9'; it has IMAGENET1K_V1"):
        load_classifier(tmp_path / "model.safetensors", arch="torchvision:resnet18.IMAGENET1K_V9")


def test_an_input_that_a_network_normalises_itself_is_an_assumption_until_it_is_stated(tmp_path: Path) -> None:
    network = network_of("inception_v3")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    inputs = torch.rand(1, 3, 96, 96)
    spec = ModelSpec(mean=(0.5,), std=(0.5,))
    plain = load_classifier(tmp_path / "model.safetensors", arch="torchvision:inception_v3", spec=spec)
    (assumed,) = plain.record.assumed
    assert "transform_input: true" in assumed
    stated = spec.model_copy(update={"arguments": {"transform_input": True}})
    model = load_classifier(tmp_path / "model.safetensors", arch="torchvision:inception_v3", spec=stated)
    assert model.record.assumed == ()
    with torch.no_grad():
        assert torch.equal(model(inputs), network((inputs - 0.5) / 0.5))
        assert not torch.equal(plain(inputs), model(inputs))
