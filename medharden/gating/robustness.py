"""The endpoints under attack: of all attacked cases, of those that the original answers rightly, and of each class.

An attack that hides disease is not the harm of one that invents it, and where nine in ten are normal, robust accuracy
says next to nothing of the tenth. So each class, or each state of a finding, has a floor and is held against the
original.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medharden.gating.groups import Flags, Group, groups
from medharden.gating.paired import Pair, compare, noninferiority, paired_endpoint
from medharden.gating.shares import at_least, nobody, share_of
from medharden.gating.units import on_enough_units
from medharden.gating.words import apart
from medharden.protocol import Bound, Protocol
from medharden.record import CaseTable, Endpoint, Verdict

__all__ = ["REPORTED", "change_name", "never_won", "robust_endpoints", "robust_name"]

REPORTED = "reported"


def robust_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """Every endpoint under attack.

    Args:
        protocol: floors, least gain, margins of recall, alpha.
        classes: in the order of the model's outputs.
        cases: `original` in it is the comparator; the patients are the units of analysis.
    """
    wanted, alpha = protocol.endpoints.robustness, protocol.endpoints.alpha_per_look
    composite = cases.subjects["composite"].robust
    every = at_least(
        "robust_floor",
        "robust_floor",
        share_of(composite, cases.attacked, cases, alpha),
        wanted.floor,
        "robust accuracy",
        "robust",
        wanted.justification or "",
    )
    for endpoint in (every, _gain(protocol, cases), _gain_where_right(protocol, cases)):
        yield on_enough_units(endpoint)
    role = "co-primary" if wanted.classes == "co-primary" else REPORTED
    for group in groups(protocol, classes, cases):
        for endpoint in _of_class(group, protocol, cases):
            yield replace(on_enough_units(endpoint), role=role)


def robust_name(group: Group) -> str:
    """Of the endpoint on a class's floor, such as `robust_sensitivity` or `robust_recall:CLASS`."""
    return f"robust_{group.name}"


def change_name(group: Group) -> str:
    """Of the endpoint that holds a class under attack against the original, such as `robust_sensitivity_change`."""
    side, colon, name = group.name.partition(":")
    return f"robust_{side}_change{colon}{name}"


def never_won(cases: CaseTable) -> str:
    """Why nothing is shown where no attack beat anybody, or nothing."""
    attacked = cases.attacked
    for name in ("original", "composite"):
        if bool((cases.right(name) & attacked & ~cases.subjects[name].robust).any()):
            return ""
    return (
        "attacks: of the suite none won on any case, of the original or of the release, so nothing is known of "
        "robustness: the threat is too small or the suite too weak to tell the two apart"
    )


def _gain(protocol: Protocol, cases: CaseTable) -> Endpoint:
    """Whether the composite is right more often under attack than the original, by more than the least gain."""
    least = protocol.endpoints.robustness.gain
    pair = _under_attack(cases.attacked, least, protocol, cases)
    lower = pair.test.interval[0]
    if pair.test.shown:
        verdict, text = Verdict.PASS, f"{pair.limit} {apart(lower, 'is above', least, 'pp')} {pair.seen}"
    elif pair.test.estimate <= least:
        verdict = Verdict.FAIL
        text = f"under attack the composite is not better than the original {pair.seen}"
        if pair.test.estimate > 0.0:
            text = f"the observed gain {apart(pair.test.estimate, 'is not above', least, 'pp')} {pair.seen}"
    else:
        verdict = Verdict.INCONCLUSIVE
        what = f"a gain above {least:g}" if least else "a gain"
        text = f"{pair.limit} {apart(lower, 'is not above', least, 'pp')} {pair.seen}; {what} under attack is not shown"
    justification = protocol.endpoints.robustness.justification or ""
    reason = f"robust_gain: {text}"
    return paired_endpoint("robust_gain", "robust_gain", verdict, pair, reason, least, justification=justification)


def _gain_where_right(protocol: Protocol, cases: CaseTable) -> Endpoint:
    """The same among the cases that the original answers rightly when clean, where no clean gain can stand for it."""
    name = "robust_gain_where_right"
    rows = cases.attacked & cases.right("original")
    if not rows.any():
        return nobody(name, "robust_gain", "of the attacked cases the original answers none rightly", 0.0, protocol)
    pair = _under_attack(rows, 0.0, protocol, cases)
    lower, estimate = pair.test.interval[0], pair.test.estimate
    among = f"{pair.seen} of the cases that the original answers rightly when clean"
    if pair.test.shown:
        verdict, text = Verdict.PASS, f"{pair.limit} {apart(lower, 'is above', 0.0, 'pp')} {among}"
    elif estimate < 0.0:
        verdict, text = Verdict.FAIL, f"attacks win on the composite more often than on the original {among}"
    else:
        verdict = Verdict.INCONCLUSIVE
        text = f"{pair.limit} {apart(lower, 'is not above', 0.0, 'pp')} {among}; that fewer attacks win is not shown"
    why = protocol.endpoints.robustness.justification or ""
    return paired_endpoint(name, "robust_gain", verdict, pair, f"{name}: {text}", 0.0, justification=why)


def _of_class(group: Group, protocol: Protocol, cases: CaseTable) -> Iterator[Endpoint]:
    """A class's floor, and the class under attack against the original, at the margin of its clean recall."""
    wanted, alpha = protocol.endpoints.robustness, protocol.endpoints.alpha_per_look
    floor, bound = wanted.floor_of(*group.keys), _margin(group, protocol)
    rows, why = group.rows & cases.attacked, floor.justification or ""
    before, after = group.robust("original", cases), group.robust("composite", cases)
    share = share_of(after, rows, cases, alpha)
    title = f"robust_{group.title}"
    endpoint = at_least(title, "robust_floor", share, floor.floor, "the share that stands", "robust", why)
    yield replace(endpoint, name=robust_name(group))
    name = change_name(group)
    if not rows.any():
        yield nobody(name, "robust_change", "no such case was attacked", -bound.margin, protocol)
        return
    pair = compare(before, after, rows, cases, bound.margin, alpha)
    title = f"{name} ({group.of_class})" if group.of_class else name
    yield noninferiority(name, title, pair, alpha, bound, kind="robust_change")


def _margin(group: Group, protocol: Protocol) -> Bound:
    recall = next(m for m in protocol.endpoints.noninferiority if m.metric == "recall")
    return recall.of(*group.keys)


def _under_attack(rows: Flags, least: float, protocol: Protocol, cases: CaseTable) -> Pair:
    before, after = cases.subjects["original"].robust, cases.subjects["composite"].robust
    return compare(before, after, rows, cases, -least, protocol.endpoints.alpha_per_look, exact=True)
