"""An endpoint's estimate, limits and bound as everybody reads them: terminal, page, PDF, card and Markdown alike."""

from __future__ import annotations

from medharden.record import Endpoint, Verdict
from medharden.reporting.numbers import (
    percent,
    percent_interval,
    points,
    points_interval,
    points_named,
    score_change,
    telling_digits,
)

__all__ = ["SCORES", "endpoint_numbers"]

_DIFFERENCES = ("noninferiority", "robust_gain", "robust_change", "subgroup", "shift")
SCORES = ("brier", "grade_error", "kappa")
"""Kinds in a unit of their own."""

_BUDGETS = ("referral", "subgroup_referral")


def endpoint_numbers(e: Endpoint) -> tuple[str, str, str]:
    """Estimate, interval and bound, with as many decimals as it takes to tell the deciding limit from its bound.

    Differences are in percentage points (`pp`), shares in per cent, scores such as Brier's in their own unit.
    """
    if e.kind == "identity":
        return ("equal" if e.verdict is Verdict.PASS else "not equal", "", "bit for bit")
    if e.kind in SCORES:
        falls = e.kind == "kappa"
        digits = telling_digits(e.lower if falls else e.upper, e.limit, score_change)
        interval = f"[{score_change(e.lower, digits)}, {score_change(e.upper, digits)}]"
        bound = f"{'>' if falls else '<'} {score_change(e.limit, digits)}"
        return score_change(e.estimate, digits), interval, bound
    deciding = e.upper if e.kind in _BUDGETS else e.lower
    if e.kind in _DIFFERENCES:
        digits = telling_digits(deciding, e.limit, points)
        interval = points_interval((e.lower, e.upper), digits)
        return points_named(e.estimate, digits), interval, f"> {points_named(e.limit, digits)}"
    digits = telling_digits(deciding, e.limit, percent)
    sign = "≤" if e.kind in _BUDGETS else "≥"
    interval = percent_interval((e.lower, e.upper), digits)
    return percent(e.estimate, digits), interval, f"{sign} {percent(e.limit, digits)}"
