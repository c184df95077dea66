"""Reading weight files without executing anything in them: read once, hashed, and these very bytes parsed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from medharden.errors import ModelError
from medharden.models.arrays import ArrayRef
from medharden.models.torch_files import TorchFile, read_torch
from medharden.models.unpickling import Fields, TensorRef, Unreadable
from medharden.text import neutral

__all__ = [
    "LARGEST_WEIGHTS",
    "Weights",
    "class_names",
    "read_once",
    "read_safetensors",
    "read_weights",
    "safetensors_metadata",
]

LARGEST_WEIGHTS = 16 * 2**30
"""Bytes of the largest file of weights that is read."""

_LARGEST_HEADER = 16 * 2**20
_MOST_CHANNELS = 1024
_MOST_NAMED = 6
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")
_NAMES = ("class_names", "classes", "labels", "label_names", "class_to_idx", "idx_to_class", "id2label", "label2id")
_ARRAYS = re.compile(r"numpy\.(?:ndarray|dtype|\w+\.multiarray\._reconstruct)")
_UNNAMED = re.compile(r"LABEL_\d+")
_MOST_CLASSES, _LONGEST_CLASS = 1000, 200
_DTYPES = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
)


@dataclass(frozen=True)
class Weights:
    """The content of a weight file.

    Attributes:
        state: parameter and buffer names to tensors, on the CPU; to be read, not written to.
        arch: the architecture that a timm training checkpoint names, or null.
        mean, std: the normalisation that it names, or null.
        classes: names of its outputs, in their order; empty where it has none.
        said: what was chosen among several, and what was left out.
        file: SHA-256 of the bytes that all of it was read from.
        arguments: that the training was called with, as far as the file keeps them.
        trained: its `pretrained_cfg`, where it keeps timm's.
        source: who names mean, std and classes: `checkpoint`, or a file beside it.
    """

    state: dict[str, Tensor]
    arch: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    file: str
    classes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    source: str = "checkpoint"


def read_weights(path: Path, chosen: str | None = None) -> Weights:
    """Reads a `.safetensors` file, or a torch file's tensors and plain values; nothing in it is called.

    The file is read once. Sizes are held against it before a tensor is made.

    Args:
        path: the file.
        chosen: under which key the weights lie, where the file holds several (`model.weights` of the protocol).

    Raises:
        ModelError: missing, damaged, a pickled object, another form of file, no state dict inside, or several and
            none is chosen.
    """
    name = neutral(path.name)[:100]
    data = read_once(path, name)
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix == ".safetensors":
        if chosen is not None:
            raise ModelError(f"model.weights is {chosen!r}, but {name} holds one set of weights alone; leave it out")
        return Weights(read_safetensors(data, name), None, None, None, digest)
    try:
        file = read_torch(data, name)
        content = file.content
        if not isinstance(content, dict):
            what = "tensor" if isinstance(content, TensorRef) else type(content).__name__
            if file.left_out and what.startswith("_"):  # what stands in for an object of which nothing was made
                what = f"object ({_keys(sorted(file.left_out))}), not a plain dict"
            raise ModelError(f"{name} holds a {what}; expected a state dict or a training checkpoint")
        kind = TensorRef if _holds(content, TensorRef) else ArrayRef
        refs, said = _chosen(content, name, chosen, kind)
        state = file.tensors(refs) if kind is TensorRef else file.arrays(refs)
    except Unreadable as reason:
        raise ModelError(
            f"{name} can't be read: it is {reason}; expected a state dict (.pt, .pth, .safetensors)"
        ) from None
    arguments, trained = content.get("args"), content.get("pretrained_cfg")
    extra = arguments.values if isinstance(arguments, Fields) else content
    arch = content.get("arch")
    return Weights(
        state=state,
        arch=arch if isinstance(arch, str) else None,
        mean=_floats(extra, "mean", name),
        std=_floats(extra, "std", name),
        file=digest,
        classes=class_names(content),
        said=(*said, *_left_out(file, kind)),
        arguments=arguments.values if isinstance(arguments, Fields) else {},
        trained=trained if isinstance(trained, dict) else {},
    )


def read_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; the library holds their places against the file.

    Args:
        data: the file.
        name: its name, for errors.

    Raises:
        ModelError: no such file, or tensors of a type that weights don't have.
    """
    if int.from_bytes(data[:8], "little") > _LARGEST_HEADER:
        raise ModelError(f"{name} is no readable safetensors file: its header is too large")
    try:
        state = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{name} is no readable safetensors file: {neutral(str(error))[:200]}") from None
    for key, tensor in state.items():
        if tensor.dtype not in _DTYPES:
            raise ModelError(f"{name}: {neutral(key)[:100]} is of type {tensor.dtype}; expected real numbers")
    return state


def safetensors_metadata(data: bytes) -> dict[str, str]:
    """The metadata of a file that `read_safetensors` took: JSON after eight bytes that give its length."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found = header.get("__metadata__", {})
    return found if isinstance(found, dict) else {}


def read_once(path: Path, name: str) -> bytes:
    """A file's bytes, through one descriptor.

    Args:
        path: the file.
        name: its name, for errors.

    Raises:
        ModelError: it can't be read, is none, or is too large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # not to wait for the other end of a pipe
    except (OSError, ValueError) as error:
        raise ModelError(f"there is no model file {name} that can be read ({type(error).__name__})") from None
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{name} is no file; expected a state dict (.pt, .pth, .safetensors) or a bundle's folder")
        if status.st_size > LARGEST_WEIGHTS:
            raise ModelError(f"{name} is larger than {LARGEST_WEIGHTS} bytes; is it a model?")
        return stream.read(status.st_size)


