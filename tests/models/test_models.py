"""Loading what teams have, and the hardened module built on it."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file
from torch import Tensor, nn

from medharden.audit import canonical_json
from medharden.errors import ModelError
from medharden.models import (
    Classifier,
    HardenedClassifier,
    check_classifier,
    describe_hardened,
    hardened_bytes,
    load_classifier,
    load_hardened,
    mix,
    mix_findings,
    state_digest,
    timm_module,
)
from medharden.protocol import ModelSpec
from medharden.record import FusionRecord, ModelRecord

FUSION = FusionRecord("mixed", 0.7, 1.3, 0.8, 0.3, 0.02)


def timm_network(name: str = "test_resnet", classes: int = 3, channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return timm_module().create_model(name, num_classes=classes, in_chans=channels).eval()


def save_checkpoint(path: Path, network: nn.Module, name: str = "test_resnet", **extra: object) -> Path:
    torch.save({"arch": name, "state_dict": network.state_dict(), **extra}, path)
    return path


class Toy(nn.Module):
    """A linear classifier of K classes over 4x4 gray images."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(16, classes)
        self.norm = nn.BatchNorm1d(classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(self.layer(inputs.flatten(1)))


def toy(classes: int = 2, seed: int = 0) -> Classifier:
    record = ModelRecord("python", "x:Toy", {}, classes, 1, 2, (0.0,), (1.0,), False, "0" * 64, "0" * 64, 34)
    return Classifier(Toy(classes, seed), record)


def hardened(mode: str, classes: int = 2, bias: Tensor | None = None, **changes: float) -> HardenedClassifier:
    fusion = dataclasses.replace(FUSION, mode=mode, **changes)
    return HardenedClassifier(toy(classes, 0), toy(classes, 1), fusion, torch.zeros(classes) if bias is None else bias)


# --- loading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_a_timm_checkpoint_loads_with_classes_channels_and_normalisation_from_it(tmp_path: Path, name: str) -> None:
    network = timm_network(name, classes=4, channels=3)
    model = load_classifier(save_checkpoint(tmp_path / "model.pt", network, name))
    config = network.pretrained_cfg
    assert (model.record.classes, model.record.channels) == (4, 3)
    assert (model.record.mean, model.record.std) == (tuple(config["mean"]), tuple(config["std"]))
    inputs = torch.rand(2, 3, *config["input_size"][1:])
    assert torch.equal(model(inputs), network((inputs - model.mean) / model.std))


def test_a_trainer_s_namespace_is_read_and_its_normalisation_taken(tmp_path: Path) -> None:
    arguments = argparse.Namespace(mean=[0.2], std=[0.3], lr=0.1, opt="sgd")
    model = load_classifier(save_checkpoint(tmp_path / "m.pt", timm_network(), args=arguments, epoch=3))
    assert (model.record.mean, model.record.std) == ((0.2,), (0.3,))
    spec = ModelSpec(mean=(0.5,), std=(0.25,))
    assert load_classifier(tmp_path / "m.pt", spec=spec).record.mean == (0.5,), "the protocol has the last word"


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_plain_state_dict_loads_under_a_named_architecture(tmp_path: Path, prefix: str, suffix: str) -> None:
    network = timm_network()
    state = OrderedDict((prefix + k, v) for k, v in network.state_dict().items())
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = load_classifier(path, arch="timm:test_resnet")
    assert model.record.classes == 3
    inputs = torch.rand(1, 1, 64, 64)
    assert torch.equal(model(inputs), network((inputs - model.mean) / model.std))


@pytest.mark.parametrize(
    ("name", "dims", "arguments"),
    [
        ("SEResNet50", 2, {}),
        ("SEResNet101", 2, {}),
        ("SEResNext50", 2, {}),
        ("SEResNet50", 3, {}),
        ("DenseNet169", 2, {"init_features": 8, "growth_rate": 4}),
        ("resnet10", 2, {}),
        ("resnet50", 2, {"shortcut_type": "A", "bias_downsample": False}),
        ("Classifier", 2, {"in_shape": [1, 32, 32], "channels": [4, 8], "strides": [2, 2]}),
        ("EfficientNetBN", 3, {"model_name": "efficientnet-b0"}),
        ("DenseNet121", 2, {}),
        ("DenseNet121", 3, {"init_features": 8, "growth_rate": 4}),
        ("resnet18", 3, {}),
        ("EfficientNetBN", 2, {"model_name": "efficientnet-b0"}),
    ],
)
def test_monai_networks_load_in_two_and_three_dimensions(
    tmp_path: Path, name: str, dims: int, arguments: dict[str, object]
) -> None:
    from monai.networks import nets

    sizes: dict[str, object] = {"spatial_dims": dims, "in_channels": 1, "out_channels": 5}
    if name.startswith("resnet"):
        sizes = {"spatial_dims": dims, "n_input_channels": 1, "num_classes": 5}
    elif name.startswith(("EfficientNet", "SE")):
        sizes = {"spatial_dims": dims, "in_channels": 1, "num_classes": 5, "pretrained": False}
    elif name == "Classifier":
        sizes = {"classes": 5}
    torch.manual_seed(0)
    network = getattr(nets, name)(**sizes, **arguments).eval()
    torch.save(network.state_dict(), tmp_path / "m.pth")
    spec = ModelSpec(arch=f"monai:{name}", arguments=arguments)
    model = load_classifier(tmp_path / "m.pth", spec=spec, dims=dims)
    assert (model.record.classes, model.record.channels, model.record.dims) == (5, 1, dims)
    inputs = torch.rand(1, 1, *(32,) * dims)
    assert torch.equal(model(inputs), network(inputs))


@pytest.mark.parametrize("name", ["EfficientNetBNFeatures", "MILModel", "CellSamWrapper", "UNetty"])
def test_networks_of_monai_that_classify_no_image_are_refused_by_name(tmp_path: Path, name: str) -> None:
    torch.save({"a.weight": torch.zeros(2, 3)}, tmp_path / "m.pth")
    with pytest.raises(ModelError, match=name):
        load_classifier(tmp_path / "m.pth", arch=f"monai:{name}")


def make_bundle(folder: Path, definition: dict[str, object], network: nn.Module) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": definition, "x": "$import os"}))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def test_a_monai_bundle_loads_from_its_network_definition(tmp_path: Path) -> None:
    from monai.networks.nets import DenseNet121

    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)
    definition = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 3}
    model = load_classifier(make_bundle(tmp_path / "bundle", definition, network))
    assert (model.record.source, model.record.classes) == ("bundle", 3)
    definition = {"_target_": "timm.create_model", "model_name": "test_resnet", "pretrained": True, "in_chans": 1}
    model = load_classifier(make_bundle(tmp_path / "other", definition, timm_network()))
    assert model.record.arch == "timm:test_resnet"


