"""Networks that come as graphs: taken as modules where Python has them, refused as files with lines that work."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_networks import TinyNet
from tiny import ARCH, tiny_protocol
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from medharden.data import Cohort
from medharden.errors import ModelError
from medharden.evaluating import evaluate
from medharden.hardening import harden
from medharden.models import Classifier, load_classifier, load_hardened, timm_module

CLASSES = ("healthy", "ill")
KEY = b"a key for tests, sixteen bytes or more"
SPEC = tiny_protocol("input: {intensity: {mode: ready}}\n")
PROTOCOL = SPEC.model_copy(update={"hardening": SPEC.hardening.model_copy(update={"epochs": 1})})
EXAMPLE = torch.rand((4, 1, 16, 16), generator=torch.Generator().manual_seed(0))


class Functions(nn.Module):
    """Weights of its own and no layer of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 256) / 16)
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs.flatten(1), self.weight, self.bias)


def net() -> TinyNet:
    torch.manual_seed(2)
    made = TinyNet()
    for _ in range(3):
        made(torch.rand(8, 1, 16, 16))
    return made.eval()


def exported() -> torch.export.ExportedProgram:
    many = torch.export.Dim("many", min=1, max=4096)
    return torch.export.export(net(), (EXAMPLE,), dynamic_shapes=({0: many},))


def from_onnx(folder: Path) -> nn.Module:
    timm_module()  # torchvision, which the converter imports, is then found whatever torch it was built for
    from onnx2torch import convert

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that writes opset 17
        torch.onnx.export(
            net(),
            (EXAMPLE,),
            folder / "m.onnx",
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
            opset_version=17,
        )
        made: nn.Module = convert(folder / "m.onnx")
    return made


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    draw, labels = torch.Generator().manual_seed(1), torch.arange(120) % 2
    images = (0.4 + 0.05 * torch.randn((120, 1, 16, 16), generator=draw)).clamp(0, 1)
    images[labels == 1, :, :8, :8] += 0.2
    return Cohort.from_dataset(TensorDataset(images, labels), PROTOCOL, classes=CLASSES, key=KEY)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, where it copies its own graphs
@pytest.mark.parametrize("kind", ["torch.export", "onnx2torch", "functions"])
def test_a_graph_as_a_module_is_hardened_and_released(kind: str, cohort: Cohort, tmp_path: Path) -> None:
    makers = {"torch.export": exported().module, "onnx2torch": lambda: from_onnx(tmp_path), "functions": Functions}
    module = makers[kind]()
    original = Classifier.from_module(module, EXAMPLE, classes=CLASSES, normaliser=None)
    with torch.no_grad():
        assert torch.equal(original(EXAMPLE), module(EXAMPLE))
    record = harden(original, cohort, PROTOCOL, tmp_path / "run")
    assert record.clean_logits_identical
    assert record.branch.trained_parameters == sum(p.numel() for p in original.parameters())
    assert record.branch.stored_parameters > 0, "the branch trained"
    released = load_hardened(tmp_path / "run", network=module)
    identity = evaluate(released, cohort, PROTOCOL, tmp_path / "run", original=original).identity
    assert (identity.state_equal, identity.logits_equal) == (True, True)
    with torch.no_grad():
        assert torch.equal(released.clean_path(EXAMPLE), module(EXAMPLE))
        assert not torch.equal(released.robust_branch(EXAMPLE), module(EXAMPLE))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_module_is_refused_with_the_way_to_its_weights() -> None:
    script = torch.jit.trace(net(), EXAMPLE)
    with pytest.raises(ModelError, match=r"network\.load_state_dict\(script\.state_dict\(\)\)"):
        Classifier.from_module(script, EXAMPLE, classes=CLASSES, normaliser=None)
    again = TinyNet()
    again.load_state_dict(script.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(EXAMPLE), net()(EXAMPLE))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["TorchScript", "exported program"])
def test_the_line_that_the_refusal_of_a_file_gives_makes_a_state_dict_of_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("model.ts" if form == "TorchScript" else "model.pt2")
    if form == "TorchScript":
        torch.jit.save(torch.jit.trace(net(), EXAMPLE), path)
    else:
        torch.export.save(exported(), path)
    with pytest.raises(ModelError, match=form) as caught:
        load_classifier(path, arch=ARCH)
    line = re.search(r"torch\.save\(.*?'model\.pt'\)", str(caught.value))
    assert line is not None
    monkeypatch.chdir(tmp_path)
    exec(line[0], {"torch": torch, "path": path})  # this test's own line
    with torch.no_grad():
        assert torch.equal(load_classifier(tmp_path / "model.pt", arch=ARCH).network(EXAMPLE), net()(EXAMPLE))


def test_reading_an_exported_program_in_torch_runs_what_is_pickled_in_it(tmp_path: Path) -> None:
    """Why such a file is refused: torch's own reader calls what the pickle says."""
    import json
    import pickle
    import zipfile

    class Call:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "was_run",)

    torch.export.save(exported(), tmp_path / "honest.pt2")
    payload = io.BytesIO()
    torch.save({"any": Call()}, payload, pickle_module=pickle)
    with zipfile.ZipFile(tmp_path / "honest.pt2") as honest, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for member in honest.namelist():
            data = honest.read(member)
            if member.endswith("_weights_config.json"):
                config = json.loads(data)
                first = next(iter(config["config"].values()))
                first["use_pickle"], name = True, first["path_name"]
                data = json.dumps(config).encode()
            bad.writestr(member, data)
    with zipfile.ZipFile(tmp_path / "bad.pt2") as bad:
        parts = {m: bad.read(m) for m in bad.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for member, data in parts.items():
            bad.writestr(member, payload.getvalue() if member.endswith(f"weights/{name}") else data)
    with pytest.raises(ModelError, match="unpickles where the file says so"):
        load_classifier(tmp_path / "bad.pt2", arch=ARCH)
    assert not (tmp_path / "was_run").exists()
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # whatever follows after it was run
        warnings.simplefilter("ignore")
        torch.export.load(tmp_path / "bad.pt2")
    assert (tmp_path / "was_run").exists()
