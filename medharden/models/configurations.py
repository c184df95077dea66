"""Configurations beside weights, read as data: JSON or YAML of plain values, no key twice, and of bounded size."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from medharden.errors import ModelError
from medharden.plain_yaml import LARGEST_YAML, parse_yaml
from medharden.text import neutral

__all__ = ["read_configuration"]


def read_configuration(file: Path, shown: str) -> Any:
    """The plain values of a file.

    Args:
        file: `.json`, or YAML.
        shown: what it is, for errors, such as `configs/inference.json of the bundle`.

    Raises:
        ModelError: it can't be read, is larger than a protocol may be, or holds more than plain values.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_YAML + 1)
        if len(data) > LARGEST_YAML:
            raise ValueError(f"it is larger than {LARGEST_YAML} bytes")
        if file.suffix != ".json":
            return parse_yaml(data)
        return json.loads(data, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except RecursionError:
        reason = "it is nested too deeply"
    except OSError as error:
        reason = type(error).__name__
    except ValueError as error:
        reason = neutral(str(error))[:200]
    raise ModelError(f"{shown} can't be read: {reason}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice[:60]!r} is given twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no finite number")