@pytest.mark.parametrize(
    ("definition", "argument"),
    [
        (
            {"_target_": "timm.create_model", "model_name": "test_resnet", "checkpoint_path": "other.pt"},
            "checkpoint_path",
        ),
        ({"_target_": "HoVerNet", "pretrained_url": "https://example.org/other.pt"}, "pretrained_url"),
        ({"_target_": "TorchVisionFCModel", "model_name": "resnet18", "weights": "DEFAULT"}, "weights"),
    ],
)
def test_a_bundle_that_names_other_weights_than_its_own_is_refused(
    tmp_path: Path, definition: dict[str, object], argument: str
) -> None:
    with pytest.raises(ModelError, match=f"{argument} would load other weights"):
        load_classifier(make_bundle(tmp_path / "bundle", definition, timm_network()))


@pytest.mark.parametrize(
    "definition",
    [
        {"_target_": "DenseNet121", "spatial_dims": "$__import__('os').mkdir('ran')"},
        {"_target_": "$__import__('os').mkdir('ran')"},
        {"_target_": "os.mkdir", "path": "ran"},
        {"_target_": "DenseNet121", "in_channels": "@channels"},
    ],
)
def test_a_bundle_s_expressions_are_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, definition: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"expression|expected one of monai"):
        load_classifier(make_bundle(tmp_path / "bundle", definition, timm_network()))
    assert not (tmp_path / "ran").exists()


def test_the_foreign_ultrasound_weights_load_through_a_class_the_user_names(
    tmp_path: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "tests" / "helpers")
    path = test_data / "weights" / "breastmnist_cnn.pth"
    spec = ModelSpec(mean=(0.5,), std=(0.5,))
    model = load_classifier(path, arch="python:foreign_networks:BreastCnn", spec=spec)
    assert model.record.channels == 1
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 2)
    monkeypatch.delitem(sys.modules, "foreign_networks")
    with pytest.raises(ModelError, match="can't name Python code"):
        load_classifier(path, spec=ModelSpec(arch="python:foreign_networks:BreastCnn"))


