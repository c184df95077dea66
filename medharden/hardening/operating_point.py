"""The operating point: the branch is to answer each class as often as the original does, on validation.

Robust training moves uncertain cases to the larger class, so sensitivity for a rare one falls while specificity rises.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax
from torch import Tensor

from medharden.hardening.branch import classifier_layer
from medharden.models import Classifier
from medharden.record import Finding

__all__ = ["keep_operating_point", "offsets"]


@torch.no_grad()
def keep_operating_point(
    branch: Classifier,
    inputs: Tensor,
    clean: Tensor,
    robust: Tensor,
    names: Sequence[str],
    *,
    temperature: float,
    multilabel: bool,
) -> tuple[Tensor, Finding]:
    """Shifts the branch's logits, in place, so that it answers each class as often as the original on these cases.

    A constant is added to each logit, in the bias of the layer that makes them. Labels are not looked at. How often a
    class is answered is taken as its mean probability: a count of answers hangs on the few cases beside the threshold.

    Args:
        branch: trained; its last layer's bias is changed.
        inputs: (N, C, *spatial) validation cases; the first few check that the shift does what it should.
        clean: (N, K) logits of the clean path, decision bias added, over its temperature.
        robust: (N, K) logits of the branch, decision bias added, over its temperature.
        names: of the classes, or findings.
        temperature: of the branch.
        multilabel: whether the columns are findings.

    Returns:
        (K,) what was added to the branch's logits, and the finding that says so.
    """
    wanted = clean.double().sigmoid().mean(0) if multilabel else clean.double().softmax(1).mean(0)
    shift = temperature * offsets(robust, wanted, multilabel=multilabel)
    if not _add(branch, shift, inputs):
        message = (
            "The layer that makes the robust branch's logits has no bias, so its operating point could not be set to "
            "the original's."
        )
        return torch.zeros_like(shift), Finding("hardening.operating_point", "warning", message)
    added = ", ".join(f"'{name}' {value:+.2f}" for name, value in zip(names, shift.tolist(), strict=True))
    message = (
        f"So that on {len(inputs)} validation cases the robust branch answers each class as often as the original, "
        f"its logits were shifted: {added}."
    )
    return shift, Finding("hardening.operating_point", "info", message)


def offsets(logits: Tensor, wanted: Tensor, *, multilabel: bool) -> Tensor:
    """(K,) what has to be added to logits for each class's mean probability to be as wanted.

    They minimise the convex sum over cases of log-partition less what is wanted, whose gradient is the difference of
    both (as in Darroch and Ratcliff 1972), plus half their square, which keeps them finite where hardly a case is
    uncertain.

    Args:
        logits: (N, K).
        wanted: (K,) mean probabilities.
        multilabel: whether the columns are findings, each with a probability of its own.
    """
    values, aim = logits.double().cpu().numpy(), wanted.double().cpu().numpy()

    def excess(added: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, np.ndarray]:
        moved = values + added
        if multilabel:
            partition, mean = np.logaddexp(0, moved).sum(), expit(moved).mean(0)
        else:
            partition, mean = logsumexp(moved, axis=1).sum(), softmax(moved, axis=1).mean(0)
        value = partition - len(values) * (aim @ added) + added @ added / 2
        return value / len(values), mean - aim + added / len(values)

    return torch.from_numpy(minimize(excess, np.zeros(len(aim)), jac=True, method="BFGS").x).to(logits)


def _add(branch: Classifier, shift: Tensor, inputs: Tensor) -> bool:
    """Adds to the bias of the layer that makes the logits; false, and nothing is done, where they do not follow."""
    bias, few = getattr(classifier_layer(branch), "bias", None), inputs[:4]
    own = shift - shift[0] if branch.record.one_logit else shift
    if not isinstance(bias, Tensor) or len(bias) != (1 if branch.record.one_logit else len(shift)):
        return False
    expected, kept = branch(few) + own, bias.clone()
    bias += own[-len(bias) :]
    if torch.allclose(branch(few), expected, rtol=1e-3, atol=1e-3):
        return True
    bias.copy_(kept)
    return False
