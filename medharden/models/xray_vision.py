"""torchxrayvision's models, known by their weights: they take [-1024, 1024], not [0, 1] with a mean and a std."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from medharden.errors import ModelError
from medharden.models.weights import Weights
from medharden.protocol import ModelSpec

__all__ = ["xray_vision_range"]

_RANGE = (-1024.0, 1024.0)
_THRESHOLDS = "op_threshs"
_FINDINGS = 18  # that its DenseNets answer
_LINES = "model: {range: [-1024, 1024]}"


def xray_vision_range(weights: Weights, spec: ModelSpec) -> tuple[ModelSpec, tuple[str, ...]]:
    """The protocol's word on the model, with torchxrayvision's range where its weights show that they are of it.

    Its models keep their operating points beside their weights (`op_threshs`), and answer with a sigmoid that is
    rescaled so that these become 0.5. Here the layer before that answers, in logits.

    Args:
        weights: of the file.
        spec: the protocol's word; a normaliser that it states stays.

    Returns:
        The word, and what is assumed.

    Raises:
        ModelError: what looks like one of its DenseNets without its operating points, and nobody states a normaliser.
    """
    kept = next((name for name in weights.state if name.rpartition(".")[2] == _THRESHOLDS), None)
    if kept is None and not _looks_like_one(weights.state):
        return spec, ()
    told = weights.mean is not None or any(v is not None for v in (spec.mean, spec.std, spec.range, spec.zscore))
    if kept is None and not told:
        raise ModelError(
            f"this looks like torchxrayvision's DenseNet ({_FINDINGS} outputs, one channel), whose inputs lie in "
            f"[-1024, 1024], and nothing says so: with another normaliser its logits are off by a thousand; set "
            f"{_LINES}, or model.mean and model.std where it was trained otherwise"
        )
    if kept is None:
        return spec, ()
    assumed = (
        f"torchxrayvision's operating points ({_THRESHOLDS}) were left out: its answers are sigmoids that these turn "
        "into 0.5; to answer findings as it does, state them as task.threshold",
    )
    return spec if told else spec.model_copy(update={"range": _RANGE}), assumed


def _looks_like_one(state: Mapping[str, Tensor]) -> bool:
    """Whether it has the layers and sizes of its DenseNets: one channel, and as many outputs as it has findings."""
    first = next((t for name, t in state.items() if name.endswith("features.conv0.weight")), None)
    last = next((t for name, t in state.items() if name.endswith("classifier.weight")), None)
    if first is None or last is None:
        return False
    return first.ndim == 4 and first.shape[1] == 1 and last.ndim == 2 and last.shape[0] == _FINDINGS