class _Harmful:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"arch": "test_resnet", "state_dict": _Harmful()}, "torch.pt")
    Path("plain.pt").write_bytes(pickle.dumps(_Harmful()))
    torch.save(timm_network(), "module.pt")
    for name in ("torch.pt", "plain.pt", "module.pt"):
        with pytest.raises(ModelError, match=r"pickled Python objects.*state_dict"):
            load_classifier(Path(name), arch="timm:test_resnet")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.pop("fc.bias"), r"1 missing: fc\.bias"),
        (lambda s: s.update({"more.weight": torch.zeros(2)}), r"1 unexpected: more\.weight"),
        (lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(1, 1, 3, 3)}), r"of another shape.*expected \("),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change, expected: str) -> None:
    network = timm_network()
    state = OrderedDict(network.state_dict())
    change(state)
    torch.save({"arch": "test_resnet", "state_dict": state}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=expected):
        load_classifier(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        (None, "expected --arch"),
        ("timm:resnet_eighteen", "timm .* has no model"),
        ("monai:NoNet", "has no network"),
        ("monai:_densenet", "has no network"),
        ("monai:get_pretrained_resnet_medicalnet", "has no network"),
        ("python:nowhere", "expected timm:NAME"),
        ("python:nowhere.at_all:Net", "can't be imported"),
        ("python::Net", "can't be imported"),
        ("python:.here:Net", "can't be imported"),
        ("monai:CellSamWrapper", "has no network"),
        ("timm:test_vit", "do not fit timm:test_vit"),
        ("keras:x", "expected timm:NAME"),
    ],
)
def test_a_wrong_architecture_says_what_was_expected(tmp_path: Path, arch: str | None, expected: str) -> None:
    torch.save(timm_network().state_dict(), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=expected):
        load_classifier(tmp_path / "m.pt", arch=arch)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "damaged"), (b"not a model at all", "damaged"), (pickle.dumps([1, 2]), "pickled Python objects")],
)
def test_a_damaged_file_is_a_model_error(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ModelError, match=expected):
        load_classifier(tmp_path / "m.pt", arch="timm:test_resnet")


def test_a_model_that_does_not_fit_the_data_says_so() -> None:
    inputs = torch.rand(2, 1, 4, 4)
    check_classifier(toy(2), inputs, ("a", "b"))
    with pytest.raises(ModelError, match="answers 2 classes, the data have 3"):
        check_classifier(toy(2), inputs, ("a", "b", "c"))
    with pytest.raises(ModelError, match="does not accept inputs of shape"):
        check_classifier(toy(2), torch.rand(2, 1, 5, 5), ("a", "b"))
    with pytest.raises(ModelError, match="takes 1 channel"):
        check_classifier(toy(2), torch.rand(2, 3, 4, 4), ("a", "b"))


def test_a_network_that_fails_without_a_word_or_lacks_a_package_is_a_model_error(tmp_path: Path) -> None:
    from foreign_networks import TinyNet

    torch.save(TinyNet().state_dict(), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"needs a package that is not installed: .* 'einops'\)\.$"):
        load_classifier(tmp_path / "m.pt", arch="python:foreign_networks:Lacking")
    fussy = load_classifier(tmp_path / "m.pt", arch="python:foreign_networks:Fussy")
    with pytest.raises(
        ModelError,
        match=r"not accept inputs of shape .*: TypeError at foreign_networks.py, line \d+, in forward; set input\.size",
    ):
        check_classifier(fussy, torch.rand(2, 1, 16, 16), ("a", "b"))


def test_a_one_logit_network_answers_as_its_sigmoid(tmp_path: Path) -> None:
    network = timm_network(classes=1)
    model = load_classifier(save_checkpoint(tmp_path / "m.pt", network))
    inputs = torch.rand(3, 1, 64, 64)
    expected = network((inputs - model.mean) / model.std).sigmoid().squeeze(1)
    torch.testing.assert_close(model(inputs).softmax(1)[:, 1], expected)


