"""Both paths in one pass: the same answers where a network bears it, and each path by itself where it doesn't."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from deployable import composite, tiny_classifier
from foreign_networks import TinyNet
from torch import Tensor, nn

from medharden.exporting.bundle import opened_bundle
from medharden.exporting.forms import PAIRED
from medharden.exporting.graph import Apart, Deployed, deployed
from medharden.exporting.pairing import BySize
from medharden.exporting.parity import compare
from medharden.exporting.run import made, opened
from medharden.models import Classifier, HardenedClassifier, load_classifier, open_onnx, timm_module
from medharden.protocol import ModelSpec

COLOUR, GREY = (3, 32, 32), (1, 16, 16)


class Counting(TinyNet):
    """Expects as many rows behind its first layer as it was given cases."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classifier(self.features(inputs).reshape(inputs.shape[0], -1))


class OtherNorms(TinyNet):
    """Normalises each case by itself."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.features[1], self.features[4] = nn.GroupNorm(3, 12), nn.InstanceNorm2d(24, affine=True)


class Mixing(TinyNet):
    """A case's answer depends on what else is in its batch."""

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.features(inputs)
        return self.classifier(found - found.mean(0))


class OfBatch(TinyNet):
    """Normalises with the statistics of the batch that it is given."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.features[4] = nn.BatchNorm2d(24, track_running_stats=False)


class Reaching(TinyNet):
    """Takes the numbers out of a layer that it doesn't call."""

    def forward(self, inputs: Tensor) -> Tensor:
        norm = self.features[1]
        found = nn.functional.batch_norm(
            self.features[0](inputs), norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        for layer in list(self.features)[2:]:
            found = layer(found)
        return self.classifier(found)


class Twice(TinyNet):
    """Has one layer of normalisation under two names."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.again = self.features[4]

    def forward(self, inputs: Tensor) -> Tensor:
        found = inputs
        for layer in (*list(self.features)[:4], self.again, *list(self.features)[4:]):
            found = layer(found)
        return self.classifier(found)


def own(folder: Path, network: type[TinyNet]) -> Classifier:
    torch.manual_seed(0)
    torch.save(network(3).state_dict(), folder / "n.pt")
    return load_classifier(folder / "n.pt", arch=f"python:test_pairing:{network.__name__}")


def of_timm(folder: Path, name: str, **arguments: Any) -> Classifier:
    torch.manual_seed(0)
    network = timm_module().create_model(name, num_classes=3, **arguments).train()
    with torch.no_grad():
        network(torch.rand(16, *COLOUR))
    torch.save(network.state_dict(), folder / "t.pt")
    return load_classifier(folder / "t.pt", spec=ModelSpec(arch=f"timm:{name}", arguments=arguments))


def volumes(folder: Path) -> Classifier:
    from monai.networks.nets import DenseNet121

    arguments = {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]}
    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2, **arguments)
    torch.save(network.state_dict(), folder / "v.pt")
    spec = ModelSpec(arch="monai:DenseNet121", arguments=arguments)
    return load_classifier(folder / "v.pt", spec=spec, dims=3)


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2}
NETWORKS: dict[str, tuple[Callable[[Path], Classifier], tuple[int, ...]]] = {
    "efficientnet": (lambda folder: of_timm(folder, "tf_efficientnet_lite0"), COLOUR),
    "resnet": (lambda folder: of_timm(folder, "resnet18"), COLOUR),
    "vit": (lambda folder: of_timm(folder, "vit_tiny_patch16_224", **VIT), COLOUR),
    "volumes": (volumes, (1, 12, 12, 12)),
    "grey": (tiny_classifier, GREY),
    "one logit": (lambda folder: tiny_classifier(folder, 1), GREY),
    "other norms": (lambda folder: own(folder, OtherNorms), GREY),
    "of batch": (lambda folder: own(folder, OfBatch), GREY),
    "counting": (lambda folder: own(folder, Counting), GREY),
}
APART = {network.__name__.lower(): network for network in (Mixing, Reaching, Twice)}


def cases(shape: tuple[int, ...], count: int) -> Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(count))


def clean_logits(graph: Deployed, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return graph.paths(inputs)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_answers_as_a_pass_each_and_with_the_clean_path_s_own_answers(tmp_path: Path, name: str) -> None:
    build, shape = NETWORKS[name]
    clean = build(tmp_path)
    model = composite(clean, shape, "guarded", "norm")
    graph = deployed(model, paired=True)
    assert isinstance(graph.paths, BySize)
    graph.paths = graph.paths.one
    assert graph.paths.stem == (name != "counting")
    for count in (1, 2, 3, 8):
        inputs = cases(shape, count)
        with torch.no_grad():
            paths, expected = graph.paths(inputs), (model.clean_path(inputs), model.robust_branch(inputs))
        for found, wanted in zip(paths, expected, strict=True):
            assert (found - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))
        assert torch.equal(clean_logits(graph, inputs).argmax(1), clean(inputs).argmax(1))
    parity = compare(model, graph, shape, cases(shape, 8))
    assert (parity.answers, parity.referrals) == (0, 0)


@pytest.mark.parametrize("name", APART)
def test_a_network_whose_cases_or_layers_can_t_be_parted_keeps_a_pass_each(tmp_path: Path, name: str) -> None:
    model = composite(own(tmp_path, APART[name]), GREY, "mixed", "norm")
    assert isinstance(deployed(model, paired=True).paths, Apart)
    files, parity = made(model, "torchscript", "", {})
    assert (parity.answers, parity.largest <= 1e-5) == (0, True)
    assert b"passes" not in files[""]


@pytest.mark.parametrize("branch", ["full", "lora"])
def test_a_branch_with_weights_of_its_own_keeps_a_pass_each(tmp_path: Path, branch: str) -> None:
    model = composite(tiny_classifier(tmp_path), GREY, "mixed", branch)
    assert isinstance(deployed(model, paired=True).paths, Apart)


@pytest.mark.parametrize("mode", ["clean", "robust"])
def test_a_mode_that_asks_one_path_has_no_other(tmp_path: Path, mode: str) -> None:
    paths = deployed(composite(tiny_classifier(tmp_path), GREY, mode, "norm"), paired=True).paths
    assert isinstance(paths, Apart)
    assert (paths.clean is None, paths.robust is None) == (mode == "robust", mode == "clean")


def findings(folder: Path, mode: str) -> HardenedClassifier:
    return composite(tiny_classifier(folder, multilabel=True), GREY, mode, "norm", multilabel=True)


@pytest.mark.parametrize("mode", ["mixed", "guarded"])
@pytest.mark.parametrize("form", PAIRED)
def test_findings_are_answered_in_one_pass_each_by_itself(tmp_path: Path, form: str, mode: str) -> None:
    model = findings(tmp_path, mode)
    assert isinstance(deployed(model, paired=True).paths, BySize)
    files, _ = made(model, form, "", {})
    run = opened_bundle(files, 3, multilabel=True) if form == "bundle" else opened(form, files[""])
    for count in (1, 2, 3, 7):
        with torch.no_grad():
            assessed = model.assess(cases(GREY, count))
        outputs = run(cases(GREY, count))
        assert torch.equal(outputs["answer"], (assessed.logits + model.decision_bias > 0).long())
        assert torch.equal(outputs["refer"], assessed.referred)
        assert torch.allclose(outputs["probabilities"], assessed.logits.sigmoid(), atol=1e-5)


def steps(program: bytes, named: str) -> int:
    return sum(named in str(node.target) for node in torch.export.load(io.BytesIO(program)).graph.nodes)


@pytest.mark.parametrize("name", ["resnet", "volumes"])
def test_one_pass_has_as_many_convolutions_as_the_original(tmp_path: Path, name: str) -> None:
    build, shape = NETWORKS[name]
    alone, both = files(build(tmp_path), shape, "pt2", "norm")
    for step in ("conv", "batch_norm"):
        assert steps(alone, step) == steps(both, step) > 0


@pytest.mark.parametrize("form", ["pt2", "torchscript"])
def test_a_file_is_little_larger_than_the_original_s(tmp_path: Path, form: str) -> None:
    build, shape = NETWORKS["efficientnet"]
    alone, norm, lora = files(build(tmp_path), shape, form, "norm", "lora")
    assert len(alone) < min(len(norm), len(lora))
    assert max(len(norm), len(lora)) < 1.1 * len(alone)


def files(clean: Classifier, shape: tuple[int, ...], form: str, *branches: str) -> list[bytes]:
    """The original's, and the composite's with each form of a branch."""
    pairs = (("clean", "full"), *(("mixed", branch) for branch in branches))
    return [made(composite(clean, shape, mode, branch), form, "", {})[0][""] for mode, branch in pairs]


def test_a_script_chooses_by_the_number_of_cases(tmp_path: Path) -> None:
    """Behind the choice each way has its own convolutions: two for both paths, and two for each path."""
    model = composite(tiny_classifier(tmp_path), GREY, "mixed", "norm")
    data = made(model, "torchscript", "", {})[0][""]
    graph = torch.jit.load(io.BytesIO(data)).inlined_graph
    (choice,) = graph.findAllNodes("prim::If", recurse=True)
    ways = [[node.kind() for node in block.nodes()].count("aten::_convolution") for block in choice.blocks()]
    assert ways == [2, 4]
    for count in (1, BySize.most, BySize.most + 1):
        with torch.no_grad():
            expected = model.assess(cases(GREY, count)).logits
        assert torch.allclose(opened("torchscript", data)(cases(GREY, count))["logits"], expected, atol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "pt2", "torchscript"])
def test_a_file_says_how_often_the_network_is_gone_through(tmp_path: Path, form: str) -> None:
    data = made(composite(tiny_classifier(tmp_path), GREY, "mixed", "norm"), form, "", {})[0][""]
    if form == "onnx":
        assert "medharden.passes" not in open_onnx(data, "a.onnx").metadata
    else:
        assert b"one for both paths" in data
