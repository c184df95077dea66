"""Subgroups: clean performance, robustness and referral in each, by class too. Descriptive: no protocol powers them.

A subgroup FAILs where harm is shown: the whole interval lies beyond the margin, below the floor or above the budget,
by exact limits, on however few cases. One in which neither harm nor its absence is shown is INCONCLUSIVE and named
among the verdict's reasons, with the cases that it would take; it does not hold the release up, for most subgroups are
too small to show anything, and a rule that demanded it of each would be met by declaring none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from medharden.gating.groups import Flags, groups
from medharden.gating.paired import Pair, compare, paired_endpoint
from medharden.gating.shares import at_least, at_most, share_of
from medharden.gating.words import apart, sample
from medharden.protocol import Protocol
from medharden.record import CaseTable, Endpoint, Finding, Verdict
from medharden.stats import cases_needed

__all__ = ["subgroup_endpoints", "subgroup_findings"]

_CHANGE, _FLOOR, _REFERRAL = "subgroup", "subgroup_floor", "subgroup_referral"


def subgroup_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """Every comparison and share in each group of each declared column, at the limits of the whole."""
    for column, values in cases.groups.items():
        held = np.asarray(values)
        for value in sorted(set(values)):
            yield from _of_group(f"{column}={value}", held == value, protocol, classes, cases)


def subgroup_findings(subgroups: Iterable[Endpoint]) -> tuple[Finding, ...]:
    """A finding that names the subgroups in which nothing is shown, and how many cases it would take."""
    open_ones = [f"{e.name} ({_wanting(e)})" for e in subgroups if e.verdict is Verdict.INCONCLUSIVE]
    if not open_ones:
        return ()
    message = (
        "Subgroups are descriptive: no power was planned for them, and they hold the verdict back only where harm is "
        f"shown. Neither harm nor its absence is shown in: {', '.join(open_ones)}."
    )
    return (Finding("gate.subgroups_inconclusive", "warning", message),)


def _of_group(
    name: str, rows: Flags, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable
) -> Iterator[Endpoint]:
    margins = {m.metric: m for m in protocol.endpoints.noninferiority}
    margin = margins["accuracy"].margin
    yield _change(name, cases.right("original"), cases.right("composite"), rows, margin, protocol, cases)
    attacked = rows & cases.attacked
    before, after = (cases.subjects[subject].robust for subject in ("original", "composite"))
    if attacked.any():
        yield _change(f"{name}:robust_change", before, after, attacked, margin, protocol, cases)
        yield _floor(f"{name}:robust_floor", after, attacked, protocol.endpoints.robustness.floor, protocol, cases)
    for group in groups(protocol, classes, cases):
        within, bound = rows & group.rows, margins["recall"].of(*group.keys)
        if within.any():
            both = group.right("original", cases), group.right("composite", cases)
            yield _change(f"{name}:{group.name}", *both, within, bound.margin, protocol, cases)
        within &= cases.attacked
        if within.any():
            floor, robust = protocol.endpoints.robustness.floor_of(*group.keys).floor, group.robust("composite", cases)
            yield _floor(f"{name}:robust_{group.name}", robust, within, floor, protocol, cases)
    yield from _referral(name, rows, protocol, cases)


def _change(
    name: str, before: Flags, after: Flags, rows: Flags, margin: float, protocol: Protocol, cases: CaseTable
) -> Endpoint:
    """A paired change: the absence of harm by the lower limit of the whole's endpoint, harm by an exact upper one."""
    alpha, fewest = protocol.endpoints.alpha_per_look, protocol.subgroups.min_cases
    pair = compare(before, after, rows, cases, margin, alpha)
    upper = compare(before, after, rows, cases, 0.0, alpha, exact=True).test.interval[1]
    verdict, text = _verdict(pair, upper, margin, fewest)
    discordance = max(pair.table[1] + pair.table[2], 1) / pair.test.cases
    effect = pair.test.cases / pair.test.effective_cases
    needed = max(math.ceil(cases_needed(discordance, margin, alpha=alpha) * effect), fewest)
    endpoint = paired_endpoint(name, _CHANGE, verdict, pair, f"{name}: {text}", -margin, needed=needed)
    return replace(endpoint, upper=upper, method=f"{endpoint.method}; upper limit exact (Gaffke 2005)")


def _verdict(pair: Pair, upper: float, margin: float, fewest: int) -> tuple[Verdict, str]:
    lower = pair.test.interval[0]
    if upper < -margin:
        return Verdict.FAIL, f"harm is shown: exact upper limit {apart(upper, 'is below', -margin, 'pp')} {pair.seen}"
    if pair.test.cases < fewest:
        return Verdict.INCONCLUSIVE, f"fewer than the {fewest} cases that the protocol asks of a subgroup {pair.seen}"
    if pair.test.shown:
        return Verdict.PASS, f"{pair.limit} {apart(lower, 'is above', -margin, 'pp')} {pair.seen}"
    return (
        Verdict.INCONCLUSIVE,
        f"{pair.limit} {apart(lower, 'is below', -margin, 'pp')} {pair.seen}; harm is not shown either",
    )


def _floor(name: str, robust: Flags, rows: Flags, floor: float, protocol: Protocol, cases: CaseTable) -> Endpoint:
    """A share under attack against the floor of the whole: harm where even its upper limit is below."""
    share = share_of(robust, rows, cases, protocol.endpoints.alpha_per_look)
    endpoint = at_least(name, _FLOOR, share, floor, "the share that stands", "robust", "")
    seen = sample(share.cases, share.patients, None, f"{share.count} robust")
    harm = f"harm is shown: exact upper limit {apart(share.upper, 'is below', floor, '%')} {seen}"
    return _judged(endpoint, share.upper < floor, harm, protocol)


def _referral(name: str, rows: Flags, protocol: Protocol, cases: CaseTable) -> Iterator[Endpoint]:
    released = cases.subjects["composite"]
    if protocol.fusion.mode != "guarded" or released.referred_attacked is None:
        return
    parts = [
        ("referral", released.referred, rows, protocol.fusion.referral_budget),
        ("referral_attacked", released.referred_attacked, rows & cases.attacked, protocol.fusion.referral_attacked),
    ]
    for what, flags, within, budget in parts:
        if within.any():
            share = share_of(flags, within, cases, protocol.endpoints.alpha_per_look)
            endpoint = at_most(f"{name}:{what}", _REFERRAL, share, budget, "the referral rate", "referred")
            seen = sample(share.cases, share.patients, None, f"{share.count} referred")
            harm = f"harm is shown: exact lower limit {apart(share.lower, 'is above', budget, '%')} {seen}"
            yield _judged(endpoint, share.lower > budget, harm, protocol)


def _judged(endpoint: Endpoint, harmed: bool, harm: str, protocol: Protocol) -> Endpoint:
    """A share's endpoint under the rule of subgroups: FAIL where harm is shown alone, PASS on enough cases alone."""
    fewest = protocol.subgroups.min_cases
    if harmed:
        return replace(endpoint, verdict=Verdict.FAIL, reason=f"{endpoint.name}: {harm}")
    if endpoint.verdict is Verdict.PASS and endpoint.n >= fewest:
        return endpoint
    return replace(endpoint, verdict=Verdict.INCONCLUSIVE)


def _wanting(endpoint: Endpoint) -> str:
    """How many cases there are, and about how many it would take where that can be told."""
    if endpoint.needed is None or endpoint.needed <= endpoint.n:
        return f"n = {endpoint.n}"
    return f"n = {endpoint.n} of about {endpoint.needed} needed"