def test_gray_input_is_no_four_channels(tmp_path: Path) -> None:
    network = timm_module().create_model("test_resnet", num_classes=2, in_chans=4)
    torch.save(network.state_dict(), tmp_path / "m.pt")
    model = load_classifier(tmp_path / "m.pt", arch="timm:test_resnet", spec=ModelSpec(mean=(0.5,), std=(0.5,)))
    with pytest.raises(ModelError, match=r"takes 4 channels, the data have one.*input\.channels_from"):
        check_classifier(model, torch.rand(2, 1, 32, 32), ("a", "b"))
    check_classifier(model, torch.rand(2, 4, 32, 32), ("a", "b"))


def test_gray_input_reaches_a_colour_network_as_three_equal_channels(tmp_path: Path) -> None:
    model = load_classifier(save_checkpoint(tmp_path / "m.pt", timm_network(channels=3)))
    gray = torch.rand(2, 1, 64, 64)
    assert torch.equal(model(gray), model(gray.repeat(1, 3, 1, 1)))


# --- the hardened module -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("mode", ["clean", "guarded"])
def test_clean_logits_are_bitwise_the_original_s_in_clean_and_guarded_mode(mode: str, classes: int) -> None:
    model = hardened(mode, classes)
    inputs = torch.rand(5, 1, 4, 4)
    assert torch.equal(model(inputs), toy(classes, 0)(inputs))
    assert torch.equal(model.assess(inputs).logits, toy(classes, 0)(inputs))


def test_no_call_of_train_moves_a_buffer_of_either_path() -> None:
    model = hardened("mixed")
    parent = nn.Sequential(model)
    before = state_digest(model)
    parent.train()
    parent(torch.rand(8, 1, 4, 4))
    assert state_digest(model) == before
    assert not model.clean_path.training
    assert not any(p.requires_grad for p in model.clean_path.parameters())


def test_a_state_digest_sees_a_single_buffer_change() -> None:
    model = toy()
    before = state_digest(model)
    model.network.norm.running_mean[0] += 1e-7
    assert state_digest(model) != before


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_mixed_answers_the_weighted_probabilities(classes: int) -> None:
    clean, robust = torch.randn(9, classes), torch.randn(9, classes)
    expected = 0.3 * (clean / 1.3).softmax(1) + 0.7 * (robust / 0.8).softmax(1)
    torch.testing.assert_close(mix(clean, robust, FUSION, torch.zeros(classes)).exp(), expected)


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.8])
def test_temperatures_move_no_answer_whatever_the_decision_threshold(threshold: float) -> None:
    """About 0, temperature 3 would answer cases of p = .2 positive at a threshold of .3."""
    logits = 3 * torch.randn(500, 2)
    bias = torch.tensor([0.0, math.log((1 - threshold) / threshold)])
    fusion = dataclasses.replace(FUSION, weight=0.7, clean_temperature=3.0, robust_temperature=3.0)
    mixed = mix(logits, logits, fusion, bias) + bias
    assert torch.equal(mixed.argmax(1), (logits + bias).argmax(1))
    found = mix_findings(logits, logits, fusion, bias) + bias
    assert torch.equal(found > 0, logits + bias > 0)


def test_mixed_stays_finite_and_differentiable_where_both_paths_are_saturated() -> None:
    clean = torch.tensor([[1e4, -1e4]], requires_grad=True)
    robust = torch.tensor([[-50.0, 50.0]], requires_grad=True)
    mixed = mix(clean, robust, FUSION, torch.zeros(2))
    mixed[0, 1].backward()
    assert torch.isfinite(mixed).all()
    assert torch.isfinite(robust.grad).all()


def test_the_gradient_of_the_mix_is_right() -> None:
    clean, robust = torch.randn(2, 3, dtype=torch.double), torch.randn(2, 3, dtype=torch.double)
    clean.requires_grad_()
    robust.requires_grad_()
    bias = torch.tensor([0.0, 1.4, -0.3])
    assert torch.autograd.gradcheck(lambda c, r: mix(c, r, FUSION, bias), (clean, robust))


