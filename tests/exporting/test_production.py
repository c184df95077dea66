"""The page on production: its snippet runs, its names are those of an exported model, and `bench` times every form."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command import assert_clear, environment, medharden
from conftest import ROOT
from deployable import composite, tiny_classifier
from released_runs import Released, released_once
from tiny import ARCH
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from medharden.exporting import export
from medharden.exporting.run import made as made_form
from medharden.exporting.timing import TIMED, timed_form
from medharden.models import load_classifier, load_hardened

PAGE = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released_once(tmp_path_factory, "guarded")


@pytest.fixture(scope="module")
def artefact(made: Released) -> Path:
    return export(load_hardened(made.run, arch=ARCH), made.run, to="onnx")[0]


def snippet(language: str, holding: str = "") -> str:
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) if holding in code]
    assert found
    return found[0]


def test_the_snippet_for_onnx_runtime_prints_the_answers_of_the_run(
    made: Released, artefact: Path, tmp_path: Path
) -> None:
    inputs, _ = made.cohort.batch(made.cohort.indices("test")[:5])
    np.save(tmp_path / "inputs.npy", inputs.numpy())
    (tmp_path / "hardened.onnx").write_bytes(artefact.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", snippet("python")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    model = load_hardened(made.run, arch=ARCH)
    expected = (model.assess(inputs).logits + model.decision_bias).argmax(1).tolist()
    assert [int(line.split()[0]) for line in done.stdout.splitlines()] == expected


HEADERS = [Path(p) for p in (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime") if p]
FOUND = [place for place in HEADERS if (place / "onnxruntime_cxx_api.h").is_file()]


@pytest.mark.skipif(not FOUND or not shutil.which("g++"), reason="needs g++ and ONNX Runtime's headers")
def test_the_program_in_cpp_prints_the_answers_of_the_run(made: Released, artefact: Path, tmp_path: Path) -> None:
    (tmp_path / "answer.cpp").write_text(snippet("cpp"))
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (command,) = re.findall(r"^    (cp LIB/.*\n    g\+\+ .*)$", PAGE, re.M)
    command = command.replace("INCLUDE", str(FOUND[0]))
    command = re.sub(r"LIB/\S+", str(library), command)
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, timeout=300)
    inputs, _ = made.cohort.batch(made.cohort.indices("test")[:6])
    model, said = load_hardened(made.run, arch=ARCH), []
    for case in inputs:
        case.numpy().tofile(tmp_path / "case.f32")
        done = subprocess.run(
            [tmp_path / "answer", artefact, tmp_path / "case.f32"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        said.append(done.stdout.strip())
    assessed = model.assess(inputs)
    answers = (assessed.logits + model.decision_bias).argmax(1).tolist()
    assert said == [f"{a}{' look at it' * r}" for a, r in zip(answers, assessed.referred.tolist(), strict=True)]
    (tmp_path / "case.f32").write_bytes(b"short")
    assert subprocess.run([tmp_path / "answer", artefact, tmp_path / "case.f32"], timeout=60).returncode == 1


def test_the_snippet_for_a_program_computes_what_is_constant_once(tmp_path: Path) -> None:
    model = composite(tiny_classifier(tmp_path), (1, 16, 16), "mixed", "lora")
    (tmp_path / "hardened.pt2").write_bytes(made_form(model, "pt2", "", {})[0][""])
    told = {"before": torch.export.load(tmp_path / "hardened.pt2").module()}
    code = snippet("python", "constant_fold").replace('"hardened.pt2"', repr(str(tmp_path / "hardened.pt2")))
    exec(code, told)
    products = [[node for node in told[name].graph.nodes if "mm" in str(node.target)] for name in ("before", "program")]
    assert len(products[0]) > len(products[1]) == 0
    inputs = torch.rand(3, 1, 16, 16)
    assert torch.equal(told["program"](inputs)["logits"], told["before"](inputs)["logits"])


def test_the_configuration_for_triton_is_one_by_its_own_schema(artefact: Path) -> None:
    """Of `tritonclient` the schema alone is loaded: the rest of it wants gRPC."""
    from google.protobuf import text_format

    files = metadata.files("tritonclient") or []
    place = next(file for file in files if file.parts[-2:] == ("grpc", "model_config_pb2.py"))
    spec = importlib.util.spec_from_file_location("model_config_pb2", place.locate())
    assert spec
    assert spec.loader
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    config = text_format.Parse(snippet("protobuf"), schema.ModelConfig())
    session = onnxruntime.InferenceSession(artefact)
    assert [part.name for part in config.output] == [part.name for part in session.get_outputs()]
    for part, given in zip(
        [*config.input, *config.output], [*session.get_inputs(), *session.get_outputs()], strict=True
    ):
        # an axis of cases stands before; what has no other is one number a case to Triton
        axes = list(part.reshape.shape) if part.HasField("reshape") else list(part.dims)
        assert len(axes) == len(given.shape) - 1, part.name
    with pytest.raises(text_format.ParseError):
        text_format.Parse(snippet("protobuf").replace("max_batch_size", "max_batch"), schema.ModelConfig())


def test_names_and_types_of_the_page_are_those_of_an_exported_model(artefact: Path) -> None:
    kinds = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)", "TYPE_BOOL": "tensor(bool)"}
    said = {name: kinds[kind] for name, kind in re.findall(r'name: "(\w+)" data_type: (\w+)', snippet("protobuf"))}
    session = onnxruntime.InferenceSession(artefact)
    assert {v.name: v.type for v in (*session.get_inputs(), *session.get_outputs())} == said
    listed = re.findall(r"const char\* (?:in|out)\[\] = \{(.*?)\}", snippet("cpp"))
    assert {name.strip(' "') for part in listed for name in part.split(",")} == set(said)


def test_bench_of_a_run_times_every_form_and_writes_nothing(made: Released, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.run.rglob("*")}
    done = medharden("bench", made.run, "--arch", ARCH, "--json", cwd=tmp_path)
    assert_clear(done, 0)
    timings = json.loads(done.stdout)["timings"]
    assert {(t["form"], t["model"], t["batch"]) for t in timings} == {
        (form, model, batch)
        for form in TIMED
        for model in ("original", "robust_branch", "composite")
        for batch in (1, 16)
    }
    assert all(t["seconds"] > 0 and t["bytes"] > 0 for t in timings)
    assert all(t["ratio"] == 1.0 for t in timings if t["model"] == "original")
    assert {path: path.stat().st_mtime_ns for path in made.run.rglob("*")} == before
    assert_clear(medharden("bench", made.model, cwd=tmp_path), 2, "--data")


FAULTS = """
import resource, sys
from pathlib import Path
import torch
from medharden.cli import latency

