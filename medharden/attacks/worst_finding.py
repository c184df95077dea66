"""One finding pushed as far to its wrong side as the budget allows: what AUROC under attack is measured on.

Attacks of the suite stop at the first wrong answer. A finding that is never called present has none to lose, so its
positives would not be attacked at all, and its AUROC would look untouched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medharden.attacks.pgd import REACH
from medharden.attacks.projections import per_case, project, random_start, steepest
from medharden.attacks.victim import attackable, refers
from medharden.protocol import ThreatModel

__all__ = ["worst_finding", "wrongness"]

_FAR = 1e3  # what is referred scores below every logit


def worst_finding(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    finding: int,
    threat: ThreatModel,
    steps: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Climbs one finding's logit away from its truth, from one random start, and never stops at a success.

    Args:
        model: (N, C, *spatial) within the bounds to (N, L) logits; with a true attribute `refers`, (N, L + 1), where a
            last column above 0 refers. What is referred does not count: there the climb is back towards an answer.
        inputs: (N, C, *spatial) within `threat.bounds`, on the model's device.
        labels: (N, L) in {0, 1}; NaN where unknown: there the input stays as it is.
        finding: its column.
        threat: norm, eps in input units, bounds.
        steps: gradient steps.
        generators: CPU generators, one for all cases or one a case, the only source of randomness.

    Returns:
        (N, C, *spatial) the furthest point that was not referred, the input itself where there is none.
    """
    with attackable(model):
        best, furthest = inputs.clone(), _score(model, inputs, labels, finding).detach()
        start = random_start(inputs.shape, threat, generators, surface=False).to(inputs)
        at = project(inputs + start, inputs, threat)
        for step in range(steps + 1):
            at = at.detach().requires_grad_()
            value = _score(model, at, labels, finding)
            further = value.detach() > furthest
            best[further], furthest[further] = at.detach()[further], value.detach()[further]
            if step < steps:
                gradient = torch.autograd.grad(value.sum(), at)[0].nan_to_num(0.0, 0.0, 0.0)
                moved = at.detach() + REACH[threat.norm] * threat.eps / steps * steepest(gradient, threat.norm)
                at = project(moved, inputs, threat)
    return torch.where(per_case(furthest < -_FAR, best), inputs, best)


def wrongness(logits: Tensor, labels: Tensor, *, refers: bool) -> Tensor:
    """(N, L) how far each finding lies on its wrong side; minus infinity where it is unknown or the case is referred.

    Args:
        logits: (N, L), or (N, L + 1) where the model refers.
        labels: (N, L) in {0, 1}, NaN where unknown.
        refers: whether the last column above 0 refers.
    """
    findings = logits[:, :-1] if refers else logits
    off = torch.where(labels > 0.5, -findings, findings).masked_fill(labels.isnan(), -torch.inf)
    return off.masked_fill(logits[:, -1:] > 0, -torch.inf) if refers else off


def _score(model: nn.Module, points: Tensor, labels: Tensor, finding: int) -> Tensor:
    """(N,) the finding's wrongness; where a case is referred, a value below all such that rises as the flag sinks."""
    logits = model(points)
    off = torch.where(labels[:, finding] > 0.5, -logits[:, finding], logits[:, finding])
    if refers(model):
        flag = logits[:, -1]
        off = torch.where(flag > 0, -flag - _FAR, off.clamp(min=-_FAR))
    return off.masked_fill(labels[:, finding].isnan(), -torch.inf)