def test_guarded_refers_where_the_paths_disagree_or_the_branch_hardly_supports_the_answer() -> None:
    model = hardened("guarded", 3, referral_threshold=0.4)
    inputs = torch.rand(400, 1, 4, 4)
    clean, robust = model.clean_path(inputs), model.robust_branch(inputs)
    answer = clean.argmax(1)
    own = (robust / 0.8).softmax(1).gather(1, answer[:, None]).squeeze(1)
    expected = (answer != robust.argmax(1)) | (own < 0.4)
    assert int((answer != robust.argmax(1)).sum()) < int(expected.sum()) < 400
    assert torch.equal(model.assess(inputs).referred, expected)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_attacker_s_view_of_guarded_leads_with_an_answer_exactly_where_it_is_not_referred(classes: int) -> None:
    bias = torch.zeros(classes)
    bias[0] = 0.4
    model = hardened("guarded", classes, bias=bias, referral_threshold=0.55)
    inputs = torch.rand(400, 1, 4, 4)
    view, assessment = model.decision_view(), model.assess(inputs)
    column = view(inputs).argmax(1)
    assert view.refers
    assert torch.equal(column == classes, assessment.referred)
    answered = ~assessment.referred
    assert torch.equal(column[answered], (assessment.logits + bias).argmax(1)[answered])


@pytest.mark.parametrize("mode", ["mixed", "guarded"])
def test_the_attacker_s_view_is_in_the_mode_of_its_model(mode: str) -> None:
    assert not any(module.training for module in hardened(mode).decision_view().modules())


def test_the_decision_threshold_shifts_the_attacked_decision_and_not_the_logits() -> None:
    threshold = 0.2
    bias = torch.tensor([0.0, torch.logit(torch.tensor(1 - threshold))])
    inputs = torch.rand(200, 1, 4, 4)
    model = hardened("robust", bias=bias)
    positive = model(inputs).softmax(1)[:, 1] >= threshold
    assert torch.equal(model.decision_view()(inputs).argmax(1) == 1, positive)
    assert torch.equal(model(inputs), toy(2, 1)(inputs))


# --- storage -----------------------------------------------------------------------------------------------------


def store(folder: Path, model: HardenedClassifier) -> None:
    description = canonical_json(describe_hardened(model)) + b"\n"
    (folder / "hardened.safetensors").write_bytes(hardened_bytes(model, description))
    (folder / "hardened.json").write_bytes(description)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, HardenedClassifier]:
    clean = load_classifier(save_checkpoint(tmp_path / "m.pt", timm_network()))
    branch = copy.deepcopy(clean)
    with torch.no_grad():
        branch.network.fc.weight.add_(0.01)
    model = HardenedClassifier(clean, branch, FUSION, torch.zeros(3))
    store(tmp_path, model)
    return tmp_path, model


def test_a_hardened_model_is_the_same_bits_after_storage(stored: tuple[Path, HardenedClassifier]) -> None:
    folder, model = stored
    back = load_hardened(folder)
    assert state_digest(back) == state_digest(model)
    assert back.fusion == model.fusion
    inputs = torch.rand(2, 1, 64, 64)
    assert torch.equal(back(inputs), model(inputs))


def test_what_the_branch_shares_with_the_clean_path_is_stored_once(stored: tuple[Path, HardenedClassifier]) -> None:
    folder, _ = stored
    assert (folder / "hardened.safetensors").stat().st_size < 1.1 * (folder / "m.pt").stat().st_size


@pytest.mark.parametrize("damage", ["missing", "truncated", "other", "description"])
def test_a_damaged_hardened_model_is_a_model_error(stored: tuple[Path, HardenedClassifier], damage: str) -> None:
    folder, _ = stored
    weights = folder / "hardened.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "other":
        save_file({"clean_path.network.fc.weight": torch.zeros(3, 4)}, weights)
    else:
        (folder / "hardened.json").write_text("{}")
    with pytest.raises(ModelError):
        load_hardened(folder)


def test_an_edited_fusion_weight_is_noticed_when_the_model_is_loaded(
    stored: tuple[Path, HardenedClassifier],
) -> None:
    folder, _ = stored
    text = (folder / "hardened.json").read_text()
    assert '"weight":0.7' in text
    (folder / "hardened.json").write_text(text.replace('"weight":0.7', '"weight":0.1'))
    with pytest.raises(ModelError, match="was one of them replaced"):
        load_hardened(folder)


def test_python_code_behind_a_stored_model_must_be_named_again(tmp_path: Path) -> None:
    store(tmp_path, hardened("mixed"))
    with pytest.raises(ModelError, match=r"name it to allow it: --arch python:x:Toy"):
        load_hardened(tmp_path)
