"""The graph written as ONNX, as a `torch.export` program and as TorchScript; each holds its metadata inside."""

from __future__ import annotations

import copy
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from medharden.errors import ModelError
from medharden.exporting.folding import choose_by_size, fold_constants, fold_when_loaded
from medharden.exporting.graph import OUTPUTS, Deployed
from medharden.exporting.pairing import BySize
from medharden.exporting.sharing import UPDATE

__all__ = [
    "INPUT",
    "OPSET",
    "PAIRED",
    "Runner",
    "leave_shapes_open",
    "onnx_bytes",
    "opened_program",
    "opened_script",
    "program_bytes",
    "script_bytes",
]

INPUT = "inputs"
OPSET = 18
PAIRED = ("pt2", "torchscript", "bundle")
"""Forms that answer by both paths in one pass where they can; ONNX Runtime takes longer so, see docs/production.md."""
_META = "medharden.json"
_LARGEST_ONNX = 2**31 - 2**20  # a protobuf message ends at 2 GiB
_EXAMPLES = 2  # cases that a graph is traced on: of one, an exporter takes the axis for a constant

Runner = Callable[[Tensor], Mapping[str, Tensor]]
"""(N, C, *spatial) to outputs by name."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Of the exporters' notes none is for who exports: what they could break is held against the composite."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield


def _example(shape: tuple[int, ...]) -> Tensor:
    return torch.rand((_EXAMPLES, *shape), generator=torch.Generator().manual_seed(0))


def onnx_bytes(graph: Deployed, shape: tuple[int, ...], metadata: Mapping[str, str]) -> bytes:
    """ONNX at opset 18; weights and steps that the two paths share are there once.

    Batch normalisation stays a step of its own, which runtimes fold when they load: folded here, no weight of the two
    paths would be the same any more. The batch axis has a denotation and no name, see `leave_shapes_open`.

    Args:
        graph: the composite.
        shape: (C, *spatial) of a case.
        metadata: key to text, in the model's `metadata_props`.

    Raises:
        ModelError: the network has a step that the exporter doesn't know, or is too large for one file.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    batch = torch.export.Dim("batch", min=1)
    with _quiet(), _known_steps("onnx"):
        program = torch.onnx.export(
            graph,
            (_example(shape),),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: batch}},
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        if program is None:
            raise ModelError("PyTorch exported nothing; the network can't be written as onnx")
        model = program.model
        optimizer.fold_constants(model, should_fold=_foldable)
        _drop_zero_biases(model)
        for step in (
            common.InlinePass(),
            common.IdentityEliminationPass(),
            common.DeduplicateInitializersPass(size_limit=2**40),
            common.CommonSubexpressionEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedFunctionsPass(),
            common.RemoveUnusedOpsetsPass(),
            common.ClearMetadataAndDocStringPass(),  # paths of this machine's sources among them
        ):
            step(model)
        _pad_apart(model)
    model.producer_name = "medharden"
    model.metadata_props.clear()
    model.metadata_props.update(dict(sorted(metadata.items())))
    if (
        sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
        > _LARGEST_ONNX
    ):
        raise ModelError("the weights are more than one ONNX file can hold (2 GiB); export to pt2")
    proto = ir.to_proto(model)
    leave_shapes_open(proto)
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def leave_shapes_open(proto: Any) -> None:
    """Names the batch axis of the input by denotation alone, and takes away the shapes of what lies between.

    Where ONNX Runtime knows two tensors to have one shape, the later takes the earlier one's place, whose memory is
    held until then: over two paths of one shape all of the first path's (104 MiB in place of 38, EfficientNet-Lite0 at
    128 pixels, 16 cases), which is slower. An axis without a name equals none, and memory is given back at once.

    Args:
        proto: an ONNX model that takes `inputs`; changed in place.
    """
    del proto.graph.value_info[:]
    axis = next(value for value in proto.graph.input if value.name == INPUT).type.tensor_type.shape.dim[0]
    axis.ClearField("dim_param")
    axis.denotation = "DATA_BATCH"


def _pad_apart(model: Any) -> None:
    """Gives each convolution a padding of its own: a runtime takes one in that no other step reads."""
    import onnx_ir as ir

    for node in list(model.graph):
        uses = list(node.outputs[0].uses()) if node.op_type == "Pad" else []
        if any(use.node.op_type != "Conv" for use in uses):
            continue
        for use in uses[1:]:
            own = ir.Node("", "Pad", node.inputs, node.attributes.values())
            model.graph.insert_after(node, own)
            use.node.replace_input_with(use.idx, own.outputs[0])


