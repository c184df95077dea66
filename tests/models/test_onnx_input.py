"""ONNX files as input: hardened and released as the network they are, and refused where they can't be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import TinyNet
from onnx import TensorProto, helper, numpy_helper
from tiny import tiny_protocol
from torch import nn
from torch.utils.data import TensorDataset

from medharden.data import Cohort
from medharden.errors import MissingPackageError, ModelError
from medharden.evaluating import evaluate
from medharden.hardening import harden
from medharden.models import load_classifier, load_hardened, timm_module
from medharden.protocol import ModelSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's own

STATED = ModelSpec(mean=(0.0,), std=(1.0,))
CLASSES = ("healthy", "ill")
INPUTS = torch.rand((3, 1, 16, 16), generator=torch.Generator().manual_seed(0))


def tiny(last: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(2)
    net = TinyNet()
    for _ in range(3):
        net(torch.rand(8, 1, 16, 16))
    return (net if last is None else nn.Sequential(net, last)).eval()


def exported(
    path: Path, network: nn.Module, example: torch.Tensor = INPUTS, opset: int = 17, batch: bool = True
) -> Path:
    torch.onnx.export(
        network, (example,), path, dynamo=False, input_names=["x"], opset_version=opset,
        dynamic_axes={"x": {0: "n"}} if batch else None,
    )  # fmt: skip
    return path


def answers(path: Path, inputs: torch.Tensor) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]


NETWORKS: dict[str, Any] = {
    "a small one": (tiny, (1, 16, 16)),
    "ResNet": (lambda: timm_module().create_model("test_resnet", num_classes=3), (3, 64, 64)),
    "EfficientNet": (lambda: timm_module().create_model("test_efficientnet", num_classes=3), (3, 64, 64)),
    "ViT": (lambda: timm_module().create_model("test_vit", num_classes=3), (3, 160, 160)),
    "ConvNeXt": (lambda: timm_module().create_model("test_convnext", num_classes=3), (3, 64, 64)),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)),
        (1, 12, 12, 12),
    ),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_an_onnx_file_answers_as_in_onnx_runtime_and_has_a_gradient(tmp_path: Path, name: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    inputs = torch.rand(3, *shape)
    path = exported(tmp_path / "model.onnx", make().eval(), inputs)
    model = load_classifier(path, dims=len(shape) - 1, spec=STATED)
    assert (model.record.source, model.record.channels, model.record.assumed) == ("onnx", shape[0], ())
    given = inputs.clone().requires_grad_(True)
    logits = model(given)
    assert np.abs(logits.detach().numpy() - answers(path, inputs)).max() < 1e-4
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), given)
    assert gradient.abs().sum() > 0
    trained = sum(p.numel() for p in model.network.parameters())
    assert trained > 0.9 * sum(p.numel() for p in make().parameters() if p.ndim > 1), "its weights can be trained"


@pytest.mark.parametrize("opset", [13, 18, 20])
def test_files_of_other_opsets_load(tmp_path: Path, opset: int) -> None:
    path = exported(tmp_path / "model.onnx", tiny(), opset=opset)
    model = load_classifier(path, spec=STATED)
    with torch.no_grad():
        assert np.abs(model(INPUTS).numpy() - answers(path, INPUTS)).max() < 1e-5


def test_what_torch_writes_today_with_its_arrays_beside_it_loads(tmp_path: Path) -> None:
    batch = torch.export.Dim("n", min=1, max=64)
    torch.onnx.export(
        tiny(), (INPUTS,), tmp_path / "model.onnx", dynamo=True, dynamic_shapes=({0: batch},), external_data=True
    )
    assert (tmp_path / "model.onnx.data").is_file()
    model = load_classifier(tmp_path / "model.onnx", spec=STATED)
    with torch.no_grad():
        assert np.abs(model(INPUTS).numpy() - answers(tmp_path / "model.onnx", INPUTS)).max() < 1e-5
    assert any("arrays beside the file" in said for said in model.record.origins.values())
    changed = bytearray((tmp_path / "model.onnx.data").read_bytes())
    changed[0] ^= 1
    (tmp_path / "model.onnx.data").write_bytes(bytes(changed))
    assert load_classifier(tmp_path / "model.onnx", spec=STATED).record.file != model.record.file


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Sigmoid()])
def test_a_last_softmax_or_sigmoid_is_left_out_and_said(tmp_path: Path, last: nn.Module) -> None:
    model = load_classifier(exported(tmp_path / "model.onnx", tiny(last)), spec=STATED)
    with torch.no_grad():
        assert torch.allclose(model(INPUTS), tiny()(INPUTS), atol=1e-6)
    assert any(f"its last {type(last).__name__} was left out" in said for said in model.record.origins.values())


def test_mean_and_std_of_an_onnx_file_are_a_finding_until_they_are_stated(tmp_path: Path) -> None:
    path = exported(tmp_path / "model.onnx", tiny())
    (assumed,) = load_classifier(path).record.assumed
    assert "another normalisation is another model" in assumed


def test_an_onnx_file_is_hardened_and_its_release_needs_the_run_alone(tmp_path: Path) -> None:
    spec = tiny_protocol("input: {intensity: {mode: ready}}\nmodel: {mean: [0.0], std: [1.0]}\n")
    protocol = spec.model_copy(update={"hardening": spec.hardening.model_copy(update={"epochs": 1})})
    draw, labels = torch.Generator().manual_seed(1), torch.arange(120) % 2
    images = (0.4 + 0.05 * torch.randn((120, 1, 16, 16), generator=draw)).clamp(0, 1)
    images[labels == 1, :, :8, :8] += 0.2
    key = b"a key for tests, sixteen bytes or more"
    cohort = Cohort.from_dataset(TensorDataset(images, labels), protocol, classes=CLASSES, key=key)
    path = exported(tmp_path / "model.onnx", tiny())
    original = load_classifier(path, spec=protocol.model)
    expected = answers(path, INPUTS)
    record = harden(original, cohort, protocol, tmp_path / "run")
    assert record.clean_logits_identical
    assert record.branch.stored_parameters > 0, "the branch trained"
    path.unlink()
    released = load_hardened(tmp_path / "run")
    identity = evaluate(released, cohort, protocol, tmp_path / "run", original=original).identity
    assert (identity.state_equal, identity.logits_equal) == (True, True)
    with torch.no_grad():
        assert torch.equal(released.clean_path(INPUTS), original(INPUTS))
        assert np.abs(released.clean_path(INPUTS).numpy() - expected).max() < 1e-5
        assert not torch.equal(released.robust_branch(INPUTS), released.clean_path(INPUTS))


def graph(nodes: list[Any], arrays: dict[str, np.ndarray], outputs: tuple[str, ...] = ("y",), **more: Any) -> Any:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 16, 16])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in outputs]
    held = [numpy_helper.from_array(values, name) for name, values in arrays.items()]
    made = helper.make_graph(nodes, "g", [image], results, held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17), *more.pop("opsets", [])], **more)
    model.ir_version = 8
    return model


def linear(weight: str = "w", name: str = "", image: str = "x") -> tuple[list[Any], dict[str, np.ndarray]]:
    nodes = [
        helper.make_node("Flatten", [image], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", weight], ["y"], name=name),
    ]
    return nodes, {weight: np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)}


def saved(path: Path, model: Any) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_names_in_a_graph_are_never_run(tmp_path: Path) -> None:
    evil = f'a"), open({str(tmp_path / "was_run")!r}, "w") or getattr(self, "b'
    path = saved(tmp_path / "m.onnx", graph(*linear(weight=evil, name=evil)))
    model = load_classifier(path, spec=STATED)
    with torch.no_grad():
        assert np.abs(model(INPUTS).numpy() - answers(path, INPUTS)).max() < 1e-4
    assert not (tmp_path / "was_run").exists()
    assert not any("was_run" in name for name in model.state_dict())


def foreign() -> Any:
    nodes = [helper.make_node("Mine", ["x"], ["y"], domain="com.example")]
    return graph(nodes, {}, opsets=[helper.make_opsetid("com.example", 1)])


def branching() -> Any:
    nodes, arrays = linear()
    inner = helper.make_graph([], "then", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])])
    nodes[1].output[0] = "z"
    return graph(
        [*nodes, helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        arrays | {"c": np.array(True)},
    )


def outside(location: str) -> Any:
    model = graph(*linear())
    array = model.graph.initializer[0]
    array.ClearField("raw_data")
    array.data_location = TensorProto.EXTERNAL
    entry = array.external_data.add()
    entry.key, entry.value = "location", location
    return model


def rounding() -> Any:
    nodes, arrays = linear(image="z")
    return graph([helper.make_node("Round", ["x"], ["z"]), *nodes], arrays)


def counting() -> Any:
    nodes, arrays = linear()
    nodes[1].output[0] = "z"
    model = graph([*nodes, helper.make_node("ArgMax", ["z"], ["y"], axis=1)], arrays)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def two() -> Any:
    nodes, arrays = linear()
    return graph([*nodes, helper.make_node("Relu", ["y"], ["z"])], arrays, ("y", "z"))


def unknown() -> Any:
    nodes, arrays = linear(image="z")
    return graph([helper.make_node("GridSample", ["x", "x"], ["z"]), *nodes], arrays)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (foreign, r"operators of com\.example"),
        (branching, "graphs within operators"),
        (lambda: outside("../secret"), "expected a file of the same folder"),
        (lambda: outside("/etc/passwd"), "expected a file of the same folder"),
        (lambda: outside("link"), "no link"),
        (lambda: outside("nowhere"), "no model file nowhere"),
        (rounding, "no gradient"),
        (counting, "expected logits"),
        (two, "2 outputs"),
        (unknown, r"GridSample.*opset 17"),
    ],
)
def test_what_is_no_network_of_plain_layers_is_refused_by_its_name(tmp_path: Path, make: Any, said: str) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match=said):
        load_classifier(saved(tmp_path / "m.onnx", make()), spec=STATED)


def test_a_file_that_is_damaged_or_takes_one_case_at_a_time_or_is_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07garbage\xff\xff")
    with pytest.raises(ModelError, match="no readable ONNX file"):
        load_classifier(tmp_path / "bad.onnx")
    reshaped = nn.Sequential(Fixed(), nn.Linear(256, 2)).eval()
    with pytest.raises(ModelError, match="one case at a time"):
        load_classifier(exported(tmp_path / "one.onnx", reshaped, INPUTS[:1], batch=False))
    with pytest.raises(ModelError, match="its own architecture"):
        load_classifier(exported(tmp_path / "m.onnx", tiny()), arch="timm:resnet18")
    with pytest.raises(ModelError, match=r"input\.dims is 3"):
        load_classifier(tmp_path / "m.onnx", dims=3)


class Fixed(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.reshape(1, 256)


def test_without_the_package_the_extra_of_onnx_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported(tmp_path / "m.onnx", tiny())
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(MissingPackageError, match="its extra `onnx`"):
        load_classifier(path)
