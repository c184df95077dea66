"""An exported model in ONNX Runtime: read once, its digest that of the bytes that run, nothing outside of it loaded."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medharden.errors import ModelError
from medharden.files import read_plain
from medharden.text import neutral

__all__ = ["RuntimeModel", "open_onnx", "read_onnx"]

_LARGEST = 2**31
_OUTPUTS = ("logits", "answer", "refer")
_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


@dataclass(frozen=True, eq=False)
class RuntimeModel:
    """A session of ONNX Runtime on the CPU.

    Attributes:
        digest: SHA-256 of the file.
        metadata: what the file says of itself.
        runtime: such as `onnxruntime 1.20.0, CPUExecutionProvider`.
    """

    session: Any
    digest: str
    metadata: dict[str, str]
    runtime: str

    def __call__(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """(N, C, *spatial) float32 in [0, 1], on any device, to outputs by name, on the CPU."""
        values = np.ascontiguousarray(inputs.detach().cpu().numpy(), dtype=np.float32)
        names = [output.name for output in self.session.get_outputs()]
        found = self.session.run(names, {self.session.get_inputs()[0].name: values})
        return {name: torch.from_numpy(np.array(value)) for name, value in zip(names, found, strict=True)}


def read_onnx(path: Path) -> RuntimeModel:
    """Opens an ONNX file.

    Args:
        path: a plain file.

    Raises:
        ModelError: it is missing, too large, or no model that `open_onnx` takes.
        RunError: it is a link, a pipe or the like.
    """
    name = neutral(path.name)[:100]
    try:
        data = read_plain(path.parent, path.name, largest=_LARGEST)
    except OSError as error:
        raise ModelError(f"there is no artefact {name} that can be read ({type(error).__name__})") from None
    return open_onnx(data, name)


def open_onnx(data: bytes, name: str, *, threads: int | None = None) -> RuntimeModel:
    """A session on a model's bytes.

    Args:
        data: of the file. Weights that lie in other files are refused, so that no path in it is followed, and so are
            operators that would need a library of their own.
        name: of the file, for errors.
        threads: of an operation; null takes as many as PyTorch does.

    Raises:
        ModelError: no such model, or one without the outputs `logits`, `answer` and `refer`.
    """
    import onnx
    import onnxruntime
    from google.protobuf.message import DecodeError
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError):
        raise ModelError(f"{name} is no readable ONNX model") from None
    if any(tensor.external_data for tensor in _tensors(model)):
        raise ModelError(f"{name} has weights in other files, which are not read; save it as one file")
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    foreign = sorted({neutral(node.domain)[:60] for node in nodes if node.domain not in _STANDARD})
    if foreign:
        raise ModelError(f"{name} has operators of {', '.join(foreign)}; expected those of ONNX and ONNX Runtime alone")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented, RuntimeError) as error:
        said = neutral(str(error).splitlines()[0])[:200]
        raise ModelError(f"ONNX Runtime does not take {name}: {said}") from None
    lacking = set(_OUTPUTS) - {output.name for output in session.get_outputs()}
    if lacking or len(session.get_inputs()) != 1:
        raise ModelError(
            f"{name} has not the one input and the outputs {', '.join(_OUTPUTS)} of an exported run; it lacks "
            f"{', '.join(sorted(lacking)) or 'none, but has several inputs'}"
        )
    return RuntimeModel(
        session,
        hashlib.sha256(data).hexdigest(),
        {entry.key: entry.value for entry in model.metadata_props},
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider, {platform.machine()}",
    )


def _nodes(graph: Any) -> Iterator[Any]:
    """Every step of a graph and of the graphs in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _nodes(inner)


def _tensors(model: Any) -> Iterator[Any]:
    """Every stored tensor of a model, those of functions and of graphs within graphs too."""
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    yield from model.graph.initializer
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from inner.initializer
