"""A module that Python code holds already: taken out of what wraps it, normalised, and built again from its name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medharden.errors import ModelError, RangeError
from medharden.foreign import place_of
from medharden.models.architectures import Architecture, build_network, parse_arch
from medharden.models.arguments import check_arguments
from medharden.models.origins import normalisation
from medharden.protocol import ModelSpec
from medharden.text import neutral

__all__ = ["Normaliser", "Rebuilt", "own_network", "rebuilt", "require_example", "spoken_values"]

_INNER = ("_orig_mod", "module")  # of torch.compile, and of the data-parallel wrappers


@dataclass(frozen=True)
class Normaliser:
    """What stands between [0, 1] and a module that expects other values; it becomes part of the model.

    State mean and std, or range, or zscore.

    Attributes:
        mean, std: x becomes (x - mean) / std; one value a channel, or one for all.
        range: x becomes x (b - a) + a, such as (-1, 1).
        zscore: x less its mean, by its standard deviation, of each `case` or each `channel` of a case.
        zscore_nonzero: whether that is over values other than 0 alone, which stay 0.
    """

    mean: tuple[float, ...] | float | None = None
    std: tuple[float, ...] | float | None = None
    range: tuple[float, float] | None = None
    zscore: Literal["case", "channel"] | None = None
    zscore_nonzero: bool = False


@dataclass(frozen=True)
class Rebuilt:
    """Whether a module is what its name gives.

    Attributes:
        arch: what it is called: a library's name, or its own class.
        said: in one sentence; begins with `no` where it can't be built again.
    """

    arch: Architecture
    said: str


def own_network(module: nn.Module) -> nn.Module:
    """A copy in eval mode, on the CPU, in float32, without what wraps it; the module that was given stays as it is.

    Raises:
        ModelError: it is no module, can't be copied, or has weights that don't exist yet.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, found a {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript module is compiled as a whole: no part of it can be held still while another trains. Give "
            "the network that it was made of, with its weights: network.load_state_dict(script.state_dict())"
        )
    while _wraps(module):
        module = next(inner for name in _INNER if isinstance(inner := getattr(module, name, None), nn.Module))
    lazy = [n for n, p in module.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ModelError(
            f"{len(lazy)} weights have no shape yet ({neutral(lazy[0])[:80]}); feed the module once before"
        )
    try:
        network = copy.deepcopy(module)
    except Exception as error:  # whatever the user's own class does when it is copied
        raise ModelError(
            f"the module can't be copied ({place_of(error)}); give one that copy.deepcopy takes"
        ) from error
    return network.cpu().float().eval().requires_grad_(True)


def require_example(example: Tensor) -> int:
    """Refuses what is no batch of inputs in [0, 1]; returns its spatial dimensions.

    Raises:
        ModelError: another kind, or another number of axes.
        RangeError: the values leave [0, 1].
    """
    if not isinstance(example, Tensor) or example.ndim not in (4, 5) or not example.is_floating_point():
        found = (
            f"{example.dtype} of shape {tuple(example.shape)}"
            if isinstance(example, Tensor)
            else type(example).__name__
        )
        raise ModelError(
            "expected a few inputs as floating point of shape (cases, channels, H, W) or (cases, channels, D, H, W), "
            f"found {found}; cohort.batch(range(4))[0] gives such"
        )
    low, high = float(example.min()), float(example.max())
    if not 0 <= low <= high <= 1:
        raise RangeError(f"inputs must lie in [0, 1], got [{low:g}, {high:g}]; the normaliser is part of the model")
    return example.ndim - 2


def spoken_values(normaliser: Normaliser | None, channels: int) -> dict[str, Any]:
    """The normaliser as a model's record holds it.

    Raises:
        ModelError: several are stated, or another number of values than channels.
    """
    given = asdict(normaliser or Normaliser())
    for name in ("mean", "std"):
        value = given[name]
        if value is not None:
            given[name] = (float(value),) if isinstance(value, (int, float)) else tuple(float(v) for v in value)
            if len(given[name]) not in (1, channels):
                raise ModelError(
                    f"normaliser: {name} has {len(given[name])} values, the model takes {channels} channels"
                )
    try:
        spec = ModelSpec(**given)
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ").replace("model.", "normaliser.")
        raise ModelError(f"normaliser: {said}") from None
    mean, std = normalisation(spec, channels)
    return {"mean": mean, "std": std, "zscore": spec.zscore, "zscore_nonzero": spec.zscore_nonzero}


def rebuilt(
    network: nn.Module,
    dims: int,
    arch: str | None,
    arguments: Mapping[str, Any],
    same: Callable[[nn.Module], bool],
) -> Rebuilt:
    """Builds a network anew from its name, with its weights, and holds the two against each other.

    Args:
        network: of `own_network`.
        dims: spatial dimensions.
        arch: as `--arch`; null tries what timm says of its own models, then the module's class.
        arguments: of the constructor.
        same: whether a network answers as the one that was given, bit for bit.

    Raises:
        ModelError: the name was stated, and gives another model, or none.
    """
    check_arguments(dict(arguments))
    own = f"python:{type(network).__module__}:{type(network).__qualname__}"
    for text in [arch] if arch is not None else [*_timm_name(network), own]:
        architecture = parse_arch(text, dict(arguments))
        reason = _difference(network, architecture, dims, same)
        if not reason:
            return Rebuilt(architecture, f"yes: {text} with these weights gives the same bits")
    if arch is not None:
        raise ModelError(f"the module is not what {arch} gives: {reason}; state its arguments, or leave arch out")
    return Rebuilt(
        architecture,
        f"no: {reason}; whoever loads the release gives such a module, load_hardened(RUN, network=MODULE), or name a "
        "function of a file that builds it: arch='python:MODULE:FUNCTION'",
    )


def _difference(network: nn.Module, arch: Architecture, dims: int, same: Callable[[nn.Module], bool]) -> str:
    """Why a network of this name is another, or nothing."""
    try:
        again, found = build_network(arch, dict(network.state_dict()), dims)
        again.load_state_dict(found.state, strict=True)
        if not same(again.float().eval()):
            return f"{arch.text} with these weights answers otherwise"
    except ModelError as error:
        return neutral(str(error).removesuffix("; set model.arguments in the protocol"))[:300]
    return ""


def _timm_name(network: nn.Module) -> list[str]:
    config = getattr(network, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, dict) else None
    return [f"timm:{name}"] if isinstance(name, str) and type(network).__module__.startswith("timm.") else []


def _wraps(module: nn.Module) -> bool:
    """Whether the class is one of torch's own wrappers."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return isinstance(module, parallel) or type(module).__name__ == "OptimizedModule"
