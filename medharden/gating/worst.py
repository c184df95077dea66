"""The group in which the release fares worst: a limit that holds for every group, without a share of alpha for each.

The lower limit of the worst group is the least of the groups' limits, each at the whole level. Whichever group is
truly worst, its own limit lies above the truth with alpha at most, and the least limit lies no higher: so the claim
"every group is within the margin" errs by alpha at most, however many groups there are and however they overlap
(intersection-union; Berger, Technometrics 1982; 24: 295-300). What many groups cost is power.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from medharden.gating.groups import Flags, groups
from medharden.gating.paired import compare, paired_endpoint
from medharden.gating.shares import at_least, nobody, share_of
from medharden.gating.units import on_enough_units
from medharden.gating.words import apart, number, percent
from medharden.protocol import Protocol, WorstGroup
from medharden.record import CaseTable, Endpoint, Verdict

__all__ = ["worst_group_endpoints"]

_NO_GROUP = "no group of the declared columns has cases that count"


@dataclass(frozen=True)
class _Asked:
    """One worst-group endpoint: its name, what is wanted, and the groups that count and that are too small to."""

    name: str
    wanted: WorstGroup
    held: dict[str, Flags]
    few: list[str]
    protocol: Protocol
    cases: CaseTable


def worst_group_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """Every worst-group endpoint that the protocol asks for.

    Args:
        protocol: metrics with margins and floors; alpha.
        classes: in the order of the model's outputs.
        cases: `groups` in it are those of the declared columns; the patients are the units of analysis.
    """
    for wanted in protocol.endpoints.worst_group:
        for name, before, after, rows in _measured(wanted, protocol, classes, cases):
            held, few = _groups(wanted, rows, cases)
            if wanted.margin is not None:
                asked = _Asked(f"worst_group:{name}", wanted, held, few, protocol, cases)
                yield _worst_change(asked, before, after)
            if wanted.floor is not None:
                yield _worst_share(_Asked(f"worst_group_floor:{name}", wanted, held, few, protocol, cases), after)


def _measured(
    wanted: WorstGroup, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable
) -> Iterator[tuple[str, Flags, Flags, Flags]]:
    """Name, right before and after, and which cases count."""
    every = np.ones(len(cases.case), dtype=np.bool_)
    if wanted.metric == "accuracy":
        yield "accuracy", cases.right("original"), cases.right("composite"), every
    elif wanted.metric == "robust":
        yield "robust", cases.subjects["original"].robust, cases.subjects["composite"].robust, cases.attacked
    else:
        for group in groups(protocol, classes, cases):
            yield group.name, group.right("original", cases), group.right("composite", cases), group.rows


def _groups(wanted: WorstGroup, rows: Flags, cases: CaseTable) -> tuple[dict[str, Flags], list[str]]:
    """The groups that count, and the names of those that are too small to."""
    held: dict[str, Flags] = {}
    few = []
    for column in wanted.columns or tuple(cases.groups):
        values = np.asarray(cases.groups.get(column, ()))
        for value in sorted(set(values.tolist())):
            within = (values == value) & rows
            n = int(within.sum())
            if n >= wanted.least_cases:
                held[f"{column}={value}"] = within
            elif n:
                few.append(f"{column}={value} (n = {n})")
    return held, few


def _worst_change(asked: _Asked, before: Flags, after: Flags) -> Endpoint:
    name, wanted, held, protocol, cases = asked.name, asked.wanted, asked.held, asked.protocol, asked.cases
    alpha, margin = protocol.endpoints.alpha_per_look, wanted.margin or 0.0
    if not held:
        return nobody(name, "noninferiority", _NO_GROUP, -margin, protocol)
    pairs = {group: compare(before, after, rows, cases, margin, alpha) for group, rows in held.items()}
    worst = min(pairs, key=lambda group: pairs[group].test.interval[0])
    pair = pairs[worst]
    harmed = [g for g in pairs if _exact_upper(before, after, held[g], cases, alpha) < -margin]
    lower, said = pair.test.interval[0], f"{pair.limit} in the worst of {len(pairs)} groups, {worst},"
    if lower > -margin:
        verdict, text = Verdict.PASS, f"{said} {apart(lower, 'is above', -margin, 'pp')} {pair.seen}"
    elif harmed:
        verdict = Verdict.FAIL
        text = f"harm is shown in {', '.join(harmed)}: the exact upper limit is below {number(-margin, 1, 'pp')}"
    else:
        verdict, text = Verdict.INCONCLUSIVE, f"{said} {apart(lower, 'is below', -margin, 'pp')} {pair.seen}"
    reason = f"{name}: {text}{_left_out(asked.few)}"
    kind = "noninferiority" if wanted.metric != "robust" else "robust_change"
    endpoint = paired_endpoint(name, kind, verdict, pair, reason, -margin, justification=wanted.justification or "")
    method = f"{endpoint.method}; the least limit of {len(pairs)} groups (intersection-union, Berger 1982)"
    return _enough(replace(endpoint, method=method), held, cases)


def _exact_upper(before: Flags, after: Flags, rows: Flags, cases: CaseTable, alpha: float) -> float:
    return compare(before, after, rows, cases, 0.0, alpha, exact=True).test.interval[1]


def _worst_share(asked: _Asked, after: Flags) -> Endpoint:
    name, wanted, held, protocol, cases = asked.name, asked.wanted, asked.held, asked.protocol, asked.cases
    alpha, floor = protocol.endpoints.alpha_per_look, wanted.floor or 0.0
    if not held:
        return nobody(name, "clean_floor", _NO_GROUP, floor, protocol, lowest=0.0)
    shares = {group: share_of(after, rows, cases, alpha) for group, rows in held.items()}
    worst = min(shares, key=lambda group: shares[group].lower)
    what = f"the worst of {len(shares)} groups, {worst}"
    kind = "robust_floor" if wanted.metric == "robust" else "clean_floor"
    endpoint = at_least(name, kind, shares[worst], floor, what, "right", wanted.justification or "")
    harmed = [group for group, share in shares.items() if share.upper < floor]
    if endpoint.verdict is not Verdict.PASS:
        verdict = Verdict.FAIL if harmed else Verdict.INCONCLUSIVE
        level = percent(shares[worst].level)
        text = f"lower {level} limit of {what} {apart(shares[worst].lower, 'does not reach', floor, '%')}"
        if harmed:
            text = f"harm is shown in {', '.join(harmed)}: the exact upper limit is below {number(floor, 1, '%')}"
        endpoint = replace(endpoint, verdict=verdict, reason=f"{name}: {text} (n = {shares[worst].cases})")
    method = f"{endpoint.method}; the least limit of {len(shares)} groups (intersection-union, Berger 1982)"
    return _enough(replace(endpoint, method=method, reason=endpoint.reason + _left_out(asked.few)), held, cases)


def _enough(endpoint: Endpoint, held: dict[str, Flags], cases: CaseTable) -> Endpoint:
    """Not PASS where any group rests on too few patients, be it the worst or not."""
    patients = np.asarray(cases.patient)
    fewest = min(len(set(patients[rows].tolist())) for rows in held.values())
    judged = on_enough_units(replace(endpoint, patients=fewest))
    return replace(judged, patients=endpoint.patients)


def _left_out(few: list[str]) -> str:
    return f"; left out as too small: {', '.join(few)}" if few else ""