def _foldable(node: Any) -> bool | None:
    """Whatever is constant, but for a frozen weight and its update, whose sum would be the weight once more."""
    return False if any(value is not None and UPDATE in (value.name or "") for value in node.inputs) else None


def _drop_zero_biases(model: Any) -> None:
    """Takes away the zeros that stand for no bias; onnxscript 0.7.2 gives those of 3D convolutions two axes."""
    for node in model.graph:
        if node.op_type == "Conv" and len(node.inputs) == 3 and node.inputs[2] is not None:
            value = node.inputs[2].const_value
            if value is not None and not value.numpy().any():
                node.resize_inputs(2)


def program_bytes(graph: Deployed, shape: tuple[int, ...], metadata: Mapping[str, str]) -> bytes:
    """A `torch.export` program (`.pt2`); arguments and errors as of `onnx_bytes`.

    It knows no choice by the number of cases: both paths go in one pass where they can.
    """
    batch, written = torch.export.Dim("batch", min=1), io.BytesIO()
    if isinstance(graph.paths, BySize):
        graph = Deployed(graph.paths.one, graph.fusion, graph.bias, multilabel=graph.multilabel)
    with _quiet(), _known_steps("pt2"):
        program = torch.export.export(graph, (_example(shape),), dynamic_shapes={INPUT: {0: batch}})
        _drop_traces(program)
        torch.export.save(program, written, extra_files={_META: _as_json(metadata)})
    return _packed(written.getvalue())


def _drop_traces(program: torch.export.ExportedProgram) -> None:
    """Takes away where each step was written in this machine's sources, and the cases that it was traced on."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(key, None)
    program._example_inputs = None


def script_bytes(graph: torch.nn.Module, shape: tuple[int, ...], metadata: Mapping[str, str]) -> bytes:
    """TorchScript, traced; arguments and errors as of `onnx_bytes`.

    Frozen weights and their updates are stored apart, and added up when the file is loaded.
    """
    written = io.BytesIO()
    with _quiet(), _known_steps("torchscript"):
        graph = copy.deepcopy(graph)
        fold_when_loaded(graph)
        choose_by_size(graph, _example(shape))
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            graph, (_example(shape),), strict=False, check_trace=False
        )
        torch.jit.save(traced, written, _extra_files={_META: _as_json(metadata).encode()})
    return _packed(written.getvalue())


def _packed(data: bytes) -> bytes:
    """The archive with its code and graph compressed, which PyTorch's readers take; weights and metadata as they were.

    Without its `.debug_pkl`, which hold lines and paths of this machine's sources.
    """
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(written, "w") as kept:
        for name in archive.namelist():
            if not name.endswith(".debug_pkl"):
                packed = name.endswith((".py", ".pkl", ".json")) and not name.endswith(_META)
                way = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
                kept.writestr(zipfile.ZipInfo(name), archive.read(name), compress_type=way)
    return written.getvalue()


def opened_program(data: bytes, *, folded: bool = False) -> Runner:
    """A program that `program_bytes` wrote, to be run; where it is folded, what is constant is computed once."""
    with _quiet():
        module = torch.export.load(io.BytesIO(data)).module()
        if folded:
            fold_constants(module)
    return _runner(module)


def opened_script(data: bytes, *, frozen: bool = False) -> Runner:
    """A script that `script_bytes` wrote, to be run; where it is frozen, what is constant is computed once."""
    with _quiet():
        module = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]
        module = torch.jit.freeze(module.eval()) if frozen else module
    return _runner(module)


def _runner(module: Callable[[Tensor], Mapping[str, Tensor]]) -> Runner:
    def run(inputs: Tensor) -> Mapping[str, Tensor]:
        with _quiet():
            return module(inputs)

    return run


@contextmanager
def _known_steps(form: str) -> Iterator[None]:
    """Turns what an exporter says of a network that it can't write into one sentence."""
    try:
        yield
    except (
        torch.onnx.OnnxExporterError,
        ModelError,  # of a network whose own code can't be followed
        RuntimeError,
        ValueError,
        TypeError,
        NotImplementedError,
    ) as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"this network can't be written as {form}: {said[:300]}; try another form (onnx, pt2, torchscript)"
        ) from error


def _as_json(metadata: Mapping[str, str]) -> str:
    return json.dumps(dict(sorted(metadata.items())))
