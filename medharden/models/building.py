"""Building a network within bounds: first without memory, on the meta device, and for real only where the weights fit.

A constructor is called with what a file says. So its tensors are counted before they exist, its layers while it makes
them, and names and shapes are held against the weights before the network takes the memory that these take.
"""

from __future__ import annotations

import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registry
from torch.overrides import TorchFunctionMode

from medharden.errors import ModelError
from medharden.text import neutral

__all__ = ["Limits", "Make", "OversizeError", "built", "require_fit", "sketched"]

Make = Callable[[int, int], nn.Module]
"""From the number of outputs and of input channels to a network."""

_ROOM = 2**28  # bytes that buffers and tables may take beside the weights
_FACTORIES = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.randperm}
    | {torch.arange, torch.linspace, torch.logspace, torch.eye, torch.empty_strided}
)

_SPREADING = frozenset({Tensor.__iter__, Tensor.unbind, Tensor.tolist, torch.unbind})  # an object for each value


class OversizeError(ModelError):
    """A network that is larger than its weights, by far."""


@dataclass(frozen=True)
class Limits:
    """What a constructor may do, by the weights that its network is for.

    Attributes:
        name: of the architecture, for errors.
        size: bytes of one tensor, and of all that are real.
        parts: layers, parameters and buffers that it may register.
        calls: of torch that it may make.
    """

    name: str
    size: int
    parts: int
    calls: int

    @staticmethod
    def of(name: str, state: Mapping[str, Tensor]) -> Limits:
        """Limits far above what any network of timm or MONAI with such weights needs."""
        values = sum(tensor.numel() for tensor in state.values())
        return Limits(name, _ROOM + 16 * values, 5_000 + 8 * len(state), 50_000 + 64 * len(state))


def sketched(make: Make, outputs: int, channels: int, limits: Limits) -> nn.Module | None:
    """The network on the meta device, without values; null where its constructor needs values.

    Raises:
        OversizeError: it asks for more than the limits.
    """
    for real_steps in (False, True):  # older versions of timm read depth-wise rates off a linspace
        try:
            with warnings.catch_warnings(), torch.device("meta"), _watched(_Meter(limits, real_steps=real_steps)):
                warnings.simplefilter("ignore")
                network = make(outputs, channels)
        except OversizeError:
            raise
        except ModelError:
            continue
        beside = sum(t.nbytes for t in (*network.parameters(), *network.buffers())) - _bytes(network.state_dict())
        if beside > _ROOM:
            raise OversizeError(_too_large(limits))
        return network
    return None


def built(make: Make, outputs: int, channels: int, limits: Limits) -> nn.Module:
    """The network for real, where it could not be sketched: each tensor is measured before it is made.

    Raises:
        ModelError: it can't be built, or asks for more than the limits.
    """
    with _watched(_Meter(limits, real=True)):
        return make(outputs, channels)


def require_fit(network: nn.Module, state: Mapping[str, Tensor], name: str, *, types: bool = False) -> None:
    """Refuses weights whose names and shapes are not all the network's.

    Args:
        network: on any device.
        state: the weights.
        name: of the network, for errors.
        types: whether data types must be the network's too.

    Raises:
        ModelError: with the first names of each kind.
    """
    expected = network.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    both = sorted(expected.keys() & state.keys())
    shapes = [
        f"{k}: expected {tuple(expected[k].shape)}, found {tuple(state[k].shape)}"
        for k in both
        if expected[k].shape != state[k].shape
    ]
    kinds = [
        f"{k}: expected {expected[k].dtype}, found {state[k].dtype}"
        for k in both
        if types and expected[k].dtype != state[k].dtype
    ]
    if missing or extra or shapes or kinds:
        parts = [
            f"{len(names)} {what}: {', '.join(neutral(n)[:120] for n in names[:5])}{', ...' if len(names) > 5 else ''}"
            for what, names in (
                ("missing", missing),
                ("unexpected", extra),
                ("of another shape", shapes),
                ("of another type", kinds),
            )
            if names
        ]
        raise ModelError(
            f"the weights do not fit {name} ({len(expected)} entries expected, {len(state)} found). "
            + "; ".join(parts)
            + ". Is this the architecture the weights were trained with, with the same model.arguments?"
            + _size_hint(expected, state)
            + _channel_hint(name, shapes)
        )


