"""Reading weight files without executing anything in them: read once, hashed, and these very bytes parsed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from medharden.errors import ModelError
from medharden.models.torch_files import TorchFile, read_torch
from medharden.models.unpickling import Fields, TensorRef, Unreadable
from medharden.text import neutral

__all__ = ["LARGEST_WEIGHTS", "Weights", "read_safetensors", "read_weights", "safetensors_metadata"]

LARGEST_WEIGHTS = 16 * 2**30
"""Bytes of the largest file of weights that is read."""

_LARGEST_HEADER = 16 * 2**20
_MOST_CHANNELS = 1024
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")
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
        file: SHA-256 of the bytes that all of it was read from.
    """

    state: dict[str, Tensor]
    arch: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    file: str


def read_weights(path: Path) -> Weights:
    """Reads a `.safetensors` file, or a torch file's tensors and plain values; nothing in it is called.

    The file is read once. Sizes are held against it before a tensor is made.

    Raises:
        ModelError: missing, damaged, a pickled object, a TorchScript archive, or no state dict inside.
    """
    name = neutral(path.name)[:100]
    data = _read_once(path, name)
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix == ".safetensors":
        return Weights(read_safetensors(data, name), None, None, None, digest)
    try:
        file = read_torch(data, name)
        content = file.content
        if not isinstance(content, dict):
            kind = "tensor" if isinstance(content, TensorRef) else type(content).__name__
            raise ModelError(f"{name} holds a {kind}; expected a state dict or a training checkpoint")
        state = _state_dict(file, content, name)
    except Unreadable as reason:
        raise ModelError(
            f"{name} can't be read: it is {reason}; expected a state dict (.pt, .pth, .safetensors)"
        ) from None
    arguments = content.get("args")
    extra = arguments.values if isinstance(arguments, Fields) else content
    arch = content.get("arch")
    return Weights(
        state=state,
        arch=arch if isinstance(arch, str) else None,
        mean=_floats(extra, "mean", name),
        std=_floats(extra, "std", name),
        file=digest,
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


def _read_once(path: Path, name: str) -> bytes:
    """The file's bytes, through one descriptor."""
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


def _state_dict(file: TorchFile, content: dict[Any, Any], name: str) -> dict[str, Tensor]:
    inner = next((content[k] for k in _STATE_KEYS if isinstance(content.get(k), dict)), content)
    refs = {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, TensorRef)}
    if not refs or (inner is content and len(refs) < len(inner)):
        found = sorted(neutral(key)[:40] for key in content if isinstance(key, str))
        raise ModelError(
            f"{name} holds no state dict: expected names and tensors, or one under {', '.join(_STATE_KEYS)}; "
            f"found keys {', '.join(found[:8]) or 'none'}"
        )
    return file.tensors(refs)


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
