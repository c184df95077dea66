"""From a file that a team already has to a `Classifier`, without executing anything from the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.models.architectures import Architecture, build_network, network_size, parse_arch
from medharden.models.classifier import Classifier, state_digest
from medharden.models.weights import Weights, read_weights
from medharden.protocol import ModelSpec
from medharden.record import ModelRecord

__all__ = ["load_classifier", "rebuild_network"]


def load_classifier(
    path: Path,
    *,
    arch: str | None = None,
    spec: ModelSpec | None = None,
    dims: int = 2,
    multilabel: bool = False,
) -> Classifier:
    """Loads a pretrained classifier.

    Args:
        path: a timm training checkpoint, a state dict (`.pt`, `.pth`, `.safetensors`), or a MONAI bundle folder.
        arch: `timm:NAME`, `monai:NAME` or `python:package.module:Class`; needed where the file names none. Only
            `python:` runs code, the user's own, named by the user.
        spec: what the protocol says of the model: architecture, constructor arguments, mean and std.
        dims: spatial dimensions of the data, 2 or 3.
        multilabel: whether each output is a finding of its own, so that one output is one finding and no class of two.

    Returns:
        The classifier in eval mode, on the CPU, in float32: [0, 1] in, logits out.

    Raises:
        ModelError: anything about the file or the architecture that doesn't fit.
    """
    spec = spec or ModelSpec()
    if path.is_dir():
        return _load_bundle(path, arch, spec, dims, multilabel)
    weights = read_weights(path)
    return _assemble(weights, _choose_arch(path.name, weights, arch, spec), "", spec, dims, multilabel)


def _choose_arch(name: str, weights: Weights, arch: str | None, spec: ModelSpec) -> Architecture:
    if spec.arch is not None and spec.arch.startswith("python:"):
        raise ModelError("a protocol is data and can't name Python code; give python:MODULE:CLASS as --arch")
    if arch is not None and spec.arch is not None and arch != spec.arch:
        raise ModelError(f"--arch is {arch}, but the protocol's model.arch is {spec.arch}; they must agree")
    named = arch or spec.arch or weights.arch
    if named is None:
        raise ModelError(
            f"{name} doesn't say what architecture its weights belong to; expected --arch timm:NAME, "
            "--arch monai:NAME or --arch python:package.module:ClassName"
        )
    return parse_arch(named, dict(spec.arguments))


def _assemble(
    weights: Weights, arch: Architecture, source: str, spec: ModelSpec, dims: int, multilabel: bool
) -> Classifier:
    network, state = build_network(arch, weights.state, dims)
    _load_strictly(network, state, f"{arch.source}:{arch.name}")
    outputs, channels = network_size(network, state, arch)
    network.float().requires_grad_(True)
    mean, std = _normalisation(network, weights, spec, channels)
    record = ModelRecord(
        source=source or arch.source,
        arch=arch.name if not source else f"{arch.source}:{arch.name}",
        arguments=arch.arguments,
        classes=outputs if multilabel else max(outputs, 2),
        channels=channels,
        dims=dims,
        mean=mean,
        std=std,
        one_logit=outputs == 1 and not multilabel,
        file=weights.file,
        state=state_digest(network),
        parameters=sum(p.numel() for p in network.parameters()),
        output=spec.output,
    )
    return Classifier(network, record)


def rebuild_network(record: ModelRecord, state: dict[str, Tensor], trusted: str | None) -> nn.Module:
    """Builds the network of a recorded model again, with weights of the same names.

    Args:
        record: what was recorded when it was first loaded.
        state: the network's state dict.
        trusted: the `python:` architecture that the user names now, if any.

    Raises:
        ModelError: the architecture is Python code that the user hasn't named, or the weights don't fit.
    """
    text = record.arch if record.source == "bundle" else f"{record.source}:{record.arch}"
    arch = parse_arch(text, dict(record.arguments))
    if arch.source == "python" and trusted != text:
        raise ModelError(f"this run's architecture is Python code; name it to allow it: --arch {text}")
    network, state = build_network(arch, state, record.dims)
    _load_strictly(network, state, text)
    return network.float()


def _load_strictly(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Loads a state dict whose names and shapes must all match."""
    expected = network.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    shapes = [
        f"{k}: expected {tuple(expected[k].shape)}, found {tuple(state[k].shape)}"
        for k in sorted(expected.keys() & state.keys())
        if expected[k].shape != state[k].shape
    ]
    if missing or extra or shapes:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
            if names
        ]
        raise ModelError(
            f"the weights do not fit {name} ({len(expected)} entries expected, {len(state)} found). "
            + "; ".join(parts)
            + ". Is this the architecture the weights were trained with, with the same model.arguments?"
        )
    network.load_state_dict(state, strict=True)


