"""Saving and loading a hardened model: safetensors beside a JSON description, nothing that runs."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from medharden.errors import ModelError
from medharden.models.classifier import Classifier
from medharden.models.hardened import HardenedClassifier
from medharden.models.loading import rebuild_network
from medharden.record import FusionRecord, ModelRecord

__all__ = ["describe_hardened", "hardened_bytes", "load_hardened"]

_FORMAT = "medharden/hardened/1"
_FINDINGS = "multilabel"
_DESCRIPTION = "sha256 of hardened.json"


def hardened_bytes(model: HardenedClassifier, description: bytes) -> bytes:
    """The weights as safetensors; branch tensors equal to the clean path's bit for bit are stored once.

    Args:
        model: on any device.
        description: the bytes of its `hardened.json`; their digest goes into the header, so that weights and
            description can't be exchanged apart from each other.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    kept = {k: v for k, v in state.items() if not _same(v, state.get(_twin(k)))}
    return save(kept, metadata={_DESCRIPTION: hashlib.sha256(description).hexdigest()})


def describe_hardened(model: HardenedClassifier) -> dict[str, Any]:
    """What `hardened.json` holds beside the weights: how to build the module again, and its fusion."""
    described: dict[str, Any] = {
        "format": _FORMAT,
        "original": dataclasses.asdict(model.clean_path.record),
        "fusion": dataclasses.asdict(model.fusion),
    }
    return described | ({"task": _FINDINGS} if model.multilabel else {})


def load_hardened(folder: Path, *, arch: str | None = None) -> HardenedClassifier:
    """Loads `hardened.safetensors` and `hardened.json` from a run directory.

    Args:
        folder: the run directory.
        arch: the `python:` architecture, where the original had one; it must be named again to be run.

    Raises:
        ModelError: a file is missing or damaged, or the weights don't fit.
    """
    try:
        described = (folder / "hardened.json").read_bytes()
        weights = (folder / "hardened.safetensors").read_bytes()
        description, state = json.loads(described), load(weights)
        if _metadata(weights).get(_DESCRIPTION) != hashlib.sha256(described).hexdigest():
            raise ModelError("hardened.safetensors does not belong to hardened.json; was one of them replaced?")
        if description.get("format") != _FORMAT:
            raise ModelError(f"hardened.json has format {description.get('format')!r}, expected {_FORMAT!r}")
        record = TypeAdapter(ModelRecord).validate_python(description["original"])
        fusion = TypeAdapter(FusionRecord).validate_python(description["fusion"])
    except OSError as error:
        raise ModelError(f"no hardened model there: {Path(str(error.filename)).name} is missing") from error
    except (ValueError, KeyError, AttributeError, SafetensorError, ValidationError) as error:
        raise ModelError(f"the hardened model can't be read: {type(error).__name__}") from error
    state |= {k: state[_twin(k)] for k in _branch_keys(state) if k not in state}
    prefix = "clean_path.network."
    network = rebuild_network(
        record, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, arch
    )
    clean = Classifier(network, record)
    bias = state.get("decision_bias", torch.zeros(record.classes))
    multilabel = description.get("task") == _FINDINGS
    model = HardenedClassifier(clean, copy.deepcopy(clean), fusion, bias, multilabel=multilabel)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ModelError("hardened.safetensors does not fit hardened.json; was one of them replaced?") from error
    return model


def _metadata(weights: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: JSON after eight bytes that give its length."""
    length = int.from_bytes(weights[:8], "little")
    metadata = json.loads(weights[8 : 8 + length]).get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def _twin(key: str) -> str:
    return "clean_path." + key.removeprefix("robust_branch.") if key.startswith("robust_branch.") else ""


def _branch_keys(state: dict[str, Tensor]) -> list[str]:
    return ["robust_branch." + k.removeprefix("clean_path.") for k in state if k.startswith("clean_path.")]


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    if other is None or tensor.dtype != other.dtype or tensor.shape != other.shape:
        return False
    # bytes, not values: -0.0 equals 0.0, NaN equals nothing
    return torch.equal(tensor.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
