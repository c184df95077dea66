"""The models under evaluation: what each answers on clean input, and whether the clean path is the original."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medharden.models import Classifier, DecisionView, HardenedClassifier, logits_in_batches, state_digest
from medharden.record import Identity
from medharden.rows import Cases, joined, parts

__all__ = ["Subject", "identity_of", "subjects_of"]


@dataclass(frozen=True)
class Subject:
    """One model under evaluation, with its answers and what the attacks did to them."""

    name: str
    view: nn.Module
    bias: Tensor
    logits: Tensor
    referred: Tensor


@torch.no_grad()
def identity_of(
    reference: Classifier, model: HardenedClassifier, inputs: Cases, batch_size: int, against: str
) -> Identity:
    """Whether the released clean path is the original: the state, and every test case's logits in equal batches."""
    first = logits_in_batches(reference, inputs, batch_size)
    second = logits_in_batches(model.clean_path, inputs, batch_size)
    return Identity(
        against=against,
        state_equal=state_digest(reference) == state_digest(model.clean_path),
        logits_equal=torch.equal(first, second),
        max_abs_difference=float((first - second).abs().max()),
        cases=len(inputs),
    )


@torch.no_grad()
def subjects_of(
    reference: Classifier, model: HardenedClassifier, inputs: Cases, batch_size: int
) -> tuple[Subject, Subject, Subject]:
    """The original, the branch and the composite that ships, with their clean answers."""
    bias = model.decision_bias
    none = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    assessed = map(model.assess, parts(inputs, batch_size))
    told = joined((torch.cat([a.logits, a.referred[:, None].to(a.logits)], 1) for a in assessed), len(inputs))
    released = told[:, :-1].contiguous(), told[:, -1] > 0

    def plain(name: str, network: nn.Module) -> Subject:
        return Subject(name, DecisionView(network, bias), bias, logits_in_batches(network, inputs, batch_size), none)

    return (
        plain("original", reference),
        plain("robust_branch", model.robust_branch),
        Subject("composite", model.decision_view(), bias, *released),
    )
