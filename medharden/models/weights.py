"""Reading weight files without executing anything in them."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medharden.errors import ModelError

__all__ = ["Weights", "read_weights"]

_TORCH_STARTS = (b"P", b"\x80")  # of an archive, and of a pickle
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")


@dataclass(frozen=True)
class Weights:
    """The content of a weight file.

    Attributes:
        state: parameter and buffer names to tensors, on the CPU.
        arch: the architecture that a timm training checkpoint names, or null.
        mean, std: the normalisation that it names, or null.
        file: SHA-256 of the file.
    """

    state: dict[str, Tensor]
    arch: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    file: str


def read_weights(path: Path) -> Weights:
    """Reads a `.safetensors` file, or a torch file with `weights_only=True`.

    Raises:
        ModelError: missing, damaged, a pickled object, a TorchScript archive, or no state dict inside.
    """
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        try:
            return Weights(dict(load_file(path)), None, None, None, digest)
        except (SafetensorError, ValueError, OSError) as error:
            raise ModelError(f"{path.name} is no readable safetensors file: {error}") from None
    content = _read_torch(path)
    if not isinstance(content, dict):
        raise ModelError(
            f"{path.name} holds a {type(content).__name__}; expected a state dict or a training checkpoint"
        )
    state = _state_dict(content, path.name)
    extra = vars(content["args"]) if isinstance(content.get("args"), argparse.Namespace) else content
    arch = content.get("arch")
    return Weights(
        state=state,
        arch=arch if isinstance(arch, str) else None,
        mean=_floats(extra.get("mean")),
        std=_floats(extra.get("std")),
        file=digest,
    )


def _read_torch(path: Path) -> Any:
    try:
        # timm's trainer stores its argparse.Namespace: plain attributes, nothing that runs
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols: what can't be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        with path.open("rb") as stream:
            first = stream.read(1)
        if first not in _TORCH_STARTS:
            raise _unreadable(path, "damaged, or no torch file") from None
        raise ModelError(
            f"{path.name} holds pickled Python objects, which could run code when loaded, so it was not opened; "
            "expected weights alone: save them with torch.save(model.state_dict(), 'model.pt') or as .safetensors, "
            "and name the architecture with --arch"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, IndexError) as error:
        reason = "a TorchScript archive" if "TorchScript" in str(error) else "damaged, or no torch file"
        raise _unreadable(path, reason) from None


def _unreadable(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path.name} can't be read: it is {reason}; expected a state dict (.pt, .pth, .safetensors)")


def _state_dict(content: dict[str, Any], name: str) -> dict[str, Tensor]:
    inner = next((content[k] for k in _STATE_KEYS if isinstance(content.get(k), dict)), content)
    state = {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state or (inner is content and len(state) < len(inner)):
        raise ModelError(
            f"{name} holds no state dict: expected names and tensors, or one under {', '.join(_STATE_KEYS)}; "
            f"found keys {', '.join(sorted(map(str, content))[:8]) or 'none'}"
        )
    return state


def _floats(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
        return tuple(float(v) for v in value)
    return None
