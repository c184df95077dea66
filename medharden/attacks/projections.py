"""The threat's ball: random points in it, steepest directions, and the way back into it.

Shapes are (N, C, *spatial) with any number of spatial dimensions; eps and bounds are in input units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medharden.protocol import ThreatModel

__all__ = ["lengths", "per_case", "project", "random_start", "reach", "steepest", "within"]

_NEWTON_STEPS = 20  # of `reach`; natural images need about five


def per_case(values: Tensor, like: Tensor) -> Tensor:
    """Views (N,) values so that they broadcast over (N, C, *spatial)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def lengths(delta: Tensor, norm: str) -> Tensor:
    """Each case's length in the norm: (N, C, *spatial) to (N,)."""
    if norm == "linf":
        return delta.abs().flatten(1).amax(1)
    # `vector_norm` adds up in sequence: over a volume's voxels it errs by 1e-5, this pairwise sum by 1e-7.
    return delta.flatten(1).square().sum(1).sqrt()


def random_start(
    shape: Sequence[int], threat: ThreatModel, generators: Sequence[torch.Generator], *, surface: bool
) -> Tensor:
    """Draws a perturbation a case: uniform in the ball, or on its surface.

    Args:
        shape: (N, C, *spatial) of the result.
        threat: gives norm and radius; bounds play no part here.
        generators: one for all cases, or one a case, whose draws then don't depend on the other cases.
        surface: stretch each perturbation to the ball's surface, where APGD's reference implementation starts.

    Returns:
        (N, C, *spatial) float32 on the CPU, where the generators live.
    """
    count = shape[0] if len(generators) == 1 else 1
    drawn = [_in_ball((count, *shape[1:]), threat, generator) for generator in generators]
    start = torch.cat(drawn)
    if surface:
        start = start * per_case(threat.eps / lengths(start, threat.norm).clamp_min(1e-30), start)
    return start


def _in_ball(shape: tuple[int, ...], threat: ThreatModel, generator: torch.Generator) -> Tensor:
    if threat.norm == "linf":
        return (2 * torch.rand(shape, generator=generator) - 1) * threat.eps
    direction = steepest(torch.randn(shape, generator=generator), "l2")
    radius = torch.rand(shape[0], generator=generator) ** (1 / max(direction[0].numel(), 1))
    return direction * per_case(radius, direction) * threat.eps


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The unit step that raises the loss fastest: the sign (linf), or the gradient over its length (l2).

    Dividing by the largest entry first keeps the direction of gradients whose squares would underflow: a step
    that shrinks with a tiny gradient would make a saturated model look robust. A zero gradient gives a zero step.
    """
    if norm == "linf":
        return gradient.sign()
    largest = per_case(lengths(gradient, "linf"), gradient)
    scaled = gradient / torch.where(largest > 0, largest, 1.0)
    length = per_case(lengths(scaled, "l2"), gradient)
    return scaled / torch.where(length > 0, length, 1.0)


def project(points: Tensor, inputs: Tensor, threat: ThreatModel) -> Tensor:
    """Brings points back into the ball around their inputs, then into the bounds.

    For linf this is the projection onto the intersection. For l2 it is one projection after the other: the result
    lies in both, as the inputs do.

    Args:
        points: (N, C, *spatial) anywhere.
        inputs: (N, C, *spatial) within the bounds.
        threat: norm, eps and bounds in input units.

    Returns:
        (N, C, *spatial) within eps of the inputs and within the bounds.
    """
    if threat.norm == "linf":
        points = torch.clamp(points, inputs - threat.eps, inputs + threat.eps)
    else:
        delta = points - inputs
        shrink = (threat.eps / lengths(delta, "l2").clamp_min(1e-30)).clamp_max(1.0)
        points = inputs + delta * per_case(shrink, delta)
    return points.clamp(*threat.bounds)


def reach(points: Tensor, gradient: Tensor, rise: Tensor, threat: ThreatModel) -> Tensor:
    """The shortest move within the bounds along which a linear function rises by a given amount.

    Each value moves the way that raises the function, by min(t, room) under linf and min(t |g|, room) under l2, the
    room being what the bounds leave. The rise is then concave and piecewise linear in t, so Newton's method from 0
    comes to the right t from below, in finitely many steps. (The box-constrained projection of Croce & Hein 2020.)

    Args:
        points: (N, C, *spatial) within the bounds.
        gradient: (N, C, *spatial) of the linear function.
        rise: (N,) what it shall rise by; negative to fall.
        threat: norm and bounds.

    Returns:
        (N, C, *spatial) the move; the longest that helps where the bounds don't allow the whole rise.
    """
    scale = lengths(gradient, "linf")
    slope = gradient * per_case(rise.sign() / scale.clamp_min(1e-38), gradient)
    need = (rise.abs() / scale.clamp_min(1e-38)).clamp_max(1e30)
    low, high = threat.bounds
    room = torch.where(slope > 0, high - points, points - low).flatten(1).clamp_min(0)
    steep = slope.flatten(1).abs()
    pace = (steep > 0).to(steep) if threat.norm == "linf" else steep
    reached = torch.zeros_like(need)
    for _ in range(_NEWTON_STEPS):
        open_ = reached[:, None] * pace < room
        risen = (steep * torch.minimum(reached[:, None] * pace, room)).sum(1)
        growth = (steep * pace * open_).sum(1)
        missing = need - risen
        if bool(((missing <= 1e-6 * need) | (growth <= 0)).all()):
            break
        reached = reached + torch.where(growth > 0, missing.clamp_min(0) / growth.clamp_min(1e-30), 0.0)
    return torch.minimum(reached[:, None] * pace, room).reshape(points.shape) * slope.sign()


def within(points: Tensor, inputs: Tensor, threat: ThreatModel, tolerance: float = 1e-6) -> Tensor:
    """Whether each point keeps to the threat model: (N,) bool.

    The tolerance covers float32 rounding; it is relative where eps exceeds 1.
    """
    low, high = threat.bounds
    flat = points.flatten(1)
    inside = (flat.amin(1) >= low - tolerance) & (flat.amax(1) <= high + tolerance)
    return inside & (lengths(points - inputs, threat.norm) <= threat.eps + tolerance * max(1.0, threat.eps))