def _normalisation(
    network: nn.Module, weights: Weights, spec: ModelSpec, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std: the protocol's, else the checkpoint's, else the architecture's, else none (0 and 1)."""
    config: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    mean = spec.mean or weights.mean or config.get("mean") or (0.0,)
    std = spec.std or weights.std or config.get("std") or (1.0,)
    return _fit(tuple(mean), channels, "mean"), _fit(tuple(std), channels, "std")


def _fit(values: tuple[float, ...], channels: int, name: str) -> tuple[float, ...]:
    if len(values) in (1, channels):
        return tuple(float(v) for v in values)
    if channels == 1:  # as timm does for gray input: the average of the colour values
        return (sum(values) / len(values),)
    raise ModelError(f"{name} has {len(values)} values, the model takes {channels} channels; set model.{name}")


def _load_bundle(path: Path, arch: str | None, spec: ModelSpec, dims: int, multilabel: bool) -> Classifier:
    """Reads a MONAI bundle's `network_def` as data; bundle expressions are refused, never evaluated."""
    if arch is not None:
        raise ModelError("a MONAI bundle names its own network; leave --arch out")
    definition = _network_def(path)
    target = str(definition.pop("_target_", ""))
    beside = ("_desc_", "_mode_", "pretrained")  # the weights come from the bundle
    arguments = {k: v for k, v in definition.items() if k not in beside} | dict(spec.arguments)
    if target in ("timm.create_model", "timm.models.create_model"):
        name = str(arguments.pop("model_name", ""))
        architecture = Architecture("timm", name, arguments)
    elif "." not in target or target.startswith("monai.networks.nets."):
        architecture = Architecture("monai", target.rsplit(".", 1)[-1], arguments)
    else:
        raise ModelError(f"the bundle's network_def names {target!r}; expected one of monai.networks.nets or timm")
    dims = int(arguments.get("spatial_dims", dims))
    for name in ("model.safetensors", "model.pt", "model.pth"):
        if (path / "models" / name).is_file():
            return _assemble(read_weights(path / "models" / name), architecture, "bundle", spec, dims, multilabel)
    raise ModelError("the bundle has no weights: expected models/model.pt or models/model.safetensors")


def _network_def(path: Path) -> dict[str, Any]:
    for name in ("inference.json", "inference.yaml", "inference.yml", "train.json", "train.yaml", "evaluate.json"):
        file = path / "configs" / name
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
            config = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError, OSError) as error:
            raise ModelError(f"configs/{name} of the bundle can't be read: {type(error).__name__}") from error
        definition = config.get("network_def") if isinstance(config, dict) else None
        if isinstance(definition, dict):
            _refuse_expressions(definition, "network_def")
            return dict(definition)
    raise ModelError("no network_def found; expected a MONAI bundle folder with configs/inference.json")


def _refuse_expressions(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_expressions(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_expressions(inner, f"{where}[{index}]")
    elif isinstance(value, str) and value[:1] in ("$", "@", "%"):
        raise ModelError(
            f"the bundle's {where} is an expression or a reference, which medharden never evaluates; "
            "write the plain value there"
        )
