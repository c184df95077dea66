"""The minimum-norm attack and random search: distances in closed form, boxes, windows in any dimension."""

from __future__ import annotations

import pytest
import torch
from attack_models import Convolutional, Linear, answers, generator, threat, uniform
from torch import Tensor

from medharden.attacks import apgd_targeted, fab, square
from medharden.attacks.projections import lengths, reach
from medharden.errors import RangeError

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def _distances(model: Linear, inputs: Tensor, labels: Tensor, norm: str) -> Tensor:
    """How far each input is from the nearest other class, where nothing clips."""
    logits, order = model(inputs).detach(), 1 if norm == "linf" else 2
    gaps = logits.gather(1, labels[:, None]) - logits
    dual = (model.weight[labels][:, None] - model.weight[None]).norm(order, dim=2).detach()
    ratio = gaps / dual.clamp_min(1e-9)
    return ratio.scatter(1, labels[:, None], torch.inf).amin(1)


@norms
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_fab_comes_within_one_percent_of_a_linear_model_s_distance(norm: str, classes: int) -> None:
    model = Linear((2, 5, 7), classes, seed=classes)
    inputs = uniform(60, 2, 5, 7, seed=1, low=0.45, high=0.55)
    labels = answers(model, inputs)
    expected = _distances(model, inputs, labels, norm)
    points, found = fab(model, inputs, labels, threat=threat(norm), steps=30)
    free = (points - 0.5).flatten(1).abs().amax(1) < 0.5 - 1e-6
    assert free.float().mean() > 0.8
    torch.testing.assert_close(lengths(points - inputs, norm), found)
    assert (answers(model, points) != labels).all()
    assert (found >= expected * 0.9999).all()
    assert (found[free] <= expected[free] * 1.01).all()
    _, nearest = fab(model, inputs, labels, threat=threat(norm), steps=30, targets=1)
    assert (nearest[free] <= expected[free] * 1.01).all(), "the nearest of a linear model's boundaries is the first"


@norms
def test_the_shortest_move_within_bounds_is_found_where_the_bounds_clip(norm: str) -> None:
    points = uniform(50, 1, 6, 6, seed=2, low=-0.4, high=1.4).clamp(0, 1)
    slope = torch.randn((50, 1, 6, 6), generator=generator(3))
    rise = uniform(50, seed=5, high=3.0) * torch.where(torch.arange(50) % 2 == 0, 1.0, -1.0)
    move = reach(points, slope, rise, threat(norm))
    risen = (move * slope).flatten(1).sum(1)
    torch.testing.assert_close(risen, rise, rtol=1e-4, atol=1e-5)
    assert (points + move).min() >= -1e-6
    assert (points + move).max() <= 1 + 1e-6
    # Shorter by one percent is not enough: the most that a move of that length can do falls short of the rise.
    for case in range(0, 50, 7):
        length = 0.99 * float(lengths(move[case : case + 1], norm))
        assert _most(points[case], slope[case] * rise[case].sign(), length, norm) < rise[case].abs()


def _most(points: Tensor, slope: Tensor, length: float, norm: str) -> float:
    """The largest rise of a move of some length within the bounds, by bisection."""
    room = torch.where(slope > 0, 1 - points, points)
    low, high = 0.0, 1e4
    for _ in range(60):
        t = (low + high) / 2
        size = torch.minimum(room, torch.full_like(room, t) if norm == "linf" else t * slope.abs())
        longer = float(size.max() if norm == "linf" else size.norm()) > length
        low, high = (low, t) if longer else (t, high)
    size = torch.minimum(room, torch.full_like(room, low) if norm == "linf" else low * slope.abs())
    return float((size * slope.abs()).sum())


def test_a_rise_beyond_the_bounds_goes_as_far_as_they_allow() -> None:
    points, slope = torch.tensor([[[0.25, 0.5]]]), torch.tensor([[[1.0, -2.0]]])
    for norm in ("linf", "l2"):
        move = reach(points, slope, torch.tensor([100.0]), threat(norm))
        torch.testing.assert_close(points + move, torch.tensor([[[1.0, 0.0]]]))
        assert (reach(points, torch.zeros_like(slope), torch.tensor([1.0]), threat(norm)) == 0).all()


def test_fab_says_that_nothing_was_found_and_that_nothing_was_needed() -> None:
    model, inputs = Linear((1, 4, 4), 2), uniform(4, 1, 4, 4)
    labels = answers(model, inputs)
    _, distances = fab(model, inputs, 1 - labels, threat=threat(), steps=3)
    assert (distances == 0).all()
    model.weight.data.zero_()
    points, distances = fab(model, inputs, answers(model, inputs), threat=threat(), steps=3)
    assert distances.isinf().all()
    assert torch.equal(points, inputs)


