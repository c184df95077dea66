"""Referral of a `guarded` release: how much of it, of whom, clean and under attack, and what a referred case counts as.

A case that is referred is not answered. Counted as right, referral is where the sick can be hidden: of all, of one
class, of one site, or once an attacker has had a hand in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medharden.gating.endpoints import clean_endpoints
from medharden.gating.groups import Flags
from medharden.gating.robustness import REPORTED
from medharden.gating.shares import at_most, share_of
from medharden.gating.units import on_enough_units
from medharden.protocol import CO_PRIMARY, Protocol
from medharden.record import CaseTable, Endpoint, SubjectTable

__all__ = ["as_answered", "referral_endpoints", "referral_problem", "referred_bounds"]

_UNANSWERED = -1
_BOUNDS = {"not_answered": "referred_wrong", "right": "referred_right"}


def referral_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """The clean referral rate of all and of each class, and the rate of all attacked cases."""
    fusion, alpha = protocol.fusion, protocol.endpoints.alpha_per_look
    released = cases.subjects["composite"]
    every = np.ones(len(cases.case), dtype=np.bool_)
    parts = [("referral", every, fusion.referral_budget)]
    parts += [
        (f"referral:{name}", _of(k, cases), fusion.referral_by_class.get(name, fusion.referral_budget))
        for k, name in enumerate(classes)
    ]
    for name, rows, budget in parts:
        share = share_of(released.referred, rows, cases, alpha)
        yield on_enough_units(at_most(name, "referral", share, budget, "the clean referral rate", "referred"))
    if released.referred_attacked is not None:
        share = share_of(released.referred_attacked, cases.attacked, cases, alpha)
        what = "the referral rate under attack"
        yield on_enough_units(
            at_most("referral_attacked", "referral", share, fusion.referral_attacked, what, "referred")
        )


def referred_bounds(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """Accuracy and recall with referred cases counted as wrong, and as right; what the protocol does not count by.

    Between the two lies every reader, and the first is by intention to diagnose. They decide nothing: the endpoints
    without a prefix do, by what `fusion.referred.counts_as` says.

    Args:
        protocol: metrics, margins, alpha.
        classes: in the order of the model's outputs.
        cases: units of analysis, with the answers as given.
    """
    if protocol.fusion.mode != "guarded" or not cases.subjects["composite"].referred.any():
        return
    counted = tuple(m for m in protocol.endpoints.noninferiority if m.metric in CO_PRIMARY)
    wanted = protocol.endpoints.model_copy(update={"noninferiority": counted, "multiplicity": "all"})
    plain = protocol.model_copy(update={"endpoints": wanted})
    for counts_as, prefix in _BOUNDS.items():
        if counts_as == protocol.fusion.referred.counts_as:
            continue
        subjects = {name: _counted(subject, counts_as, cases) for name, subject in cases.subjects.items()}
        for e in clean_endpoints(plain, classes, replace(cases, subjects=subjects)):
            yield replace(e, name=f"{prefix}:{e.name}", reason=f"{prefix}:{e.reason}", role=REPORTED)


def as_answered(protocol: Protocol, cases: CaseTable) -> CaseTable:
    """The table with referred cases counted as the protocol says: as not answered, unless it gives a reason.

    Scores (AUROC, Brier) stay: they are of the probabilities, which stand beside the flag.
    """
    counts_as = protocol.fusion.referred.counts_as
    subjects = {name: _counted(subject, counts_as, cases) for name, subject in cases.subjects.items()}
    return replace(cases, subjects=subjects)


def referral_problem(subject: SubjectTable, mode: str, name: str, cases: CaseTable) -> str:
    """What is wrong with a subject's referrals, or nothing."""
    guarded = mode == "guarded" and name == "composite"
    if not guarded and bool(subject.referred.any()):
        return "cases were referred, which a guarded release alone does"
    if guarded and subject.referred_attacked is None:
        return "there is no outcome of referral under attack"
    if subject.referred_attacked is not None and bool((subject.referred_attacked & ~cases.attacked).any()):
        return "a case was referred under attack that was not attacked"
    return ""


def _counted(subject: SubjectTable, counts_as: str, cases: CaseTable) -> SubjectTable:
    if counts_as == "model_answer" or not subject.referred.any():
        return subject
    referred: Flags = subject.referred if subject.predicted.ndim == 1 else subject.referred[:, None]
    other = cases.label if counts_as == "right" else _UNANSWERED
    return replace(subject, predicted=np.where(referred, other, subject.predicted))


def _of(k: int, cases: CaseTable) -> Flags:
    """(N,) who has the class or finding."""
    return np.asarray(cases.label[:, k] == 1 if cases.multilabel else cases.label == k)
