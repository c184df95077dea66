"""The configuration of a MONAI bundle, read as data: its `network_def`, and no expression in it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from medharden.errors import ModelError
from medharden.plain_yaml import LARGEST_YAML, parse_yaml
from medharden.text import neutral

__all__ = ["network_definition"]

_FILES = ("inference.json", "inference.yaml", "inference.yml", "train.json", "train.yaml", "evaluate.json")


def network_definition(bundle: Path) -> dict[str, Any]:
    """`network_def` of the first configuration that has one.

    Raises:
        ModelError: none has, one can't be read, or it holds expressions.
    """
    for name in _FILES:
        file = bundle / "configs" / name
        if not file.is_file():
            continue
        config = _read(file)
        definition = config.get("network_def") if isinstance(config, dict) else None
        if isinstance(definition, dict):
            _refuse_expressions(definition, "network_def")
            return dict(definition)
    raise ModelError("no network_def found; expected a MONAI bundle folder with configs/inference.json")


def _read(file: Path) -> Any:
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
    raise ModelError(f"configs/{file.name} of the bundle can't be read: {reason}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice[:60]!r} is given twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no finite number")


def _refuse_expressions(definition: dict[str, Any], where: str) -> None:
    ahead: list[tuple[str, Any]] = [(where, definition)]
    while ahead:
        place, value = ahead.pop()
        if isinstance(value, dict):
            ahead += [(f"{place}.{key}"[:200], inner) for key, inner in value.items()]
        elif isinstance(value, list):
            ahead += [(f"{place}[{index}]"[:200], inner) for index, inner in enumerate(value)]
        elif isinstance(value, str) and value[:1] in ("$", "@", "%"):
            raise ModelError(
                f"the bundle's {neutral(place)} is an expression or a reference, which medharden never evaluates; "
                "write the plain value there"
            )
