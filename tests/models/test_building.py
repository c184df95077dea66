"""Networks built within bounds: without memory first, for real only where names and shapes are those of the weights."""

from __future__ import annotations

import copy
import resource
import sys
from pathlib import Path

import pytest
import torch
from foreign_networks import TinyNet
from torch import nn
from torch.nn.modules import module as registry

from medharden.errors import ModelError
from medharden.models import load_classifier
from medharden.models.architectures import _construct
from medharden.models.arguments import check_arguments
from medharden.models.building import Limits, Make, OversizeError, built, sketched

LIMITS = Limits.of("x:Net", {f"layer{n}.weight": torch.empty(16, 16) for n in range(40)})


def making(make: object) -> Make:
    """A constructor as it is called for a file, whatever its outputs and channels."""
    return lambda outputs, channels: _construct(make, {}, "x:Net")  # type: ignore[arg-type]


def layers(count: int, make: object = lambda: nn.Linear(16, 16)) -> nn.Module:
    return nn.Sequential(*(make() for _ in range(count)))  # type: ignore[operator]


def rates(count: int) -> list[float]:
    return [x.item() for x in torch.linspace(0, 0.1, count)]


class Stepped(nn.Module):
    """As older versions of timm: the rate of each layer is read off a linspace."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Dropout(rate)) for rate in rates(depth))


class Valued(nn.Module):
    """Needs the values of its own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)
        self.largest = float(self.layer.weight.abs().max())


class Beside(nn.Module):
    """A table that is in no state dict."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)
        for n in range(4):
            self.register_buffer(f"table{n}", torch.zeros(size, size, dtype=torch.int64), persistent=False)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("make", [lambda: layers(30), Stepped, lambda: Beside(64)])
def test_a_sketch_has_names_and_shapes_and_no_values(make: object) -> None:
    sketch = sketched(making(make), 2, 1, LIMITS)
    assert sketch is not None
    assert all(t.is_meta for t in sketch.state_dict().values())
    real = make().state_dict()  # type: ignore[operator]
    assert {k: v.shape for k, v in sketch.state_dict().items()} == {k: v.shape for k, v in real.items()}


def test_a_network_that_needs_values_has_no_sketch_and_is_built() -> None:
    assert sketched(making(Valued), 2, 1, LIMITS) is None
    assert built(making(Valued), 2, 1, LIMITS).largest > 0  # type: ignore[operator]


def copies(count: int) -> nn.Module:
    layer = nn.Linear(16, 16)
    return nn.Sequential(*(copy.deepcopy(layer) for _ in range(count)))


def lists(count: int) -> nn.Module:
    return nn.ModuleList([nn.Identity()] * count)


def registered_later(count: int) -> nn.Module:
    made: list[nn.Module] = [nn.Identity() for _ in range(5)]
    holder = nn.Module()
    for n in range(count):
        holder.add_module(f"m{n}", made[n % 5])
    return holder


ENDLESS = {
    "layers": lambda: layers(10**9),
    "layers without weights": lambda: registered_later(10**9),
    "a long list": lambda: lists(10**6),
    "copies": lambda: copies(10**9),
    "calls": lambda: [torch.zeros(1) for _ in range(10**9)],
    "rates": lambda: Stepped(10**7),
    "a wide layer": lambda: nn.Linear(2**16, 2**16),
    "a table": lambda: torch.zeros(2**16, 2**16),
    "ones": lambda: torch.ones(2**20, 2**16),
    "many wide layers": lambda: layers(10**9, lambda: nn.Linear(2048, 2048)),
    "a position for each pixel": lambda: nn.Parameter(torch.randn(1, 2**16, 2**16) * 0.02),
}


@pytest.mark.parametrize("real", [False, True], ids=["sketched", "built"])
@pytest.mark.parametrize("name", list(ENDLESS))
def test_a_constructor_that_knows_no_end_is_ended_before_memory_is_taken(name: str, real: bool) -> None:
    before = peak()
    hooks = (
        registry._global_module_registration_hooks,
        registry._global_parameter_registration_hooks,
        registry._global_buffer_registration_hooks,
    )
    others = [list(kind) for kind in hooks]  # PyTorch's exporter leaves some of its own in some versions
    with pytest.raises(OversizeError, match="x:Net would be a network far larger than its weights"):
        (built if real else sketched)(making(ENDLESS[name]), 2, 1, LIMITS)
    assert peak() - before < 600
    assert [list(kind) for kind in hooks] == others, "nothing is left behind in torch"


def test_tables_beside_the_weights_are_counted() -> None:
    with pytest.raises(OversizeError):
        sketched(making(lambda: Beside(4000)), 2, 1, LIMITS)


def test_the_user_s_own_class_is_built_for_real_alone(tmp_path: Path) -> None:
    torch.save(TinyNet(3).state_dict(), tmp_path / "m.pt")
    model = load_classifier(tmp_path / "m.pt", arch="python:foreign_networks:Cached")
    assert model(torch.rand(1, 1, 16, 16)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"a": 2**15 + 1}, "argument a is 32769; numbers to 32768"),
        ({"a": -(10**9)}, "argument a is -1000000000"),
        ({"a": [1, [2, 10**9]]}, r"argument a\[1\] adds up|argument a\[1\]\[1\] is 1000000000"),
        ({"a": [30_000, 30_000, 10_000]}, "argument a adds up to more than 65536"),
        ({"a": {"b": {"c": 1e300}}}, r"argument a\.b\.c is 1e\+300"),
        ({"a": float("nan")}, "argument a is nan"),
        ({"a": [0] * 129}, "argument a has 129 entries; 128"),
        ({"a": "x" * 257}, "argument a is a text of more than 256"),
        ({"a": {1: 2}}, "argument a has a key that is no short text"),
        ({"a": {"k" * 10**6: [1] * 100}}, "argument a has a key"),
        ({"a" * 10**6: [1, "\x00"]}, "is a text of more than 256 characters, or with control"),
        ({"a": b"x"}, "argument a is a bytes; numbers, texts, booleans and lists"),
        ({"a": [[[[[[[[1]]]]]]]]}, "nested more than 8 deep"),
        ({f"a{n}": [1] * 100 for n in range(20)}, "is one of more than 1024 values"),
        ({"spatial_dims": 4}, "argument spatial_dims is 4, expected 2 or 3"),
    ],
)
def test_an_argument_out_of_bounds_is_named(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        check_arguments(arguments)
    assert len(str(caught.value)) < 500


def test_arguments_that_networks_have_are_within_bounds() -> None:
    check_arguments(
        {
            "spatial_dims": 3,
            "channels": [64, 128, 256, 512, 1024, 2048],
            "strides": [[2, 2, 2]] * 6,
            "norm": ["INSTANCE", {"affine": True, "eps": 1e-5}],
            "act": None,
            "out_indices": [-1],
            "img_size": [2048, 2048],
            "hidden_size": 16_384,
            "dropout_prob": 0.2,
        }
    )
