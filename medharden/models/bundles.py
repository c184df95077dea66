"""The configuration of a MONAI bundle, read as data: its `network_def`, and no expression in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medharden.errors import ModelError
from medharden.models.bundle_values import ExpressionError, resolved
from medharden.models.bundle_view import bundle_view
from medharden.models.configurations import read_configuration
from medharden.models.source_view import SourceView
from medharden.monai_import import monai_module
from medharden.text import neutral

__all__ = ["bundle_classes", "bundle_inputs", "network_definition"]

_FILES = ("inference.json", "inference.yaml", "inference.yml", "train.json", "train.yaml", "evaluate.json")
# keys of what is done before the network, and of what is done after it
_BEFORE = re.compile(r"pre_?process|transform", re.IGNORECASE)
_KEYS = ("preprocessing", "preprocessing_transforms", "transforms_infer")
_AFTER = re.compile(r"post|handler|output|metric|batch_transform|key_val|_target_|network", re.IGNORECASE)


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
            definition = {k: resolved(v, config) if k != "_target_" else v for k, v in definition.items()}
            _refuse_expressions(definition, "network_def")
            return definition
    raise ModelError("no network_def found; expected a MONAI bundle folder with configs/inference.json")


def bundle_inputs(bundle: Path, dims: int) -> SourceView | None:
    """How a bundle makes its inputs; null where it says nothing of it.

    Args:
        bundle: the folder.
        dims: spatial dimensions of its network.

    Raises:
        ModelError: it says so in a way that can't be followed, named.
    """
    found = _preprocessing(bundle)
    if not found:
        return None
    config = _read(bundle / "configs" / found[0][0])
    key = next((k for k in _KEYS if k in config), None)
    if key is None:
        names = sorted({name for _, name in found})
        raise ModelError(
            f"the bundle's configs/{found[0][0]} says how its inputs are made ({', '.join(names)[:600]}), "
            "and not where medharden reads it (preprocessing); write the same as input, model.mean and model.std "
            "into the protocol, and say so by model.view: protocol"
        )
    try:
        return bundle_view(config[key], config, dims)
    except ExpressionError as error:
        raise ModelError(
            f"the bundle says how its inputs are made by an expression: {error}, or write the same as input, "
            "model.mean and model.std into the protocol, and say so by model.view: protocol"
        ) from None


def bundle_classes(bundle: Path) -> tuple[str, ...]:
    """Names of the network's outputs, in their order, as `configs/metadata.json` defines the channels of its answer.

    They are in `network_data_format.outputs.pred.channel_def`, by number from 0, or of the only output, whatever it is
    called; empty where nothing is defined.

    Raises:
        ModelError: the file can't be read, or its numbers are not those from 0.
    """
    file = bundle / "configs" / "metadata.json"
    found: Any = _read(file) if file.is_file() else {}
    for name in ("network_data_format", "outputs"):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return ()
    output = found.get("pred", next(iter(found.values())) if len(found) == 1 else None)
    defined = output.get("channel_def") if isinstance(output, dict) else None
    if not isinstance(defined, dict) or not defined:
        return ()
    names = [defined.get(str(number)) for number in range(len(defined))]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise ModelError(
            "configs/metadata.json of the bundle: channel_def of its output must name each output by its number, from "
            f"0; found {neutral(', '.join(map(str, defined)))[:120]}"
        )
    return tuple(neutral(str(name))[:200] for name in names)


def _preprocessing(bundle: Path) -> list[tuple[str, str]]:
    """File and name of each transform before the network, of the first configuration that has any."""
    for name in _FILES:
        file = bundle / "configs" / name
        config = _read(file) if file.is_file() else None
        found = [] if config is None else [(name, target) for target in _transforms(config, False)]
        if found:
            return found
    return []


def _transforms(part: Any, prepares: bool) -> list[str]:
    """Names of the transforms in a part of a configuration, at any depth; `prepares`: whether its key said so."""
    if isinstance(part, list):
        return [name for inner in part for name in _transforms(inner, prepares)]
    if isinstance(part, str):
        return ["an expression"] if prepares and part[:1] in ("$", "%") else []
    if not isinstance(part, dict):
        return []
    target = str(part.get("_target_", "")).rpartition(".")[2]
    ours = target not in ("", "Compose") and (prepares or hasattr(monai_module("monai.transforms"), target))
    if ours:
        return [neutral(target)[:60]]
    beside = {key: value for key, value in part.items() if not _AFTER.search(str(key))}
    return [n for key, value in beside.items() for n in _transforms(value, prepares or bool(_BEFORE.search(str(key))))]


def _read(file: Path) -> Any:
    return read_configuration(file, f"configs/{file.name} of the bundle")


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
