"""How a pinned network was, and whether it still is."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.pinning.memory import content, memory, pieces, telling

__all__ = ["Observer", "Seal"]

_COUNTER = "num_batches_tracked"  # a fifth of the tensors of a usual network, and of no weight in eval mode
_PASSING = frozenset({"training", "_is_full_backward_hook", "_compiled_call_impl"})
_SETTING = (bool, int, float, str, bytes, tuple)


class Seal:
    """Contents and settings of a network, once and for all; and where they lie, since they were last compared.

    Attributes:
        path: the network.
        name: what messages call it.
        at_work: above 0 while the network itself runs, or is moved as a whole.
    """

    def __init__(self, path: nn.Module, name: str) -> None:
        self.path, self.name, self.at_work = path, name, 0
        self.modules = dict(path.named_modules(remove_duplicate=False))
        self._contents = self._contents_now()
        self._settings = {key: _settings(module) for key, module in self.modules.items()}
        hooks = [hook for m in path.modules() for held in _hooks_of(m) for hook in held.values()]
        self._own_hooks = {id(hook): hook for hook in hooks}  # such as those of a spectral norm
        self._note()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a module is not sealed."""
        return type(None), ()

    @contextmanager
    def working(self) -> Iterator[None]:
        """While the network's own code runs, which may set its attributes."""
        self.at_work += 1
        try:
            yield
        finally:
            self.at_work -= 1

    def release(self, module: nn.Module, name: str) -> None:
        """A setting that the network's own code changes is no longer held against it."""
        for key, each in self.modules.items():
            if each is module:
                self._settings[key].pop(name, None)

    def refuse(self, what: str) -> NoReturn:
        """Raises what a call that would change the network gets."""
        raise ModelError(f"{self.name} is pinned: {what}. Take a copy.deepcopy of the path to change it")

    def check(self) -> None:
        """What is cheap enough for every forward pass; at a trace of a write, everything is compared.

        Raises:
            ModelError: the network is no longer what it was.
        """
        if any(self._hooks):
            self._check_hooks()
        if self._touched():
            self.verify()
        if torch.is_grad_enabled():
            for tensor in self._counted:
                if tensor.requires_grad:
                    tensor.requires_grad_(False)

    def verify(self) -> None:
        """Compares everything, and takes down where it lies now.

        Raises:
            ModelError: a tensor, a module or a setting differs.
        """
        self._check_hooks()
        modules = dict(self.path.named_modules(remove_duplicate=False))
        settings = {
            f"{key}.{name}": value for key, module in modules.items() for name, value in _settings(module).items()
        }
        held = {f"{key}.{name}": value for key, kept in self._settings.items() for name, value in kept.items()}
        changed = [
            *_differing(self._contents, self._contents_now()),
            *_differing(self.modules, modules),
            *_differing(held, {name: value for name, value in settings.items() if name in held}),
        ]
        if changed:
            named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            raise ModelError(
                f"{self.name} is pinned, but was written to: {named}. Its answers are no longer those that were "
                "tested; load the model anew. To train a path, take a copy.deepcopy of that path"
            )
        self._note()

    def _contents_now(self) -> dict[str, Any]:
        return {key: content(tensor) for key, tensor in _state(self.path)}

    def _note(self) -> None:
        """Takes down what is compared at each forward pass."""
        modules = self.modules.values()
        self._live = [held for m in modules for held in (m._parameters, m._buffers, m._modules)]
        self._was = [dict(held) for held in self._live]
        self._hooks = [held for m in modules for held in _hooks_of(m)]
        watched = {id(t): t for key, t in _state(self.path) if not key.endswith(_COUNTER)}.values()
        self._counted = [t for t in watched if not t.is_inference()]
        self._versions = [t._version for t in self._counted]
        self._placed = [t for t in watched if type(t) in (Tensor, nn.Parameter)]
        self._places = [t.data_ptr() for t in self._placed]
        lying = [each for t in self._placed if (each := memory(t)) is not None]
        self._probes = [(each, telling(each)) for each in lying]
        self._values = [each[at] for each, at in self._probes]
        self._pieces = itertools.cycle(pieces(lying))

    def _touched(self) -> bool:
        try:
            if self._live != self._was:
                return True
        except (RuntimeError, ValueError):  # two tensors under one name: they compare to a tensor, which is no truth
            return True
        return (
            [t._version for t in self._counted] != self._versions
            or [t.data_ptr() for t in self._placed] != self._places
            or [each[at] for each, at in self._probes] != self._values
            or any(zlib.crc32(part) != was for part, was in next(self._pieces, ()))
        )

    def _check_hooks(self) -> None:
        hooks = (hook for held in self._hooks for hook in held.values())
        if not all(isinstance(hook, Observer) or id(hook) in self._own_hooks for hook in hooks):
            raise ModelError(f"{self.name} is pinned, but has a hook that may change what it answers; remove it")


class Observer:
    """A forward hook that may look at what passes, and not change it."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self._hook = hook

    def __call__(self, module: nn.Module, *seen: Any) -> None:
        """Calls the hook.

        Raises:
            ModelError: it returned something in its place, or wrote to it.
        """
        before = [t._version for t in _tensors(seen)]
        if self._hook(module, *seen) is not None or [t._version for t in _tensors(seen)] != before:
            raise ModelError("a hook on a pinned path may look at what passes through it, not change it")


def _differing(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of what came, went or is another."""
    return [
        key
        for key in sorted(was.keys() | now.keys())
        if key not in was or key not in now or (was[key] is not now[key] and was[key] != now[key])
    ]


def _hooks_of(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    return module._forward_hooks, module._forward_pre_hooks


def _settings(module: nn.Module) -> dict[str, Any]:
    """Numbers, words and functions that steer a module, such as a stride."""
    return {k: v for k, v in vars(module).items() if k not in _PASSING and (isinstance(v, _SETTING) or callable(v))}


def _state(path: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from path.named_parameters(remove_duplicate=False)
    yield from path.named_buffers(remove_duplicate=False)


def _tensors(value: Any) -> list[Tensor]:
    """All in nested tuples, lists and dicts; those of inference mode count no versions."""
    if isinstance(value, Tensor):
        return [] if value.is_inference() else [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
