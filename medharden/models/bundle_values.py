"""Values of a MONAI bundle's configuration: literals, references to them and constants of torch, by parsing alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from medharden.errors import ModelError
from medharden.text import neutral

__all__ = ["ExpressionError", "resolved"]

_REFERENCE = re.compile(r"\$?@([\w#:]+)")
_TYPE = re.compile(r"\$?(torch\.(?:float32|float|float64|double|float16|half|int64|long|uint8))")
_KEYS = re.compile(r"\$monai\.utils\.(?:enums\.)?CommonKeys\.(IMAGE|LABEL|PRED|LOSS)")  # each is its name in small
_DEEPEST = 8


class ExpressionError(ModelError):
    """A value that is none until something is run."""


def resolved(value: Any, config: Mapping[str, Any], deep: int = 0) -> Any:
    """A value as it stands for itself: a literal, or what a reference in the same file leads to.

    Args:
        value: as it was read.
        config: the whole configuration.
        deep: references passed so far.

    Raises:
        ExpressionError: an expression, or a reference that leads nowhere or in a circle.
    """
    if isinstance(value, list):
        return [resolved(inner, config, deep) if isinstance(inner, str) else inner for inner in value]
    if not isinstance(value, str) or value[:1] not in ("$", "@", "%"):
        return value
    if kind := _TYPE.fullmatch(value):
        return kind[1]
    if key := _KEYS.fullmatch(value):
        return key[1].lower()
    if (reference := _REFERENCE.fullmatch(value)) and deep < _DEEPEST:
        found: Any = config
        for name in re.split(r"::|#", reference[1]):
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise _refused(value)
        return resolved(found, config, deep + 1)
    if value[:1] == "$":
        try:
            return ast.literal_eval(value[1:].strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            pass
    raise _refused(value)


def _refused(value: str) -> ExpressionError:
    return ExpressionError(
        f"the bundle holds {neutral(value)[:80]!r}, an expression or a reference, which medharden never evaluates; "
        "write the plain value there"
    )
