"""Bundles of MONAI's model zoo as it ships them, with random weights: its five configurations that classify."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medharden.models.timm_import import monai_networks

KEYS = {"keys": "image"}
BREAST = {
    "network_def": {
        "_target_": "TorchVisionFCModel",
        "model_name": "inception_v3",
        "aux_logits": False,
        "num_classes": "@num_classes",
        "in_channels": 2048,
        "use_conv": False,
        "pool": "",
        "init_weights": False,
    },
    "num_classes": 4,
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **KEYS},
            {"_target_": "EnsureChannelFirstd", **KEYS},
            {"_target_": "ScaleIntensityd", **KEYS, "minv": 0.0, "maxv": 1.0},
            {"_target_": "Resized", **KEYS, "spatial_size": [299, 299]},
        ],
    },
}
BODY = {
    "network_def": {"_target_": "SEResNet50", "spatial_dims": 2, "in_channels": 3, "num_classes": 2},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **KEYS},
            {"_target_": "EnsureChannelFirstd", **KEYS},
            {"_target_": "Resized", **KEYS, "spatial_size": [256, 256], "mode": "bilinear"},
            {"_target_": "CastToTyped", **KEYS, "dtype": "$torch.float32"},
            {"_target_": "NormalizeIntensityd", **KEYS, "nonzero": True, "channel_wise": True},
            {"_target_": "EnsureTyped", **KEYS},
        ],
    },
}
SCALED_TO_ONE = {"a_min": 0.0, "a_max": 255.0, "b_min": -1.0, "b_max": 1.0}  # as both of pathology have it, unclipped
TUMOUR = {
    "network_def": {
        "_target_": "TorchVisionFCModel",
        "model_name": "resnet18",
        "num_classes": 1,
        "use_conv": True,
        "pretrained": True,
    },
    "patch_size": [224, 224],
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "CastToTyped", **KEYS, "dtype": "float32"},
            {"_target_": "ScaleIntensityRanged", **KEYS, **SCALED_TO_ONE},
            {"_target_": "ToTensord", **KEYS},
        ],
    },
    "dataset": {  # the patches of slides, which no transform loads
        "_target_": "MaskedPatchWSIDataset",
        "data": "@datalist",
        "mask_level": 6,
        "patch_size": "@patch_size",
        "transform": "@preprocessing",
        "reader": "cuCIM",
    },
}
BOTH = {"keys": ["image", "label"]}
NUCLEI = {
    "network_def": {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 4, "out_channels": 4},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **BOTH, "dtype": "uint8", "image_only": False},
            {"_target_": "EnsureChannelFirstd", **BOTH},
            {"_target_": "ScaleIntensityRanged", **KEYS, **SCALED_TO_ONE},
            {"_target_": "AddLabelAsGuidanced", **KEYS, "source": "label"},
        ],
    },
}
IMAGE_KEY = {"keys": "@image"}
TEMPLATE = {
    "image": "$monai.utils.CommonKeys.IMAGE",
    "label": "$monai.utils.CommonKeys.LABEL",
    "num_classes": 4,
    "network_def": {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": "@num_classes"},
    "transforms": [
        {"_target_": "LoadImaged", **IMAGE_KEY},
        {"_target_": "EnsureChannelFirstd", **IMAGE_KEY},
        {"_target_": "ScaleIntensityd", **IMAGE_KEY},
    ],
    "preprocessing": {"_target_": "Compose", "transforms": "$@transforms"},
}
# what stands around them in the zoo, and is not needed for the network or its inputs
_AROUND = {
    "imports": ["$import glob", "$import os", "$import torch"],
    "bundle_root": "/workspace/bundle",
    "dataset_dir": "/workspace/data",
    "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*')))",
    "data": {"_target_": "scripts.createList.CreateImageLabelList", "filename": "./configs/sample_image_data.json"},
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network": "$@network_def.to(@device)",
    "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "AsDiscreted", "argmax": True, "to_onehot": 2, "keys": ["pred"]}],
    },
    "handlers": [
        {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        {"_target_": "StatsHandler", "iteration_log": False, "output_transform": "$lambda x: None"},
    ],
    "evaluating": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$@evaluator.run()"],
}


def network_of(config: dict[str, Any]) -> nn.Module:
    """The network of a configuration, by hand, with the same random weights each time."""
    torch.manual_seed(0)
    beside = ("_target_", "pretrained")  # whose weights would be fetched, and then be replaced
    arguments = {k: 4 if v == "@num_classes" else v for k, v in config["network_def"].items() if k not in beside}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = getattr(monai_networks(), config["network_def"]["_target_"])(**arguments)
    return network.eval()


def save_bundle(folder: Path, config: dict[str, Any]) -> tuple[Path, nn.Module]:
    """A bundle of a configuration, and its network."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    network = network_of(config)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder, network


def resized(config: dict[str, Any], side: int) -> dict[str, Any]:
    """The configuration with inputs of another size."""
    config = copy.deepcopy(config)
    for transform in config["preprocessing"]["transforms"]:
        if transform["_target_"] == "Resized":
            transform["spatial_size"] = [side, side]
    return config


def as_shipped(folder: Path, config: dict[str, Any], names: tuple[str, ...]) -> tuple[Path, nn.Module]:
    """The bundle with all that the zoo has around it, and `metadata.json` with the names of its outputs."""
    bundle, network = save_bundle(folder, _AROUND | config)
    channels = {str(number): name for number, name in enumerate(names)}
    pred = {"type": "probabilities", "format": "classes", "num_channels": len(names), "channel_def": channels}
    image = {"type": "image", "num_channels": 3, "channel_def": {"0": "R", "1": "G", "2": "B"}}
    said = {"version": "0.1.0", "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(said))
    return bundle, network
