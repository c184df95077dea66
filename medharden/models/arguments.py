"""Constructor arguments from a file, held within bounds before a constructor sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medharden.errors import ModelError
from medharden.text import neutral

__all__ = ["check_arguments"]

_LARGEST = 2**15
_LARGEST_SUM = 2**16
_LONGEST_TEXT = 256
_LONGEST_PLACE = 200
_LONGEST_LIST = 128
_MOST_VALUES = 1024
_DEEPEST = 8


def check_arguments(arguments: dict[str, Any]) -> None:
    """Refuses what no network is built with: huge numbers or lists, deep nesting, what no record can hold.

    Args:
        arguments: of a constructor, by name; plain values.

    Raises:
        ModelError: with the argument's name.
    """
    for count, (where, value, depth) in enumerate(_walk(arguments)):
        fault = _fault(value, depth)
        if count > _MOST_VALUES:
            fault = f"is one of more than {_MOST_VALUES} values"
        if fault:
            raise ModelError(f"the network's argument {neutral(where)} {fault}")
    dims = arguments.get("spatial_dims", 2)
    if type(dims) is not int or dims not in (2, 3):
        raise ModelError(f"the network's argument spatial_dims is {_shown(dims)}, expected 2 or 3")


def _walk(arguments: dict[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """Every value with its place, the outer before the inner; the caller stops where it is too deep."""
    ahead: list[tuple[str, Any, int]] = [(str(k)[:_LONGEST_PLACE], v, 1) for k, v in reversed(arguments.items())]
    while ahead:
        where, value, depth = ahead.pop()
        yield where, value, depth
        if isinstance(value, dict):
            ahead += [(f"{where}.{k}"[:_LONGEST_PLACE], v, depth + 1) for k, v in reversed(value.items())]
        elif isinstance(value, (list, tuple)):
            ahead += [(f"{where}[{n}]"[:_LONGEST_PLACE], v, depth + 1) for n, v in reversed(list(enumerate(value)))]


def _fault(value: Any, depth: int) -> str:
    """What is wrong with one value, or nothing."""
    if depth > _DEEPEST:
        return f"is nested more than {_DEEPEST} deep"
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)):
        return "" if abs(value) <= _LARGEST else f"is {_shown(value)}; numbers to {_LARGEST} are understood"
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT or not value.isprintable():
            return f"is a text of more than {_LONGEST_TEXT} characters, or with control characters"
        return ""
    if isinstance(value, (list, tuple)) and sum(abs(v) for v in value if isinstance(v, (int, float))) > _LARGEST_SUM:
        return f"adds up to more than {_LARGEST_SUM}"
    if isinstance(value, (list, tuple, dict)):
        if isinstance(value, dict) and not all(isinstance(key, str) and len(key) <= _LONGEST_TEXT for key in value):
            return "has a key that is no short text"
        return "" if len(value) <= _LONGEST_LIST else f"has {len(value)} entries; {_LONGEST_LIST} are understood"
    return f"is a {type(value).__name__}; numbers, texts, booleans and lists of these are understood"


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return neutral(repr(value))[:80]