def passes(*_, **__):
    taken = []
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(16 << 20).add_(1)  # 64 MiB, which is freed at once
        taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print("faults", *taken)
    return ()

latency.time_forms = passes
if sys.argv[1] == "bench":
    latency.run_latency(Path(sys.argv[2]), sys.argv[3])
else:
    passes()
"""
"""Pages taken up in each of eight passes: as `bench` runs them, and as they run by themselves."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is told to glibc; there is none here")
def test_bench_of_a_run_keeps_freed_memory_as_the_page_has_a_deployment_do(made: Released) -> None:
    kept = re.search(r"export (MALLOC_MMAP_THRESHOLD_)=(\d+) (MALLOC_TRIM_THRESHOLD_)=(\d+)", PAGE)
    assert kept is not None
    taken = {}
    plain = {key: value for key, value in environment().items() if not key.startswith("MALLOC_")}
    told = {kept[1]: kept[2], kept[3]: kept[4]}
    for name, variables in {"bench": plain, "alone": plain, "told": plain | told}.items():
        command = [sys.executable, "-c", FAULTS, name, str(made.run), ARCH]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        taken[name] = [int(n) for n in re.search(r"faults([ \d]+)", done.stdout)[1].split()]
    first = taken["alone"][0]
    assert min(taken["alone"]) > first / 2 > 10
    for name in ("bench", "told"):  # the first few passes may find no place that is large enough
        assert max(taken[name][-3:]) < first / 10


class Staged(nn.Module):
    """Layers of many sizes, of which two at a time are needed; the first pads one side more than the other."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        widths = (1, *range(8, 20, 2))
        convolutions = [nn.Conv2d(one, two, 3, padding=int(n > 0)) for n, (one, two) in enumerate(pairwise(widths))]
        layers = [part for c in convolutions for part in (c, nn.BatchNorm2d(c.out_channels), nn.ReLU())]
        self.features = nn.Sequential(nn.ZeroPad2d((0, 2, 0, 2)), *layers)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(inputs).mean((2, 3)))


TAKEN = """
import sys
import numpy as np, onnxruntime

def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) >> 10

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
inputs, before = np.random.rand(32, 1, 64, 64).astype("float32"), resident()
for _ in range(2):
    session.run(None, {"inputs": inputs})
print(resident() - before)
"""
"""MiB that two passes of a model take up and keep, in a process of its own; later passes take no more."""


@pytest.mark.parametrize("branch", ["full", "lora"])
def test_both_paths_take_little_more_memory_in_onnx_runtime_than_one(tmp_path: Path, branch: str) -> None:
    """The first path's memory is given back before the second needs it, and a padding stays within its convolution."""
    torch.manual_seed(0)
    torch.save(Staged(3).state_dict(), tmp_path / "s.pt")
    clean, taken = load_classifier(tmp_path / "s.pt", arch="python:test_production:Staged"), []
    for mode in ("clean", "mixed"):
        data = made_form(composite(clean, (1, 64, 64), mode, branch), "onnx", "", {})[0][""]
        graph = onnx.load_model_from_string(data).graph
        assert graph.input[0].type.tensor_type.shape.dim[0].denotation == "DATA_BATCH"
        readers = Counter(name for node in graph.node for name in node.input)
        assert {readers[node.output[0]] for node in graph.node if node.op_type == "Pad"} == {1}
        (tmp_path / "m.onnx").write_bytes(data)
        command = [sys.executable, "-c", TAKEN, str(tmp_path / "m.onnx")]
        taken.append(int(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout))
    assert 10 < taken[0] <= taken[1] < 1.2 * taken[0]  # 1.03 here; 1.36 where shapes are known to be equal


def test_pytorch_is_timed_with_the_weights_that_a_loaded_model_has(tmp_path: Path) -> None:
    """Added up at each pass, weights and updates of low rank would be timed, which no loaded model adds up."""
    model = composite(tiny_classifier(tmp_path), (1, 16, 16), "mixed", "lora")
    graph, _ = timed_form(model, "pytorch")
    assert not any(is_parametrized(part) for part in graph.modules())
    inputs = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(graph(inputs)["logits"], model.assess(inputs).logits)
