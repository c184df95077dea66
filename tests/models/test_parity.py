"""Parity: the team's own pipeline and ours on the same files, what is shown, and where they part."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from data_helpers import dicom
from PIL import Image
from safetensors.torch import save_file

from medharden.data import Cohort, load_cohort
from medharden.data.stored.cases import stored_cases
from medharden.models import Classifier, load_classifier, timm_module
from medharden.parity import show_parity
from medharden.protocol import Protocol, parse_protocol
from medharden.record import SourceParity

KEY = b"k" * 32
TIMM = """
input:
  channels: rgb
  spatial:
    - {step: resize, size: [40, 40], mode: bicubic, fit: shortest}
    - {step: crop, size: [32, 32], place: torchvision}
"""
BUNDLE = """
input:
  channels: rgb
  spatial: [{step: transpose}, {step: resize, size: [32, 32], mode: linear}]
  intensity: {mode: max, inverted: never}
"""


def protocol_of(text: str, **model: Any) -> Protocol:
    head = "schema_version: 1\nname: p\ntitle: P\nintended_use: none\nthreat: {norm: linf, eps: 2, unit: 1/255}\n"
    return parse_protocol(f"{head}{text}\nmodel: {json.dumps(model)}\n", "p")


def data_in(folder: Path, make: Any = None) -> Path:
    """Two classes of twelve pictures each, in folders."""
    rng = np.random.default_rng(0)
    for n in range(24):
        place = folder / "data" / ("ill", "well")[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 256, (45 + n, 61, 3), dtype=np.uint8)
        if make is None:
            Image.fromarray(values).save(place / f"{n}.png")
        else:
            make(place / f"{n}.dcm", values[..., 0].astype(np.uint16))
    return folder / "data"


def timm_model(folder: Path, **trained: Any) -> Path:
    torch.manual_seed(1)
    network = timm_module().create_model("test_resnet", num_classes=2)
    save_file(network.state_dict(), folder / "model.safetensors")
    trained = {"input_size": [3, 32, 32], "crop_pct": 0.8, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2], **trained}
    config = {"architecture": "test_resnet", "label_names": ["ill", "well"], "pretrained_cfg": trained}
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


def bundle(folder: Path, *, transforms: list[dict[str, Any]] | None = None, dims: int = 2) -> Path:
    keys = {"keys": ["image", "label"], "allow_missing_keys": True}
    transforms = transforms or [
        {"_target_": "LoadImaged", **keys},
        {"_target_": "EnsureChannelFirstd", **keys},
        {"_target_": "Resized", **keys, "spatial_size": [32, 32], "mode": "bilinear"},
        {"_target_": "CastToTyped", **keys, "dtype": "$torch.float32"},
        {"_target_": "NormalizeIntensityd", **keys, "nonzero": True, "channel_wise": True},
        {"_target_": "Resized", "keys": "label", "spatial_size": [8, 8], "mode": "nearest"},
    ]
    arguments = {
        "spatial_dims": dims,
        "in_channels": 3 if dims == 2 else 1,
        "out_channels": 2,
        "init_features": 4,
        "growth_rate": 2,
    }
    arguments |= {"block_config": [1, 1]}
    network = _densenet(arguments)
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    definition = {"_target_": "DenseNet", **arguments}
    config = {"network_def": definition, "preprocessing": {"_target_": "Compose", "transforms": transforms}}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def transformers_model(folder: Path) -> Path:
    """A small ViT in a folder of transformers."""
    timm_module()
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        id2label={0: "ill", 1: "well"},
    )  # fmt: skip
    torch.manual_seed(1)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 40}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "do_normalize": True,
        "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.2],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def _densenet(arguments: dict[str, Any]) -> torch.nn.Module:
    from medharden.models.timm_import import monai_networks

    torch.manual_seed(0)
    network: torch.nn.Module = monai_networks().DenseNet(**arguments)
    return network


def compared(model: Classifier, data: Path, protocol: Protocol, cases: int = 3) -> tuple[SourceParity, Cohort]:
    cohort = load_cohort(data, protocol, key=KEY)
    shown = show_parity(model, cohort, lambda: stored_cases(data, protocol, key=KEY), protocol, cases=cases)
    return shown, cohort


def loaded(path: Path, protocol: Protocol) -> Classifier:
    return load_classifier(path, fed=protocol.input, spec=protocol.model)


@pytest.mark.parametrize("kind", ["timm", "bundle"])
def test_a_model_that_is_fed_as_its_source_says_is_shown_to_be(tmp_path: Path, kind: str) -> None:
    protocol = protocol_of(TIMM if kind == "timm" else BUNDLE)
    model = loaded(timm_model(tmp_path) if kind == "timm" else bundle(tmp_path), protocol)
    shown, _ = compared(model, data_in(tmp_path), protocol)
    assert shown.shown, shown
    assert (shown.cases, shown.changed, shown.step, shown.severity) == (3, 0, "", "info")
    assert "shown on 3 cases, against" in shown.sentence


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_an_image_processor_of_transformers_is_held_against_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medharden.data.view.spatial as module

    protocol = protocol_of(TIMM.replace(", place: torchvision", ""))
    model, data = loaded(transformers_model(tmp_path / "model"), protocol), data_in(tmp_path)
    shown, _ = compared(model, data, protocol)
    assert shown.shown, shown
    assert "shown on 3 cases, against transformers' image processor" in shown.sentence
    exact = module.resized_by_pillow
    monkeypatch.setattr(module, "resized_by_pillow", lambda values, size, mode: exact(values, size, "box"))
    assert not compared(model, data, protocol)[0].shown


def test_transforms_of_torchvision_s_weights_are_held_against_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medharden.data.view.spatial as module

    timm_module()
    import torchvision.models as models

    torch.manual_seed(1)
    save_file(models.resnet18(num_classes=2).state_dict(), tmp_path / "model.safetensors")
    text = TIMM.replace("[40, 40]", "[256, 256]").replace("[32, 32]", "[224, 224]").replace("bicubic", "bilinear")
    protocol = protocol_of(text, arch="torchvision:resnet18.IMAGENET1K_V1")
    model, data = loaded(tmp_path / "model.safetensors", protocol), data_in(tmp_path)
    shown, _ = compared(model, data, protocol, cases=2)
    assert shown.shown, shown
    assert "against torchvision's weights.transforms" in shown.sentence
    exact = module.resized_by_pillow
    monkeypatch.setattr(module, "resized_by_pillow", lambda values, size, mode: exact(values, size, "box"))
    assert not compared(model, data, protocol, cases=2)[0].shown


@pytest.mark.parametrize(
    ("text", "model", "step"),
    [
        ("input: {channels: rgb, size: [32, 32]}", {}, "input.spatial, of which the source says otherwise"),
        (TIMM, {"mean": [0.1], "std": [0.2]}, "channels, intensity or normaliser"),
        (TIMM.replace("rgb", "gray"), {}, "channels, intensity or normaliser"),
        (f"{TIMM}  intensity: {{mode: percentile, low: 10, high: 90}}", {}, "channels, intensity or normaliser"),
    ],
)
def test_a_model_that_is_fed_otherwise_is_a_finding_and_where_it_arises_is_said(
    tmp_path: Path, text: str, model: dict[str, Any], step: str
) -> None:
    protocol = protocol_of(text, view="protocol", **model)
    shown, _ = compared(loaded(timm_model(tmp_path), protocol), data_in(tmp_path), protocol)
    assert not shown.shown
    assert (shown.cases, shown.step) == (3, step)
    assert shown.severity in ("warning", "critical")
    assert f"it arises at {step}" in shown.sentence


def test_the_step_itself_is_named_where_ours_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fault of ours in one step would come to: bilinear in the place of bicubic."""
    import medharden.data.view.spatial as module

    exact = module.resized_by_pillow
    protocol = protocol_of(TIMM)
    model = loaded(timm_model(tmp_path), protocol)
    monkeypatch.setattr(module, "resized_by_pillow", lambda values, size, mode: exact(values, size, "bilinear"))
    shown, _ = compared(model, data_in(tmp_path), protocol)
    assert shown.step == "Resize"


