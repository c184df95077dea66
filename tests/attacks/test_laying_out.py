"""Convolutions of volumes in faster arrangements: the same sums and gradients, and the layer as it was afterwards."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from medharden.attacks import lay_out


@pytest.mark.parametrize(("kernel", "padding"), [(7, 3), (3, 1), (2, 0), (4, (1, 2, 1)), (1, 0)])
@pytest.mark.parametrize("size", [(8, 8, 8), (9, 10, 11)])
def test_a_strided_layer_of_volumes_gives_the_same_sums_and_gradients_in_the_faster_arrangement(
    kernel: int, padding: int | tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(2, 4, kernel, stride=2, padding=padding), nn.ReLU(), nn.Conv3d(4, 3, 2)).eval()
    inputs, names = torch.rand(3, 2, *size, requires_grad=True), list(model.state_dict())

    def outcome() -> list[Tensor]:
        answer = model(inputs)
        return [answer, *torch.autograd.grad(answer.square().sum(), [inputs, *model.parameters()])]

    plain = outcome()
    lay_out(model, 3, fast=True)
    assert type(model[0]) is not nn.Conv3d
    assert type(model[2]) is nn.Conv3d
    for mine, theirs in zip(outcome(), plain, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert list(model.state_dict()) == names
    lay_out(model, 3, fast=False)
    assert type(model[0]) is nn.Conv3d
    assert torch.equal(outcome()[0], plain[0])


@pytest.mark.parametrize("other", [{"groups": 2}, {"dilation": 2}, {"padding": "valid"}, {"padding_mode": "circular"}])
def test_a_layer_of_volumes_of_another_kind_is_left_as_it_is(other: dict[str, object]) -> None:
    model = nn.Sequential(nn.Conv3d(2, 4, 3, **({"stride": 2} | other)))
    lay_out(model, 3, fast=True)
    assert type(model[0]) is nn.Conv3d


@pytest.mark.parametrize(("kernel", "padding"), [(7, 3), (5, (1, 2, 0)), ((3, 5, 4), 1)])
@pytest.mark.parametrize("columns", [1, 2**22])
def test_a_layer_of_one_channel_and_stride_one_answers_bit_for_bit_and_has_the_same_gradients(
    kernel: int | tuple[int, int, int], padding: int | tuple[int, int, int], columns: int
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 4, kernel, padding=padding), nn.ReLU(), nn.Conv3d(4, 3, 2)).eval()
    inputs = torch.rand(3, 1, 8, 9, 10, requires_grad=True)

    def outcome(trained: bool) -> list[Tensor]:
        model.requires_grad_(trained)
        answer = model(inputs)
        of = [inputs, *model.parameters()] if trained else [inputs]
        return [answer, *torch.autograd.grad(answer.square().sum(), of)]

    plain = outcome(trained=True)
    lay_out(model, 3, fast=True)
    assert type(model[0]) is not nn.Conv3d
    with patch("medharden.attacks.laying_out._COLUMNS", columns):
        fast, frozen = outcome(trained=True), outcome(trained=False)
    assert torch.equal(fast[0], plain[0])
    for mine, theirs in zip([*fast, frozen[1]], [*plain, plain[1]], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(model(inputs), plain[0])
    lay_out(model, 3, fast=False)
    assert type(model[0]) is nn.Conv3d


def test_that_layer_works_in_half_precision_as_any_does() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Conv3d(1, 4, 5, padding=2)), torch.rand(2, 1, 6, 6, 6, requires_grad=True)
    gradients = []
    for fast in (False, True):
        lay_out(model, 3, fast=fast)
        with torch.autocast("cpu", torch.bfloat16):
            gradients.append(torch.autograd.grad(model(inputs).float().square().sum(), inputs)[0])
    assert torch.equal(*gradients)
