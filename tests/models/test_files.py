"""Weight files as honest people have them: every form is read, once, to the bits that were saved."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medharden.errors import ModelError
from medharden.models import load_classifier, timm_module, weights
from medharden.models.torch_files import read_torch
from medharden.models.unpickling import Fields, TensorRef
from medharden.models.weights import read_weights

BASE = torch.rand(6, 5)
KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def with_attribute(tensor: Tensor) -> Tensor:
    tensor.note = "kept beside it"  # type: ignore[attr-defined]
    return tensor


CONTENTS: dict[str, dict[str, Any]] = {
    "state dict": small_network().state_dict(),
    "parameters": dict(small_network().named_parameters()),
    "types": {str(k): (torch.rand(3, 4) * 5).to(k) for k in (*KINDS, torch.int8, torch.uint8, torch.bool)},
    "views": {"turned": BASE.t(), "rows": BASE[1:3], "column": BASE[:, 2], "whole": BASE, "steps": BASE[::2, ::2]},
    "channels last": {"w": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)},
    "tied": {"one": BASE, "other": BASE},
    "scalars": {"one": torch.tensor(3.0), "none": torch.empty(0, 3), "count": torch.tensor(7)},
    "attributes": {"p": with_attribute(nn.Parameter(torch.ones(2))), "t": with_attribute(torch.ones(2))},
}


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "row"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", list(CONTENTS))
def test_every_form_of_torch_file_is_read_to_the_bits_that_were_saved(
    tmp_path: Path, name: str, protocol: int, archive: bool
) -> None:
    path = tmp_path / "m.pt"
    torch.save(CONTENTS[name], path, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    read = read_weights(path)
    assert read.file == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.state.keys() == CONTENTS[name].keys()
    for key, tensor in CONTENTS[name].items():
        assert read.state[key].dtype == tensor.dtype
        assert torch.equal(read.state[key], tensor.detach()), key


def test_a_training_checkpoint_is_read_with_all_that_lies_beside_its_weights(tmp_path: Path) -> None:
    network = small_network()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    network[0](torch.rand(1, 1, 5, 5)).sum().backward()
    optimiser.step()
    steps = optimiser.state_dict()
    beside: dict[str, Any] = {
        "epoch": 3,
        "optimizer": steps,
        "schedule": torch.optim.lr_scheduler.StepLR(optimiser, 3).state_dict(),
        "args": argparse.Namespace(mean=[0.1], std=(0.2,), lr=1e-3, none=None, nested={1: [2, {3}]}),
        "random": torch.get_rng_state(),
        "plain": (1.5, -7, 10**30, b"bytes", bytearray(b"x"), 1 + 2j, True, "text", {(1, 2): 3}, {4, 5}),
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1, 2])],
        "counts": Counter("aab"),
    }
    torch.save({"state_dict": network.state_dict(), "arch": "test_resnet", **beside}, tmp_path / "m.pt")
    read = read_weights(tmp_path / "m.pt")
    assert (read.arch, read.mean, read.std) == ("test_resnet", (0.1,), (0.2,))
    assert all(torch.equal(read.state[k], v) for k, v in network.state_dict().items())
    content = read_torch((tmp_path / "m.pt").read_bytes(), "m.pt").content
    assert isinstance(content["args"], Fields)
    assert isinstance(content["random"], TensorRef), "described, and not made"
    assert content["optimizer"]["param_groups"] == steps["param_groups"]
    assert content["plain"][:3] == (1.5, -7, 10**30)
    assert content["plain"][6:8] == (True, "text")


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this torch always writes them")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENTS["state dict"], tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_weights(tmp_path / "m.pt").state.keys() == CONTENTS["state dict"].keys()


def test_every_flipped_bit_of_the_weights_is_noticed(tmp_path: Path) -> None:
    torch.save({"w": BASE}, tmp_path / "m.pt")
    data = bytearray((tmp_path / "m.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        place = next(i.header_offset for i in file.infolist() if i.filename.endswith("data/0"))
    first = data.index(BASE.numpy().tobytes(), place)
    for bit in range(0, BASE.nbytes * 8, 37):
        changed = bytearray(data)
        changed[first + bit // 8] ^= 1 << bit % 8
        (tmp_path / "m.pt").write_bytes(changed)
        with pytest.raises(ModelError, match="a checksum is wrong"):
            read_weights(tmp_path / "m.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_hashed_is_what_is_parsed_whatever_happens_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path, other = tmp_path / f"m{suffix}", tmp_path / f"other{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save({"w": BASE}, path)
    save({"w": BASE + 1}, other)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    parse = "read_safetensors" if suffix == ".safetensors" else "read_torch"
    original = getattr(weights, parse)

    def swapped(data: bytes, name: str) -> object:
        os.replace(other, path)
        return original(data, name)

    monkeypatch.setattr(weights, parse, swapped)
    read = read_weights(path)
    assert read.file == digest
    assert torch.equal(read.state["w"], BASE)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"m\.pt is no file"):
        load_classifier(tmp_path / "m.pt", arch="timm:test_resnet")
    for name in ("gone.pt", "x" * 300, "a\x00b"):
        with pytest.raises(ModelError, match="there is no model file"):
            read_weights(tmp_path / name)


def test_a_link_to_a_model_is_followed_as_caches_have_them(tmp_path: Path) -> None:
    torch.save(CONTENTS["tied"], tmp_path / "blob")
    (tmp_path / "m.pt").symlink_to("blob")
    assert read_weights(tmp_path / "m.pt").state.keys() == {"one", "other"}


def test_weights_of_narrow_and_wide_types_become_float32(tmp_path: Path) -> None:
    network = timm_module().create_model("test_resnet", num_classes=3, in_chans=1).eval()
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        state = OrderedDict((k, v.to(kind) if v.is_floating_point() else v) for k, v in network.state_dict().items())
        torch.save({"arch": "test_resnet", "state_dict": state}, tmp_path / "m.pt")
        loaded = load_classifier(tmp_path / "m.pt").network.state_dict()
        assert all(torch.equal(loaded[k], v.to(loaded[k].dtype)) for k, v in state.items())
        assert loaded["fc.weight"].dtype == torch.float32


def test_a_loaded_model_does_not_change_with_its_file(tmp_path: Path) -> None:
    network = timm_module().create_model("test_resnet", num_classes=3, in_chans=1)
    torch.save({"arch": "test_resnet", "state_dict": network.state_dict()}, tmp_path / "m.pt")
    model = load_classifier(tmp_path / "m.pt")
    with torch.no_grad():
        model.network.fc.weight.add_(1)
    assert not torch.equal(model.network.fc.weight, load_classifier(tmp_path / "m.pt").network.fc.weight)
