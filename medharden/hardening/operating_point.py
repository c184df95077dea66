"""The operating point: a branch that answers a class more or less often than the original is set right on validation.

Robust training moves uncertain cases to the larger class, so sensitivity for a rare one falls while specificity rises.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional

from medharden.hardening.branch import classifier_layer
from medharden.models import Classifier
from medharden.record import Finding

__all__ = ["keep_operating_point", "offsets"]

_LEVEL = 0.05
_MOST_ROUNDS = 100


@torch.no_grad()
def keep_operating_point(
    branch: Classifier,
    inputs: Tensor,
    clean: Tensor,
    robust: Tensor,
    patients: Sequence[str],
    names: Sequence[str],
    *,
    multilabel: bool,
) -> tuple[Tensor, tuple[Finding, ...]]:
    """Shifts the branch's logits, in place, where it answers some class significantly more or less often.

    Whether it does is an exact sign test on the patients whose answers change the count of a class, at .05 over all
    classes (Bonferroni). Then every class is to be answered as often as the original answers it on these cases: a
    constant is added to each logit, in the bias of the layer that makes them. Labels are not looked at.

    Args:
        branch: trained; its last layer's bias is changed.
        inputs: (N, C, *spatial) validation cases; the first few check that the shift does what it should.
        clean: (N, K) logits of the clean path, decision bias added.
        robust: (N, K) logits of the branch, decision bias added.
        patients: of the cases.
        names: of the classes, or findings.
        multilabel: whether the columns are findings.

    Returns:
        (K,) what was added to the branch's logits, and a finding where the counts differ.
    """
    before, now = _given(clean, multilabel), _given(robust, multilabel)
    columns = range(1, 2) if len(names) == 2 and not multilabel else range(len(names))
    moved = [k for k in columns if _p_value(before[:, k], now[:, k], patients) * len(columns) < _LEVEL]
    if not moved:
        return torch.zeros_like(robust[0]), ()
    shift = offsets(robust, before.sum(0), multilabel=multilabel)
    changes = ", ".join(f"'{names[k]}' {int(now[:, k].sum())} times, not {int(before[:, k].sum())}" for k in moved)
    message = f"On {len(now)} validation cases the robust branch does not answer as often as the original: {changes}."
    if not _add(branch, shift, inputs):
        reason = " The layer that makes its logits has no bias, so its operating point stays moved."
        return torch.zeros_like(shift), (Finding("hardening.operating_point", "warning", message + reason),)
    added = ", ".join(f"'{name}' {value:+.2f}" for name, value in zip(names, shift.tolist(), strict=True))
    mended = f" Its logits were shifted to the original's counts: {added}."
    return shift, (Finding("hardening.operating_point", "info", message + mended),)


def offsets(logits: Tensor, wanted: Tensor, *, multilabel: bool) -> Tensor:
    """(K,) what has to be added to logits for each class to be answered, or each finding present, as often as wanted.

    Each threshold in turn is put halfway between the two cases it has to part, until all counts hold. A class that is
    wanted for no case or for all is left alone.

    Args:
        logits: (N, K), decision bias added.
        wanted: (K,) counts.
        multilabel: whether the columns are findings.
    """
    values, added = logits.double(), torch.zeros(logits.shape[1], dtype=torch.double, device=logits.device)
    for _ in range(_MOST_ROUNDS):
        for k, count in enumerate(wanted.tolist()):
            if 0 < count < len(values):
                leads = _leads(values + added, multilabel)[:, k].sort(descending=True).values
                added[k] -= (leads[count - 1] + leads[count]) / 2
        if bool((_given(values + added, multilabel).sum(0) == wanted).all()):
            break
    return (added if multilabel else added - added.mean()).to(logits)


def _given(logits: Tensor, multilabel: bool) -> Tensor:
    """(N, K) bool: the class that is answered, or the findings that are present."""
    if multilabel:
        return logits > 0
    return functional.one_hot(logits.argmax(1), logits.shape[1]).bool()


def _leads(logits: Tensor, multilabel: bool) -> Tensor:
    """(N, K) by how much each class leads the best other one; of findings, the logits."""
    if multilabel:
        return logits
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None, :].masked_fill(own, -torch.inf).amax(2)


def _p_value(before: Tensor, now: Tensor, patients: Sequence[str]) -> float:
    """Of the exact sign test on patients, that a class is answered as often as before."""
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    change = np.bincount(patient, weights=(now.int() - before.int()).cpu().numpy())
    up, down = int((change > 0).sum()), int((change < 0).sum())
    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


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
