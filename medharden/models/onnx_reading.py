"""Reading an ONNX file as data: its arrays from its own folder alone, and every name in it replaced by one of ours."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medharden.errors import ModelError
from medharden.models.weights import LARGEST_WEIGHTS, read_once
from medharden.text import neutral

__all__ = ["LAST", "ReadGraph", "read_graph"]

LAST = ("Softmax", "Sigmoid")
"""Operators that make probabilities of logits, and are left out where they come last."""

_DOMAINS = ("", "ai.onnx")
_MOST_NODES = 20_000
_AXES = (4, 5)
_GRAPHS = (5, 10)  # kinds of attributes that are graphs


@dataclass(frozen=True)
class ReadGraph:
    """A graph whose names are ours.

    Attributes:
        graph: an onnx `ModelProto`.
        shape: of its input, (N, C, *spatial); null where any size is taken.
        digest: SHA-256 of the file, or of the digests of all files that it is in; "" of a graph that was no file.
        said: what was left out, or lies beside.
    """

    graph: Any
    shape: tuple[int | None, ...]
    digest: str
    said: tuple[str, ...]


def read_graph(onnx: Any, source: Any) -> ReadGraph:
    """Reads a graph, and gives every array, value and operator in it a name of ours.

    Args:
        onnx: the package.
        source: a path, or a `ModelProto` that was read already.

    Raises:
        ModelError: no ONNX file, arrays outside of its folder, or what no plain graph of ONNX's operators has.
    """
    digests: list[str] = []
    if isinstance(source, Path):
        data = read_once(source, neutral(source.name)[:100])
        digests.append(hashlib.sha256(data).hexdigest())
        try:
            model = onnx.ModelProto.FromString(data)
        except Exception:  # protobuf's own error, which differs between its builds
            raise ModelError(f"{neutral(source.name)[:100]} is no readable ONNX file") from None
        digests += _with_arrays(onnx, model, source)
    else:
        model = onnx.ModelProto()
        model.CopyFrom(source)
    _require_plain(onnx, model)
    _with_constants(model)
    _without_idle(onnx, model)
    said = _without_last(model)
    if len(digests) > 1:
        said.append(f"arrays beside the file, of its own folder: SHA-256 {', '.join(d[:16] for d in digests[1:])}")
    _rename(model)
    digest = "" if not digests else digests[0] if len(digests) == 1 else _joined(digests)
    return ReadGraph(model, _shape(model), digest, tuple(said))


def _joined(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _with_arrays(onnx: Any, model: Any, path: Path) -> list[str]:
    """Takes arrays that lie in files beside the graph into it; digests of these files.

    Raises:
        ModelError: they lie elsewhere, or are cut.
    """
    held: dict[str, bytes] = {}
    for array in model.graph.initializer:
        if array.data_location != onnx.TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in array.external_data}
        name = told.get("location", "")
        plain = name and name == os.path.basename(name) and name not in (".", "..") and name.isprintable()
        if not plain or "\\" in name or (path.parent / name).is_symlink():
            raise ModelError(
                f"the ONNX file keeps arrays in {neutral(name)[:80]!r}; expected a file of the same folder, and no link"
            )
        if name not in held:
            held[name] = read_once(path.parent / name, neutral(name)[:100])
        start, length = (
            int(told.get(key) or 0) if (told.get(key) or "0").isdecimal() else -1 for key in ("offset", "length")
        )
        end = start + length if length > 0 else len(held[name])
        if start < 0 or length < 0 or end > min(len(held[name]), LARGEST_WEIGHTS):
            raise ModelError(f"the ONNX file has arrays that leave {neutral(name)[:80]}; was it cut?")
        array.raw_data = held[name][start:end]
        array.data_location = onnx.TensorProto.DEFAULT
        del array.external_data[:]
    return [hashlib.sha256(data).hexdigest() for data in held.values()]


def _require_plain(onnx: Any, model: Any) -> None:
    """Refuses what is more than ONNX's own operators in a row, from one batch of images to one answer."""
    graph = model.graph
    foreign = sorted({node.domain for node in graph.node} - set(_DOMAINS))
    if foreign or len(model.functions):
        named = ", ".join(neutral(name)[:60] for name in foreign[:4]) or "functions of its own"
        raise ModelError(f"the ONNX graph has operators of {named}; expected those of ONNX alone")
    if any(attribute.type in _GRAPHS for node in graph.node for attribute in node.attribute):
        raise ModelError("the ONNX graph holds graphs within operators (If, Loop, Scan), which have no fixed layers")
    if len(graph.sparse_initializer):
        raise ModelError("the ONNX graph holds sparse arrays; export it with dense ones")
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in tensors):
        raise ModelError("the ONNX graph keeps constants in other files; save it with its data inside")
    if not 0 < len(graph.node) <= _MOST_NODES or not all(node.op_type.isidentifier() for node in graph.node):
        raise ModelError(
            f"the ONNX graph has {len(graph.node)} operators; expected 1 to {_MOST_NODES}, each with a name"
        )
    arrays = {array.name for array in graph.initializer}
    inputs = [value for value in graph.input if value.name not in arrays]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"the ONNX graph has {len(inputs)} inputs and {len(graph.output)} outputs; expected an image and its logits"
        )


