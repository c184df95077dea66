"""Options that take one of a few words."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Format", "Precision", "Tracker"]


class Precision(StrEnum):
    """In what the branch's layers are trained."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Tracker(StrEnum):
    """What may be told beside."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"


class Format(StrEnum):
    """How the gate prints its decision."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
