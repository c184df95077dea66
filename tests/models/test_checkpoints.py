"""Checkpoints as people save them: what is around the weights is left out, and said; a choice is asked for."""

from __future__ import annotations

import argparse
import copy
import datetime
import pathlib
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.hardening.assumptions import model_findings
from medharden.models import Classifier, check_classifier, load_classifier, timm_module
from medharden.models.torch_files import read_torch
from medharden.models.unpickling import Unreadable
from medharden.protocol import ModelSpec
from medharden.record import ModelRecord

INPUT = torch.rand(2, 1, 32, 32)
ARCH = "test_resnet"


def network(seed: int = 0, classes: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return timm_module().create_model(ARCH, num_classes=classes, in_chans=1).eval()


def loaded(folder: Path, content: Any, arch: str | None = ARCH, **spec: Any) -> Classifier:
    torch.save(content, folder / "m.pt")
    return load_classifier(folder / "m.pt", arch=arch, spec=ModelSpec(mean=(0.0,), std=(1.0,), **spec))


def same(model: Classifier, expected: nn.Module) -> bool:
    return torch.equal(model(INPUT), expected(INPUT))


def wrapped(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


STATE = network().state_dict()
MORE: dict[str, dict[str, Tensor]] = {
    "lightning with a weighted loss": {**wrapped("model.", STATE), "criterion.weight": torch.ones(2)},
    "a weight of positives": {
        **wrapped("net.", STATE),
        "pos_weight": torch.ones(1),
        "train_acc.correct": torch.ones(1),
    },
    "a loss beside bare names": {**STATE, "criterion.weight": torch.ones(2), "class_weights": torch.ones(2)},
    "deep": wrapped("lit.student.net.backbone.", STATE),
    "compiled and parallel": wrapped("_orig_mod.module.", STATE),
    "averaged": {**wrapped("module.", STATE), "n_averaged": torch.tensor(4)},
    "metrics with state": {
        **wrapped("model.", STATE),
        "val_auroc.preds": torch.rand(9),
        "val_confmat.confmat": torch.rand(4),
    },
}


@pytest.mark.parametrize("name", list(MORE))
def test_what_training_keeps_around_the_weights_is_taken_off_and_said(tmp_path: Path, name: str) -> None:
    content = MORE[name]
    model = loaded(tmp_path, {"state_dict": content})
    assert same(model, network())
    said = " ".join(model.record.origins.values())
    beside = [key for key in content if not any(key.endswith(own) for own in STATE)]
    assert all(key in said for key in beside[:4])
    assert not any("weights beside" in text for text in model.record.assumed)


def test_a_layer_beside_the_network_is_an_assumption_until_the_prefix_is_stated(tmp_path: Path) -> None:
    content = {**wrapped("backbone.", STATE), "head.weight": torch.rand(2, 9), "head.bias": torch.rand(2)}
    model = loaded(tmp_path, content)
    assert same(model, network())
    assert any("head.bias, head.weight" in text for text in model.record.assumed)
    assert not any("weights beside" in t for t in loaded(tmp_path, content, prefix="backbone.").record.assumed)


def test_two_wrappers_that_differ_are_a_choice_and_equal_ones_are_none(tmp_path: Path) -> None:
    other = network(1).state_dict()
    both = {**wrapped("student.", STATE), **wrapped("teacher.", other)}
    with pytest.raises(ModelError, match=r"2 times.*'student\.'.*model\.prefix"):
        loaded(tmp_path, both)
    assert same(loaded(tmp_path, both, prefix="teacher."), network(1))
    assert same(loaded(tmp_path, {**wrapped("a.", STATE), **wrapped("b.", STATE)}), network())
    with pytest.raises(ModelError, match=r"no name in the file begins with 'tutor\.'"):
        loaded(tmp_path, both, prefix="tutor.")


@pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model", "ema")])
def test_averaged_weights_beside_the_last_ones_are_never_passed_over_in_silence(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    averaged = network(3).state_dict()
    content = {"arch": ARCH, keys[0]: STATE, keys[1]: wrapped("module.", averaged), "epoch": 3}
    with pytest.raises(ModelError, match=rf"2 times, under {keys[0]}, {keys[1]}.*model\.weights"):
        loaded(tmp_path, content)
    for key, seed in zip(keys, (0, 3), strict=True):
        model = loaded(tmp_path, content, weights=key)
        assert same(model, network(seed))
        assert any(f"weights: {key}, as model.weights says" in text for text in model.record.origins.values())
    with pytest.raises(ModelError, match=r"model\.weights is 'best', but m\.pt holds weights under"):
        loaded(tmp_path, content, weights="best")


def test_an_optimiser_and_a_loss_beside_the_weights_are_no_second_weights(tmp_path: Path) -> None:
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    net(INPUT).sum().backward()
    before = copy.deepcopy(net.state_dict())
    optimizer.step()
    content = {"model": before, "optimizer": optimizer.state_dict(), "criterion": {"weight": torch.ones(2)}, "epoch": 1}
    model = loaded(tmp_path, content)
    assert same(model, network())
    assert any("left out: criterion" in text for text in model.record.origins.values())


class AttributeDict(dict):  # as Lightning has it
    pass


AttributeDict.__module__ = "lightning.fabric.utilities.data"
AttributeDict.__qualname__ = "AttributeDict"

BESIDE = {
    "numpy scalars": {"best": np.float64(0.93), "step": np.int64(7)},
    "numpy array": {"curve": np.arange(4.0)},
    "paths": {"data": pathlib.PurePosixPath("/data/x"), "here": Path("/tmp")},
    "arguments": {"args": argparse.Namespace(lr=1e-3, out=Path("/tmp"), mean=[0.1], std=[0.2])},
    "default dict": {"history": defaultdict(list, loss=[1.0])},
    "times": {"when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)},
    "namespace": {"config": SimpleNamespace(a=1)},
    "sets": {"classes_seen": {1, 2}, "frozen": frozenset({3})},
}


@pytest.mark.parametrize("name", list(BESIDE))
@pytest.mark.parametrize("archive", [True, False])
def test_plain_objects_beside_the_weights_are_left_out_by_name(tmp_path: Path, name: str, archive: bool) -> None:
    content = {"state_dict": STATE, "arch": ARCH, **BESIDE[name]}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=archive)
    model = load_classifier(tmp_path / "m.pt", arch=ARCH, spec=ModelSpec(mean=(0.0,), std=(1.0,)))
    assert same(model, network())


def test_a_dictionary_of_lightning_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("lightning.fabric.utilities.data")
    module.AttributeDict = AttributeDict
    for part in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    model = loaded(tmp_path, {"state_dict": wrapped("model.", STATE), "hyper_parameters": AttributeDict(lr=0.1)})
    assert same(model, network())
    assert any("lightning.fabric.utilities.data.AttributeDict" in text for text in model.record.origins.values())


def test_a_whole_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"pickled Python objects.*torch\.save\(model\.state_dict\(\)"):
        load_classifier(tmp_path / "m.pt", arch=ARCH)


def test_names_are_changed_as_the_protocol_says(tmp_path: Path) -> None:
    content = {
        (f"classifier.{name[3:]}" if name.startswith("fc.") else f"encoder.{name}"): tensor
        for name, tensor in STATE.items()
    }
    with pytest.raises(ModelError, match="do not fit"):
        loaded(tmp_path, content)
    model = loaded(tmp_path, content, rename={"encoder.": "", "classifier.": "fc."})
    assert same(model, network())
    with pytest.raises(ModelError, match=r"no name in the file begins with 'decoder\.'"):
        loaded(tmp_path, content, rename={"decoder.": ""})
    with pytest.raises(ModelError, match="two weights the name"):
        loaded(tmp_path, {"a.x": torch.ones(1), "b.x": torch.ones(1)}, rename={"a.": "", "b.": ""})


def test_a_head_within_a_sequential_is_found_and_what_stands_beside_it_is_an_assumption(tmp_path: Path) -> None:
    content = {name.replace("fc.", "fc.1."): tensor for name, tensor in STATE.items()}
    model = loaded(tmp_path, content)
    assert same(model, network())
    assert any("fc.1" in text and "dropout" in text for text in model.record.assumed)
    two = {**content, "fc.3.weight": torch.rand(2, 2), "fc.3.bias": torch.rand(2)}
    with pytest.raises(ModelError, match="do not fit"):
        loaded(tmp_path, two)


def test_chexnet_as_it_is_distributed_loads(tmp_path: Path) -> None:
    """`module.densenet121.*` in the names of torchvision before 0.2, no counters, a head with a sigmoid after it."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    expected = models.densenet121(weights=None, num_classes=14).eval()
    old = {}
    for name, tensor in expected.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        name = name.replace("classifier.", "classifier.0.")
        for part in ("norm", "conv"):
            for k in "12":
                name = name.replace(f".{part}{k}.", f".{part}.{k}.") if "denselayer" in name else name
        old[f"module.densenet121.{name}"] = tensor
    torch.save({"state_dict": old, "best_loss": 0.1}, tmp_path / "m.pth.tar")
    spec = ModelSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = load_classifier(tmp_path / "m.pth.tar", arch="torchvision:densenet121", spec=spec, multilabel=True)
    x = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    assert torch.equal(model(x), expected((x - mean) / std))


def test_a_torchvision_name_that_is_none_is_refused_with_near_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no classifier 'resnet19'; near: .*resnet1"):
        loaded(tmp_path, STATE, arch="torchvision:resnet19")


FORMS = {
    "m.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
    "m.h5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 64, "HDF5"),
    "m.pt": (b"\x1f\x8b" + b"\0" * 64, "gzip"),
    "m.npy": (b"\x93NUMPY\x01\0" + b"\0" * 64, "NumPy"),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_other_forms_are_refused_by_their_right_name(tmp_path: Path, name: str) -> None:
    data, form = FORMS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=form):
        load_classifier(tmp_path / name, arch=ARCH)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_of_torch_are_refused_by_their_right_name(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2)).eval()
    torch.jit.save(torch.jit.trace(module, torch.rand(1, 2)), tmp_path / "m.pt")
    with pytest.raises(ModelError, match="TorchScript"):
        load_classifier(tmp_path / "m.pt", arch=ARCH)
    torch.export.save(torch.export.export(module, (torch.rand(1, 2),)), tmp_path / "m.pt2")
    with pytest.raises(ModelError, match=r"exported program"):
        load_classifier(tmp_path / "m.pt2", arch=ARCH)


def test_where_mean_and_std_came_from_is_said_and_a_guess_is_an_assumption(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "bare.pt")
    torch.save({"state_dict": STATE, "mean": [0.3], "std": [0.2]}, tmp_path / "told.pt")
    bare = load_classifier(tmp_path / "bare.pt", arch=ARCH).record
    assert "timm's default for this name: assumed" in bare.origins["mean"]
    assert "average of 3 values" in bare.origins["mean"]
    assert any("state model.mean and model.std" in text for text in bare.assumed)
    told = load_classifier(tmp_path / "told.pt", arch=ARCH).record
    assert (told.origins["mean"], told.origins["std"], told.assumed) == ("checkpoint", "checkpoint", ())
    stated = load_classifier(tmp_path / "bare.pt", arch=ARCH, spec=ModelSpec(mean=(0.5,), std=(0.5,))).record
    assert (stated.origins["mean"], stated.assumed) == ("protocol", ())


class Ends(nn.Module):
    """A linear head and what comes after it."""

    def __init__(self, last: nn.Module, outputs: int) -> None:
        super().__init__()
        self.linear, self.last = nn.Linear(16, outputs), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("last", "outputs", "one", "refused"),
    [
        (nn.Softmax(1), 3, False, True),
        (nn.Sigmoid(), 4, False, True),
        (nn.Sigmoid(), 1, True, True),
        (nn.Identity(), 3, False, False),
        (nn.Identity(), 1, True, False),
        (nn.LogSoftmax(1), 3, False, False),
        (nn.Tanh(), 3, False, False),
    ],
    ids=["softmax", "sigmoid", "one sigmoid", "logits", "one logit", "log of softmax", "tanh"],
)
def test_probabilities_in_the_place_of_logits_are_refused_and_logits_between_0_and_1_are_not(
    last: nn.Module, outputs: int, one: bool, refused: bool
) -> None:
    torch.manual_seed(2)
    net = Ends(last, outputs)
    with torch.no_grad():
        net.linear.weight.mul_(0.01)
        net.linear.bias.fill_(0.5)  # so that logits lie in [0, 1] too
    classes = 2 if one else outputs
    record = ModelRecord("python", "x:Ends", {}, classes, 1, 2, (0.0,), (1.0,), one, "0" * 64, "0" * 64, 34)
    names = tuple("abcd"[:classes])
    if refused:
        with pytest.raises(ModelError, match="answers with probabilities"):
            check_classifier(Classifier(net, record), torch.rand(3, 1, 4, 4), names, multilabel=outputs == 4)
    else:
        check_classifier(Classifier(net, record), torch.rand(3, 1, 4, 4), names, multilabel=False)


@pytest.mark.parametrize(
    "named",
    [
        {"class_names": ["sick", "well"]},
        {"classes": ("sick", "well")},
        {"class_to_idx": {"sick": 0, "well": 1}},
        {"id2label": {"0": "sick", "1": "well"}},
        {"idx_to_class": {0: "Sick", 1: "WELL "}},
    ],
    ids=lambda named: next(iter(named)),
)
def test_the_order_that_a_file_names_is_held_against_the_data_s(tmp_path: Path, named: dict[str, Any]) -> None:
    model = loaded(tmp_path, {"state_dict": STATE, **named})
    check_classifier(model, INPUT, ("sick", "well"))
    with pytest.raises(ModelError, match=r"in the order .*set task\.classes"):
        check_classifier(model, INPUT, ("well", "sick"))
    with pytest.raises(ModelError, match="the data's classes are"):
        check_classifier(model, INPUT, ("ill", "well"))


def record_of(**more: Any) -> ModelRecord:
    return ModelRecord("timm", "x", {}, 3, 1, 2, (0.0,), (1.0,), False, "0" * 64, "0" * 64, 34, **more)


def test_an_order_that_would_do_far_better_on_validation_is_a_critical_finding() -> None:
    labels = np.array([0, 1, 2] * 20)
    turned = np.array([1, 2, 0])[labels]
    [finding] = model_findings(record_of(), labels, turned, ("a", "b", "c"))
    assert (finding.code, finding.severity) == ("model.class_order", "critical")
    assert "order c, a, b 1.000 would be right instead of 0.000" in finding.message
    [finding] = model_findings(record_of(), labels, labels, ("a", "b", "c"))
    assert finding.severity == "info"
    assert "a 1.000, b 1.000" in finding.message
    assert list(model_findings(record_of(class_names=("a", "b", "c")), labels, turned, ("a", "b", "c"))) == []
    few = model_findings(record_of(), labels[:4], turned[:4], ("a", "b", "c"))
    assert next(few).severity == "info", "four cases are no proof"


def test_each_assumption_is_a_finding_of_the_run() -> None:
    labels = np.array([[1, 0], [0, 1]])
    [finding] = model_findings(record_of(assumed=("mean 0.449 is timm's",)), labels, labels, ("a", "b"))
    assert (finding.severity, finding.message) == ("warning", "Assumed of the model: mean 0.449 is timm's.")


def test_a_name_of_millions_of_letters_is_no_work(tmp_path: Path) -> None:
    content = OrderedDict(STATE) | {"a." * 400_000: torch.ones(1), "x" * 800_000 + "_loss": torch.ones(1)}
    with pytest.raises(ModelError, match="do not fit"):
        loaded(tmp_path, content)


ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        ARRAYS,
        OrderedDict(ARRAYS),
        defaultdict(dict, ARRAYS),
        {"state_dict": ARRAYS, "arch": ARCH, "curve": np.arange(9.0)},
        {"model": {name: np.array(array, order="F") for name, array in ARRAYS.items()}, "best": np.float64(0.9)},
        {name: np.asarray(array, np.float64) for name, array in ARRAYS.items()},
    ],
    ids=["plain", "ordered", "default", "a checkpoint", "the first axis fastest", "double precision"],
)
@pytest.mark.parametrize("archive", [True, False])
def test_weights_that_are_numpy_arrays_load_as_the_tensors_they_were(
    tmp_path: Path, content: dict[str, Any], archive: bool
) -> None:
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=archive)
    model = load_classifier(tmp_path / "m.pt", arch=ARCH, spec=ModelSpec(mean=(0.0,), std=(1.0,)))
    assert same(model, network())
    assert any("the weights are NumPy arrays" in text for text in model.record.origins.values())
    told = [text for text in model.record.origins.values() if "nothing was made" in text]
    assert [text for text in told if "ndarray" in text] == []
    assert ("best" in content) == any("multiarray.scalar" in text for text in told)


@pytest.mark.parametrize("content", [OrderedDict(STATE), defaultdict(dict, STATE)])
def test_a_dict_of_another_kind_around_the_weights_is_a_dict(tmp_path: Path, content: dict[str, Tensor]) -> None:
    assert same(loaded(tmp_path, content), network())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda array: array.astype(object), "other things than real numbers"),
        (lambda array: array.astype(np.complex64), "other things than real numbers"),
        (lambda array: array.astype(str), "other things than real numbers"),
        (lambda array: array.astype(">f4"), "big-endian"),
    ],
    ids=["objects", "complex", "text", "big-endian"],
)
def test_arrays_that_are_no_plain_numbers_are_refused_by_name(tmp_path: Path, made: Any, said: str) -> None:
    with pytest.raises(ModelError, match=rf"NumPy arrays of.*{said}|NumPy arrays of a {said}"):
        loaded(tmp_path, {name: made(array[:1] if array.ndim else array) for name, array in ARRAYS.items()})


def test_arrays_beyond_what_is_read_of_names_are_refused_with_the_line_that_saves_tensors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"NumPy's arrays count too.*torch\.as_tensor\(array\)"):
        loaded(tmp_path, {"fc.weight": np.ones((3000, 3000), np.float32)})


def test_arrays_that_show_the_same_bytes_many_times_are_refused(tmp_path: Path) -> None:
    shared = np.ones(100_000, np.uint8)
    torch.save({"a": shared}, tmp_path / "m.pt")
    machine = read_torch((tmp_path / "m.pt").read_bytes(), "m.pt")
    [ref] = machine.content.values()
    with pytest.raises(Unreadable, match="larger than all that it holds"):
        machine.arrays({str(n): ref for n in range(50)})
