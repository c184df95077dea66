"""An ONNX model with weights in eight bits; what that does to its answers is for `evaluate --artefact` to say."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from medharden.errors import ModelError

__all__ = ["to_int8"]


def to_int8(data: bytes) -> bytes:
    """Weights of convolutions and matrix products in eight bits; activations are scaled case by case as they come.

    Dynamic quantisation (ONNX Runtime): it needs no calibration cases. Batch normalisation is folded first.

    Args:
        data: an ONNX model in single precision.

    Raises:
        ModelError: ONNX Runtime can't quantise it.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    logging.getLogger("root").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="medharden-") as folder:
        single, folded, small = (Path(folder) / name for name in ("single.onnx", "folded.onnx", "small.onnx"))
        single.write_bytes(data)
        try:
            quant_pre_process(single, folded, skip_symbolic_shape=True)
            quantization.quantize_dynamic(
                folded,
                small,
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
                weight_type=quantization.QuantType.QUInt8,
            )
        except (RuntimeError, ValueError, NotImplementedError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"ONNX Runtime can't quantise this model to int8: {said[:200]}") from error
        model = onnx.load(small)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    model.producer_name = "medharden"
    return bytes(model.SerializeToString(deterministic=True))