def _with_constants(model: Any) -> None:
    """What Constant holds, and Identity makes of arrays (equal ones, which are kept once), as arrays themselves."""
    arrays = {array.name: array for array in model.graph.initializer}
    for node in list(model.graph.node):
        held = [attribute.t for attribute in node.attribute if attribute.name == "value" and attribute.HasField("t")]
        if node.op_type == "Identity" and len(node.input) == 1 and node.input[0] in arrays:
            held = [arrays[node.input[0]]]
        elif node.op_type != "Constant":
            continue
        if len(held) == 1 and len(node.output) == 1 and node.output[0] != model.graph.output[0].name:
            array = model.graph.initializer.add()
            array.CopyFrom(held[0])
            array.name = node.output[0]
            arrays[array.name] = array
            model.graph.node.remove(node)


def _without_idle(onnx: Any, model: Any) -> None:
    """Drops what says how a Reshape takes a 0, of one to a shape without any."""
    arrays = {array.name: array for array in model.graph.initializer}
    for node in model.graph.node:
        shape = arrays.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
        if shape is not None and 0 not in onnx.numpy_helper.to_array(shape):
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _without_last(model: Any) -> list[str]:
    """Leaves a last softmax or sigmoid out: what it is given are the logits."""
    last = next((node for node in model.graph.node if list(node.output) == [model.graph.output[0].name]), None)
    if last is None or last.op_type not in LAST or len(last.input) != 1:
        return []
    model.graph.output[0].name = last.input[0]
    model.graph.node.remove(last)
    return [f"its last {last.op_type} was left out: what it is given are the logits"]


def _rename(model: Any) -> None:
    """Names of ours throughout, in the order of the graph; comments and what it says beside are emptied.

    Raises:
        ModelError: an operator takes what nothing before it makes.
    """
    graph = model.graph
    arrays = {array.name for array in graph.initializer}
    names = {"": ""}
    names |= {value.name: "image" for value in graph.input if value.name not in arrays}
    names |= {array.name: f"array_{number}" for number, array in enumerate(graph.initializer)}
    for number, node in enumerate(graph.node):
        if any(name not in names for name in node.input):
            raise ModelError("the ONNX graph has operators that take what nothing before them makes; is it damaged?")
        inputs = [names[name] for name in node.input]
        names |= {name: f"value_{number}_{place}" for place, name in enumerate(node.output) if name}
        outputs = [names[name] for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        node.name, node.doc_string = f"{node.op_type}_{number}", ""
    if graph.output[0].name not in names:
        raise ModelError("the ONNX graph's output is made by none of its operators; is it damaged?")
    for array in graph.initializer:
        array.name, array.doc_string = names[array.name], ""
    image = next(value for value in graph.input if value.name not in arrays)
    kept = type(image)()
    kept.CopyFrom(image)
    kept.name, kept.doc_string = "image", ""
    for place, axis in enumerate(kept.type.tensor_type.shape.dim):
        axis.denotation = ""
        if axis.dim_param or place == 0:
            axis.dim_param = f"axis_{place}"
    graph.output[0].name = names[graph.output[0].name]
    graph.output[0].doc_string = ""
    for place, axis in enumerate(graph.output[0].type.tensor_type.shape.dim):
        axis.denotation = ""
        if not axis.HasField("dim_value") or place == 0:
            axis.dim_param = f"answer_{place}"
    del graph.input[:], graph.value_info[:], model.metadata_props[:], model.training_info[:]
    graph.input.append(kept)
    graph.name, graph.doc_string, model.doc_string = "graph", "", ""
    model.producer_name = model.producer_version = model.domain = ""


def _shape(model: Any) -> tuple[int | None, ...]:
    axes = model.graph.input[0].type.tensor_type.shape.dim
    shape = tuple(int(axis.dim_value) if axis.HasField("dim_value") else None for axis in axes)
    if len(shape) not in _AXES or shape[1] is None or any(n is not None and not 1 <= n <= 2**13 for n in shape[1:]):
        raise ModelError(
            f"the ONNX graph takes {len(shape)} axes; expected (cases, channels, H, W) or (cases, channels, D, H, W), "
            "with the number of channels stated"
        )
    return shape
