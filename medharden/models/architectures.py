"""Building networks by name: timm, MONAI, or a Python class that the user names on the command line."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.models.timm_import import timm_module

__all__ = ["Architecture", "build_network", "parse_arch"]

_CLASSES = ("num_classes", "out_channels", "n_classes")
_CHANNELS = ("in_chans", "in_channels", "n_input_channels")


@dataclass(frozen=True)
class Architecture:
    """A network by name.

    Attributes:
        source: `timm`, `monai` or `python`.
        name: within that source; for `python`, `package.module:Class`.
        arguments: constructor arguments.
    """

    source: str
    name: str
    arguments: dict[str, Any]


def parse_arch(text: str, arguments: dict[str, Any]) -> Architecture:
    """Splits `timm:NAME`, `monai:NAME` or `python:MODULE:CLASS`; a bare name is timm's.

    Raises:
        ModelError: another form.
    """
    source, _, name = text.partition(":")
    if not name:
        return Architecture("timm", text, arguments)
    if source not in ("timm", "monai", "python") or (source == "python" and ":" not in name):
        raise ModelError(
            f"unknown architecture {text!r}; expected timm:NAME, monai:NAME or python:package.module:ClassName"
        )
    return Architecture(source, name, arguments)


def build_network(arch: Architecture, state: dict[str, Tensor], dims: int) -> tuple[nn.Module, int, int]:
    """Builds a network whose number of classes and channels come from its weights.

    Args:
        arch: what to build.
        state: its weights, not loaded here.
        dims: spatial dimensions of the data, 2 or 3.

    Returns:
        The network, its outputs and its input channels.

    Raises:
        ModelError: no such architecture, or one that can't be built with these arguments.
    """
    outputs, channels = _first_and_last(state)
    if arch.arguments.get("pretrained"):
        raise ModelError("model.arguments: pretrained would download other weights; leave it out")
    if arch.source == "timm":
        network = _build_timm(arch, state, outputs, channels)
        config = getattr(network, "pretrained_cfg", {})
        outputs = _rows(state, config.get("classifier"), 0) or outputs
        channels = _rows(state, config.get("first_conv"), 1) or channels
        return network, outputs, channels
    factory = _monai_factory(arch.name) if arch.source == "monai" else _python_factory(arch.name)
    known: dict[str, Any] = (
        {"spatial_dims": dims, "pretrained": False}
        | dict.fromkeys(_CLASSES, outputs)
        | dict.fromkeys(_CHANNELS, channels)
    )
    accepted = _parameters(factory)
    arguments = {k: v for k, v in known.items() if k in accepted} | arch.arguments
    return _construct(factory, arguments, f"{arch.source}:{arch.name}"), outputs, channels


def _build_timm(arch: Architecture, state: dict[str, Tensor], outputs: int, channels: int) -> nn.Module:
    timm = timm_module()
    if not timm.is_model(arch.name.split(".")[0]):
        near = timm.list_models(f"*{arch.name.split('.')[0][:6]}*")[:5]
        raise ModelError(f"timm {timm.__version__} has no model {arch.name!r}; near: {', '.join(near) or 'none'}")
    config = timm.get_pretrained_cfg(arch.name, allow_unregistered=True)
    if config is not None:
        outputs = _rows(state, config.classifier, 0) or outputs
        channels = _rows(state, config.first_conv, 1) or channels
    arguments = {"num_classes": outputs, "in_chans": channels} | arch.arguments
    return _construct(lambda **a: timm.create_model(arch.name, pretrained=False, **a), arguments, f"timm:{arch.name}")


def _monai_factory(name: str) -> Callable[..., Any]:
    nets = importlib.import_module("monai.networks.nets")
    factory = getattr(nets, name, None) if not name.startswith("_") else None
    defined_there = getattr(factory, "__module__", "").startswith("monai.networks.nets")
    if not callable(factory) or not defined_there:
        raise ModelError(f"monai.networks.nets has no network {name!r}; expected a name such as DenseNet121")
    return cast(Callable[..., Any], factory)


def _python_factory(name: str) -> Callable[..., Any]:
    module_name, _, class_name = name.partition(":")
    sys.path.insert(0, "")  # the user's working folder, as `python -m` would have it
    try:
        factory = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"python:{name} can't be imported: {error}; run from the folder that holds it") from error
    finally:
        sys.path.remove("")
    if not callable(factory):
        raise ModelError(f"python:{name} is a {type(factory).__name__}, expected a torch.nn.Module class")
    return cast(Callable[..., Any], factory)


def _parameters(factory: Callable[..., Any]) -> set[str]:
    """Names that a factory takes; MONAI's `resnet18(**kwargs)` and its like pass theirs on to ResNet."""
    parameters = inspect.signature(factory).parameters
    names = {n for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    if len(names) < len(parameters) and getattr(factory, "__name__", "").lower().startswith("resnet"):
        names |= {"spatial_dims", "n_input_channels", "num_classes"}
    return names


def _construct(factory: Callable[..., Any], arguments: dict[str, Any], name: str) -> nn.Module:
    try:
        network = factory(**arguments)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, AssertionError) as error:
        raise ModelError(
            f"{name} can't be built with {arguments}: {error}; set model.arguments in the protocol"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{name} made a {type(network).__name__}, expected a torch.nn.Module")
    return network


def _first_and_last(state: dict[str, Tensor]) -> tuple[int, int]:
    """Outputs and input channels by the order of the weights: the first convolution and the last matrix."""
    channels = next((v.shape[1] for v in state.values() if v.ndim >= 4), None)
    outputs = next((v.shape[0] for v in reversed(state.values()) if v.ndim >= 2), None)
    if outputs is None:
        raise ModelError("the weights hold no matrix: is this the state dict of a classifier?")
    return outputs, channels or 1


def _rows(state: dict[str, Tensor], layers: Any, axis: int) -> int | None:
    """Size of a named layer's weight along an axis; the name may be one of several."""
    for layer in (layers,) if isinstance(layers, str) else tuple(layers or ()):
        for prefix in ("", "module.", "_orig_mod.", "model."):
            weight = state.get(f"{prefix}{layer}.weight")
            if weight is not None and weight.ndim > axis:
                return int(weight.shape[axis])
    return None
