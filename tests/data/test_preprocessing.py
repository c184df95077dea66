"""Preprocessing against closed forms, and the gradient's way back to stored units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medharden.data.formats.window import Window
from medharden.data.view.preprocessing import Recipe, preprocess
from medharden.errors import RangeError

_UNIT = Window(0.0, 1.0)


def recipe(window: Window = _UNIT, inverted: bool = False, channels: int = 1, size=None, fit="stretch"):
    return Recipe(window, inverted, channels, size, fit)


def test_linear_window_follows_the_formula_of_the_dicom_standard():
    # PS3.3 C.11.2.1.2.1, its own example: c = 2048, w = 4096 leaves 12-bit values alone
    values = torch.tensor([0.0, 1.0, 2047.0, 4095.0])
    assert torch.allclose(Window.linear(2048, 4096)(values), values / 4095, atol=1e-7)
    c, w = 40.0, 400.0
    x = torch.tensor([-160.0, -159.0, 40.0, 239.0, 240.0])
    expected = ((x - (c - 0.5)) / (w - 1) + 0.5).clamp(0, 1)
    assert torch.allclose(Window.linear(c, w)(x), expected, atol=1e-6)
    assert Window.linear(c, w)(x)[[0, 3, 4]].tolist() == [0.0, 1.0, 1.0]


def test_linear_window_of_width_one_is_a_step():
    assert Window.linear(10, 1)(torch.tensor([9.0, 9.5, 9.6, 10.0])).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_exact_and_sigmoid_windows_follow_their_formulas():
    x = torch.linspace(-50, 150, 41)
    assert torch.allclose(Window.exact(40, 80)(x), ((x - 40) / 80 + 0.5).clamp(0, 1), atol=1e-6)
    assert torch.allclose(Window.sigmoid(40, 80)(x), 1 / (1 + torch.exp(-4 * (x - 40) / 80)), atol=1e-6)


def test_table_gives_its_entries_at_whole_numbers_and_lies_between_them_elsewhere():
    table = Window(-1.0, 1.0, "table", (0.0, 1.0, 0.5))
    x = torch.tensor([-9.0, -1.0, -0.5, 0.0, 1.0, 9.0])
    assert table(x).tolist() == [0.0, 0.0, 0.5, 1.0, 0.5, 0.5]


def test_inversion_swaps_black_and_white_after_windowing():
    values = torch.tensor([[[-5.0, 0.0, 25.0, 100.0, 300.0]]])
    plain = preprocess(values, recipe(Window(0, 100)))
    assert torch.equal(preprocess(values, recipe(Window(0, 100), inverted=True)), 1 - plain)


def test_colour_becomes_grey_by_luma_and_grey_becomes_three_equal_channels():
    colour = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
    assert preprocess(colour, recipe()).item() == pytest.approx(0.299)
    grey = torch.rand(1, 4, 5)
    assert torch.equal(preprocess(grey, recipe(channels=3)), grey.expand(3, 4, 5))


def test_native_size_is_left_untouched_bit_for_bit():
    values = torch.rand(1, 7, 9)
    assert torch.equal(preprocess(values, recipe(size=(7, 9))), values)


def test_downsampling_a_fine_checkerboard_averages_it_instead_of_picking_pixels():
    board = torch.tensor(np.indices((64, 64)).sum(0) % 2, dtype=torch.float32)[None]
    small = preprocess(board, recipe(size=(16, 16)))
    assert (small[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.02
    volume = torch.tensor(np.indices((16, 16, 16)).sum(0) % 2, dtype=torch.float32)[None]
    assert torch.allclose(preprocess(volume, recipe(size=(4, 4, 4))), torch.full((1, 4, 4, 4), 0.5))


def test_a_volume_shrinks_on_one_axis_and_grows_on_another():
    volume = torch.linspace(0, 1, 8).reshape(1, 8, 1, 1).expand(1, 8, 3, 4)
    out = preprocess(volume, recipe(size=(4, 6, 4)))
    assert out.shape == (1, 4, 6, 4)
    assert torch.allclose(out[0, :, 0, 0], torch.linspace(0, 1, 8).reshape(4, 2).mean(1))


def test_padding_keeps_proportions_and_fills_with_black():
    out = preprocess(torch.ones(1, 10, 20), recipe(size=(8, 8), fit="pad"))
    assert out.shape == (1, 8, 8)
    assert torch.allclose(out[0, 2:6], torch.ones(4, 8))
    assert out[0, :2].sum() == 0
    assert out[0, 6:].sum() == 0


@pytest.mark.parametrize("size", [(5, 7), (30, 40), (9, 90)])
@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_output_never_leaves_zero_to_one(size, fit):
    values = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1)) * 1000
    out = preprocess(values, recipe(Window(-300, 500), size=size, channels=3, fit=fit))
    assert out.shape == (3, *size)
    assert out.min() >= 0
    assert out.max() <= 1
    assert out.dtype == torch.float32


def test_gradient_reaches_stored_units_scaled_by_the_window():
    values = torch.full((1, 6, 6), 40.0, requires_grad=True)
    preprocess(values, recipe(Window(-160, 240), inverted=True)).sum().backward()
    assert torch.allclose(values.grad, torch.full((1, 6, 6), -1 / 400))


@pytest.mark.parametrize("window", [Window(-2.0, 2.0), Window(-2.0, 2.0, "sigmoid")])
def test_analytic_gradient_equals_the_numeric_one_through_window_and_resampling(window):
    values = torch.rand(1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: preprocess(v, recipe(window, inverted=True, size=(3, 8))), (values,))
    volume = torch.rand(1, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: preprocess(v, recipe(window, size=(2, 6, 3), fit="pad")), (volume,))


def test_values_of_another_shape_are_refused_with_the_shape_found():
    with pytest.raises(RangeError, match=r"\(2, 4, 4\)"):
        preprocess(torch.rand(2, 4, 4), recipe())
    with pytest.raises(RangeError, match="3 spatial axes, found 2"):
        preprocess(torch.rand(1, 4, 4), recipe(size=(2, 2, 2)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("kind", ["linear", "step", "sigmoid", "table"])
def test_a_large_image_in_slabs_gives_what_a_small_one_gives(monkeypatch, kind, inverted, channels):
    windows = {
        "linear": Window(-20.0, 60.0),
        "step": Window(5.0, 5.0),
        "sigmoid": Window.sigmoid(10, 70),
        "table": Window(0.0, 7.0, "table", (0.0, 0.1, 0.3, 0.2, 0.9, 1.0, 0.5, 0.4)),
    }
    rng = np.random.default_rng(0)
    for layout in ((channels, 37, 53), (channels, 11, 13, 17), (37, 53, channels)):
        values = rng.normal(10, 40, layout).astype(np.float32)
        values = np.moveaxis(values, -1, 0) if layout[-1] == channels else values
        before = values.copy()
        size = tuple(2 * n // 3 for n in values.shape[1:])
        for asked in (recipe(windows[kind], inverted, 1), recipe(windows[kind], inverted, 3, size)):
            whole = preprocess(torch.from_numpy(values), asked)
            monkeypatch.setattr("medharden.data.view.preprocessing._LARGE", 100)
            monkeypatch.setattr("medharden.data.view.preprocessing._SLAB", 300)
            parts = preprocess(torch.from_numpy(values), asked)
            monkeypatch.undo()
            torch.testing.assert_close(parts, whole, rtol=0, atol=0 if kind != "sigmoid" else 1e-7)
            np.testing.assert_array_equal(values, before)
