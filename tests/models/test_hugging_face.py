"""Hugging Face folders of transformers: they answer as through transformers' own model and image processor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_timm_view import fed_as_refused, ours, pictures
from tiny import tiny_protocol
from torch.utils.data import TensorDataset

from medharden.data import Cohort
from medharden.errors import MissingPackageError, ModelError
from medharden.exporting import export
from medharden.hardening import harden
from medharden.models import (
    Classifier,
    check_classifier,
    load_classifier,
    load_hardened,
    timm_module,
)
from medharden.protocol import Input, ModelSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

timm_module()
transformers = pytest.importorskip("transformers")

PLAIN = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
PLAIN |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = SMALL | {"image_size": 32, "patch_size": 8}
WINDOWS = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": 32, "patch_size": 4}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
SQUARE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2}
CUT = {"size": {"height": 40, "width": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
EACH: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ViT": ("ViT", PATCHES, SQUARE),
    "DeiT": ("DeiT", PATCHES, {"image_processor_type": "DeiTImageProcessor", **CUT, "resample": 3}),
    "DeiT, distilled": (
        "DeiTWithTeacher",
        PATCHES,
        {"feature_extractor_type": "DeiTFeatureExtractor", **CUT, "resample": 3},
    ),
    "BEiT": ("Beit", PATCHES, {"image_processor_type": "BeitImageProcessor", **CUT, "resample": 3}),
    "DINOv2": (
        "Dinov2",
        SMALL | {"image_size": 28, "patch_size": 14, "mlp_ratio": 2},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 40},
            "crop_size": {"height": 28, "width": 28},
            "do_center_crop": True,
            "resample": 3,
        },
    ),
    "Swin": ("Swin", WINDOWS, SQUARE | {"image_processor_type": "ViTImageProcessorFast", "resample": 3}),
    "Swin 2": ("Swinv2", WINDOWS, SQUARE | {"resample": 1}),
    "ConvNeXt": (
        "ConvNext",
        {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 64},
            "crop_pct": 0.875,
            "resample": 3,
        },
    ),
    "ConvNeXt 2": (
        "ConvNextV2",
        {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 2},
    ),
    "ResNet": (
        "ResNet",
        STAGES,
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 64, "crop_pct": 0.875, "resample": 3},
    ),
    "RegNet": (
        "RegNet",
        STAGES | {"groups_width": 8},
        {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 48},
            "crop_pct": 0.9,
            "resample": 2,
        },
    ),
}
LABELS = {0: "healthy", 1: "ill", 2: "unclear"}


def saved(folder: Path, name: str) -> tuple[Path, Any]:
    """A folder as `save_pretrained` makes it, and the model that transformers loads from it."""
    stem, settings, processor = EACH[name]
    teacher = "WithTeacher" if stem.endswith("WithTeacher") else ""
    stem = stem.removesuffix("WithTeacher")
    torch.manual_seed(0)
    config = getattr(transformers, f"{stem}Config")(**settings, id2label=LABELS)
    network = getattr(transformers, f"{stem}ForImageClassification{teacher}")(config)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 2.0)
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.2)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PLAIN | processor))
    return folder, type(network).from_pretrained(folder, local_files_only=True).eval()


def theirs(network: Any, folder: Path, file: Path) -> torch.Tensor:
    config = json.loads((folder / "preprocessor_config.json").read_text())
    kind = (config.get("image_processor_type") or config["feature_extractor_type"]).removesuffix("Fast")
    kind = kind.replace("FeatureExtractor", "ImageProcessor")
    processor = getattr(transformers, f"{kind}Pil").from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        return network(**processor(Image.open(file).convert("RGB"), return_tensors="pt")).logits


@pytest.mark.parametrize("name", list(EACH))
def test_a_folder_of_transformers_answers_as_through_transformers(tmp_path: Path, name: str) -> None:
    folder, network = saved(tmp_path / "model", name)
    spec = fed_as_refused(folder)
    model = load_classifier(folder, fed=spec)
    assert model.record.assumed == ()
    assert model.record.class_names == ("healthy", "ill", "unclear")
    assert model.record.origins["mean"] == "preprocessor_config.json"
    for file in pictures(tmp_path):
        expected = theirs(network, folder, file)
        assert expected.std() > 1e-2, "answers that differ"
        difference = (expected - ours(model, spec, file)).abs().max()
        assert difference < 1e-4, (file.name, float(difference))


def test_a_model_of_transformers_is_hardened_and_its_release_exported(tmp_path: Path) -> None:
    folder, network = saved(tmp_path / "model", "ViT")
    protocol = tiny_protocol("input: {intensity: {mode: ready}}\nmodel: {view: protocol, mean: [0.5], std: [0.5]}\n")
    protocol = protocol.model_copy(update={"hardening": protocol.hardening.model_copy(update={"epochs": 1})})
    draw, labels = torch.Generator().manual_seed(1), torch.arange(90) % 3
    data = TensorDataset(torch.rand((90, 3, 32, 32), generator=draw), labels)
    cohort = Cohort.from_dataset(data, protocol, classes=tuple(LABELS.values()), key=b"a key of sixteen bytes or more")
    original = load_classifier(folder, fed=protocol.input, spec=protocol.model)
    record = harden(original, cohort, protocol, tmp_path / "run")
    assert record.clean_logits_identical
    assert record.branch.stored_parameters > 0, "the branch trained"
    released = load_hardened(tmp_path / "run")
    inputs, _ = cohort.batch(range(3))
    with torch.no_grad():
        assert torch.allclose(released.clean_path(inputs), network((inputs - 0.5) / 0.5).logits, atol=1e-5)
        assert not torch.equal(released.robust_branch(inputs), released.clean_path(inputs))
        assert torch.equal(released.clean_path(inputs), original(inputs))
    path, exported = export(released, tmp_path / "run", to="onnx", ungated=True)
    assert path.is_file()
    assert exported.form == "onnx"


def test_the_labels_of_a_configuration_are_held_against_the_data(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model", "ResNet")
    model: Classifier = load_classifier(folder, spec=ModelSpec(view="protocol"))
    inputs = torch.rand(2, 3, 32, 32)
    check_classifier(model, inputs, ("healthy", "ill", "unclear"))
    with pytest.raises(ModelError, match="in the order healthy, ill, unclear"):
        check_classifier(model, inputs, ("ill", "healthy", "unclear"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_processor_type": "EfficientNetImageProcessor"}, "EfficientNetImageProcessor"),
        ({"resample": 0}, "resample 0"),
        ({"do_resize": False}, "do_resize false"),
        ({"do_rescale": False}, "rescaling"),
        ({"rescale_factor": 1 / 127.5}, "rescaling"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"do_pad": True}, "do_pad"),
        ({"do_center_crop": True, "crop_size": 31}, "odd"),
        ({"do_center_crop": True, "crop_size": 40}, "pads"),
        ({"size": {"shortest_edge": 32, "longest_edge": 99}}, "size"),
        ({"image_mean": "grey"}, "image_mean"),
    ],
)
def test_what_an_image_processor_does_that_can_t_be_followed_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    folder, _ = saved(tmp_path / "model", "ViT")
    (folder / "preprocessor_config.json").write_text(json.dumps(PLAIN | SQUARE | change))
    with pytest.raises(ModelError, match=rf"can't follow .*{named}.*model.view: protocol"):
        load_classifier(folder, fed=Input())
    load_classifier(folder, fed=Input(size=(32, 32)), spec=ModelSpec(view="protocol", mean=(0.5,), std=(0.5,)))


def test_without_an_image_processor_mean_and_std_are_a_finding(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model", "ViT")
    (folder / "preprocessor_config.json").unlink()
    (assumed,) = load_classifier(folder).record.assumed
    assert "another normalisation is another model" in assumed


def test_code_in_a_folder_is_never_run_and_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    folder, network = saved(tmp_path / "model", "ViT")
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Net"}
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": own, "_attn_implementation": "a/kernel"}))
    model = load_classifier(folder, spec=ModelSpec(view="protocol"))
    inputs = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model.answered(inputs), network(inputs).logits, atol=1e-5)
    assert not (tmp_path / "was_run").exists()
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["EvilForImageClassification"]}))
    with pytest.raises(ModelError, match=r"EvilForImageClassification.*ViTForImageClassification.*--arch python:"):
        load_classifier(folder)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = saved(tmp_path / "model", "ViT")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackageError, match="its extra `transformers`"):
        load_classifier(folder)
