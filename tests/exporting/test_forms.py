"""Every form of every composite answers as the composite in PyTorch does, in batches of any size."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from deployable import BRANCHES, MODES, composite, tiny_classifier
from foreign_networks import TinyNet

from medharden.errors import ModelError
from medharden.exporting.bundle import opened_bundle
from medharden.exporting.forms import opened_script
from medharden.exporting.graph import deployed
from medharden.exporting.halving import halve
from medharden.exporting.parity import compare, require_parity
from medharden.exporting.run import made, opened
from medharden.models import Classifier, HardenedClassifier, load_classifier, open_onnx
from medharden.protocol import ModelSpec
from medharden.record import Parity

SHAPE = (1, 16, 16)
SINGLE = ("onnx", "pt2", "torchscript")
META = {"medharden.hardened": "a" * 64, "medharden.gated": "yes"}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return tiny_classifier(tmp_path_factory.mktemp("tiny"))


Exported = Callable[..., tuple[HardenedClassifier, bytes, Parity]]


@pytest.fixture(scope="module")
def exported(clean: Classifier) -> Exported:
    """A composite by form, mode and branch, what it is exported to, and their parity; each is made once."""
    kept: dict[tuple[str, str, str, str], tuple[HardenedClassifier, bytes, Parity]] = {}

    def one(
        form: str, mode: str = "mixed", branch: str = "full", quantise: str = ""
    ) -> tuple[HardenedClassifier, bytes, Parity]:
        key = (form, mode, branch, quantise)
        if key not in kept:
            model = composite(clean, SHAPE, mode, branch)
            files, parity = made(model, form, quantise, META)
            kept[key] = (model, files[""], parity)
        return kept[key]

    return one


def cases(shape: tuple[int, ...], count: int = 17) -> torch.Tensor:
    """Unlike those that the export itself compares on."""
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(99))


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", SINGLE)
def test_a_form_answers_as_the_composite(
    clean: Classifier, exported: Exported, form: str, mode: str, branch: str
) -> None:
    model, data, parity = exported(form, mode, branch)
    run = opened(form, data)
    found = compare(model, run, SHAPE, cases(SHAPE))
    for of in (parity, found):
        assert of.largest <= 1e-4
        assert (of.answers, of.referrals) == (0, 0)
    with torch.no_grad():
        outputs, assessed = run(cases(SHAPE)), model.assess(cases(SHAPE))
    assert set(outputs) == {"logits", "probabilities", "answer", "refer"}
    assert torch.allclose(outputs["probabilities"], assessed.logits.softmax(1), atol=1e-5)
    assert (mode == "guarded") == bool(outputs["refer"].any())
    if mode in ("clean", "guarded"):
        assert torch.equal(outputs["answer"], (clean(cases(SHAPE)) + model.decision_bias).argmax(1))


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("mode", MODES)
def test_a_bundle_answers_as_the_composite(clean: Classifier, mode: str, branch: str) -> None:
    model = composite(clean, SHAPE, mode, branch)
    files, parity = made(model, "bundle", "", META)
    found = compare(model, opened_bundle(files, 3, multilabel=False), SHAPE, cases(SHAPE))
    assert (found.largest <= 1e-4, found.answers, found.referrals) == (True, 0, 0)
    assert parity.answers == 0


@pytest.mark.parametrize("mode", ["mixed", "guarded"])
@pytest.mark.parametrize("form", SINGLE)
def test_findings_are_exported_each_by_itself(tmp_path: Path, form: str, mode: str) -> None:
    model = composite(tiny_classifier(tmp_path, multilabel=True), SHAPE, mode, "full", multilabel=True)
    files, _ = made(model, form, "", META)
    outputs = opened(form, files[""])(cases(SHAPE))
    with torch.no_grad():
        assessed = model.assess(cases(SHAPE))
    assert torch.equal(outputs["answer"], (assessed.logits + model.decision_bias > 0).long())
    assert torch.allclose(outputs["probabilities"], assessed.logits.sigmoid(), atol=1e-5)
    assert torch.equal(outputs["refer"], assessed.referred)


@pytest.mark.parametrize("form", SINGLE)
def test_a_network_of_one_logit_is_exported_as_two_classes_in_batches_of_any_size(tmp_path: Path, form: str) -> None:
    model = composite(tiny_classifier(tmp_path, 1), SHAPE, "mixed", "full")
    files, parity = made(model, form, "", META)
    assert (parity.answers, parity.largest <= 1e-4) == (0, True)
    assert opened(form, files[""])(cases(SHAPE, 7))["logits"].shape == (7, 2)


@pytest.mark.parametrize("form", SINGLE)
def test_volumes_are_exported(tmp_path: Path, form: str) -> None:
    from monai.networks.nets import DenseNet121

    arguments = {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]}
    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2, **arguments)
    torch.save(network.state_dict(), tmp_path / "v.pt")
    spec = ModelSpec(arch="monai:DenseNet121", arguments=arguments)
    clean = load_classifier(tmp_path / "v.pt", spec=spec, dims=3)
    model = composite(clean, (1, 12, 12, 12), "guarded", "norm")
    files, parity = made(model, form, "", META)
    assert parity.largest <= 1e-4
    assert compare(model, opened(form, files[""]), (1, 12, 12, 12), cases((1, 12, 12, 12), 4)).answers == 0


def test_the_metadata_lie_in_each_form(exported: Exported) -> None:
    data = {form: exported(form)[1] for form in SINGLE}
    assert open_onnx(data["onnx"], "a.onnx").metadata == META
    for form in ("pt2", "torchscript"):
        with zipfile.ZipFile(io.BytesIO(data[form])) as archive:
            name = next(n for n in archive.namelist() if n.endswith("medharden.json"))
            assert json.loads(archive.read(name)) == META


@pytest.mark.parametrize("form", SINGLE)
def test_no_path_of_this_machine_is_in_a_file(exported: Exported, form: str) -> None:
    data = exported(form)[1]
    held = [data]
    if form != "onnx":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held = [archive.read(name) for name in archive.namelist()]
    for part in held:
        assert str(Path(__file__).parents[2]).encode() not in part
        assert b"site-packages" not in part


@pytest.mark.parametrize("quantise", ["", "fp16"])
def test_a_script_adds_updates_up_when_it_is_loaded_and_at_no_pass(exported: Exported, quantise: str) -> None:
    script = torch.jit.load(io.BytesIO(exported("torchscript", "mixed", "lora", quantise)[1]))
    steps = [node.kind() for node in script.inlined_graph.nodes()]
    assert not {"aten::addmm", "aten::mm", "aten::matmul"} & set(steps[: steps.index("aten::batch_norm")])
    assert not [step for step in steps if step == "aten::addmm"]


def everywhere(block: Any) -> Iterator[Any]:
    """Every step of a script's graph, within a choice too."""
    for node in block.nodes():
        yield node
        for below in node.blocks():
            yield from everywhere(below)


