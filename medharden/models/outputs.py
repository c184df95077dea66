"""Which part of a network's answer holds the logits, where it answers with several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from medharden.errors import ModelError

__all__ = ["named_output"]


def named_output(answer: Any, output: str | int | None) -> Tensor:
    """The tensor that `model.output` names: the same object, so the same bits.

    Args:
        answer: what a network returned: a tensor, a tuple or list, or a mapping such as a dict.
        output: a key of the mapping or an index into the tuple; null where the network returns one tensor.

    Raises:
        ModelError: no tensor is there; the message says which keys or indices there are.
    """
    if output is None and isinstance(answer, Tensor):
        return answer
    parts: dict[Any, Any] = {}
    if isinstance(answer, Mapping):
        parts = dict(answer)
    elif isinstance(answer, (tuple, list)):
        parts = dict(enumerate(answer))
    picked = parts.get(output)
    if isinstance(picked, Tensor):
        return picked
    raise ModelError(f"{_asked(output)}, but the network returns {_described(answer, parts)}")


def _asked(output: str | int | None) -> str:
    return "expected one tensor of logits" if output is None else f"model.output is {output!r}"


def _described(answer: Any, parts: dict[Any, Any]) -> str:
    """What there is, and what to do about it."""
    if isinstance(answer, Tensor):
        return "one tensor; leave model.output out of the protocol"
    kind = type(answer).__name__
    usable = [name for name, part in parts.items() if isinstance(part, Tensor) and isinstance(name, (str, int))]
    if not usable:
        return f"a {kind} without a tensor under a key or index; return the logits, by themselves or in a dict or tuple"
    listed = ", ".join(f"{name!r}: {_shape(part)}" for name, part in parts.items())
    return f"a {kind} of {listed}; name the one that holds the logits as model.output in the protocol"


def _shape(part: Any) -> str:
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__
