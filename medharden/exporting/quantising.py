"""An ONNX model with weights in eight bits; what that does to its answers is for `evaluate --artefact` to say."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from medharden.errors import ModelError
from medharden.exporting.forms import leave_shapes_open

__all__ = ["to_int8"]


def to_int8(data: bytes) -> bytes:
    """Weights of convolutions and matrix products in eight bits; activations are scaled case by case as they come.

    Dynamic quantisation (ONNX Runtime): it needs no calibration cases. A weight has one scale, so normalisation is not
    folded into it, whose channels would then differ a hundredfold, and convolutions in groups, which have few weights
    and of which ONNX Runtime computes whole numbers slowly, stay in single precision.

    Args:
        data: an ONNX model in single precision.

    Raises:
        ModelError: ONNX Runtime can't quantise it.
    """
    import onnx
    from onnxruntime import quantization

    metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    logging.getLogger("root").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="medharden-") as folder:
        single, folded, small = (Path(folder) / name for name in ("single.onnx", "folded.onnx", "small.onnx"))
        single.write_bytes(data)
        try:
            _fold_constants(single, folded)
            quantization.quantize_dynamic(
                folded,
                small,
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
                nodes_to_exclude=_grouped(folded),
                weight_type=quantization.QuantType.QUInt8,
            )
        except (RuntimeError, ValueError, NotImplementedError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"ONNX Runtime can't quantise this model to int8: {said[:200]}") from error
        model = onnx.load(small)
    leave_shapes_open(model)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    model.producer_name = "medharden"
    return bytes(model.SerializeToString(deterministic=True))


def _fold_constants(source: Path, target: Path) -> None:
    """What does not depend on the input becomes a weight, as the sum of a weight and its low-rank update does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConvBNFusion", "ConvMulFusion"]
    )


def _grouped(path: Path) -> list[str]:
    """Names of the convolutions in groups, depthwise ones among them."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return [n.name for n in nodes if n.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in n.attribute)]