def stored_and_convolutions(form: str, data: bytes) -> tuple[int, int]:
    """Bytes of weights in a file, and how many convolutions its graph computes."""
    if form == "onnx":
        graph = onnx.load_model_from_string(data).graph
        stored = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
        return stored, sum(node.op_type == "Conv" for node in graph.node)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weights = [i for i in archive.infolist() if "/data/" in i.filename and i.filename[-1].isdigit()]
    if form == "torchscript":
        steps = [node.kind() for node in everywhere(torch.jit.load(io.BytesIO(data)).inlined_graph)]
    else:
        steps = [str(node.target) for node in torch.export.load(io.BytesIO(data)).graph.nodes]
    return sum(i.file_size for i in weights), sum("conv" in step and "weight" not in step for step in steps)


@pytest.mark.parametrize("form", SINGLE)
def test_what_both_paths_share_is_stored_and_computed_once(exported: Exported, form: str) -> None:
    """Each way has a first layer of its own, which is small; one pass over both paths has one."""
    (alone, single), (full, four), (norm, shared), (lora, each) = (
        stored_and_convolutions(form, exported(form, mode, branch)[1])
        for mode, branch in (("clean", "full"), ("mixed", "full"), ("mixed", "norm"), ("mixed", "lora"))
    )
    assert alone < lora < 1.2 * alone < 1.8 * alone < full
    # in a script each of the two ways has its normalisation, which is much of so small a network
    assert alone < norm < (1.25 * alone if form == "torchscript" else lora)
    assert (single, four, each) == (2, 4, 4)
    assert shared == {"onnx": 4, "pt2": 2, "torchscript": 2 + 4}[form]  # a pass each, one pass, the choice of them


