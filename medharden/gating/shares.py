"""Endpoints on one share of cases, held against a floor or a budget by exact limits."""

from __future__ import annotations

import numpy as np

from medharden.gating.groups import Flags
from medharden.gating.words import apart, percent, sample
from medharden.protocol import Protocol
from medharden.record import CaseTable, Endpoint, Verdict
from medharden.stats import Share, share_interval

__all__ = ["at_least", "at_most", "nobody", "share_of"]


def share_of(hits: Flags, rows: Flags, cases: CaseTable, alpha: float) -> Share:
    """The share of hits among the chosen rows, by patient, with limits at 1 - 2 alpha."""
    return share_interval(hits[rows], np.asarray(cases.patient)[rows].tolist(), level=1.0 - 2.0 * alpha)


def at_least(name: str, kind: str, share: Share, floor: float, what: str, count: str, justification: str) -> Endpoint:
    """Whether a share is shown to reach a floor.

    Args:
        name: of the endpoint, with what it is of.
        kind: of the endpoint.
        share: of the cases.
        floor: in [0, 1].
        what: is shared, such as `robust accuracy`.
        count: what the counted cases are, such as `robust`.
        justification: the protocol's reason for the floor.
    """
    limit = f"lower {percent(share.level)} limit of {what}"
    if share.lower >= floor:
        verdict, text = Verdict.PASS, f"{limit} {apart(share.lower, 'reaches', floor, '%')}"
    elif share.cases and share.estimate < floor:
        verdict, text = Verdict.FAIL, f"{what} {apart(share.estimate, 'is below', floor, '%')}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"{limit} {apart(share.lower, 'does not reach', floor, '%')}"
    return _endpoint(name, kind, verdict, share, floor, text, count, justification)


def at_most(name: str, kind: str, share: Share, budget: float, what: str, count: str) -> Endpoint:
    """Whether a share is shown to be within a budget; as `at_least`."""
    limit = f"upper {percent(share.level)} limit of {what}"
    if share.upper <= budget:
        verdict, text = Verdict.PASS, f"{limit} {apart(share.upper, 'is within', budget, '%')}"
    elif share.estimate > budget:
        verdict, text = Verdict.FAIL, f"{what} {apart(share.estimate, 'exceeds', budget, '%')}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"{limit} {apart(share.upper, 'exceeds', budget, '%')}"
    return _endpoint(name, kind, verdict, share, budget, text, count, "")


def _endpoint(
    name: str, kind: str, verdict: Verdict, share: Share, limit: float, text: str, what: str, justification: str
) -> Endpoint:
    seen = sample(share.cases, share.patients, None, f"{share.count} {what}")
    return Endpoint(
        name=name,
        kind=kind,
        verdict=verdict,
        estimate=share.estimate,
        lower=share.lower,
        upper=share.upper,
        level=share.level,
        limit=limit,
        n=share.cases,
        patients=share.patients,
        table=(),
        smallest_margin=None,
        needed=None,
        method=share.method,
        justification=justification,
        reason=f"{name}: {text} {seen}",
    )


def nobody(name: str, kind: str, why: str, limit: float, protocol: Protocol, *, lowest: float = -1.0) -> Endpoint:
    """An endpoint on no case at all: the widest limits there are.

    Args:
        name: of the endpoint.
        kind: of it.
        why: there is none.
        limit: that it is held against.
        protocol: gives the level.
        lowest: value there can be.
    """
    return Endpoint(
        name=name,
        kind=kind,
        verdict=Verdict.INCONCLUSIVE,
        estimate=0.0,
        lower=lowest,
        upper=1.0,
        level=1.0 - 2.0 * protocol.endpoints.alpha_per_look,
        limit=limit,
        n=0,
        patients=0,
        table=(),
        smallest_margin=None,
        needed=None,
        method="not estimated: there is no case",
        justification="",
        reason=f"{name}: {why}",
    )
