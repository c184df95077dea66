"""The pickle inside a torch file, read without pickle: plain values and descriptions of tensors, and nothing is called.

A pickle is a program. This machine knows the instructions and the few names that a state dict or a training checkpoint
is written with; a name stands for itself, and of a tensor it keeps where its values lie. Any other name ends the
reading. So neither code nor memory can be asked for, in any version of torch.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from medharden.errors import ModelError
from medharden.models.arrays import ArrayRef, Kind, Latin

__all__ = ["LARGEST_PICKLE", "Fields", "StorageRef", "TensorRef", "Unpickled", "Unreadable", "foreign", "unpickled"]

LARGEST_PICKLE = 16 * 2**20
"""Bytes of the largest pickle: names and shapes of some hundred thousand tensors, whose values lie outside of it."""

_MOST_DIMENSIONS = 8
_LARGEST_NUMBER = 2**48
_LONGEST_NAME = 120


class Unreadable(Exception):  # noqa: N818 - no error of the user's, but what one is made of
    """What is wrong with the file, in words that follow `it is`."""


@dataclass(frozen=True)
class StorageRef:
    """Values that lie elsewhere in the file: their kind, such as `FloatStorage`, their key, and how many."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor over a storage: offset, size and stride count values."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


_SHORT_NAME = re.compile(r"[A-Za-z_][\w.]{0,119}", re.ASCII)


