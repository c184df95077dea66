"""Fusion of two paths that answer several findings each: the mixture, what refers, and the attacker's view."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medharden.models.answers import calibrated
from medharden.record import FusionRecord

__all__ = ["finding_support", "findings_refer", "guarded_findings", "mix_findings"]


def mix_findings(clean: Tensor, robust: Tensor, fusion: FusionRecord, bias: Tensor) -> Tensor:
    """Log-odds of p = (1-a) sigmoid(z_c') + a sigmoid(z_r') of each finding, computed in log space.

    z' are the logits calibrated about the decision threshold, see `calibrated`. The sigmoid of what is returned is p.

    Args:
        clean: (N, L) logits of the clean path.
        robust: (N, L) logits of the robust branch.
        fusion: weight a in (0, 1) and the two temperatures.
        bias: (L,) decision bias.

    Returns:
        (N, L) log p - log(1 - p).
    """
    share = torch.tensor([1 - fusion.weight, fusion.weight], dtype=clean.dtype, device=clean.device).log()
    clean, robust = (
        calibrated(clean, fusion.clean_temperature, bias),
        calibrated(robust, fusion.robust_temperature, bias),
    )
    present = torch.logaddexp(functional.logsigmoid(clean) + share[0], functional.logsigmoid(robust) + share[1])
    absent = torch.logaddexp(functional.logsigmoid(-clean) + share[0], functional.logsigmoid(-robust) + share[1])
    return present - absent


def finding_support(clean: Tensor, robust: Tensor, bias: Tensor, fusion: FusionRecord) -> Tensor:
    """(N, L) log-odds, on the branch, of what the clean path answers to each finding; below 0 where it disagrees.

    Calibrated, and with the decision threshold shifted to one half, as for classes.

    Args:
        clean: (N, L) logits of the clean path.
        robust: (N, L) logits of the robust branch.
        bias: (L,) decision bias.
        fusion: the branch's temperature.
    """
    present = (robust + bias) / fusion.robust_temperature
    return torch.where(clean + bias > 0, present, -present)


def findings_refer(clean: Tensor, robust: Tensor, bias: Tensor, fusion: FusionRecord, least: float) -> Tensor:
    """(N,) bool: where the paths disagree on any finding, or the branch supports any answer by less than `least`.

    Args:
        clean: (N, L) logits of the clean path.
        robust: (N, L) logits of the robust branch.
        bias: (L,) decision bias.
        fusion: the branch's temperature.
        least: log-odds of the referral threshold.
    """
    disagree = (clean + bias > 0) != (robust + bias > 0)
    return disagree.any(1) | (finding_support(clean, robust, bias, fusion).amin(1) < least)


def guarded_findings(clean: Tensor, robust: Tensor, bias: Tensor, fusion: FusionRecord, least: float) -> Tensor:
    """What an attacker of the guarded release faces: each finding's answer, and whether the case is referred.

    The values are exact; the gradients are those of both paths' logits added, and of a soft minimum over what holds
    referral back, so that an attacker works on both paths and on all findings at once.

    Args:
        clean: (N, L) logits of the clean path.
        robust: (N, L) logits of the robust branch.
        bias: (L,) decision bias.
        fusion: the branch's temperature.
        least: log-odds of the referral threshold.

    Returns:
        (N, L + 1): a finding above 0 is present, the last column above 0 refers.
    """
    both = clean + robust
    answered = (clean + bias).detach() + both - both.detach()
    support = finding_support(clean, robust, bias, fusion)
    conditions = torch.cat([support, support - least], dim=1)
    hard, soft = conditions.amin(1, keepdim=True), -torch.logsumexp(-conditions, dim=1, keepdim=True)
    return torch.cat([answered, -(hard.detach() + soft - soft.detach())], dim=1)
