"""timm's own view of a model: its folders and checkpoints answer as through timm's `create_transform`."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from medharden.data.formats.files import read_file
from medharden.data.formats.limits import Room
from medharden.data.stored.values import input_of
from medharden.errors import ModelError
from medharden.models import Classifier, load_classifier, timm_module
from medharden.protocol import Input, ModelSpec, Step

timm = timm_module()
TEN: dict[str, tuple[str, dict[str, Any]]] = {
    "bicubic, 0.95": ("test_resnet", {"crop_pct": 0.95, "interpolation": "bicubic"}),
    "bilinear, 0.875": ("test_efficientnet", {"crop_pct": 0.875, "interpolation": "bilinear"}),
    "whole, Inception's": ("test_vit", {"crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}),
    "squashed": ("test_convnext", {"crop_pct": 1.0, "crop_mode": "squash"}),
    "squashed and cropped": ("test_convnext2", {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"}),
    "lanczos, CLIP's": (
        "test_byobnet",
        {
            "crop_pct": 0.965,
            "interpolation": "lanczos",
            "mean": [0.4815, 0.4578, 0.4082],
            "std": [0.2686, 0.2613, 0.2758],
        },
    ),
    "oblong": ("test_resnet", {"crop_pct": 0.9, "input_size": [3, 96, 64]}),
    "larger than the crop": ("test_mambaout", {"crop_pct": 1.15}),
    "box": ("test_nfnet", {"crop_pct": 0.8, "interpolation": "box"}),
    "no normaliser": ("test_efficientnet_gn", {"mean": [0.0] * 3, "std": [1.0] * 3, "crop_pct": 0.887}),
}


def network_of(arch: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(arch, num_classes=3, **arguments)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 2.0)
    return network.eval()


def saved(folder: Path, arch: str, network: nn.Module, **config: Any) -> Path:
    """A folder as `timm.models.save_for_hf` makes it."""
    folder.mkdir(exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    size = {} if arch.startswith("test_vit") else {"input_size": [3, 96, 96]}
    trained = {"interpolation": "bicubic", **size, **config.pop("pretrained_cfg", {})}
    (folder / "config.json").write_text(
        json.dumps({"architecture": arch, "num_classes": 3, "pretrained_cfg": trained, **config})
    )
    return folder


def fed_as_refused(path: Path, **spec: Any) -> Input:
    """The input that the refusal of another names, as a protocol holds it."""
    import yaml

    with pytest.raises(ModelError, match="says how its inputs are made") as refused:
        load_classifier(path, fed=Input(size=(7, 7)), spec=ModelSpec(**spec))
    text = str(refused.value)
    lines = text[text.index("set input: ") + 4 : text.index(", or answer")]
    return Input.model_validate_json(json.dumps(yaml.safe_load(lines)["input"]))


def pictures(folder: Path) -> list[Path]:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 256, (161, 213, 3), dtype=np.uint8)
    values[:40, :60] = 255
    Image.fromarray(values).save(folder / "colour.png")
    Image.fromarray(values[..., 0]).save(folder / "grey.png")
    Image.fromarray(values[:, :90]).save(folder / "small.jpg", quality=90)
    return [folder / name for name in ("colour.png", "grey.png", "small.jpg")]


def ours(model: Classifier, spec: Input, file: Path) -> torch.Tensor:
    with Room().file() as hold:
        image = read_file(file, spec.dims, hold)
    with torch.no_grad():
        return model(input_of(image, spec, image.values.shape[0])[None])


def theirs(network: nn.Module, config: dict[str, Any], file: Path) -> torch.Tensor:
    transform = importlib.import_module("timm.data").create_transform(**config)
    with torch.no_grad():
        return network(transform(Image.open(file).convert("RGB"))[None])


@pytest.mark.parametrize("name", list(TEN))
def test_a_folder_of_timm_answers_as_through_timm_s_own_transform(tmp_path: Path, name: str) -> None:
    arch, config = TEN[name]
    network = network_of(arch)
    folder = saved(tmp_path / "model", arch, network, pretrained_cfg=config)
    spec = fed_as_refused(folder)
    model = load_classifier(folder, fed=spec)
    assert model.record.assumed == ()
    assert model.record.origins["mean"] == "config.json"
    data = importlib.import_module("timm.data").resolve_data_config(
        pretrained_cfg=json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    )
    for file in pictures(tmp_path):
        difference = (theirs(network, data, file) - ours(model, spec, file)).abs().max()
        assert difference < 1e-4, (file.name, float(difference))


def test_a_checkpoint_of_timm_s_training_is_fed_as_it_evaluates(tmp_path: Path) -> None:
    network = network_of("test_resnet")
    arguments = argparse.Namespace(
        model="test_resnet", img_size=64, input_size=None, crop_pct=0.9, crop_mode=None, interpolation="", mean=None,
        std=[0.2, 0.21, 0.22],
    )  # fmt: skip
    path = tmp_path / "model_best.pth.tar"
    torch.save({"arch": "test_resnet", "state_dict": network.state_dict(), "args": arguments}, path)
    spec = fed_as_refused(path)
    model = load_classifier(path, fed=spec)
    data = importlib.import_module("timm.data").resolve_data_config(vars(arguments), model=network)
    assert (data["crop_pct"], data["std"]) == (0.9, (0.2, 0.21, 0.22))
    file = pictures(tmp_path)[0]
    assert (theirs(network, data, file) - ours(model, spec, file)).abs().max() < 1e-4


def test_a_configuration_within_a_checkpoint_is_read_as_one_beside_it(tmp_path: Path) -> None:
    network = network_of("test_resnet")
    trained = {"input_size": (3, 64, 64), "crop_pct": 0.8, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
    content = {"arch": "test_resnet", "state_dict": network.state_dict(), "pretrained_cfg": trained}
    torch.save(content, tmp_path / "m.pt")
    spec = fed_as_refused(tmp_path / "m.pt")
    model = load_classifier(tmp_path / "m.pt", fed=spec)
    assert (model.record.mean, model.record.origins["mean"]) == ((0.1, 0.2, 0.3), "checkpoint")
    data = importlib.import_module("timm.data").resolve_data_config(pretrained_cfg=trained)
    file = pictures(tmp_path)[0]
    assert (theirs(network, data, file) - ours(model, spec, file)).abs().max() < 1e-4


def test_weights_are_read_with_the_config_beside_them_and_its_names_held_against_the_data(tmp_path: Path) -> None:
    network = network_of("test_vit", img_size=96)
    folder = saved(
        tmp_path / "m", "test_vit", network, model_args={"img_size": 96}, label_names=["a", "b", "c"],
        pretrained_cfg={"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 96, 96], "test_crop_pct": 1.0},
    )  # fmt: skip
    spec = fed_as_refused(folder / "model.safetensors")
    record = load_classifier(folder / "model.safetensors", fed=spec).record
    assert (record.mean, record.std, record.class_names) == ((0.1,) * 3, (0.2,) * 3, ("a", "b", "c"))
    assert record.arguments == {"img_size": 96}
    assert any("test_crop_pct 1.0 was left aside" in text for text in record.origins.values())
    unfed = load_classifier(folder).record
    assert any("nobody said what it is fed" in text for text in unfed.assumed)


def test_another_normaliser_than_the_config_s_is_refused_and_the_protocol_may_answer_for_it(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "test_resnet", network_of("test_resnet"), pretrained_cfg={"mean": [0.4, 0.5, 0.6]})
    spec = fed_as_refused(folder)
    other = ModelSpec(mean=(0.1,), std=(0.2,))
    with pytest.raises(ModelError, match=r"otherwise than the protocol's model\.mean"):
        load_classifier(folder, fed=spec, spec=other)
    answered = load_classifier(folder, fed=Input(size=(96, 96)), spec=other.model_copy(update={"view": "protocol"}))
    assert (answered.record.mean, answered.record.origins["mean"]) == ((0.1,), "protocol")
    kept = load_classifier(folder, fed=Input(size=(96, 96)), spec=ModelSpec(view="protocol"))
    assert (kept.record.mean, kept.record.origins["mean"]) == ((0.4, 0.5, 0.6), "config.json")


def test_one_channel_takes_the_average_and_the_protocol_may_state_it(tmp_path: Path) -> None:
    network = network_of("test_resnet", in_chans=1)
    config = {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.2, 0.2], "input_size": [1, 96, 96]}
    folder = saved(tmp_path / "m", "test_resnet", network, pretrained_cfg=config)
    spec = fed_as_refused(folder)
    record = load_classifier(folder, fed=spec, spec=ModelSpec(mean=(0.4,), std=(0.2,))).record
    assert record.mean == pytest.approx((0.4,))
    assert "average of 3 values" in load_classifier(folder, fed=spec).record.origins["mean"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"pretrained_cfg": {"crop_mode": "border", "mean": [0.5]}}, "can't follow crop_mode border"),
        ({"pretrained_cfg": {"interpolation": "random"}}, "can't follow interpolation random"),
        ({"pretrained_cfg": {"crop_pct": "much"}}, "crop_pct 'much'"),
        ({"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "input_size"),
        ({"pretrained_cfg": {"std": [0.0]}}, "std"),
        ({"model_args": ["img_size"]}, "model_args that are no arguments"),
        ({"architecture": "resnet99"}, "has no model 'resnet99'"),
    ],
)
def test_what_can_t_be_followed_is_refused_by_name(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    folder = saved(tmp_path / "m", "test_resnet", network_of("test_resnet"))
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", **config}))
    with pytest.raises(ModelError, match=said):
        load_classifier(folder, fed=Input())


def test_a_folder_of_transformers_is_refused_by_name_with_the_way_round(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "test_resnet", network_of("test_resnet"))
    config = {
        "model_type": "cvt",
        "architectures": ["CvtForImageClassification"],
        "id2label": {"0": "ill", "1": "well"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"cvt, CvtForImageClassification.*python:MODULE:FUNCTION"):
        load_classifier(folder, arch="timm:test_resnet")
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["ViTForImageClassification"]}))
    with pytest.raises(ModelError, match=r"is of transformers:ViTForImageClassification, and --arch of timm:test_res"):
        load_classifier(folder, arch="timm:test_resnet")


def test_timm_models_that_transformers_wraps_load(tmp_path: Path) -> None:
    network = network_of("test_resnet")
    folder = saved(
        tmp_path / "m", "test_resnet", network, model_type="timm_wrapper", label_names=["a", "b", "c"],
        pretrained_cfg={"mean": [0.4] * 3},
    )  # fmt: skip
    save_file({f"timm_model.{k}": v for k, v in network.state_dict().items()}, folder / "model.safetensors")
    x = torch.rand(1, 3, 96, 96)
    model = load_classifier(folder)
    assert torch.equal(model(x), network((x - model.mean) / model.std))


def test_weights_in_parts_and_none_at_all_are_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "test_resnet", network_of("test_resnet"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"no weights in one file: expected model\.safetensors"):
        load_classifier(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="max_shard_size"):
        load_classifier(folder)


def test_the_same_view_stated_by_hand_is_the_source_s(tmp_path: Path) -> None:
    config = {"crop_pct": 0.875, "interpolation": "bicubic", "input_size": [3, 224, 224], "mean": [0.5], "std": [0.5]}
    folder = saved(tmp_path / "m", "test_resnet", network_of("test_resnet"), pretrained_cfg=config)
    by_hand = Input(
        spatial=(
            Step(step="resize", size=(256, 256), mode="bicubic", fit="shortest"),
            Step(step="crop", size=(224, 224), place="torchvision"),
        )
    )
    assert fed_as_refused(folder).spatial == by_hand.spatial
    load_classifier(folder, fed=by_hand)
