"""Endpoints on paired cases: who is right, the composite against the original."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medharden.gating.findings import right_answers
from medharden.gating.groups import Flags, groups
from medharden.gating.words import apart, percent, sample, uses_up
from medharden.protocol import Bound, Margin, Protocol
from medharden.record import CaseTable, Endpoint, Verdict
from medharden.stats import (
    NonInferiority,
    cases_needed,
    gain_test,
    noninferiority_test,
    power_to_show,
    smallest_margin,
)

__all__ = ["Pair", "answer_endpoints", "compare", "noninferiority", "paired_endpoint"]


@dataclass(frozen=True)
class Pair:
    """Composite against original on the same cases: the paired table and the test."""

    table: tuple[int, int, int, int]
    test: NonInferiority

    @property
    def seen(self) -> str:
        """What the comparison rests on, in brackets."""
        what = f"{self.table[1]} gained, {self.table[2]} lost"
        effective = None if self.test.exact else self.test.effective_cases
        return sample(self.test.cases, self.test.patients, effective, what)

    @property
    def limit(self) -> str:
        """The limit that decides, by name."""
        return f"lower {percent(self.test.level)} limit"


def answer_endpoints(
    wanted: Margin, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, alpha: float
) -> Iterator[Endpoint]:
    """Accuracy, or each class's or finding's recall, on all test cases under the same decision rule."""
    if wanted.metric == "recall":
        for group in groups(protocol, classes, cases):
            bound = wanted.of(*group.keys)
            both = group.right("original", cases), group.right("composite", cases)
            pair = compare(*both, group.rows, cases, bound.margin, alpha)
            yield noninferiority(group.name, group.title, pair, alpha, bound)
        return
    before, after, owners = right_answers(wanted.metric, cases)
    pair = compare(before, after, np.ones(len(before), dtype=np.bool_), owners, wanted.margin, alpha)
    yield noninferiority(wanted.metric, wanted.metric, pair, alpha, wanted)


def noninferiority(
    name: str, title: str, pair: Pair, alpha: float, bound: Bound, *, kind: str = "noninferiority"
) -> Endpoint:
    """Whether the composite is worse by less than the margin.

    Args:
        name: of the endpoint.
        title: the name with what it is of.
        pair: the comparison, at the bound's margin.
        alpha: one-sided error.
        bound: margin and justification.
        kind: `noninferiority`, or `robust_change` under attack.
    """
    test = pair.test
    lower, margin = test.interval[0], test.margin
    # No discordant case among n does not make the next n free of them: plan with one at least.
    discordance = max(pair.table[1] + pair.table[2], 1) / test.cases
    design_effect = test.cases / test.effective_cases
    needed = math.ceil(cases_needed(discordance, margin, alpha=alpha) * design_effect)
    if test.shown:
        verdict, text = Verdict.PASS, f"{pair.limit} {apart(lower, 'is above', -margin, 'pp')} {pair.seen}"
    elif test.estimate <= -margin:
        verdict = Verdict.FAIL
        text = f"{uses_up(test.estimate, margin, 'pp')} {pair.seen}"
    else:
        verdict = Verdict.INCONCLUSIVE
        text = f"{pair.limit} {apart(lower, 'is below', -margin, 'pp')} {pair.seen}; not shown: "
        if needed > test.cases:
            text += f"needs about {needed} cases at this discordance"
        else:
            text += "the observed loss is too near the margin"
    reason, justification = f"{title}: {text}", bound.justification or ""
    if kind == "robust_change":  # a gain is expected: what cases show if nothing changes is no plan for it
        return paired_endpoint(name, kind, verdict, pair, reason, -margin, justification=justification)
    return paired_endpoint(
        name,
        kind,
        verdict,
        pair,
        reason,
        -margin,
        justification=justification,
        smallest=smallest_margin(test.effective_cases, discordance, alpha=alpha),
        needed=needed,
        power=power_to_show(int(test.effective_cases), discordance, margin, alpha=alpha),
    )


def compare(
    original: Flags,
    composite: Flags,
    rows: Flags,
    cases: CaseTable,
    margin: float,
    alpha: float,
    *,
    exact: bool = False,
) -> Pair:
    """Compares who is right, on the chosen rows.

    Args:
        original: (N,) whether its answer is right.
        composite: (N,) whether its answer is right.
        rows: (N,) which cases count.
        cases: names the patients.
        margin: in [0, 1).
        alpha: one-sided error.
        exact: whether a gain is asked for (a margin of 0 or less), by limits that hold for few discordant cases too.
    """
    before, after = original[rows], composite[rows]
    gained, lost = after & ~before, before & ~after
    table = (int((before & after).sum()), int(gained.sum()), int(lost.sum()), int((~before & ~after).sum()))
    patients = np.asarray(cases.patient)[rows].tolist()
    if exact:
        return Pair(table, gain_test(gained, lost, least=-margin, alpha=alpha, patients=patients))
    return Pair(table, noninferiority_test(gained, lost, margin=margin, alpha=alpha, patients=patients))


def paired_endpoint(
    name: str,
    kind: str,
    verdict: Verdict,
    pair: Pair,
    reason: str,
    limit: float,
    *,
    justification: str = "",
    smallest: float | None = None,
    needed: int | None = None,
    power: float | None = None,
) -> Endpoint:
    """The record of one paired comparison."""
    return Endpoint(
        name=name,
        kind=kind,
        verdict=verdict,
        estimate=pair.test.estimate,
        lower=pair.test.interval[0],
        upper=pair.test.interval[1],
        level=pair.test.level,
        limit=limit,
        n=pair.test.cases,
        patients=pair.test.patients,
        table=pair.table,
        smallest_margin=smallest,
        needed=needed,
        method=pair.test.method,
        justification=justification,
        reason=reason,
        power=power,
    )