# names of position embeddings, of the layer that cuts patches, and how its builder takes the image's size
_EMBEDDINGS = (
    ("pos_embed", "patch_embed.proj.weight", "img_size: {size}"),
    ("pos_embedding", "conv_proj.weight", "image_size: {size}"),
    ("position_embeddings", "patch_embeddings.weight", "img_size: [{size}, {size}]"),
)


def _size_hint(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Of a transformer's position embeddings: the image size that those of the file were trained at."""
    for embedding, patches, argument in _EMBEDDINGS:
        key = next((k for k in expected if k.rpartition(".")[2] == embedding and k in state), None)
        patch = next((v for k, v in expected.items() if k.endswith(patches)), None)
        if key is None or expected[key].shape == state[key].shape or state[key].dim() != 3:
            continue
        size = None if patch is None or patch.ndim != 4 else _trained_at(state[key].shape[1], patch.shape[-1])
        if size is not None:
            return (
                f" Position embeddings grow with the image: these are of {size} pixels, so state model.arguments: "
                f"{{{argument.format(size=size)}}}, and input.size: [{size}, {size}]."
            )
        name = argument.partition(":")[0]
        return f" Position embeddings grow with the image: state model.arguments: {{{name}: ...}} as it was trained."
    return ""


def _trained_at(tokens: int, patch: int) -> int | None:
    """Pixels a side of a square image that is cut into so many patches; some tokens may be no part of it."""
    for first in (0, 1, 2):
        side = math.isqrt(max(0, tokens - first))
        if side and side * side == tokens - first:
            return side * patch
    return None


def _channel_hint(name: str, shapes: list[str]) -> str:
    """Torchvision's builders take colour alone."""
    source, _, network = name.partition(":")
    if (
        source != "torchvision"
        or len(shapes) != 1
        or not re.search(r"expected \((\d+), 3, .*found \(\1, 1, ", shapes[0])
    ):
        return ""
    return f" torchvision's networks take three channels; of one channel, timm:{network} may have the same layers."


class _Meter(TorchFunctionMode):
    """Sees each call of torch and each part that a network registers, and ends the building where they exceed."""

    def __init__(self, limits: Limits, *, real: bool = False, real_steps: bool = False) -> None:
        super().__init__()
        self.limits, self.real, self.real_steps = limits, real, real_steps
        self.calls = self.parts = self.taken = 0
        self.thread = threading.get_ident()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.calls += 1
        if self.calls > self.limits.calls:
            raise OversizeError(_too_large(self.limits))
        if func in _SPREADING and args[0].numel() > self.limits.calls:
            raise OversizeError(_too_large(self.limits))
        steps = self.real_steps and func is torch.linspace
        if (steps or self.real) and func in _FACTORIES:
            self.measure(func(*args, **{**kwargs, "device": "meta"}), self.limits.parts * 8 if steps else math.inf)
        if steps:
            kwargs = {**kwargs, "device": "cpu"}
        result = func(*args, **kwargs)
        self.measure(result)
        return result

    def measure(self, result: Any, most: float = math.inf) -> None:
        if isinstance(result, Tensor) and result.numel() * result.element_size() > min(most, self.limits.size):
            raise OversizeError(_too_large(self.limits))

    def register(self, _: nn.Module, name: str, part: Any) -> None:
        """A hook of `torch.nn`, which all threads share."""
        if threading.get_ident() != self.thread:
            return
        self.parts += 1
        if isinstance(part, Tensor) and not part.is_meta:
            self.taken += part.nbytes
        if self.parts > self.limits.parts or self.taken > self.limits.size:
            raise OversizeError(_too_large(self.limits))


@contextmanager
def _watched(meter: _Meter) -> Iterator[None]:
    hooks = [
        registry.register_module_module_registration_hook(meter.register),
        registry.register_module_parameter_registration_hook(meter.register),
        registry.register_module_buffer_registration_hook(meter.register),
    ]
    try:
        with meter:
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _bytes(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def _too_large(limits: Limits) -> str:
    return (
        f"{limits.name} would be a network far larger than its weights; is this the architecture they were trained "
        "with, with the same model.arguments?"
    )
