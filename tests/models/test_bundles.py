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
from medharden.models import load_classifier
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
