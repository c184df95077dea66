"""The model zoo's bundles for pathology, and its template: fed as MONAI feeds them, or refused with the way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.transforms
import numpy as np
import pytest
import torch
from monai.apps.nuclick.transforms import AddLabelAsGuidanced
from monai.bundle import ConfigParser
from PIL import Image
from zoo_bundles import NUCLEI, TEMPLATE, TUMOUR, as_shipped

from medharden.data import Cohort, load_cohort
from medharden.data.stored.cases import stored_cases
from medharden.errors import ModelError
from medharden.models import Classifier, check_classifier, load_classifier
from medharden.models.bundles import bundle_inputs
from medharden.models.source_view import view_lines
from medharden.parity import show_parity
from medharden.protocol import Protocol, parse_protocol

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI's and torchvision's own

KEY = b"k" * 32
HEAD = """
schema_version: 1
name: zoo
title: Zoo
intended_use: Tests.
threat: {norm: linf, eps: 2, unit: 1/255}
splits: {patients: {unit: each_case, reason: Each image is drawn by itself.}}
"""
SHAPES = ("background", "circle", "triangle", "rectangle")
KINDS = ("Other", "Inflammatory", "Epithelial", "Spindle-Shaped")


def drawn(folder: Path, names: tuple[str, ...], shape: tuple[int, ...]) -> Path:
    """Three pictures a class, in a folder each."""
    rng = np.random.default_rng(1)
    for n in range(3 * len(names)):
        place = folder / names[n % len(names)]
        place.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 230, shape, dtype=np.uint8)
        values[: 5 * (n + 1)] //= 2
        Image.fromarray(values).save(place / f"{n}.png")
    return folder


def of_classes(names: tuple[str, ...]) -> str:
    return f"{HEAD}task: {{classes: [{', '.join(names)}]}}\n"


def fed_as_said(bundle: Path, data: Path, names: tuple[str, ...]) -> tuple[Classifier, Cohort, Protocol]:
    """A bundle, and the data as its own configuration feeds it."""
    view = bundle_inputs(bundle, 2)
    assert view is not None
    protocol = parse_protocol(of_classes(names) + view_lines(view), "zoo.yaml")
    model = load_classifier(bundle, fed=protocol.input, spec=protocol.model)
    return model, load_cohort(data, protocol, key=KEY), protocol


def through_monai(config: dict[str, Any], state: dict[str, Any]) -> torch.Tensor:
    """(1, C, H, W) of what the configuration's own `Compose` makes."""
    parser = ConfigParser({k: v for k, v in config.items() if k not in ("network_def", "dataset")})
    image = parser.get_parsed_content("preprocessing")(state)["image"]
    return torch.as_tensor(np.asarray(image)).float()[None]


def logits_of_one(answer: torch.Tensor) -> torch.Tensor:
    """(1, 2) of a network's one logit, of whatever shape it is."""
    return torch.stack([torch.zeros(()), answer.squeeze()])[None]


def test_tumour_detection_on_patches_of_slides_answers_as_through_monai(tmp_path: Path) -> None:
    bundle, network = as_shipped(tmp_path / "bundle", TUMOUR, ("metastasis",))
    data = drawn(tmp_path / "data", ("normal", "tumour"), (224, 224, 3))
    model, cohort, protocol = fed_as_said(bundle, data, ("normal", "tumour"))
    assert (model.record.one_logit, model.record.classes, model.record.channels) == (True, 2, 3)
    assert any("1 channels of an answer of 2" in text for text in model.record.assumed)
    check_classifier(model, cohort.batch(range(2))[0], cohort.classes)
    files = stored_cases(data, protocol, key=KEY).entries
    for row in range(3):
        picture = np.asarray(Image.open(files[cohort.cases[row].case].path))
        made = through_monai(TUMOUR, {"image": np.moveaxis(picture, -1, 0)})  # as MONAI's readers give a patch
        with torch.no_grad():
            answer = network(made)
            assert answer.shape == (1, 1, 1, 1)
            assert (model(cohort.batch([row])[0]) - logits_of_one(answer)).abs().max() < 1e-4
    shown = show_parity(model, cohort, lambda: stored_cases(data, protocol, key=KEY), protocol, cases=3)
    assert shown.shown, shown
    with pytest.raises(ModelError, match=r"\(2, 1, 2, 2\).*input\.size as it was trained"):
        check_classifier(model, torch.rand(2, 3, 256, 256), cohort.classes)


