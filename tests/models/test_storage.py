"""A hardened model in its run directory: read once, strictly, and to the very bytes that it was loaded from."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import TinyNet
from safetensors.torch import load, save
from torch import Tensor

from medharden.canonical import canonical_json
from medharden.errors import ModelError, RunError
from medharden.models import (
    HardenedClassifier,
    LowRank,
    describe_hardened,
    hardened_bytes,
    load_classifier,
    load_hardened,
    state_digest,
    storage,
    timm_module,
    updated,
)
from medharden.protocol import ModelSpec
from medharden.record import FrontierPoint, FusionRecord

POINT = FrontierPoint(0.5, 1, 2, 40, -0.1, 0.2, 0.75, 32)
FUSION = FusionRecord("mixed", 0.7, 1.3, 0.8, 0.3, 0.02, (POINT,))
TINY = "python:foreign_networks:TinyNet"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HardenedClassifier:
    path = tmp_path_factory.mktemp("model") / "m.pt"
    torch.manual_seed(0)
    torch.save(TinyNet(3).state_dict(), path)
    clean = load_classifier(path, arch=TINY)
    branch = copy.deepcopy(clean)
    with torch.no_grad():
        branch.network.classifier.weight.add_(0.01)
    return HardenedClassifier(clean, branch, FUSION, torch.tensor([0.0, 0.5, -0.25]))


def described(model: HardenedClassifier) -> bytes:
    return canonical_json(describe_hardened(model)) + b"\n"


def write(folder: Path, model: HardenedClassifier, description: bytes, weights: bytes | None = None) -> None:
    (folder / "hardened.json").write_bytes(description)
    (folder / "hardened.safetensors").write_bytes(hardened_bytes(model, description) if weights is None else weights)


@pytest.mark.parametrize(
    ("name", "arguments", "dims"),
    [
        ("timm:test_resnet", {}, 2),
        ("timm:test_vit", {}, 2),
        ("monai:DenseNet121", {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]}, 3),
        ("python", {}, 2),
    ],
)
def test_what_was_loaded_is_written_again_to_the_same_bytes(
    tmp_path: Path, model: HardenedClassifier, name: str, arguments: dict[str, Any], dims: int
) -> None:
    if name != "python":
        source, _, net = name.partition(":")
        if source == "timm":
            network = timm_module().create_model(net, num_classes=3, in_chans=1)
        else:
            from monai.networks import nets

            network = getattr(nets, net)(spatial_dims=dims, in_channels=1, out_channels=3, **arguments)
        torch.save(network.state_dict(), tmp_path / "m.pt")
        clean = load_classifier(tmp_path / "m.pt", spec=ModelSpec(arch=name, arguments=arguments), dims=dims)
        branch = copy.deepcopy(clean)
        with torch.no_grad():
            list(branch.parameters())[-1].add_(1)
        model = HardenedClassifier(clean, branch, FUSION, torch.zeros(3), multilabel=True)
    write(tmp_path, model, described(model))
    back = load_hardened(tmp_path, arch=TINY)
    assert described(back) == (tmp_path / "hardened.json").read_bytes()
    assert hardened_bytes(back, described(back)) == (tmp_path / "hardened.safetensors").read_bytes()


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edited(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return canonical_json(content) + b"\n"

    return edited


def put(part: str, key: str, value: object) -> Callable[[bytes], bytes]:
    return edit(lambda content: content[part].update({key: value}))


DESCRIPTIONS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no line's end": (lambda d: d[:-1], "does not end with a line's end"),
    "two line's ends": (lambda d: d + b"\n", "is no JSON|is not canonical JSON"),
    "blanks": (lambda d: d.replace(b'":', b'": ', 1), "is not canonical JSON"),
    "key twice": (lambda d: b'{"fusion":{},' + d[1:], "is not canonical JSON"),
    "other order": (lambda d: json.dumps(dict(reversed(json.loads(d).items()))).encode() + b"\n", "canonical JSON"),
    "empty": (lambda d: b"\n", "is no JSON"),
    "nothing": (lambda d: b"", "does not end"),
    "not UTF-8": (lambda d: b"\xff\n", "is no JSON"),
    "deep": (lambda d: b"[" * 100_000 + b"]" * 100_000 + b"\n", "more than 64 levels"),
    "a list": (lambda d: b"[]\n", "holds no description"),
    "null": (lambda d: b"null\n", "holds no description"),
    "other format": (edit(lambda c: c.update(format="medharden/hardened/2")), "has format 'medharden/hardened/2'"),
    "no format": (edit(lambda c: c.pop("format")), "has format 'None'"),
    "unknown key": (edit(lambda c: c.update(more=1)), "a key that it can't have: 'more'"),
    "unknown key that steers": (edit(lambda c: c.update({"\x1b[31m": 1})), "a key that it can't have"),
    "task of nothing": (edit(lambda c: c.update(task=None)), "a key that it can't have: 'task'"),
    "task of a list": (edit(lambda c: c.update(task=["multilabel"])), "a key that it can't have: 'task'"),
    "no original": (edit(lambda c: c.pop("original")), "original"),
    "no fusion": (edit(lambda c: c.pop("fusion")), "fusion"),
    "original of text": (edit(lambda c: c.update(original="x")), "original"),
    "unknown key in original": (put("original", "more", 1), "original has a key that it can't have: 'more'"),
    "unknown key in fusion": (put("fusion", "more", 1), "fusion has a key that it can't have: 'more'"),
    "unknown key in the frontier": (
        edit(lambda c: c["fusion"]["frontier"][0].update(more=1)),
        "fusion has a key that it can't have: 'more'",
    ),
    "a key too few": (edit(lambda c: c["original"].pop("state")), "original.state: "),
    "classes as text": (put("original", "classes", "3"), "original.classes: Input should be a valid integer"),
    "classes with a fraction": (put("original", "classes", 3.5), "original.classes"),
    "classes of truth": (put("original", "classes", True), "original.classes"),
    "classes of nothing": (put("original", "classes", None), "original.classes"),
    "no classes": (put("original", "classes", 0), "original.classes is out of range"),
    "a billion classes": (put("original", "classes", 10**9), "original.classes is out of range"),
    "other classes": (put("original", "classes", 4), "tells of 4 classes and 1 channels"),
    "other channels": (put("original", "channels", 3), "tells of 3 classes and 3 channels"),
    "a billion channels": (put("original", "channels", 10**9), "original.channels is out of range"),
    "four dimensions": (put("original", "dims", 4), "original.dims is out of range"),
    "mean of text": (put("original", "mean", "0"), "original.mean"),
    "many means": (put("original", "mean", [0.5] * 7), "original.mean is out of range"),
    "no mean": (put("original", "mean", []), "original.mean is out of range"),
    "std of nothing": (put("original", "std", [0]), "original.std is out of range"),
    "one logit of three": (put("original", "one_logit", True), "original.classes is out of range"),
    "one logit as a number": (put("original", "one_logit", 1), "original.one_logit"),
    "arguments of a list": (put("original", "arguments", [1]), "original.arguments"),
    "absurd arguments": (put("original", "arguments", {"num_classes": 10**9}), "argument num_classes is 1000000000"),
    "unknown arguments": (put("original", "arguments", {"surprise": 1}), "can't be built with"),
    "other source": (put("original", "source", "keras"), "unknown architecture"),
    "other code": (put("original", "arch", "os:getcwd"), "name it to allow it"),
    "architecture that steers": (put("original", "arch", "\x1b[31m"), "is no short text"),
    "mode that is none": (put("fusion", "mode", "bogus"), "fusion.mode is out of range"),
    "weight as text": (put("fusion", "weight", "0.7"), "fusion.weight"),
    "weight of truth": (put("fusion", "weight", True), "fusion.weight"),
    "weight above one": (put("fusion", "weight", 1.5), "fusion.weight is out of range"),
    "weight below nothing": (put("fusion", "weight", -0.1), "fusion.weight is out of range"),
    "no temperature": (put("fusion", "robust_temperature", 0), "fusion.robust_temperature is out of range"),
    "cold": (put("fusion", "clean_temperature", -1), "fusion.clean_temperature is out of range"),
    "threshold above one": (put("fusion", "referral_threshold", 2), "fusion.referral_threshold is out of range"),
    "frontier of text": (put("fusion", "frontier", "x"), "fusion.frontier"),
    "too long": (lambda d: b" " * (2**20 + 1), "larger than"),
}


@pytest.mark.parametrize("name", list(DESCRIPTIONS))
def test_a_description_other_than_was_written_is_refused_by_name(
    tmp_path: Path, model: HardenedClassifier, name: str
) -> None:
    change, said = DESCRIPTIONS[name]
    write(tmp_path, model, change(described(model)))
    with pytest.raises((ModelError, RunError), match=said) as caught:
        load_hardened(tmp_path, arch=TINY)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def rewritten(model: HardenedClassifier, change: Callable[[dict[str, Tensor]], object]) -> bytes:
    """Weights with an honest header over changed tensors."""
    description = described(model)
    state = load(hardened_bytes(model, description))
    change(state)
    return save(state, metadata={"sha256 of hardened.json": hashlib.sha256(description).hexdigest()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update({"decision_bias": torch.zeros(2)}), "decision_bias: expected .3,., found .2,."),
        (lambda s: s.update({"decision_bias": torch.zeros(3).double()}), "decision_bias: expected torch.float32"),
        (lambda s: s.update({"more": torch.zeros(1)}), "1 unexpected: more"),
        (lambda s: s.pop("clean_path.mean"), "missing: clean_path.mean"),
        (lambda s: s.update({"clean_path.mean": torch.zeros(1, 2, 1, 1)}), "clean_path.mean: expected"),
        (
            lambda s: s.update({"clean_path.network.classifier.bias": torch.zeros(3).half()}),
            "classifier.bias: expected torch.float32, found torch.float16",
        ),
        (
            lambda s: s.update({"robust_branch.network.classifier.weight": torch.zeros(3, 96).half()}),
            "robust_branch.network.classifier.weight: expected torch.float32",
        ),
        (lambda s: s.pop("clean_path.network.classifier.bias"), "1 missing: classifier.bias"),
        (lambda s: s.clear(), "missing"),
    ],
)
def test_weights_other_than_the_description_tells_of_are_refused_by_name(
    tmp_path: Path, model: HardenedClassifier, change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    write(tmp_path, model, described(model), rewritten(model, change))
    with pytest.raises(ModelError, match=said):
        load_hardened(tmp_path, arch=TINY)


@pytest.mark.parametrize("name", ["hardened.json", "hardened.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "missing"])
def test_a_part_that_is_no_plain_file_is_refused_before_it_is_opened(
    tmp_path: Path, model: HardenedClassifier, name: str, kind: str
) -> None:
    write(tmp_path, model, described(model))
    path = tmp_path / name
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(ModelError if kind == "missing" else RunError, match=name):
        load_hardened(tmp_path, arch=TINY)


def test_each_part_is_read_once(tmp_path: Path, model: HardenedClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, model, described(model))
    read: list[str] = []
    original = storage.read_plain

    def once(folder: Path, name: str, **limits: int) -> bytes:
        read.append(name)
        data = original(folder, name, **limits)
        (folder / name).write_bytes(b"swapped once it was read")
        return data

    monkeypatch.setattr(storage, "read_plain", once)
    back = load_hardened(tmp_path, arch=TINY)
    assert sorted(read) == ["hardened.json", "hardened.safetensors"]
    assert hardened_bytes(back, described(back)) == hardened_bytes(model, described(model))


# --- updates of low rank -----------------------------------------------------------------------------------------

UPDATED = "network.features.3.weight"


def with_update(model: HardenedClassifier, rank: int = 2) -> HardenedClassifier:
    """Its branch updated as `lora` does."""
    branch, generator = copy.deepcopy(model.robust_branch), torch.Generator().manual_seed(4)
    weight = branch.get_parameter(UPDATED)
    update = LowRank(*(torch.randn(shape, generator=generator) for shape in ((24, rank), (rank, 12 * 9))))
    with torch.no_grad():
        weight.copy_(updated(weight, update))
    branch.low_rank[UPDATED] = update
    return HardenedClassifier(copy.deepcopy(model.clean_path), branch, FUSION, model.decision_bias)


def test_an_update_of_low_rank_is_stored_in_the_place_of_the_weight_and_gives_its_bits(
    tmp_path: Path, model: HardenedClassifier
) -> None:
    changed = with_update(model)
    write(tmp_path, changed, described(changed))
    stored = load((tmp_path / "hardened.safetensors").read_bytes())
    assert f"robust_branch.{UPDATED}" not in stored
    assert sum(t.numel() for name, t in stored.items() if UPDATED in name) == 24 * 12 * 9 + 2 * (24 + 12 * 9)
    back = load_hardened(tmp_path, arch=TINY)
    assert state_digest(back) == state_digest(changed)
    assert hardened_bytes(back, described(back)) == (tmp_path / "hardened.safetensors").read_bytes()
    copied = copy.deepcopy(back)
    assert hardened_bytes(copied, described(copied)) == (tmp_path / "hardened.safetensors").read_bytes()


def test_a_weight_that_its_update_does_not_give_is_stored_whole(tmp_path: Path, model: HardenedClassifier) -> None:
    branch = copy.deepcopy(with_update(model).robust_branch)
    with torch.no_grad():
        branch.get_parameter(UPDATED)[0, 0, 0, 0] += 1e-6
    changed = HardenedClassifier(copy.deepcopy(model.clean_path), branch, FUSION, model.decision_bias)
    write(tmp_path, changed, described(changed))
    assert f"robust_branch.{UPDATED}" in load((tmp_path / "hardened.safetensors").read_bytes())
    assert state_digest(load_hardened(tmp_path, arch=TINY)) == state_digest(changed)


def test_an_update_larger_than_the_weight_is_not_stored(model: HardenedClassifier) -> None:
    changed = with_update(model, rank=24)
    assert f"robust_branch.{UPDATED}" in load(hardened_bytes(changed, described(changed)))


def test_the_sum_of_a_weight_and_its_update_is_the_same_bits_in_any_library() -> None:
    random = np.random.default_rng(1)
    weight, up, down = (random.standard_normal(s).astype(np.float32) for s in ((9, 5, 3), (9, 4), (4, 15)))
    total = weight.reshape(9, 15).astype(np.float64)
    for k in range(4):
        total = total + up[:, k, None].astype(np.float64) * down[None, k].astype(np.float64)
    ours = updated(torch.from_numpy(weight), LowRank(torch.from_numpy(up), torch.from_numpy(down)))
    assert np.array_equal(ours.numpy(), total.astype(np.float32).reshape(9, 5, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda up, down: (up[:, :1], down),
        lambda up, down: (up[:5], down),
        lambda up, down: (up, down[:, :7]),
        lambda up, down: (up.double(), down.double()),
        lambda up, down: (up[:, :0], down[:0]),
        lambda up, down: (up.repeat(1, 40), down.repeat(40, 1)),
        lambda up, down: (up, None),
        lambda up, down: (up[None], down),
    ],
)
def test_factors_that_do_not_fit_are_refused(
    tmp_path: Path, model: HardenedClassifier, change: Callable[..., tuple[Tensor, Tensor | None]]
) -> None:
    changed = with_update(model)

    def edit(state: dict[str, Tensor]) -> None:
        names = [f"robust_branch.{UPDATED}.low_rank.{part}" for part in ("up", "down")]
        for name, tensor in zip(names, change(*map(state.pop, names)), strict=True):
            if tensor is not None:
                state[name] = tensor.contiguous()

    write(tmp_path, changed, described(changed), rewritten(changed, edit))
    with pytest.raises(ModelError, match=r"the update of robust_branch\.network\.features\.3\.weight does not fit"):
        load_hardened(tmp_path, arch=TINY)


def test_an_update_of_nothing_and_one_beside_the_whole_weight_are_refused(
    tmp_path: Path, model: HardenedClassifier
) -> None:
    changed = with_update(model)
    whole = changed.robust_branch.get_parameter(UPDATED).detach().clone()
    for edit in (
        lambda s: s.update({"robust_branch.network.nothing.low_rank.up": torch.ones(2, 1)}),
        lambda s: s.update({f"robust_branch.{UPDATED}": whole}),
        lambda s: s.update({"robust_branch.network.features.0.weight.low_rank.down": torch.ones(1, 9)}),
    ):
        write(tmp_path, changed, described(changed), rewritten(changed, edit))
        with pytest.raises(ModelError):
            load_hardened(tmp_path, arch=TINY)