def test_pixels_that_are_read_otherwise_are_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import medharden.parity as module

    protocol = protocol_of(BUNDLE)
    model = loaded(bundle(tmp_path), protocol)
    data, exact = data_in(tmp_path), module.read_file
    cohort = load_cohort(data, protocol, key=KEY)
    cohort.inputs.read = lambda rows: 1 - type(cohort.inputs).read(cohort.inputs, rows)  # type: ignore[method-assign]

    def inverted(*given: Any) -> Any:
        image = exact(*given)
        return dataclasses.replace(image, values=255 - image.values)

    monkeypatch.setattr(module, "read_file", inverted)
    shown = show_parity(model, cohort, lambda: stored_cases(data, protocol, key=KEY), protocol, cases=1)
    assert shown.step == "reading the file"


VOLUMES = """
input:
  dims: 3
  spatial:
    - {step: orientation, axes: RAS}
    - {step: spacing, mm: [2.0, 2.0, 2.0]}
    - {step: foreground}
    - {step: resize, size: [16, 16, 16], mode: linear}
  intensity: {mode: max, inverted: never}
"""


def volumes(folder: Path) -> tuple[Path, Path]:
    """Twelve NIfTI volumes, turned and stretched, and a bundle of a volume pipeline."""
    rng = np.random.default_rng(0)
    for n in range(24):
        place = folder / "data" / ("ill", "well")[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        values = rng.integers(1, 900, (12, 14, 10)).astype(np.int16)
        values[:2] = 0
        nib.save(nib.Nifti1Image(values, np.diag([-3.0, 3.0, 4.0, 1.0])), place / f"{n}.nii.gz")
    keys = {"keys": "image"}
    transforms = [
        {"_target_": "LoadImaged", **keys},
        {"_target_": "EnsureChannelFirstd", **keys},
        {"_target_": "Orientationd", **keys, "axcodes": "RAS"},
        {"_target_": "Spacingd", **keys, "pixdim": [2.0, 2.0, 2.0], "mode": "bilinear"},
        {"_target_": "CropForegroundd", **keys, "source_key": "image"},
        {"_target_": "Resized", **keys, "spatial_size": [16, 16, 16], "mode": "trilinear"},
        {"_target_": "NormalizeIntensityd", **keys, "nonzero": True},
    ]
    return folder / "data", bundle(folder, transforms=transforms, dims=3)


def test_volumes_are_held_against_their_bundle_and_the_step_that_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medharden.data.view.spatial as module

    data, path = volumes(tmp_path)
    protocol = protocol_of(VOLUMES)
    model = load_classifier(path, dims=3, fed=protocol.input, spec=protocol.model)
    shown, _ = compared(model, data, protocol, cases=2)
    assert shown.shown, shown
    exact = module._foreground
    monkeypatch.setattr(module, "_foreground", lambda values: exact(values)[:, 1:])
    shown, _ = compared(model, data, protocol, cases=2)
    assert shown.step == "CropForegroundd"


def test_what_can_t_be_shown_is_said_with_its_reason(tmp_path: Path) -> None:
    protocol = protocol_of(TIMM)
    model = loaded(timm_model(tmp_path), protocol)
    shown, _ = compared(model, data_in(tmp_path, dicom), protocol)
    assert (shown.cases, shown.shown, shown.severity) == (0, False, "warning")
    assert shown.sentence == (
        "That the model was fed as its source says is not shown: timm's create_transform takes pictures, and the "
        "cases are none."
    )


def test_a_file_that_names_no_pipeline_is_said_and_nothing_is_read_for_it(tmp_path: Path) -> None:
    timm_model(tmp_path)
    (tmp_path / "config.json").unlink()
    protocol = protocol_of("input: {channels: rgb, size: [32, 32]}")
    model = load_classifier(tmp_path / "model.safetensors", arch="test_resnet", fed=protocol.input)
    cohort = load_cohort(data_in(tmp_path), protocol, key=KEY)

    def never() -> Any:
        raise AssertionError("no file is needed")

    shown = show_parity(model, cohort, never, protocol, cases=4)
    assert (shown.pipeline, shown.severity) == ("", "info")
    assert "its file names no pipeline" in shown.sentence


def test_no_test_case_is_read(tmp_path: Path) -> None:
    protocol = protocol_of(TIMM)
    model = loaded(timm_model(tmp_path), protocol)
    data = data_in(tmp_path)
    cohort = load_cohort(data, protocol, key=KEY)
    seen: list[str] = []
    files = stored_cases(data, protocol, key=KEY)

    class Watched(dict):  # type: ignore[type-arg]
        def get(self, name: str, default: Any = None) -> Any:
            seen.append(name)
            return super().get(name, default)

    watched = dataclasses.replace(files, entries=Watched(files.entries))
    show_parity(model, cohort, lambda: watched, protocol, cases=1000)
    assert set(seen) == {c.case for c in cohort.cases if c.split == "train"}


def test_a_transform_may_refuse_a_file_without_a_word_of_it(tmp_path: Path) -> None:
    protocol = protocol_of(TIMM)
    model = loaded(timm_model(tmp_path), protocol)
    data = data_in(tmp_path)
    cohort = load_cohort(data, protocol, key=KEY)
    for file in data.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:60])
    shown = show_parity(model, cohort, lambda: stored_cases(data, protocol, key=KEY), protocol, cases=2)
    assert shown.cases == 0
    assert "does not take the files (" in shown.why
    assert str(tmp_path) not in shown.why