def test_the_classification_template_answers_as_through_monai(tmp_path: Path) -> None:
    bundle, network = as_shipped(tmp_path / "bundle", TEMPLATE, SHAPES)
    data = drawn(tmp_path / "data", SHAPES, (48, 64))
    model, cohort, protocol = fed_as_said(bundle, data, SHAPES)
    assert model.record.class_names == SHAPES
    check_classifier(model, cohort.batch(range(2))[0], cohort.classes)
    files = stored_cases(data, protocol, key=KEY).entries
    for row in range(3):
        made = through_monai(TEMPLATE, {"image": str(files[cohort.cases[row].case].path)})
        with torch.no_grad():
            assert (model(cohort.batch([row])[0]) - network(made)).abs().max() < 1e-4
    shown = show_parity(model, cohort, lambda: stored_cases(data, protocol, key=KEY), protocol, cases=3)
    assert shown.shown, shown


def by_channel(folder: Path) -> Path:
    """Nuclei as the bundle's data are, picture and mask, and each channel as a grey file of its own."""
    rng = np.random.default_rng(2)
    for n in range(12):
        place = folder / KINDS[n % 4]
        place.mkdir(parents=True, exist_ok=True)
        picture, mask = rng.integers(0, 256, (128, 96, 3), dtype=np.uint8), np.zeros((128, 96), np.uint8)
        mask[40 : 60 + n, 30:50] = 255
        for name, values in zip("rgb", np.moveaxis(picture, -1, 0), strict=True):
            Image.fromarray(values).save(place / f"{n}_{name}.png")
        Image.fromarray(mask).save(place / f"{n}_mask.png")
        (folder.parent / "pairs").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder.parent / "pairs" / f"{n}.png")
        Image.fromarray(mask).save(folder.parent / "pairs" / f"{n}_mask.png")
    return folder


def test_nuclei_with_a_mask_as_fourth_channel_are_refused_as_pictures_and_the_way_round_answers_as_monai(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, network = as_shipped(tmp_path / "bundle", NUCLEI, KINDS)
    with pytest.raises(ModelError, match="AddLabelAsGuidanced adds a mask as a further channel") as refused:
        bundle_inputs(bundle, 2)
    model = load_classifier(bundle, spec=parse_protocol(f"{HEAD}model: {{view: protocol}}", "zoo.yaml").model)
    for channels, said in ((1, "one"), (3, "3")):
        with pytest.raises(ModelError, match=rf"takes 4 channels, the data have {said}.*input\.channels_from"):
            check_classifier(model, torch.rand(2, channels, 64, 64), KINDS)

    lines = str(refused.value).partition("and state ")[2].replace(", model: {", "\nmodel: {")
    protocol = parse_protocol(of_classes(KINDS) + lines, "zoo.yaml")
    model = load_classifier(bundle, fed=protocol.input, spec=protocol.model)
    data = by_channel(tmp_path / "data")
    cohort = load_cohort(data, protocol, key=KEY)
    check_classifier(model, cohort.batch(range(2))[0], cohort.classes)
    monkeypatch.setattr(monai.transforms, "AddLabelAsGuidanced", AddLabelAsGuidanced, raising=False)
    files = stored_cases(data, protocol, key=KEY).entries
    for row, case in enumerate(cohort.cases):
        number = Path(next(iter(files[case.case].channels[0]))).stem.partition("_")[0]
        pair = {"image": tmp_path / "pairs" / f"{number}.png", "label": tmp_path / "pairs" / f"{number}_mask.png"}
        made = through_monai(NUCLEI, {name: str(path) for name, path in pair.items()})
        assert made.shape[1] == 4
        assert set(made[0, 3].unique().tolist()) == {0.0, 1.0}
        with torch.no_grad():
            assert (model(cohort.batch([row])[0]) - network(made)).abs().max() < 1e-4


UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}


@pytest.mark.parametrize(
    ("name", "arguments", "side"),
    [
        ("UNet", UNET, 32),
        ("UNet", UNET | {"out_channels": 1}, 32),
        ("BasicUNet", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 4, 4, 4, 4, 4]}, 32),
        ("SegResNet", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_filters": 8}, 32),
        ("HighResNet", {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, 12),
        ("SwinUNETR", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "feature_size": 12}, 64),
    ],
)
def test_a_network_for_segmentation_is_refused_by_the_shape_of_its_answer(
    tmp_path: Path, name: str, arguments: dict[str, Any], side: int
) -> None:
    network = getattr(monai.networks.nets, name)(**arguments)
    torch.save(network.state_dict(), tmp_path / "m.pt")
    dims = arguments["spatial_dims"]
    protocol = parse_protocol(f"{HEAD}model: {{arguments: {arguments}}}", "zoo.yaml")
    model = load_classifier(tmp_path / "m.pt", arch=f"monai:{name}", dims=dims, spec=protocol.model)
    with pytest.raises(ModelError, match=rf"\(2, \d(, {side}){{{dims}}}\).*one value a pixel.*segmentation"):
        check_classifier(model, torch.rand(2, 1, *(side,) * dims), ("a", "b"))
