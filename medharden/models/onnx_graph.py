"""ONNX graphs as networks: read as data, renamed throughout, and made of PyTorch's own layers by onnx2torch.

The graph goes with the weights, as a buffer of bytes among them, without its large arrays: so a release is built again
from its own two files. onnx2torch writes Python code from the names in a graph; here it is given names of ours alone.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.extras import missing
from medharden.models.onnx_reading import LAST, read_graph
from medharden.models.timm_import import timm_module
from medharden.models.weights import Weights
from medharden.text import neutral

__all__ = ["GRAPH", "onnx_network", "onnx_weights"]

GRAPH = "onnx_graph"
"""Name of the buffer that holds the graph."""

_OPSET = 18  # the last that onnx2torch knows whole
_IR = 8  # the form of files of that time
_EMPTIED = 256  # values from which on an array is emptied in the graph, for the weights have it
_ROOM = 2**28
_SIDES = (64, 224, 128, 32)  # tried where a graph does not say its input's size
_FAULTS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError)


class OnnxNetwork(nn.Module):
    """A graph's layers, and the graph that they are made of."""

    onnx_graph: Tensor

    def __init__(self, module: nn.Module, packed: bytes) -> None:
        """Takes the layers, and the bytes of which they can be made again."""
        super().__init__()
        self.module = module
        self.register_buffer(GRAPH, torch.frombuffer(bytearray(packed), dtype=torch.uint8))

    def forward(self, inputs: Tensor) -> Any:
        """The graph's answer to (N, C, *spatial)."""
        return self.module(inputs)


def onnx_weights(path: Path, dims: int) -> tuple[Weights, dict[str, Any]]:
    """The weights of an `.onnx` file, its graph among them, and the numbers of its outputs and channels.

    Args:
        path: the file; arrays that it keeps beside itself must lie in its folder.
        dims: spatial dimensions of the data.

    Raises:
        ModelError: damaged, operators that have no counterpart, no gradient, or no classifier of images.
    """
    onnx = _onnx()
    read = read_graph(onnx, path)
    if len(read.shape) != dims + 2:
        raise ModelError(f"the ONNX graph takes inputs of {len(read.shape)} axes; the protocol's input.dims is {dims}")
    exact = _layers(onnx, read.graph)
    packed = _emptied(onnx, read.graph).SerializeToString(deterministic=True)
    network = OnnxNetwork(exact, packed).eval()
    example, answer = _tried(network, read.shape)
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    again = onnx_network(state).eval()
    with torch.no_grad():
        if again.state_dict().keys() != state.keys() or not torch.equal(again(example), network(example)):
            raise ModelError("the ONNX graph is not built again from its weights: it works with arrays as settings")
    said = [f"an ONNX graph of {len(read.graph.graph.node)} operators", *read.said]
    weights = Weights(state, "onnx:graph", None, None, read.digest, said=tuple(said), source="ONNX file")
    return weights, {"num_classes": int(answer.shape[1]), "in_channels": int(example.shape[1])}


def onnx_network(state: Mapping[str, Tensor]) -> nn.Module:
    """The network of weights that a graph lies among, with these.

    Raises:
        ModelError: there is none, or it is damaged, or the weights are of another.
    """
    packed = state.get(GRAPH)
    if packed is None or packed.dtype != torch.uint8 or packed.ndim != 1:
        raise ModelError("the weights hold no ONNX graph that they are of; give the .onnx file itself")
    onnx, data = _onnx(), packed.cpu().numpy().tobytes()
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:  # protobuf's own error, which differs between its builds
        raise ModelError("the weights hold an ONNX graph that is damaged") from None
    _fill(onnx, model, _ROOM + 4 * sum(tensor.nbytes for tensor in state.values()))
    network = OnnxNetwork(_layers(onnx, read_graph(onnx, model).graph), data)
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise ModelError(f"the weights are of another ONNX graph: {neutral(str(error))[:200]}") from None
    return network


def _onnx() -> Any:
    """The onnx package, where onnx2torch is there too.

    Raises:
        MissingPackageError: either is not installed.
    """
    timm_module()  # torchvision, which onnx2torch imports, is then found whatever torch it was built for
    try:
        importlib.import_module("onnx2torch")
        return importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise missing(error) or error from None


