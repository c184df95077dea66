"""Subgroups: the change of accuracy in each, with its cases and limits. Descriptive, since no protocol powers them.

A subgroup FAILs only where harm is shown: its upper limit lies below the negative margin. One in which neither harm nor
its absence is shown is INCONCLUSIVE, and says so; it does not hold the release up, for most subgroups are too small
to show anything, and a rule that demanded it of each would be met by declaring none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from medharden.gating.paired import Pair, compare, paired_endpoint
from medharden.gating.words import apart
from medharden.protocol import Protocol
from medharden.record import CaseTable, Endpoint, Finding, Verdict

__all__ = ["subgroup_endpoints", "subgroup_findings"]


def subgroup_endpoints(protocol: Protocol, cases: CaseTable) -> Iterator[Endpoint]:
    """The change of accuracy in each group of each declared column, against the margin of accuracy."""
    original, composite = cases.right("original"), cases.right("composite")
    margin = next(m for m in protocol.endpoints.noninferiority if m.metric == "accuracy")
    for column, values in cases.groups.items():
        groups = np.asarray(values)
        for value in sorted(set(values)):
            pair = compare(original, composite, groups == value, cases, margin.margin, protocol.endpoints.alpha)
            verdict, text = _verdict(pair, margin.margin, protocol.subgroups.min_cases)
            name = f"{column}={value}"
            yield paired_endpoint(name, "subgroup", verdict, pair, f"{name}: {text}", -margin.margin)


def subgroup_findings(subgroups: Iterable[Endpoint]) -> tuple[Finding, ...]:
    """A finding that names the subgroups in which nothing is shown."""
    open_ones = [f"{e.name} (n = {e.n})" for e in subgroups if e.verdict is Verdict.INCONCLUSIVE]
    if not open_ones:
        return ()
    message = (
        "Subgroups are descriptive: no power was planned for them, and they hold the verdict back only where harm is "
        f"shown. Neither harm nor its absence is shown in: {', '.join(open_ones)}."
    )
    return (Finding("gate.subgroups_inconclusive", "warning", message),)


def _verdict(pair: Pair, margin: float, fewest: int) -> tuple[Verdict, str]:
    lower, upper = pair.test.interval
    if pair.test.cases < fewest:
        return Verdict.INCONCLUSIVE, f"fewer than the {fewest} cases that the protocol asks of a subgroup {pair.seen}"
    if upper < -margin:
        return Verdict.FAIL, f"harm is shown: upper limit {apart(upper, 'is below', -margin)} {pair.seen}"
    if pair.test.shown:
        return Verdict.PASS, f"{pair.limit} {apart(lower, 'is above', -margin)} {pair.seen}"
    return (
        Verdict.INCONCLUSIVE,
        f"{pair.limit} {apart(lower, 'is below', -margin)} {pair.seen}; harm is not shown either",
    )
