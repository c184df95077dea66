"""The endpoints on one proportion: the robustness floor and the referral budget, by exact limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medharden.gating.words import apart, percent, sample
from medharden.protocol import Protocol
from medharden.record import CaseTable, Endpoint, Verdict
from medharden.stats import Share, share_interval

__all__ = ["referral", "robust_floor"]


def robust_floor(protocol: Protocol, cases: CaseTable) -> Endpoint:
    """Whether the composite's robust accuracy on the attacked cases reaches the protocol's floor."""
    wanted = protocol.endpoints.robustness
    share = _share(cases.subjects["composite"].robust, cases.attacked, cases, protocol.endpoints.alpha)
    limit = f"lower {percent(share.level)} limit of robust accuracy"
    if share.lower >= wanted.floor:
        verdict, text = Verdict.PASS, f"{limit} {apart(share.lower, 'reaches', wanted.floor)}"
    elif share.estimate < wanted.floor:
        verdict, text = Verdict.FAIL, f"robust accuracy {apart(share.estimate, 'is below', wanted.floor)}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"{limit} {apart(share.lower, 'does not reach', wanted.floor)}"
    return _endpoint("robust_floor", verdict, share, wanted.floor, text, "robust", wanted.justification or "")


def referral(protocol: Protocol, cases: CaseTable) -> Endpoint:
    """Whether `guarded` refers no more clean cases than the protocol's budget."""
    budget = protocol.fusion.referral_budget
    every = np.ones(len(cases.case), dtype=np.bool_)
    share = _share(cases.subjects["composite"].referred, every, cases, protocol.endpoints.alpha)
    limit = f"upper {percent(share.level)} limit of the clean referral rate"
    if share.upper <= budget:
        verdict, text = Verdict.PASS, f"{limit} {apart(share.upper, 'is within', budget)}"
    elif share.estimate > budget:
        verdict, text = Verdict.FAIL, f"clean referral rate {apart(share.estimate, 'exceeds', budget)}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"{limit} {apart(share.upper, 'exceeds', budget)}"
    return _endpoint("referral", verdict, share, budget, text, "referred", "")


def _share(flags: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_], cases: CaseTable, alpha: float) -> Share:
    return share_interval(flags[rows], np.asarray(cases.patient)[rows].tolist(), level=1.0 - 2.0 * alpha)


def _endpoint(
    name: str, verdict: Verdict, share: Share, limit: float, text: str, what: str, justification: str
) -> Endpoint:
    seen = sample(share.cases, share.patients, None, f"{share.count} {what}")
    return Endpoint(
        name=name,
        kind=name,
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
