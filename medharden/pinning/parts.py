"""The parts of a pinned network: what is called on them changes nothing, or is refused."""

from __future__ import annotations

import copy
import functools
import itertools
import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Self

import torch
from torch import Tensor, nn

from medharden.pinning.memory import content
from medharden.pinning.seal import Observer, Seal

__all__ = ["check_pin", "loose_copy", "pin", "pinned"]

_SEAL = "_medharden_seal"
_loosening: ContextVar[bool] = ContextVar("loosening", default=False)


def pin(path: nn.Module, name: str) -> None:
    """Puts a network into eval mode and holds it and its state there; an ordinary copy of it is not held.

    Within `loose_copy` nothing is pinned.

    Args:
        path: the network, in place: each of its modules becomes an instance of a subclass of its class.
        name: what messages call it.

    Raises:
        ModelError: it is pinned already, and its state is not what it was.
    """
    if pinned(path):
        check_pin(path)
    elif not _loosening.get():
        path.eval().requires_grad_(False)
        seal = Seal(path, name)
        for module in seal.modules.values():
            module.__dict__[_SEAL] = seal
            base = module._plain if isinstance(module, _Pinned) else type(module)
            under = _under(base, module is path)  # type: ignore[arg-type]  # mypy holds no class to be hashable
            object.__setattr__(module, "__class__", under)


def pinned(path: nn.Module) -> bool:
    """Whether the network is pinned as a whole."""
    seal = path.__dict__.get(_SEAL)
    return seal is not None and seal.path is path


def check_pin(path: nn.Module) -> None:
    """Compares all of a pinned network with what was pinned; of another, does nothing.

    Raises:
        ModelError: a tensor, a module or a setting differs.
    """
    if pinned(path):
        path.__dict__[_SEAL].verify()


def loose_copy(model: nn.Module) -> nn.Module:
    """A copy of which nothing is pinned, to be laid out for speed, changed or trained."""
    token = _loosening.set(True)
    try:
        return copy.deepcopy(model)
    finally:
        _loosening.reset(token)


class _Pinned(nn.Module):
    """What is put under the class of each module of a pinned network."""

    __slots__ = ()
    _plain: type[nn.Module]

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """A container that a network makes of its own class, as a slice of a `Sequential` is, is held by nobody."""
        return cls._plain(*arguments, **named)

    @property
    def training(self) -> bool:
        return False

    @training.setter
    def training(self, mode: bool) -> None:
        """Stays false, whoever asks."""

    def train(self, mode: bool = True) -> Self:
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        return super().requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to another device or memory format; to another type or other values, never."""
        seal = self.__dict__[_SEAL]
        if seal.at_work:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            return self

        def faithful(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved is not tensor and (moved.is_meta or content(moved) != content(tensor)):
                seal.refuse(
                    f"a tensor of {tensor.dtype} may move to another device, and keeps its type and values; "
                    "for half precision, use torch.autocast"
                )
            return moved

        seal.verify()
        with seal.working():
            super()._apply(faithful, recurse)  # type: ignore[no-untyped-call]
        seal.verify()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        """Takes the values that are there already, and no others."""
        for name, tensor in itertools.chain(self._parameters.items(), self._buffers.items()):
            given = state_dict.get(prefix + name)
            if isinstance(given, Tensor) and tensor is not None and content(given) != content(tensor):
                self.__dict__[_SEAL].refuse(f"{prefix + name} can't be loaded with other values")
        kept = {**local_metadata, "assign_to_params_buffers": False}
        super()._load_from_state_dict(state_dict, prefix, kept, *rest)

    def state_dict(self, *arguments: Any, **named: Any) -> Any:
        check_pin(self)
        return super().state_dict(*arguments, **named)

    def register_forward_hook(self, hook: Any, **named: Any) -> Any:
        return super().register_forward_hook(Observer(hook), **named)

    def register_forward_pre_hook(self, hook: Any, **named: Any) -> Any:
        return super().register_forward_pre_hook(Observer(hook), **named)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        self._hold(name)
        super().add_module(name, module)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        self._hold(name)
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        self._hold(name)
        super().register_buffer(name, tensor, persistent)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training" or self._settable(name, value):
            super().__setattr__(name, value)
        elif getattr(self, name, self) is not value:
            self._hold(name)
            super().__setattr__(name, value)
            self.__dict__[_SEAL].release(self, name)

    def __delattr__(self, name: str) -> None:
        self._hold(name)
        super().__delattr__(name)
        self.__dict__[_SEAL].release(self, name)

    def _hold(self, name: str) -> None:
        """Lets the network's own code through; what that makes of tensors is seen at the next forward pass."""
        seal = self.__dict__[_SEAL]
        if not seal.at_work:
            seal.refuse(f"{name} of {type(self).__name__} can't be set, added or removed")

    def _settable(self, name: str, value: Any) -> bool:
        """A place where networks leave things for who asks later, and that steers nothing."""
        if name == "_compiled_call_impl":
            return True
        if isinstance(value, (nn.Module, nn.Parameter)):
            return False
        if name in self.__dict__:
            return self.__dict__[name] is None or isinstance(self.__dict__[name], Tensor)
        return not hasattr(self, name)

    def _twin(self) -> Any:
        """The same parts under the module's own class."""
        twin: Any = object.__new__(self._plain)
        twin.__dict__.update({k: v for k, v in self.__dict__.items() if k != _SEAL})
        return twin

    def __deepcopy__(self, memo: dict[Any, Any]) -> Any:
        """A copy of a part of a model is a network like any other, made as its class has it."""
        check_pin(self)
        twin = memo.setdefault((_SEAL, id(self)), self._twin())  # one, for children that know their parent
        return copy.deepcopy(twin, memo)

    def __copy__(self) -> Any:
        return copy.copy(self._twin())

    def __reduce_ex__(self, protocol: Any) -> Any:
        check_pin(self)
        reduced = self._twin().__reduce_ex__(protocol)
        if isinstance(reduced, tuple) and reduced[0].__name__ == "__newobj__":
            return (_new, *reduced[1:])  # for pickle insists that `__newobj__` makes the object's own class
        return reduced

    def _replicate_for_data_parallel(self) -> Any:
        return self._twin()._replicate_for_data_parallel()


@functools.cache
def _under(base: type[nn.Module], whole: bool) -> type[nn.Module]:
    """A subclass of the same name that is pinned; that of the whole network compares before each forward pass."""
    body: dict[str, Any] = {"__module__": base.__module__, "__qualname__": base.__qualname__, "_plain": base}
    body |= {"__doc__": base.__doc__, "__slots__": ()}
    if whole:

        @functools.wraps(base.forward)
        def forward(self: nn.Module, *inputs: Any, **named: Any) -> Any:
            # what is traced has stand-ins for tensors, and the trace is a network apart
            if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
                return base.forward(self, *inputs, **named)
            seal = self.__dict__[_SEAL]
            seal.check()
            with seal.working():
                return base.forward(self, *inputs, **named)

        body["forward"] = forward
    made: type[nn.Module] = types.new_class(base.__name__, (_Pinned, base), exec_body=lambda space: space.update(body))
    return made


def _new(cls: type[nn.Module], *arguments: Any) -> nn.Module:
    return cls.__new__(cls, *arguments)
