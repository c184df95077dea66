"""Saving and loading a hardened model: safetensors beside a JSON description, nothing that runs."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.files import read_plain
from medharden.models.building import require_fit
from medharden.models.classifier import Classifier
from medharden.models.description import read_description
from medharden.models.hardened import HardenedClassifier
from medharden.models.loading import rebuild_network
from medharden.models.low_rank import LowRank, read_low_rank, updated
from medharden.models.weights import LARGEST_WEIGHTS, read_safetensors, safetensors_metadata

__all__ = ["hardened_bytes", "load_hardened"]

_DESCRIPTION = "sha256 of hardened.json"
_LARGEST_DESCRIPTION = 2**20
_BRANCH = "robust_branch."


def hardened_bytes(model: HardenedClassifier, description: bytes) -> bytes:
    """The weights as safetensors; branch tensors equal to the clean path's bit for bit are stored once.

    Of a `lora` branch the updates are stored, where they give the branch's weight bit for bit and are smaller than it.

    Args:
        model: on any device.
        description: the bytes of its `hardened.json`; their digest goes into the header, so that weights and
            description can't be exchanged apart from each other.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    kept: dict[str, Tensor] = {}
    for key, tensor in state.items():
        twin = state.get(_twin(key))
        if not _same(tensor, twin):
            update = model.robust_branch.low_rank.get(key.removeprefix(_BRANCH)) if twin is not None else None
            kept |= {key: tensor} if update is None or twin is None else _shorter(key, tensor, twin, update)
    return save(kept, metadata={_DESCRIPTION: hashlib.sha256(description).hexdigest()})


def load_hardened(
    folder: Path | str, *, arch: str | None = None, network: nn.Module | None = None
) -> HardenedClassifier:
    """Loads `hardened.safetensors` and `hardened.json` from a run directory; each is read once.

    `hardened_bytes` of the model and the bytes of `hardened.json` are the bytes that were loaded, so whoever holds the
    model can tell by their digest which file it came from.

    Args:
        folder: the run directory.
        arch: the `python:` architecture, where the original had one; it must be named again to be run.
        network: a module of the original's architecture instead, such as the one that `Classifier.from_module` was
            given; it is copied, and takes the released weights.

    Raises:
        ModelError: a file is missing or damaged, or the weights don't fit.
        RunError: a file is a link, a pipe or the like.
    """
    folder = Path(folder)
    try:
        described = read_plain(folder, "hardened.json", largest=_LARGEST_DESCRIPTION)
        weights = read_plain(folder, "hardened.safetensors", largest=LARGEST_WEIGHTS)
    except OSError as error:
        name = Path(str(error.filename)).name
        raise ModelError(f"no hardened model there: {name} is missing or can't be read") from error
    state = read_safetensors(weights, "hardened.safetensors")
    if safetensors_metadata(weights).get(_DESCRIPTION) != hashlib.sha256(described).hexdigest():
        raise ModelError("hardened.safetensors does not belong to hardened.json; was one of them replaced?")
    told = read_description(described)
    record = told.original
    updates, read = read_low_rank(state, {k: state[_twin(k)] for k in _branch_keys(state) if k not in state})
    state = {k: v for k, v in state.items() if k not in read}
    state |= {k: state[_twin(k)] for k in _branch_keys(state) if k not in state}
    state |= {k: updated(state[_twin(k)], update) for k, update in updates.items()}
    prefix = "clean_path.network."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    clean = Classifier(rebuild_network(record, own, arch, network), record)
    branch, bias = copy.deepcopy(clean), torch.zeros(record.classes)
    parts = nn.ModuleDict({"clean_path": clean, "robust_branch": branch})  # before they are pinned
    parts.register_buffer("decision_bias", bias)
    require_fit(parts, {"decision_bias": bias} | state, "what hardened.json tells of", types=True)
    parts.load_state_dict({"decision_bias": bias} | state, strict=True)
    branch.low_rank = {k.removeprefix(_BRANCH): update for k, update in updates.items()}
    return HardenedClassifier(clean, branch, told.fusion, bias, multilabel=told.multilabel, contract=told.contract)


def _shorter(key: str, tensor: Tensor, base: Tensor, update: LowRank) -> dict[str, Tensor]:
    """The update in the place of the weight, where it gives the weight's very bits and is smaller."""
    fits = base.shape == tensor.shape and update.size < tensor.numel()
    if fits and _same(updated(base, update), tensor):
        return {name: part.detach().cpu().contiguous() for name, part in update.entries(key).items()}
    return {key: tensor}


def _twin(key: str) -> str:
    return "clean_path." + key.removeprefix(_BRANCH) if key.startswith(_BRANCH) else ""


def _branch_keys(state: dict[str, Tensor]) -> list[str]:
    return [_BRANCH + k.removeprefix("clean_path.") for k in state if k.startswith("clean_path.")]


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    if other is None or tensor.dtype != other.dtype or tensor.shape != other.shape:
        return False
    # bytes, not values: -0.0 equals 0.0, NaN equals nothing
    return torch.equal(tensor.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
