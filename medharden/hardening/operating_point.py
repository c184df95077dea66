"""The operating point: the branch is to answer each class as often as the original does, on validation.

Robust training moves uncertain cases to the larger class, so sensitivity for a rare one falls while specificity rises.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
import torch
from torch import Tensor

from medharden.hardening.branch import classifier_layer
from medharden.models import Classifier, probabilities
from medharden.record import Finding
from medharden.rows import Cases

__all__ = ["OPERATING_POINT", "keep_operating_point", "operating_shift"]

# Share of the calibrated spread over which a case's answer counts in part. At 1, means of probability, cases far from
# the decision threshold weigh in; towards 0, counts of answers, the few beside it decide. From .35 down to .12 it made
# little difference on development folds (docs/benchmarks.md).
_SPREAD = 0.25


_CHECKED = 4  # cases, twice each
OPERATING_POINT = 2 * _CHECKED
"""Cases that the branch answers for `keep_operating_point`."""
_NONE = 0.005  # of a logit: reads as 0.00


@torch.no_grad()
def keep_operating_point(
    branch: Classifier,
    inputs: Cases,
    clean: Tensor,
    robust: Tensor,
    names: Sequence[str],
    *,
    temperature: float,
    multilabel: bool,
) -> tuple[Tensor, Finding]:
    """Shifts the branch's logits, in place, so that it answers each class as often as the original on these cases.

    A constant is added to each logit, in the bias of the layer that makes them, see `operating_shift`. Labels are not
    looked at.

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
    shift = temperature * operating_shift(clean, robust, multilabel=multilabel)
    if not _add(branch, shift, inputs):
        message = (
            "No layer with a bias makes the robust branch's logits, so its operating point could not be set to the "
            "original's."
        )
        return torch.zeros_like(shift), Finding("hardening.operating_point", "warning", message)
    if bool((shift.abs() < _NONE).all()):
        message = (
            f"On {len(inputs)} validation cases the robust branch answers each class as often as the original does, so "
            "its logits were not shifted."
        )
        return shift, Finding("hardening.operating_point", "info", message)
    added = ", ".join(f"'{name}' {value:+.2f}" for name, value in zip(names, shift.tolist(), strict=True))
    message = (
        f"So that on {len(inputs)} validation cases the robust branch answers each class as often as the original, "
        f"its logits were shifted: {added}."
    )
    return shift, Finding("hardening.operating_point", "info", message)


def operating_shift(clean: Tensor, robust: Tensor, *, multilabel: bool) -> Tensor:
    """(K,) what has to be added to the branch's calibrated logits for it to answer each class as often as the original.

    How often a class is answered is the mean of softmax(z / .25), of findings of the sigmoid: a smoothed count, in
    which a case near the decision threshold counts in part. A plain count hangs on the few cases beside the threshold,
    a mean of probabilities on all that lie far from it.

    The shift u minimises the convex sum over cases of .25 log-partition((z + u) / .25) less what is wanted of u, whose
    gradient is the difference of both counts (as in Darroch and Ratcliff 1972), plus half the square of u, which keeps
    it finite where hardly a case is uncertain; it leaves a count off by u cases.

    Args:
        clean: (N, K) logits of the original, decision bias added, over its temperature.
        robust: (N, K) logits of the branch, decision bias added, over its temperature.
        multilabel: whether the columns are findings, each with a probability of its own.
    """
    values = robust.cpu().double().numpy() / _SPREAD
    wanted = probabilities(clean.cpu().double() / _SPREAD, multilabel=multilabel).mean(0).numpy()

    special = scipy.special

    def excess(added: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, np.ndarray]:
        moved = values + added / _SPREAD
        if multilabel:
            partition, mean = np.logaddexp(0, moved).sum(), special.expit(moved).mean(0)
        else:
            partition, mean = special.logsumexp(moved, axis=1).sum(), special.softmax(moved, axis=1).mean(0)
        value = _SPREAD * partition - len(values) * (wanted @ added) + added @ added / 2
        return value / len(values), mean - wanted + added / len(values)

    return torch.from_numpy(scipy.optimize.minimize(excess, np.zeros(len(wanted)), jac=True, method="BFGS").x).to(
        robust
    )


def _add(branch: Classifier, shift: Tensor, inputs: Cases) -> bool:
    """Adds to the bias of the layer that makes the logits; false, and nothing is done, where they do not follow."""
    bias, few = getattr(classifier_layer(branch), "bias", None), inputs[:_CHECKED]
    own = shift - shift[0] if branch.record.one_logit else shift
    if not isinstance(bias, Tensor) or len(bias) != (1 if branch.record.one_logit else len(shift)):
        return False
    expected, kept = branch(few) + own, bias.clone()
    bias += own[-len(bias) :]
    if torch.allclose(branch(few), expected, rtol=1e-3, atol=1e-3):
        return True
    bias.copy_(kept)
    return False