class Large(TinyNet):
    """Its first layer takes more than a normalisation layer behind it."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__(num_classes)
        self.features[0] = torch.nn.Conv2d(1, 12, 17, stride=2, padding=8)


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_a_large_first_layer_is_computed_once(tmp_path: Path, form: str) -> None:
    torch.manual_seed(0)
    torch.save(Large(3).state_dict(), tmp_path / "l.pt")
    clean = load_classifier(tmp_path / "l.pt", arch="python:test_forms:Large")
    files, parity = made(composite(clean, SHAPE, "guarded", "norm"), form, "", META)
    assert (parity.answers, parity.largest <= 1e-5) == (0, True)
    assert stored_and_convolutions(form, files[""])[1] == {"onnx": 3, "torchscript": 2 + 3}[form]


class Overwriting(Large):
    """Its first layer's output is written over, so nobody else may take it."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__(num_classes)
        self.features.insert(1, torch.nn.ReLU(inplace=True))


@pytest.mark.parametrize("branch", ["norm", "lora"])
@pytest.mark.parametrize("form", ["torchscript", "pt2"])
def test_a_first_layer_whose_output_is_written_over_is_computed_twice(tmp_path: Path, form: str, branch: str) -> None:
    torch.manual_seed(0)
    torch.save(Overwriting(3).state_dict(), tmp_path / "o.pt")
    clean = load_classifier(tmp_path / "o.pt", arch="python:test_forms:Overwriting")
    files, parity = made(composite(clean, SHAPE, "guarded", branch), form, "", META)
    assert (parity.answers, parity.largest <= 1e-5) == (0, True)
    one = 2 if branch == "norm" else 0  # more in a pass over both paths, which doubles the input in its place
    each = 0 if form == "pt2" and one else 4
    assert stored_and_convolutions(form, files[""])[1] == one + each


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("form", SINGLE)
def test_weights_in_half_precision_move_logits_by_a_thousandth_at_most(
    exported: Exported, form: str, branch: str
) -> None:
    model, data, parity = exported(form, "mixed", branch, "fp16")
    assert 0 < parity.share <= 1e-3
    found = compare(model, opened(form, data), SHAPE, cases(SHAPE))
    assert (found.share <= 1e-3, found.answers) == (True, 0)
    whole = stored_and_convolutions(form, exported(form, "mixed", branch)[1])
    assert stored_and_convolutions(form, data)[0] < 0.75 * whole[0]


def test_as_many_weights_are_halved_as_answers_bear(clean: Classifier) -> None:
    model, sizes = composite(clean, SHAPE, "mixed", "full"), []
    whole = compare(model, deployed(model), SHAPE)
    assert whole.largest == 0
    for limit in (0.0, 3e-5, 1.0):
        graph = deployed(model)
        halved, of = halve(graph, lambda graph=graph: compare(model, graph, SHAPE).share, limit)
        assert compare(model, graph, SHAPE).share <= limit
        kinds = [t.numel() for t in graph.parameters() if t.dtype == torch.float16]
        assert sum(kinds) == halved
        sizes.append(halved)
    assert 0 == sizes[0] < sizes[1] < sizes[2] == of


def test_eight_bits_are_smaller_and_another_model(exported: Exported) -> None:
    (_, single, near), (_, small, far) = exported("onnx"), exported("onnx", quantise="int8")
    assert len(small) < len(single)
    assert far.largest > near.largest
    assert open_onnx(small, "small.onnx").metadata == META


