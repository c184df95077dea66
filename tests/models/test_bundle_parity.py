"""Bundles of the model zoo's configurations: their answers through MONAI's own pipeline and through ours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from data_helpers import dicom
from monai.bundle import ConfigParser
from PIL import Image
from torch import nn
from zoo_bundles import BODY, BREAST, KEYS, resized, save_bundle

from medharden.audit import canonical_json
from medharden.data.formats.files import read_file
from medharden.data.formats.limits import Room
from medharden.data.stored.values import input_of
from medharden.errors import ModelError
from medharden.models import (
    Classifier,
    HardenedClassifier,
    describe_hardened,
    hardened_bytes,
    load_classifier,
    load_hardened,
)
from medharden.models.bundles import bundle_inputs
from medharden.protocol import Input, ModelSpec
from medharden.record import FusionRecord

BRAIN = {
    "network_def": {
        "_target_": "DenseNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "init_features": 4,
        "growth_rate": 2,
        "block_config": [1, 1, 1],
    },
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **KEYS, "image_only": True},
            {"_target_": "EnsureChannelFirstd", **KEYS},
            {"_target_": "Orientationd", **KEYS, "axcodes": "RAS"},
            {"_target_": "Spacingd", **KEYS, "pixdim": [2.0, 2.0, 2.0], "mode": "bilinear"},
            {"_target_": "CropForegroundd", **KEYS, "source_key": "image"},
            {"_target_": "Resized", **KEYS, "spatial_size": [32, 32, 32], "mode": "trilinear"},
            {"_target_": "NormalizeIntensityd", **KEYS, "nonzero": True},
        ],
    },
}


def loaded(bundle: Path, dims: int) -> tuple[Classifier, Input]:
    """The classifier, fed as the bundle says."""
    view = bundle_inputs(bundle, dims)
    assert view is not None
    spelled = ModelSpec(mean=None, std=None, range=None, zscore=None, zscore_nonzero=False)  # as `protocol show` has it
    return load_classifier(bundle, dims=dims, fed=view.input, spec=spelled), view.input


def theirs(config: dict[str, Any], network: nn.Module, file: Path) -> torch.Tensor:
    parser = ConfigParser({"preprocessing": config["preprocessing"], "imports": ["$import torch"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's readers warn of decoders that are not installed
        image = parser.get_parsed_content("preprocessing")({"image": str(file)})["image"].as_tensor().float()
    wanted = 1 if config["network_def"]["in_channels"] == 1 else 3  # of inception they are its head's
    with torch.no_grad():
        return network(image.expand(wanted, *image.shape[1:])[None])


def ours(model: Classifier, spec: Input, file: Path) -> torch.Tensor:
    with Room().file() as hold:
        image = read_file(file, spec.dims, hold)
    with torch.no_grad():
        return model(input_of(image, spec, image.values.shape[0])[None])


def pictures(folder: Path) -> list[Path]:
    rng = np.random.default_rng(3)
    colour = rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    colour[:20, :30] = 0
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(colour[..., 0]).save(folder / "grey.png")
    Image.fromarray(colour).save(folder / "colour.jpg", quality=90)
    scan = dicom(folder / "scan.dcm", rng.integers(0, 4000, (70, 50)).astype(np.uint16))
    slice_ = rng.integers(0, 1500, (57, 71)).astype(np.int16)
    slice_[30:, :20] = 0
    nib.save(nib.Nifti1Image(slice_, np.diag([-0.7, 0.9, 3.0, 1.0])), folder / "slice.nii.gz")
    return [folder / "colour.png", folder / "grey.png", folder / "colour.jpg", scan, folder / "slice.nii.gz"]


@pytest.mark.parametrize("config", [BREAST, BODY], ids=["breast density", "endoscopic in-body"])
def test_a_zoo_bundle_answers_as_through_monai_s_own_pipeline(tmp_path: Path, config: dict[str, Any]) -> None:
    bundle, network = save_bundle(tmp_path / "bundle", config)
    model, spec = loaded(bundle, 2)
    for file in pictures(tmp_path):
        difference = (theirs(config, network, file) - ours(model, spec, file)).abs().max()
        assert difference < 1e-4, (file.name, float(difference))


@pytest.mark.parametrize(("config", "axis"), [(BREAST, 2), (BODY, -1)], ids=["breast density", "endoscopic in-body"])
def test_a_slice_with_an_axis_of_one_behind_it_answers_as_where_the_bundle_takes_that_for_channels(
    tmp_path: Path, config: dict[str, Any], axis: int
) -> None:
    config = resized(config, 80)
    config["preprocessing"]["transforms"][1]["channel_dim"] = axis
    bundle, network = save_bundle(tmp_path / "bundle", config)
    model, spec = loaded(bundle, 2)
    values = np.random.default_rng(4).integers(0, 900, (57, 71, 1)).astype(np.int16)
    values[:9] = 0
    nib.save(nib.Nifti1Image(values, np.diag([-0.7, -0.9, 3.0, 1.0])), tmp_path / "slice.nii")
    difference = (theirs(config, network, tmp_path / "slice.nii") - ours(model, spec, tmp_path / "slice.nii")).abs()
    assert difference.max() < 1e-4


def test_a_volume_pipeline_answers_as_through_monai_s_own_on_pet(tmp_path: Path, test_data: Path) -> None:
    bundle, network = save_bundle(tmp_path / "bundle", BRAIN)
    model, spec = loaded(bundle, 3)
    for file in sorted((test_data / "cdi_fdgpet").glob("*.nii.gz"))[:2]:
        difference = (theirs(BRAIN, network, file) - ours(model, spec, file)).abs().max()
        assert difference < 1e-4, (file.name, float(difference))


def test_a_bundle_fed_otherwise_is_refused_with_the_lines_that_feed_it_rightly(tmp_path: Path) -> None:
    bundle, _ = save_bundle(tmp_path / "bundle", BODY)
    with pytest.raises(ModelError, match=r"set input: .*step: transpose.*mode: linear.*mode: max"):
        load_classifier(bundle, fed=Input(size=(256, 256)))
    view = bundle_inputs(bundle, 2)
    assert view is not None
    with pytest.raises(ModelError, match=r"otherwise than the protocol's model\.mean"):
        load_classifier(bundle, fed=view.input, spec=ModelSpec(mean=(0.5,), std=(0.5,)))


RESIZED = {"_target_": "Resized", **KEYS, "spatial_size": [32, 40], "mode": "bilinear"}
SCALED = {"_target_": "ScaleIntensityd", **KEYS}
PIPELINES = {
    "mean and std": [
        RESIZED,
        SCALED,
        {"_target_": "NormalizeIntensityd", **KEYS, "subtrahend": 0.4, "divisor": 0.2},
    ],
    "mean and std over a range": [
        {**SCALED, "minv": -1.0, "maxv": 1.0},
        RESIZED,
        {"_target_": "NormalizeIntensityd", **KEYS, "subtrahend": 0.1, "divisor": 0.7},
    ],
    "percentiles": [
        {
            "_target_": "ScaleIntensityRangePercentilesd",
            **KEYS,
            "lower": 2,
            "upper": 97.5,
            "b_min": -1.0,
            "b_max": 1.0,
            "clip": True,
        },
        RESIZED,
    ],
    "transposed": [{"_target_": "Transposed", **KEYS, "indices": [0, 2, 1]}, RESIZED, SCALED],
    "bicubic": [RESIZED | {"mode": "bicubic"}, SCALED],
    "bicubic, corners aligned": [RESIZED | {"mode": "bicubic", "align_corners": True}, SCALED],
    "area": [RESIZED | {"mode": "area"}, SCALED],
    "longest side": [
        SCALED,
        RESIZED | {"spatial_size": 48, "size_mode": "longest"},
        {"_target_": "ResizeWithPadOrCropd", **KEYS, "spatial_size": [40, 44]},
    ],
    "padded and cropped": [
        SCALED,
        {"_target_": "SpatialPadd", **KEYS, "spatial_size": [90, 66]},
        {"_target_": "CenterSpatialCropd", **KEYS, "roi_size": [50, 41]},
    ],
    "foreground": [SCALED, {"_target_": "CropForegroundd", **KEYS, "source_key": "image"}, RESIZED],
}


def small(steps: list[dict[str, Any]], dims: int = 2, channels: int = 3) -> dict[str, Any]:
    """A bundle of a small network with these steps behind its loading."""
    first = BODY["preprocessing"]["transforms"][:2] if dims == 2 else BRAIN["preprocessing"]["transforms"][:3]
    network = BRAIN["network_def"] | {"spatial_dims": dims, "in_channels": channels}
    return {"network_def": network, "preprocessing": {"_target_": "Compose", "transforms": [*first, *steps]}}


@pytest.mark.parametrize("name", list(PIPELINES))
def test_a_pipeline_of_other_transforms_answers_as_through_monai(tmp_path: Path, name: str) -> None:
    config = small(PIPELINES[name])
    bundle, network = save_bundle(tmp_path / "bundle", config)
    model, spec = loaded(bundle, 2)
    for file in pictures(tmp_path):
        difference = (theirs(config, network, file) - ours(model, spec, file)).abs().max()
        assert difference < 1e-4, (file.name, float(difference))


@pytest.mark.parametrize(
    "steps",
    [
        [{"_target_": "Spacingd", **KEYS, "pixdim": [3.0, 3.0, 3.0], "mode": "bilinear"}, SCALED],
        [
            {"_target_": "ScaleIntensityRangePercentilesd", **KEYS, "lower": 1, "upper": 99, "b_min": 0, "b_max": 1}
            | {"clip": True},
            {"_target_": "ResizeWithPadOrCropd", **KEYS, "spatial_size": [40, 24, 33]},
            {"_target_": "NormalizeIntensityd", **KEYS, "subtrahend": 0.3, "divisor": 0.1},
        ],
        [SCALED, {"_target_": "Resized", **KEYS, "spatial_size": 32, "size_mode": "longest", "mode": "trilinear"}],
    ],
    ids=["spacing", "percentiles, pad or crop, mean and std", "longest side"],
)
def test_a_volume_of_other_transforms_answers_as_through_monai(
    tmp_path: Path, test_data: Path, steps: list[dict[str, Any]]
) -> None:
    config = small(steps, 3, 1)
    bundle, network = save_bundle(tmp_path / "bundle", config)
    model, spec = loaded(bundle, 3)
    file = min((test_data / "cdi_fdgpet").glob("*.nii.gz"))
    difference = (theirs(config, network, file) - ours(model, spec, file)).abs().max()
    assert difference < 1e-4, float(difference)


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ([SCALED, RESIZED | {"mode": "bicubic"}], r"bicubic\) without an intensity transform after"),
        (
            [{"_target_": "NormalizeIntensityd", **KEYS, "subtrahend": 1, "divisor": 2}],
            "without an intensity transform",
        ),
        ([SCALED, {"_target_": "NormalizeIntensityd", **KEYS, "subtrahend": 0.5}], "without both of them"),
        ([SCALED, {"_target_": "NormalizeIntensityd", **KEYS, "subtrahend": 0, "divisor": 0}], "by 0 and less"),
        ([{"_target_": "Transposed", **KEYS, "indices": [2, 0, 1]}], "Transposed.indices"),
        ([{"_target_": "ScaleIntensityRangePercentilesd", **KEYS, "lower": 1, "upper": 99}], "without clip=True"),
        ([SCALED, {"_target_": "ResizeWithPadOrCropd", **KEYS, "spatial_size": 32, "mode": "edge"}], "mode=edge"),
    ],
)
def test_what_of_these_can_t_be_followed_is_refused_by_name(
    tmp_path: Path, steps: list[dict[str, Any]], named: str
) -> None:
    bundle, _ = save_bundle(tmp_path / "bundle", small(steps))
    with pytest.raises(ModelError, match=rf"can't follow .*{named}.*model.view: protocol"):
        load_classifier(bundle, fed=Input())


@pytest.mark.parametrize(
    ("transform", "named"),
    [
        ({"_target_": "Lambdad", "func": "$lambda x: x"}, r"lambda x"),
        ({"_target_": "RandFlipd"}, "RandFlipd"),
        ({"_target_": "Resized", "spatial_size": [8, 8], "mode": "bicubic"}, "bicubic"),
        ({"_target_": "ScaleIntensityd", "surprise": 1}, "surprise"),
        ({"_target_": "CropForegroundd", "margin": 5}, "margin=5"),
        ({"_target_": "Resized", "spatial_size": "$__import__('os').getpid()"}, "never evaluates"),
    ],
)
def test_a_transform_that_can_t_be_followed_is_refused_by_name(
    tmp_path: Path, transform: dict[str, Any], named: str
) -> None:
    transforms = [*BODY["preprocessing"]["transforms"][:2], transform | KEYS]
    config = BODY | {"preprocessing": {"_target_": "Compose", "transforms": transforms}}
    bundle, _ = save_bundle(tmp_path / "bundle", config)
    with pytest.raises(ModelError, match=named):
        load_classifier(bundle, fed=Input())


def test_a_hardened_model_keeps_its_z_score(tmp_path: Path) -> None:
    bundle, _ = save_bundle(tmp_path / "bundle", BRAIN)
    model, _ = loaded(bundle, 3)
    other, _ = loaded(bundle, 3)
    inputs = torch.rand(2, 1, 32, 32, 32) * (torch.rand(2, 1, 32, 32, 32) > 0.5)
    expected = model(inputs)
    fusion = FusionRecord("clean", 0.5, 1.0, 1.0, 0.5, 0.0)
    hardened = HardenedClassifier(model, other, fusion, torch.zeros(2))
    text = canonical_json(describe_hardened(hardened)) + b"\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "hardened.safetensors").write_bytes(hardened_bytes(hardened, text))
    (tmp_path / "run" / "hardened.json").write_bytes(text)
    again = load_hardened(tmp_path / "run")
    assert torch.equal(again(inputs), expected)
    assert (again.clean_path.record.zscore, again.clean_path.record.zscore_nonzero) == ("case", True)
