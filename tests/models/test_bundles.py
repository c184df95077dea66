"""MONAI bundles as they are shipped: their network, and how they make its inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DenseNet121
from torch import nn

from medharden.errors import ModelError
from medharden.models import check_classifier, load_classifier
from medharden.protocol import ModelSpec

DENSE = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
SCALED = {"_target_": "ScaleIntensityd", "keys": "image"}


def save_bundle(folder: Path, network: nn.Module, name: str = "inference.json", **config: Any) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / name).write_text(json.dumps(config))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"preprocessing": {"_target_": "Compose", "transforms": [SCALED]}}, "ScaleIntensityd"),
        ({"transforms_infer": {"_target_": "monai.transforms.Compose", "transforms": [SCALED]}}, "ScaleIntensityd"),
        ({"validate": {"dataset": {"transform": {"_target_": "scripts.mine.Scaled"}}}}, "Scaled"),
        ({"dataset": {"_target_": "Dataset", "steps": [SCALED]}}, "ScaleIntensityd"),
        ({"preprocessing": "$monai.transforms.Compose([])"}, "an expression"),
        ({"steps": [SCALED], "preprocessing": {"_target_": "Compose", "transforms": "@steps"}}, "ScaleIntensityd"),
    ],
)
def test_a_bundle_s_preprocessing_is_never_ignored_without_a_word(
    tmp_path: Path, parts: dict[str, Any], named: str
) -> None:
    bundle = save_bundle(
        tmp_path / "bundle", DenseNet121(spatial_dims=2, in_channels=1, out_channels=2), network_def=DENSE, **parts
    )
    with pytest.raises(ModelError, match=rf"how its inputs are made.*{named}.*model.view: protocol"):
        load_classifier(bundle)
    load_classifier(bundle, spec=ModelSpec(view="protocol"))


def metadata(channels: Any) -> dict[str, Any]:
    pred = {"type": "probabilities", "format": "classes", "channel_def": channels}
    return {"network_data_format": {"inputs": {}, "outputs": {"pred": pred}}}


def named_bundle(folder: Path, said: dict[str, Any], **weights: Any) -> Path:
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)
    bundle = save_bundle(folder / "bundle", network, network_def=DENSE)
    (bundle / "configs" / "metadata.json").write_text(json.dumps(said))
    torch.save({"state_dict": network.state_dict()} | weights, bundle / "models" / "model.pt")
    return bundle


INPUTS = torch.rand(2, 1, 32, 32)
ANSWERED = {"0": "In-body", "1": "Out of body"}


def test_the_classes_of_a_bundle_s_metadata_are_held_against_the_data(tmp_path: Path) -> None:
    model = load_classifier(named_bundle(tmp_path, metadata(ANSWERED)))
    assert model.record.class_names == ("In-body", "Out of body")
    assert model.record.origins["class order"] == "bundle (metadata.json)"
    check_classifier(model, INPUTS, ("in body", "out_of_body"))
    with pytest.raises(ModelError, match=r"in the order In-body, Out of body.*task.classes: \[In-body, Out of body\]"):
        check_classifier(model, INPUTS, ("out-of-body", "in-body"))
    with pytest.raises(ModelError, match="names its outputs In-body, Out of body, the data's classes are a, b"):
        check_classifier(model, INPUTS, ("a", "b"))


def test_metadata_and_weights_that_name_the_outputs_in_two_orders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="each answer would be read as another class"):
        load_classifier(named_bundle(tmp_path / "a", metadata(ANSWERED), class_names=["out of body", "in-body"]))
    same = load_classifier(named_bundle(tmp_path / "b", metadata(ANSWERED), class_names=["in body", "out of body"]))
    assert same.record.class_names == ("In-body", "Out of body")


@pytest.mark.parametrize(
    "said", [{}, {"network_data_format": {}}, metadata({}), metadata(None), metadata({"0": "image"})]
)
def test_a_bundle_that_names_no_outputs_has_their_order_assumed(tmp_path: Path, said: dict[str, Any]) -> None:
    record = load_classifier(named_bundle(tmp_path, said)).record
    assert record.class_names == ()
    assert "assumed" in record.origins["class order"]
    told = any("1 channels of an answer of 2" in text for text in record.assumed)
    assert told == (said == metadata({"0": "image"}))


@pytest.mark.parametrize("channels", [{"1": "a", "2": "b"}, {"0": "a", "1": 3}, {"first": "a", "second": "b"}])
def test_channels_that_are_not_numbered_from_0_are_refused(tmp_path: Path, channels: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="by its number, from 0"):
        load_classifier(named_bundle(tmp_path, metadata(channels)))


def test_what_a_bundle_does_after_the_network_is_no_preprocessing(tmp_path: Path) -> None:
    after = {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]}
    saver = [{"_target_": "ClassificationSaver", "output_transform": "$lambda x: None"}]
    bundle = save_bundle(
        tmp_path / "bundle",
        DenseNet121(spatial_dims=2, in_channels=1, out_channels=2),
        network_def=DENSE,
        postprocessing=after,
        handlers=saver,
    )
    assert load_classifier(bundle).record.classes == 2