class Uneven(torch.nn.Module):
    """As real networks do: filters of like size, whose normalisation scales their channels a thousandfold apart."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(1, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16)
        self.each = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.last, self.head = torch.nn.BatchNorm2d(16), torch.nn.Linear(16, classes)
        scales = torch.logspace(-1.5, 1.5, 16)
        self.norm.running_var.copy_(scales**-2)
        self.last.running_var.copy_(scales**2 / 100)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.last(self.each(self.norm(self.first(inputs)).relu())).relu()
        answered: torch.Tensor = self.head(features.mean((2, 3)))
        return answered


@pytest.mark.parametrize("branch", BRANCHES)
def test_eight_bits_answer_nearly_alike_where_normalisation_scales_channels_far_apart(
    tmp_path: Path, branch: str
) -> None:
    torch.manual_seed(0)
    torch.save(Uneven().state_dict(), tmp_path / "uneven.pt")
    clean = load_classifier(tmp_path / "uneven.pt", arch="python:test_forms:Uneven")
    model = composite(clean, SHAPE, "mixed", branch)
    _, parity = made(model, "onnx", "int8", META)
    assert 0 < parity.share < 0.01


def test_a_form_that_answers_otherwise_is_refused() -> None:
    require_parity(Parity(13, 1e-5, 1.0, 0, 0), "onnx", "")
    with pytest.raises(ModelError, match="differs from the composite"):
        require_parity(Parity(13, 2e-4, 1.0, 0, 0), "onnx", "")
    with pytest.raises(ModelError, match="differs from the composite"):
        require_parity(Parity(13, float("nan"), 1.0, 0, 0), "pt2", "fp16")


class Branching(TinyNet):
    """Its path depends on the values of a batch, which no traced graph can hold."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = super().forward(inputs)
        return logits if bool(inputs.mean() > 0.9) else -logits


@pytest.mark.parametrize("form", SINGLE)
def test_a_network_that_looks_at_its_values_is_refused_and_not_written_wrongly(tmp_path: Path, form: str) -> None:
    torch.manual_seed(0)
    torch.save(Branching(3).state_dict(), tmp_path / "b.pt")
    clean = load_classifier(tmp_path / "b.pt", arch="python:test_forms:Branching")
    with pytest.raises(ModelError, match=r"can't be written as|differs from the composite"):
        made(composite(clean, SHAPE, "mixed", "full"), form, "", META)


def test_an_artefact_that_is_none_or_reaches_for_other_files_is_refused(exported: Exported) -> None:
    data = exported("onnx", "clean")[1]
    for broken in (b"", b"no model", data[: len(data) // 2]):
        with pytest.raises(ModelError):
            open_onnx(broken, "a.onnx")
    outside = onnx.load_model_from_string(data)
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(ModelError, match="weights in other files"):
        open_onnx(outside.SerializeToString(), "a.onnx")
    foreign = onnx.load_model_from_string(data)
    foreign.graph.node[0].domain = "evil.ops"
    foreign.opset_import.add(domain="evil.ops", version=1)
    with pytest.raises(ModelError, match=r"operators of evil\.ops"):
        open_onnx(foreign.SerializeToString(), "a.onnx")
    unnamed = onnx.load_model_from_string(data)
    unnamed.graph.output.pop()
    with pytest.raises(ModelError, match="lacks refer"):
        open_onnx(unnamed.SerializeToString(), "a.onnx")


def test_a_script_runs_without_medharden(clean: Classifier, tmp_path: Path) -> None:
    import subprocess
    import sys

    data = made(composite(clean, SHAPE, "guarded", "full"), "torchscript", "", META)[0][""]
    (tmp_path / "a.pt").write_bytes(data)
    torch.save(cases(SHAPE), tmp_path / "x.pt")
    code = (
        "import sys, warnings, torch\nwarnings.simplefilter('ignore')\n"
        "out = torch.jit.load('a.pt')(torch.load('x.pt'))\n"
        "assert not any(name.startswith('medharden') for name in sys.modules)\n"
        "torch.save(dict(out), 'y.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "y.pt")["logits"], opened_script(data)(cases(SHAPE))["logits"])
