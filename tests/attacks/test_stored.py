"""Attacks on stored values against closed forms: the optimum on the lattice, bits, padding, and HU left whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medharden.attacks.stored import Lattice, StoredView, attack_stored
from medharden.errors import RangeError
from medharden.protocol import Attack

SUITE = (Attack(attack="apgd", loss="margin", steps=10),)


class Tilt(nn.Module):
    """Logits (0, w . x - b): a linear model of two classes."""

    def __init__(self, weights: Tensor, bias: float) -> None:
        super().__init__()
        self.weights, self.bias = weights, bias

    def forward(self, inputs: Tensor) -> Tensor:
        score = (inputs * self.weights).flatten(1).sum(1) - self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


def hounsfield(stored: Tensor) -> Tensor:
    """Signed values with intercept -1024, through a window of -1000 to 1000 HU."""
    return (((stored - 1024) + 1000) / 2000).clamp(0, 1).float()


def lattice(stored: Tensor, counts: int, **changes: object) -> Lattice:
    fields = {"movable": torch.ones(stored.shape, dtype=torch.bool), "lowest": -32768, "highest": 32767}
    fields |= {"to_input": hounsfield} | changes
    return Lattice(stored=stored.double(), counts=counts, **fields)  # type: ignore[arg-type]


def case(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(900, 1200, (1, 6, 5), generator=generator), torch.randn(1, 6, 5, generator=generator)


@pytest.mark.parametrize("counts", [1, 2, 5])
def test_the_search_reaches_the_optimum_of_a_linear_model_on_the_lattice(counts: int) -> None:
    stored, weights = case()
    clean = float((hounsfield(stored) * weights).sum())
    reach = counts * float(weights.abs().sum()) / 2000
    for share, falls in ((0.98, True), (1.02, False)):
        model = Tilt(weights, clean - share * reach)
        result = attack_stored(model, lattice(stored, counts), torch.tensor([1]), suite=SUITE, seed=1)
        assert (result.won_by != "") is falls
        assert int((result.stored - stored).abs().max()) == counts


def test_hounsfield_values_are_not_clipped_to_the_unit_interval() -> None:
    """torchattacks clips every input to [0, 1]: at eps 20 it moved HU by up to 999."""
    stored, weights = case()
    model = Tilt(weights, float((hounsfield(stored) * weights).sum()) - 1e-3)
    result = attack_stored(model, lattice(stored, 20), torch.tensor([1]), suite=SUITE, seed=1)
    assert result.won_by
    assert int((result.stored - stored).abs().max()) <= 20
    assert int(result.stored.min()) > 800


@pytest.mark.parametrize(("lowest", "highest"), [(0, 4095), (-2048, 2047), (0, 255)])
def test_no_value_leaves_what_the_bits_hold(lowest: int, highest: int) -> None:
    stored = torch.tensor([[[lowest, lowest + 1, highest - 1, highest]]])
    weights = torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])

    def share(values: Tensor) -> Tensor:
        return ((values - lowest) / (highest - lowest)).float()

    for sign in (1, -1):
        model = Tilt(sign * weights, float((share(stored) * sign * weights).sum()) - 1.0)
        spot = lattice(stored, 7, lowest=lowest, highest=highest, to_input=share)
        found = attack_stored(model, spot, torch.tensor([1]), suite=SUITE, seed=1).stored
        assert int(found.min()) >= lowest
        assert int(found.max()) <= highest
        assert int((found - stored).abs().max()) == 7


def test_padding_stays_as_it_is() -> None:
    stored, weights = case()
    movable = torch.ones(stored.shape, dtype=torch.bool)
    movable[0, :2] = False
    model = Tilt(weights, float((hounsfield(stored) * weights).sum()) - 1.0)
    found = attack_stored(model, lattice(stored, 4, movable=movable), torch.tensor([1]), suite=SUITE, seed=1).stored
    assert torch.equal(found[~movable], stored[~movable])
    assert bool((found != stored)[movable].all())


def test_every_point_that_the_model_sees_lies_on_the_lattice() -> None:
    stored, weights = case()
    seen: list[Tensor] = []

    def watched(values: Tensor) -> Tensor:
        seen.append(values.detach().clone())
        return hounsfield(values)

    model = Tilt(weights, float((hounsfield(stored) * weights).sum()) - 1.0)
    attack_stored(model, lattice(stored, 3, to_input=watched), torch.tensor([1]), suite=SUITE, seed=1)
    assert len(seen) > 10
    assert all(torch.equal(values, values.round()) for values in seen)
    assert max(int((values - stored).abs().max()) for values in seen) == 3


def test_a_wrong_clean_answer_leaves_the_file_alone() -> None:
    stored, weights = case()
    model = Tilt(weights, float((hounsfield(stored) * weights).sum()) + 1.0)
    result = attack_stored(model, lattice(stored, 3), torch.tensor([1]), suite=SUITE, seed=1)
    assert result.won_by == "clean"
    assert torch.equal(result.stored, stored)


def test_the_view_of_the_untouched_file_is_the_model_itself() -> None:
    stored, weights = case()
    model = Tilt(weights, 0.1)
    spot = lattice(stored, 3)
    still = torch.zeros(2, *stored.shape)
    assert torch.equal(StoredView(model, spot)(still)[0], model(hounsfield(stored)[None])[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counts": 0}, "one stored count or more, got 0"),
        ({"stored": torch.full((1, 2, 2), 0.5)}, "whole numbers in float64"),
        ({"stored": torch.full((1, 2, 2), 40000.0)}, "-32768..32767, what the bits hold; got 40000..40000"),
    ],
)
def test_what_is_no_lattice_is_refused(changes: dict[str, object], words: str) -> None:
    fields = {"stored": torch.zeros(1, 2, 2), "counts": 1} | changes
    spot = lattice(fields["stored"], fields["counts"])  # type: ignore[arg-type]
    with pytest.raises(RangeError, match=words):
        attack_stored(Tilt(torch.ones(1, 2, 2), 0.0), spot, torch.tensor([1]), suite=SUITE, seed=1)