@dataclass
class Fields:
    """An object that holds nothing but named values, as an `argparse.Namespace` does."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Name:
    text: str


class _Other:
    """A value that nobody asks for; each is a key of its own."""


_MARK = _Other()
_STORAGES = frozenset(
    f"torch.{kind}Storage"
    for kind in (
        *("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"),
        *("ComplexFloat", "ComplexDouble"),
    )
)
_DTYPES = frozenset(
    f"torch.{kind}"
    for kind in (
        *("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
        *("complex64", "complex128"),
    )
)
_REBUILT = "torch._utils._rebuild_"
_ODD_TENSORS = {
    f"{_REBUILT}sparse_tensor": "sparse",
    f"{_REBUILT}sparse_csr_tensor": "sparse",
    f"{_REBUILT}qtensor": "quantised",
    f"{_REBUILT}meta_tensor_no_storage": "empty (meta)",
    f"{_REBUILT}nested_tensor": "nested",
    f"{_REBUILT}wrapper_subclass": "wrapped",
    f"{_REBUILT}device_tensor_from_numpy": "foreign",
    f"{_REBUILT}device_tensor_from_cpu_tensor": "foreign",
    f"{_REBUILT}tensor_v3": "oddly typed",
}
_PLAIN_TENSORS = ("torch.Tensor", "torch.nn.parameter.Parameter")
_IGNORED = frozenset(
    {
        "torch.device",
        "torch.serialization._get_layout",
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.set",
        "builtins.complex",
        *_PLAIN_TENSORS,
    }
)
_BESIDE = re.compile(  # what training scripts keep beside weights: named, and nothing of it is made or asked for
    r"numpy(?:\._core|\.core)?\.(?:multiarray\.(?:scalar|_reconstruct)|ndarray|dtype|(?:dtypes\.)?\w{1,20}DType"
    r"|(?:bool_?|float|float\d\d|int|int\d\d?|uint\d\d?|str_|bytes_)|_globals\._NoValue)"
    r"|pathlib(?:\._local)?\.(?:Pure)?(?:Posix|Windows)?Path"
    r"|omegaconf\.(?:\w{1,20}\.)?(?:DictConfig|ListConfig|ContainerMetadata|Metadata|\w{1,20}Node|SCMode)"
    r"|(?:yacs\.config\.CfgNode|easydict\.EasyDict|addict\.(?:addict\.)?Dict|munch\.Munch|box\.box\.Box)"
    r"|(?:pytorch_lightning|lightning_fabric|lightning\.(?:pytorch|fabric))\.utilities\.(?:data|parsing|types)\.AttributeDict"
    r"|torch\.(?:nn\.modules\.loss|optim(?:\.\w{1,20})?)\.\w{1,30}|torch\.torch_version\.TorchVersion"
    r"|collections\.deque|datetime\.(?:datetime|date|timedelta|timezone)|enum\.\w{1,10}|typing\.\w{1,20}"
    r"|builtins\.(?:int|float|str|bool|dict|list|tuple|set|frozenset|slice|range|object|bytes|NoneType|type)"
    r"|copyreg\._reconstructor|types\.SimpleNamespace|uuid\.UUID|decimal\.Decimal|fractions\.Fraction"
)
_RECONSTRUCT = re.compile(r"numpy(?:\._core|\.core)?\.multiarray\._reconstruct")
_CALLED = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "collections.defaultdict",
        "torch.Size",
        "argparse.Namespace",
        "torch._tensor._rebuild_from_type_v2",
        f"{_REBUILT}tensor",
        f"{_REBUILT}tensor_v2",
        f"{_REBUILT}parameter",
        f"{_REBUILT}parameter_with_state",
    }
)
_KNOWN = _STORAGES | _DTYPES | _IGNORED | _CALLED


@dataclass(frozen=True)
class Unpickled:
    """What a pickle describes.

    Attributes:
        value: plain values, with a `TensorRef` in the place of each tensor, an `ArrayRef` in that of NumPy's arrays.
        storages: that it refers to, by key.
        left_out: names of the types of what stands beside the weights, of which nothing was made.
    """

    value: Any
    storages: dict[str, StorageRef]
    left_out: frozenset[str]


def unpickled(stream: BinaryIO, name: str) -> Unpickled:
    """The value that the pickle at the stream's place describes; the stream is left behind its end.

    Args:
        stream: at the pickle's first byte.
        name: of the file, for errors.

    Raises:
        ModelError: it names Python objects beyond tensors and plain values.
        Unreadable: it is no pickle, is cut, or describes tensors that can't be.
    """
    machine = _Machine(name)
    start = stream.tell()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if stream.tell() - start > LARGEST_PICKLE:
                raise Unreadable(f"more than {LARGEST_PICKLE} bytes of names and shapes")
            machine.step(opcode.name, argument)
        return Unpickled(machine.pop(), machine.storages, frozenset(machine.left_out))
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise Unreadable("damaged, or no torch file") from error


def foreign(name: str, kind: str = "") -> ModelError:
    """What is said of a file with more than tensors and plain values in it; `kind`: the first type that is neither."""
    of_kind = f" ({kind})" if _SHORT_NAME.fullmatch(kind) else ""
    return ModelError(
        f"{name} holds pickled Python objects{of_kind}, which could run code when loaded, so it was not opened; "
        "expected weights alone: save them with torch.save(model.state_dict(), 'model.pt') or as .safetensors, "
        "and name the architecture with --arch"
    )


class _Machine:
    def __init__(self, name: str) -> None:
        self.name = name
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, StorageRef] = {}
        self.left_out: set[str] = set()

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise foreign(self.name)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError
        return value

    def pop_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:  # below the first value it comes round, and finds none
            place -= 1
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def other(self) -> _Other:
        self.pop_mark()
        return _Other()

    def put(self, index: int) -> None:
        if self.stack[-1] is _MARK:
            raise ValueError
        self.memo[index] = self.stack[-1]

    def known(self, module: Any, qualified: Any) -> None:
        if not isinstance(module, str) or not isinstance(qualified, str):
            raise ValueError
        name = f"{'builtins' if module == '__builtin__' else module}.{qualified}"
        if name in _ODD_TENSORS:
            raise Unreadable(f"a file with {_ODD_TENSORS[name]} tensors, where plain ones are needed")
        if name not in _KNOWN:
            if len(name) > _LONGEST_NAME or not _BESIDE.fullmatch(name):
                raise foreign(self.name, name)
            self.left_out.add(name)
        self.stack.append(_Name(name))

    def extend(self, values: list[Any]) -> None:
        holder = self.stack[-1]
        if isinstance(holder, list):
            holder.extend(values)
        elif not isinstance(holder, _Other):
            raise ValueError

    def update(self, values: list[Any]) -> None:
        holder = self.stack[-1]
        if isinstance(holder, _Other):
            return
        if not isinstance(holder, dict) or len(values) % 2:
            raise ValueError
        holder.update(_keyed(zip(values[::2], values[1::2], strict=True)))

    def build(self) -> None:
        """State of the object below; a state dict's is its `_metadata`, and nobody asks for it."""
        state = self.pop()
        if isinstance(self.stack[-1], (Kind, ArrayRef)):
            self.stack[-1].build(state)
        if isinstance(self.stack[-1], Fields) and isinstance(state, dict):
            self.stack[-1].values.update({k: v for k, v in state.items() if isinstance(k, str)})

    def refer(self) -> None:
        match self.pop():
            case ("storage", _Name(kind), str(key), str(), int(count), *rest) if kind in _STORAGES:
                if any(r is not None for r in rest):
                    raise Unreadable("a file of views of views, written by a torch before 0.4")
                storage = StorageRef(kind.removeprefix("torch."), key, _bounded(count))
                if self.storages.setdefault(key, storage) != storage:
                    raise Unreadable("a file that describes the same values in two ways")
                self.stack.append(storage)
            case _:
                raise Unreadable("a file whose values are of a type that weights don't have")

    def call(self) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise ValueError
        self.stack.append(_made(called.text, arguments))


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of this name describes."""
    if name in (f"{_REBUILT}tensor", f"{_REBUILT}tensor_v2"):
        storage, offset, size, stride = arguments[:4]
        return _tensor(storage, offset, size, stride)
    if name in (f"{_REBUILT}parameter", f"{_REBUILT}parameter_with_state"):
        return arguments[0]
    if name == "torch._tensor._rebuild_from_type_v2":
        function, kind, inner = arguments[:3]
        if kind not in map(_Name, _PLAIN_TENSORS) or function == _Name(name) or not isinstance(function, _Name):
            raise Unreadable("a file with wrapped tensors, where plain ones are needed")
        return _made(function.text, tuple(inner))
    if name in ("collections.OrderedDict", "collections.Counter"):
        given = arguments[0] if arguments else {}
        return _keyed(given.items() if isinstance(given, dict) else [(key, value) for key, value in given])
    if name == "collections.defaultdict":  # its values follow, and what makes missing ones is not asked for
        return {}
    if name == "torch.Size":
        return tuple(arguments[0])
    if name == "argparse.Namespace":
        return Fields()
    return _array_part(name, arguments)


def _array_part(name: str, arguments: tuple[Any, ...]) -> Any:
    """What stands for an array, or for a part of one; NumPy is not called."""
    match arguments:
        case (_Name("numpy.ndarray"), *_) if _RECONSTRUCT.fullmatch(name):
            return ArrayRef()
        case (str(code), *_) if name == "numpy.dtype":
            return Kind(code[:8])
        case (str(text), "latin1") if name == "_codecs.encode":
            return Latin(text)
    return _Other()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> TensorRef:
    if not isinstance(storage, StorageRef) or len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
        raise ValueError
    return TensorRef(storage, _bounded(offset), tuple(map(_bounded, size)), tuple(map(_bounded, stride)))


def _bounded(number: Any) -> int:
    if type(number) is not int or not 0 <= number < _LARGEST_NUMBER:
        raise ValueError
    return number


def _keyed(pairs: Any) -> dict[Any, Any]:
    """A dict, in which keys that may be costly to hash or to tell apart stand for themselves."""
    return {key if _cheap(key) else _Other(): value for key, value in pairs}


def _cheap(key: Any) -> bool:
    if isinstance(key, int):
        return abs(key) < _LARGEST_NUMBER  # larger ones can be chosen to share one hash
    return key is None or isinstance(key, (str, float, bytes))


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": _Other,
    "MARK": lambda: _MARK,
}
_LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE"),
        *("SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "GLOBAL": lambda machine, names: machine.known(*names.split(" ")),
    "STACK_GLOBAL": lambda machine, _: machine.known(*reversed([machine.pop(), machine.pop()])),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append((machine.pop(),)),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(reversed([machine.pop() for _ in range(2)]))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(reversed([machine.pop() for _ in range(3)]))),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.update(list(reversed([machine.pop(), machine.pop()]))),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.other()),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.refer(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
}