def _layers(onnx: Any, model: Any) -> nn.Module:
    """The graph's operators as PyTorch's layers; arrays of two axes and more are parameters, which train.

    Raises:
        ModelError: an operator that has no counterpart; named.
    """
    convert = importlib.import_module("onnx2torch").convert
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = convert(_at_known_opset(onnx, model))
    except _FAULTS as error:
        raise ModelError(
            f"the ONNX graph can't be made of PyTorch's layers: {neutral(str(error))[:200]}; export it at opset 17 "
            "(torch.onnx.export(..., opset_version=17, dynamo=False)), or give the network itself with its state_dict()"
        ) from None
    kept = getattr(made, "initializers", nn.Module())  # which is not there where no operator has an array for input
    for name, values in list(kept.named_buffers(recurse=False)):
        if values.is_floating_point() and values.ndim > 1:
            del kept._buffers[name]
            kept.register_parameter(name, nn.Parameter(values.clone()))
    return made.float()


def _at_known_opset(onnx: Any, model: Any) -> Any:
    """The graph under the last opset that is known whole, where it uses nothing that later ones brought.

    What later ones changed of operators that were there before are further types and further attributes.

    Raises:
        ModelError: it uses what came later.
    """
    stated = max(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    if stated <= _OPSET:
        return model
    earlier = onnx.ModelProto()
    earlier.CopyFrom(model)
    del earlier.opset_import[:]
    earlier.opset_import.append(onnx.helper.make_opsetid("", _OPSET))
    earlier.ir_version = min(earlier.ir_version, _IR)
    try:
        onnx.checker.check_model(earlier)
    except onnx.checker.ValidationError as error:
        said = neutral(" ".join(str(error).split()))[:160]
        raise ModelError(
            f"the ONNX graph is of opset {stated} and uses what came after {_OPSET} ({said}); export it at opset 17"
        ) from None
    return earlier


def _emptied(onnx: Any, model: Any) -> Any:
    """The graph without the values of large arrays of numbers, which its weights have."""
    emptied = onnx.ModelProto()
    emptied.CopyFrom(model)
    for array in emptied.graph.initializer:
        values = onnx.numpy_helper.to_array(array)
        if values.dtype == np.float32 and values.size >= _EMPTIED:
            kept = onnx.TensorProto(name=array.name, dims=array.dims, data_type=array.data_type)
            array.CopyFrom(kept)
    return emptied


def _fill(onnx: Any, model: Any, most: int) -> None:
    """Zeros for arrays that have no values.

    Raises:
        ModelError: they would be far larger than the weights that the graph lies among.
    """
    empty = [a for a in model.graph.initializer if a.data_type == onnx.TensorProto.FLOAT and not a.raw_data]
    empty = [a for a in empty if not a.float_data and math.prod(a.dims) >= _EMPTIED]
    if sum(math.prod(array.dims) for array in empty) * 4 > most:
        raise ModelError("the weights hold an ONNX graph that is far larger than they are")
    for array in empty:
        array.raw_data = bytes(4 * math.prod(array.dims))


def _tried(network: nn.Module, shape: tuple[int | None, ...]) -> tuple[Tensor, Tensor]:
    """Three cases and the answer to them, where a batch equals its cases and a gradient reaches the input.

    Raises:
        ModelError: it takes no batches, answers with no logits, or has no gradient.
    """
    example = None
    for side in _SIDES:
        drawn = torch.rand((3, *(side if n is None else n for n in shape[1:])), generator=_seeded())
        try:
            with torch.no_grad():
                network(drawn[:1])
            example = drawn
            break
        except _FAULTS as error:
            reason = neutral(str(error))[:160]
    if example is None:
        raise ModelError(f"the ONNX graph takes no input of {' x '.join(map(str, shape[1:]))}: {reason}")
    try:
        inputs = example.clone().requires_grad_(True)
        answer = network(inputs)
        with torch.no_grad():
            one = network(example[:1])
    except _FAULTS:
        answer = one = None
    if isinstance(answer, (tuple, list)):
        raise ModelError(f"the ONNX graph has {len(answer)} outputs; export the one with the logits alone")
    if answer is None or answer.shape[:1] != (3,) or not torch.allclose(answer[:1].float(), one.float(), atol=1e-3):
        raise ModelError(
            "the ONNX graph takes one case at a time, and not a batch; export it with dynamic_axes of the first axis"
        )
    if answer.ndim != 2 or not answer.is_floating_point():
        raise ModelError(
            f"the ONNX graph answers with {answer.dtype} of shape {tuple(answer.shape)}; expected logits (cases, "
            f"classes), before any of {', '.join(LAST)}, ArgMax and the like"
        )
    gradient = torch.autograd.grad(answer.sum(), inputs, allow_unused=True)[0] if answer.requires_grad else None
    if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool((gradient != 0).any()):
        raise ModelError("the ONNX graph has no gradient from its answer to its input, so it can't be hardened")
    return example, answer.detach()


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
