"""Canonical JSON (RFC 8785), out and in: a file is read only where its bytes are those that its content is written as.

So there is one spelling of every record: no key given twice, no number as text, no blank, nothing behind the end.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import rfc8785

__all__ = ["DEEPEST", "canonical_json", "parse_canonical"]

DEEPEST = 64
"""Levels of objects and lists; no record has a dozen."""


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of a record or of plain JSON values.

    Raises:
        ValueError: NaN, infinity or anything that JSON can't hold.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return rfc8785.dumps(value)


def parse_canonical(data: bytes) -> Any:
    """The value of canonical JSON, whose depth is looked at before it is parsed.

    Args:
        data: one JSON value, without the line's end that a file has.

    Raises:
        ValueError: other bytes than the value is written as, or more than `DEEPEST` levels; the text says which.
    """
    if _deep(data):
        raise ValueError(f"has more than {DEEPEST} levels of objects and lists")
    try:
        value = json.loads(data)
        same = rfc8785.dumps(value) == data
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        raise ValueError("is no JSON") from None
    if not same:
        raise ValueError("is not canonical JSON: a key twice, blanks, or numbers and text spelt otherwise than written")
    return value


def _deep(data: bytes) -> bool:
    """Whether objects and lists nest too deeply; brackets inside of texts don't count."""
    if data.count(b"[") + data.count(b"{") <= DEEPEST:
        return False
    level, text, escaped = 0, False, False
    for byte in data:
        if text:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                text = False
        elif byte == 0x22:
            text = True
        elif byte in b"[{":
            level += 1
            if level > DEEPEST:
                return True
        elif byte in b"]}":
            level -= 1
    return False