@norms
@pytest.mark.parametrize(
    "shape", [(1, 12, 12), (3, 9, 14), (16, 5, 21), (1, 8, 10, 6), (2, 7, 7, 9), (1, 16, 5), (2, 33), (1, 3, 3)]
)
def test_square_stays_within_eps_and_bounds_and_does_harm(norm: str, shape: tuple[int, ...]) -> None:
    model = Linear(shape, 3, seed=4)
    inputs = uniform(6, *shape, seed=2, low=-0.3, high=1.3).clamp(0, 1)
    labels = answers(model, inputs)
    eps = 0.05 if norm == "linf" else 0.5
    found = square(model, inputs, labels, threat=threat(norm, eps), queries=150, generator=generator())
    assert found.shape == inputs.shape
    assert (lengths(found - inputs, norm) <= eps + 1e-5).all()
    assert found.min() >= 0
    assert found.max() <= 1

    def gap(points: Tensor) -> Tensor:
        logits = model(points).detach()
        own = logits.gather(1, labels[:, None])
        return (own - logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)).squeeze(1)

    assert (gap(found) < gap(inputs)).all()


@norms
@pytest.mark.parametrize("classes", [2, 4, 12])
def test_square_reaches_a_linear_model_s_optimum_towards_the_class_it_climbs_to(norm: str, classes: int) -> None:
    model = Linear((1, 6, 6), classes, seed=1)
    inputs = uniform(8, 1, 6, 6, seed=3, low=0.45, high=0.55)
    labels = answers(model, inputs)
    eps = 0.2 * float(_distances(model, inputs, labels, norm).min())
    own = torch.nn.functional.one_hot(labels, classes).bool()
    shares = []
    for seed in (0, 1):  # of a random search one start may be unlucky in one case; the better of two is not
        found = square(
            model, inputs, labels, threat=threat(norm, eps), queries=4000, generator=torch.Generator().manual_seed(seed)
        )
        uphill = (model.weight[model(found).masked_fill(own, -torch.inf).argmax(1)] - model.weight[labels]).detach()
        risen = ((found - inputs).flatten(1) * uphill).sum(1)
        best = eps * uphill.norm(1 if norm == "linf" else 2, dim=1)
        assert (risen <= best * 1.0001).all()
        shares.append(risen / best)
    assert torch.stack(shares).amax(0).min() >= 0.99


@norms
@pytest.mark.parametrize("classes", [2, 4, 12])
@pytest.mark.parametrize("loss", ["dlr", "margin"])
def test_targeted_apgd_reaches_whichever_class_is_nearest(norm: str, classes: int, loss: str) -> None:
    model = Linear((1, 6, 7), classes, seed=classes)
    inputs = uniform(60, 1, 6, 7, seed=1, low=0.45, high=0.55)
    labels = answers(model, inputs)
    distance = _distances(model, inputs, labels, norm)
    eps = min(float(distance.median()), 0.4)
    found = apgd_targeted(
        model, inputs, labels, threat=threat(norm, eps), steps=25, restarts=1, loss=loss, targets=11,
        generator=generator(),
    )  # fmt: skip
    fell = answers(model, found) != labels
    assert fell[distance < 0.99 * eps].all()
    assert not fell[distance > 1.0001 * eps].any()


def test_targeted_apgd_wins_where_a_single_target_does_not_lead() -> None:
    class Decoy(Convolutional):
        """The second class by logit can't be raised; the third can."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.flatten(1).mean(1)
            return torch.stack([torch.zeros_like(mean), -0.1 - 0 * mean, 10 * (mean - 0.6)], dim=1)

    model, inputs = Decoy(1, 3), torch.full((4, 1, 5, 5), 0.55)
    labels = torch.zeros(4, dtype=torch.long)
    settings = {"threat": threat(eps=0.1), "steps": 5, "restarts": 1, "loss": "margin", "generator": generator()}
    one = apgd_targeted(model, inputs, labels, targets=1, **settings)
    two = apgd_targeted(model, inputs, labels, targets=2, **settings)
    assert (answers(model, two) == 2).all()
    assert (answers(model, one) == 0).all() or (answers(model, one) == 2).any()


def test_no_targets_are_refused() -> None:
    with pytest.raises(RangeError, match="targets must be at least 1, got 0"):
        apgd_targeted(
            Linear((1, 2, 2), 2), uniform(1, 1, 2, 2), torch.tensor([0]), threat=threat(), steps=1, restarts=1,
            loss="ce", targets=0, generator=generator(),
        )  # fmt: skip