def _holds(content: dict[Any, Any], kind: type[Any]) -> bool:
    """Whether there are values of a kind, at the top or one step below."""
    return any(_refs(value, kind) for value in (content, *content.values()))


def _chosen(
    content: dict[Any, Any], name: str, chosen: str | None, kind: type[Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The state dict among what a checkpoint holds, and what is to be said of the choice.

    Of NumPy's arrays (`kind`) one is made only where the file holds no tensor.

    Raises:
        ModelError: there is none, none under the chosen key, or several of the same names and none is chosen.
    """
    found = {key: refs for key, value in content.items() if isinstance(key, str) and (refs := _refs(value, kind))}
    if chosen is not None:
        if chosen not in found:
            raise ModelError(
                f"model.weights is {chosen!r}, but {name} holds weights under {_keys(found) or 'no key at all'}"
            )
        others = [key for key in found if key != chosen]
        return found[chosen], (f"weights: {chosen}, as model.weights says; not {_keys(others)}",) if others else ()
    flat = _refs(content, kind)
    if flat and (len(flat) == len(content) or len(flat) > max(map(len, found.values()), default=0)):
        beside = sorted(neutral(str(key))[:40] for key in content if key not in flat)
        return flat, (f"left out, beside the weights: {', '.join(beside[:_MOST_NAMED])}",) if beside else ()
    if not found:
        keys = sorted(neutral(key)[:40] for key in content if isinstance(key, str))
        raise ModelError(
            f"{name} holds no state dict: expected names and tensors, or one under {', '.join(_STATE_KEYS)}; "
            f"found keys {', '.join(keys[:8]) or 'none'}"
        )
    known = [key for key in _STATE_KEYS if key in found]
    first = known[0] if known else max(found, key=lambda key: len(found[key]))
    same = [key for key in found if key != first and _alike(found[first], found[key])]
    if same:
        raise ModelError(
            f"{name} holds the weights {len(same) + 1} times, under {_keys([first, *same])}; which of them is the "
            "model that your figures are of? (timm reports on state_dict_ema where it is there.) Name it as "
            "model.weights in the protocol"
        )
    others = [key for key in found if key != first]
    said = f"weights: {first}" + (f"; left out: {_keys(others)}" if others else "")
    return found[first], (said,)


def _refs(value: Any, kind: type[Any]) -> dict[str, Any]:
    """Names and tensors, or arrays, of a dict that holds some by name; an optimiser's are by number."""
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, kind)}


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two dicts hold the same network: most names end alike, and those have the same shapes."""
    ends = {name.removeprefix("module."): ref.size for name, ref in one.items()}
    both = [ends.get(name.removeprefix("module.")) == ref.size for name, ref in other.items()]
    return bool(2 * sum(both) > len(ends))


def _keys(names: Iterable[str]) -> str:
    shown = [neutral(key)[:60] for key in names]
    return ", ".join(shown[:_MOST_NAMED]) + (
        f" and {len(shown) - _MOST_NAMED} more" if len(shown) > _MOST_NAMED else ""
    )


def _left_out(file: TorchFile, kind: type[Any]) -> tuple[str, ...]:
    arrays = kind is ArrayRef
    others = sorted(name for name in file.left_out if not (arrays and _ARRAYS.fullmatch(name)))
    said = ("the weights are NumPy arrays, taken as tensors",) if arrays else ()
    return (*said, f"beside the weights, of these types nothing was made: {_keys(others)}") if others else said


def class_names(content: Mapping[Any, Any]) -> tuple[str, ...]:
    """Names of the outputs in their order, where there is a plain list of them, or a mapping to or from numbers.

    Those that transformers gives where nobody names them (`LABEL_0`) are none.

    Args:
        content: of a checkpoint, or of a configuration.
    """
    for key in _NAMES:
        value = content.get(key)
        if isinstance(value, dict) and value:
            pairs = list(value.items())
            turned = [(v, k) for k, v in pairs]
            numbered = next((p for p in (pairs, turned) if all(_number(n) is not None for n, _ in p)), None)
            if numbered is None or sorted(_number(n) or 0 for n, _ in numbered) != list(range(len(numbered))):
                continue
            value = [text for _, text in sorted(numbered, key=lambda pair: _number(pair[0]) or 0)]
        if not isinstance(value, (list, tuple)) or not 2 <= len(value) <= _MOST_CLASSES:
            continue
        if all(isinstance(v, str) and 0 < len(v) <= _LONGEST_CLASS and v.isprintable() for v in value):
            return () if all(_UNNAMED.fullmatch(v) for v in value) else tuple(value)
    return ()


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 6:
        return int(value)
    return value if type(value) is int else None


def _floats(values: Mapping[Any, Any], key: str, name: str) -> tuple[float, ...] | None:
    """Mean or std of a checkpoint; null where it has none."""
    value = values.get(key)
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if not all(isinstance(v, (int, float)) for v in value):
        return None
    fit = len(value) <= _MOST_CHANNELS and all(-1e6 < v < 1e6 and (key == "mean" or v > 0) for v in value)
    if not fit:
        raise ModelError(f"{name} has a {key} that can't be one; state model.{key} in the protocol and save without it")
    return tuple(float(v) for v in value)
