"""Square (Andriushchenko et al. 2020): random search with squares or cubes; it sees logits and no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medharden.attacks.criterion import Criterion, Objective
from medharden.attacks.projections import lengths, per_case, project
from medharden.attacks.victim import Strongest, Victim, attackable, check_cases, check_counts, refers
from medharden.protocol import ThreatModel

__all__ = ["Draws", "climb", "draw", "square"]

SHARE = 0.8  # share of the image that the first square covers
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10000 after which the share is halved
_TURNS_AFTER, _LEAST_BEFORE = 0.1, 50  # of the l2 attack's queries: small steps pay once large ones have
_FIRST_REACH, _FURTHER, _NEARER = 0.15, 1.08, 0.99  # of a turn, as a share of eps: further after a gain, else nearer
_TILES = 5  # along each axis, of the l2 attack's first perturbation


@dataclass(frozen=True)
class Draws:
    """The randomness of one run, case by case, so that it does not depend on the other cases.

    Attributes:
        places: (N, queries + 1, 2, dims) in [0, 1]: where windows lie, as shares of the positions there are.
        signs: (N, queries + 1, C, 2) of -1 and 1.
        first: (N, C, *tiles) of -1 and 1: the perturbation to begin with. Stripes (linf) or tiles (l2).
    """

    places: Tensor
    signs: Tensor
    first: Tensor

    def of(self, kept: Tensor) -> Draws:
        """The draws of some of the cases."""
        return Draws(self.places[kept], self.signs[kept], self.first[kept])


def square(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    threat: ThreatModel,
    queries: int,
    generator: torch.Generator,
    finding: Objective = "any",
) -> Tensor:
    """Keeps random local changes that raise the margin; windows shrink as queries go by.

    Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box adversarial attack via random
    search", ECCV 2020, Algorithms 1 to 3. In d spatial dimensions a window is a cube whose volume is the schedule's
    share of the image; along an axis shorter than its side it takes the whole axis. Under l2 the paper's moves begin;
    after a tenth of the queries, and 50, the whole perturbation is turned towards one window at a time instead, by a
    reach that follows its success: this comes within 1 % of a linear model's optimum, the paper's moves to four fifths.

    Args:
        model: takes (N, C, *spatial) within the bounds and returns logits (N, K); with a true attribute `refers`,
            (N, K + 1), the last meaning `referred to a human`. Left as it was, in every flag and buffer.
        inputs: (N, C, *spatial) floating point within `threat.bounds`, on the model's device.
        labels: (N,) class indices, or (N, K) floating point of 0 and 1, on the same device.
        threat: norm, eps in input units, bounds.
        queries: forward passes a case.
        generator: a CPU generator, the only source of randomness.
        finding: of several findings, the one to be changed: its index, `any` or `all`.

    Returns:
        (N, C, *spatial) the best point a case.

    Raises:
        RangeError: inputs, labels, logits or counts outside what is said above.
    """
    check_cases(inputs, labels, threat, finding)
    check_counts(queries, 1)
    victim = Victim(model, Criterion(labels, finding, refers(model)), "margin")
    strongest = Strongest(inputs.detach())
    draws = draw(inputs.shape, queries, threat.norm, [generator] * len(inputs))
    with attackable(model):
        climb(victim, inputs.detach(), strongest.standing, draws, strongest, threat, queries)
    return strongest.points


def draw(shape: Sequence[int], queries: int, norm: str, generators: Sequence[torch.Generator]) -> Draws:
    """Draws all of a run's randomness, from one generator a case.

    Args:
        shape: (N, C, *spatial) of the inputs.
        queries: forward passes a case.
        norm: of the threat.
        generators: N of them.
    """
    channels, spatial = shape[1], tuple(shape[2:])
    dims = max(len(spatial), 1)
    # Stripes run along the last axis but one, where they are one value wide.
    stripes = tuple(1 if axis == len(spatial) - 2 else size for axis, size in enumerate(spatial))
    tiles = stripes if norm == "linf" else (_TILES,) * len(spatial)
    places, signs, first = [], [], []
    for generator in generators:
        places.append(torch.rand((queries + 1, 2, dims), generator=generator))
        signs.append(torch.randint(0, 2, (queries + 1, channels, 2), generator=generator, dtype=torch.int8) * 2 - 1)
        first.append(torch.randint(0, 2, (channels, *tiles), generator=generator, dtype=torch.int8) * 2 - 1)
    return Draws(torch.stack(places), torch.stack(signs), torch.stack(first))


def climb(
    victim: Victim,
    inputs: Tensor,
    rows: Tensor,
    draws: Draws,
    strongest: Strongest,
    threat: ThreatModel,
    queries: int,
) -> None:
    """One random search; cases leave it as they fall.

    Args:
        victim: the model and the labels of all cases.
        inputs: (n, C, *spatial) clean inputs.
        rows: (n,) which of the victim's cases they are.
        draws: their randomness.
        strongest: receives every point kept.
        threat: norm, eps in input units, bounds.
        queries: forward passes a case.
    """
    begin, change = (_stripes, _recolour) if threat.norm == "linf" else (_tiles, _shift_mass)
    at = project(inputs + begin(draws, inputs, threat.eps), inputs, threat)
    loss, won = victim.value(at, rows)
    strongest.offer(rows, at, loss, won)
    reach = torch.full_like(loss, _FIRST_REACH)
    for query in range(1, queries + 1):
        if won.any():
            kept = ~won
            rows, inputs, at, loss, draws = rows[kept], inputs[kept], at[kept], loss[kept], draws.of(kept.cpu())
            reach = reach[kept]
        if len(rows) == 0:
            return
        places = draws.places[:, query, : 1 if threat.norm == "linf" else 2]
        windows = _windows(places, inputs.shape[2:], _share(query, queries), inputs.device)
        signs = draws.signs[:, query].to(inputs)
        turning = threat.norm == "l2" and query > max(_TURNS_AFTER * queries, _LEAST_BEFORE)
        if turning:
            delta = _turn(at - inputs, windows, signs, threat.eps, reach)
        else:
            delta = change(at - inputs, windows, signs, threat.eps)
        tried = project(inputs + delta, inputs, threat)
        value, won = victim.value(tried, rows)
        better = won | (value > loss)
        if turning:
            reach = torch.where(better, reach * _FURTHER, reach * _NEARER)
        at = torch.where(per_case(better, at), tried, at)
        loss = torch.where(better, value, loss)
        strongest.offer(rows[better], tried[better], value[better], won[better])


def _share(query: int, queries: int) -> float:
    """Share of the image that a window covers: halved at set parts of the budget."""
    return SHARE / 2.0 ** sum(query * 10000 > halving * queries for halving in _HALVINGS)


@dataclass(frozen=True)
class _Windows:
    """One window a case (linf), or two (l2).

    Attributes:
        sides: of a window, along each axis.
        places: (n, 1 or 2, W) flat spatial indices of the values in them.
    """

    sides: tuple[int, ...]
    places: Tensor


def _windows(places: Tensor, spatial: Sequence[int], share: float, device: torch.device) -> _Windows:
    sizes = tuple(spatial) or (1,)
    side = max(round((share * math.prod(sizes)) ** (1 / len(sizes))), 1)
    sides = tuple(min(side, size) for size in sizes)
    flat = torch.zeros((*places.shape[:2], 1), dtype=torch.long)
    for axis, (size, width) in enumerate(zip(sizes, sides, strict=True)):
        start = (places[..., axis] * (size - width + 1)).long().clamp_max(size - width)
        along = start[..., None] + torch.arange(width)
        flat = (flat[..., :, None] * size + along[..., None, :]).flatten(2)
    return _Windows(sides, flat.to(device))


def _stripes(draws: Draws, inputs: Tensor, eps: float) -> Tensor:
    """Stripes of eps or -eps (section 3.3)."""
    return eps * draws.first.to(inputs).expand(inputs.shape)


def _recolour(delta: Tensor, windows: _Windows, signs: Tensor, eps: float) -> Tensor:
    """One window takes eps or -eps, channel by channel (Algorithm 2)."""
    flat = delta.flatten(2) if delta.dim() > 2 else delta[:, :, None]
    places = windows.places[:, :1].expand(-1, flat.shape[1], -1)
    return flat.scatter(2, places, (eps * signs[..., :1]).expand(places.shape)).reshape(delta.shape)


def _tiles(draws: Draws, inputs: Tensor, eps: float) -> Tensor:
    """A grid of bumps of random sign, of length eps in all (section 3.4)."""
    grid = draws.first.to(inputs)
    for axis, size in enumerate(inputs.shape[2:]):
        bump = 1 / (1 + (torch.arange(size) % max(size // _TILES, 1) - size // _TILES // 2).abs()).to(inputs)
        tile = (torch.arange(size, device=inputs.device) * _TILES // size).clamp_max(_TILES - 1)
        grid = grid.index_select(2 + axis, tile) * bump.reshape(-1, *[1] * (inputs.dim() - 3 - axis))
    return eps * grid / per_case(lengths(grid, "l2").clamp_min(1e-30), grid)


def _shift_mass(delta: Tensor, windows: _Windows, signs: Tensor, eps: float) -> Tensor:
    """The second window gives its length to the first, which turns towards a bump and a dent (Algorithm 3)."""
    flat = delta.flatten(2) if delta.dim() > 2 else delta[:, :, None]
    to, away = (windows.places[:, i : i + 1].expand(-1, flat.shape[1], -1) for i in (0, 1))
    bump = _bump_and_dent(windows.sides, delta) * signs[..., :1]
    there = flat.gather(2, to)
    unused = (eps**2 - flat.square().sum((1, 2))).clamp_min(0)
    emptied = flat.scatter(2, away, torch.zeros_like(there))
    # What both windows hold together, and the share of unused length, goes to each channel of the first.
    held = flat.square().sum(2) - emptied.scatter(2, to, torch.zeros_like(there)).square().sum(2)
    length = (held + unused[:, None] / flat.shape[1]).clamp_min(0).sqrt()
    turned = bump + there / there.square().sum(2, keepdim=True).sqrt().clamp_min(1e-30)
    turned = turned / turned.square().sum(2, keepdim=True).sqrt().clamp_min(1e-30)
    moved: Tensor = emptied.scatter(2, to, turned * length[..., None])
    return moved.reshape(delta.shape)


def _turn(delta: Tensor, windows: _Windows, signs: Tensor, eps: float, reach: Tensor) -> Tensor:
    """Turns the whole perturbation a little towards one window, in some of the channels, at length eps.

    Args:
        delta: (n, C, *spatial).
        windows: of the schedule.
        signs: (n, C, 2); a channel whose two signs differ is left out.
        eps: length of what is returned.
        reach: (n,) of the turn, as a share of eps.
    """
    flat = delta.flatten(2) if delta.dim() > 2 else delta[:, :, None]
    places = windows.places[:, :1].expand(-1, flat.shape[1], -1)
    push = signs.mean(2, keepdim=True) * (reach * eps / places.shape[2] ** 0.5)[:, None, None]
    turned = flat.scatter_add(2, places, push.expand(places.shape)).reshape(delta.shape)
    longest = lengths(turned, "l2").clamp_min(1e-30)
    return turned * per_case(eps / longest, turned)


def _bump_and_dent(sides: tuple[int, ...], like: Tensor) -> Tensor:
    """(1, 1, W) of length 1: pyramids of opposite sign in the two halves along the longest axis."""
    axis = max(range(len(sides)), key=lambda a: sides[a])
    halves = (sides[axis] // 2, sides[axis] - sides[axis] // 2)
    parts = [
        sign * _pyramid((*sides[:axis], half, *sides[axis + 1 :]))
        for sign, half in zip((1.0, -1.0), halves, strict=True)
        if half
    ]
    whole = torch.cat(parts, dim=axis).flatten()
    return (whole / whole.square().sum().sqrt()).to(like).reshape(1, 1, -1)


def _pyramid(sides: tuple[int, ...]) -> Tensor:
    """Falls off from the middle with the largest coordinate distance r as the sum of 1 / (k + 1)^2 from k = r on."""
    far = torch.zeros(sides)
    for axis, size in enumerate(sides):
        away = (torch.arange(size) - size // 2).abs().to(far)
        far = torch.maximum(far, away.reshape(-1, *[1] * (len(sides) - 1 - axis)).expand(sides))
    steps = 1 / (torch.arange(max(sides) // 2 + 1) + 1.0).square()
    return steps.flip(0).cumsum(0).flip(0)[far.long()]
