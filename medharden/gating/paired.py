"""The endpoints on paired cases: the composite against the original, clean (non-inferiority) and attacked (gain)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.gating.findings import answer_parts
from medharden.gating.words import apart, percent, sample
from medharden.protocol import Margin, Protocol
from medharden.record import CaseTable, Endpoint, Verdict
from medharden.stats import (
    NonInferiority,
    cases_needed,
    gain_test,
    noninferiority_test,
    power_to_show,
    smallest_margin,
)

__all__ = ["Pair", "answer_endpoints", "compare", "paired_endpoint", "robust_gain"]

Flags = npt.NDArray[np.bool_]


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
    if cases.multilabel:
        for title, before, after, kept, owners in answer_parts(wanted, classes, cases):
            pair = compare(before, after, kept, owners, wanted.margin, alpha)
            yield _noninferiority(title, "", pair, alpha, wanted.justification or "")
        return
    original, composite = cases.right("original"), cases.right("composite")
    if wanted.metric == "accuracy":
        parts = [("accuracy", "", np.ones(len(cases.label), dtype=np.bool_))]
    else:
        parts = [(*_recall_name(protocol, classes, k), cases.label == k) for k in range(len(classes))]
    for name, of_class, rows in parts:
        pair = compare(original, composite, rows, cases, wanted.margin, alpha)
        yield _noninferiority(name, of_class, pair, alpha, wanted.justification or "")


def robust_gain(protocol: Protocol, cases: CaseTable) -> Endpoint:
    """Whether the composite is right more often than the original on the attacked cases, by an exact test."""
    original, composite = cases.subjects["original"].robust, cases.subjects["composite"].robust
    pair = compare(original, composite, cases.attacked, cases, 0.0, protocol.endpoints.alpha, exact=True)
    lower = pair.test.interval[0]
    if pair.test.shown:
        verdict, text = Verdict.PASS, f"{pair.limit} {apart(lower, 'is above', 0.0)} {pair.seen}"
    elif pair.test.estimate <= 0.0:
        verdict, text = Verdict.FAIL, f"under attack the composite is not better than the original {pair.seen}"
    else:
        verdict = Verdict.INCONCLUSIVE
        text = f"{pair.limit} {apart(lower, 'is not above', 0.0)} {pair.seen}; a gain under attack is not shown"
    return paired_endpoint("robust_gain", "robust_gain", verdict, pair, f"robust_gain: {text}", 0.0)


def _noninferiority(name: str, of_class: str, pair: Pair, alpha: float, justification: str) -> Endpoint:
    test = pair.test
    lower, margin = test.interval[0], test.margin
    # No discordant case among n does not make the next n free of them: plan with one at least.
    discordance = max(pair.table[1] + pair.table[2], 1) / test.cases
    design_effect = test.cases / test.effective_cases
    needed = math.ceil(cases_needed(discordance, margin, alpha=alpha) * design_effect)
    if test.shown:
        verdict, text = Verdict.PASS, f"{pair.limit} {apart(lower, 'is above', -margin)} {pair.seen}"
    elif test.estimate <= -margin:
        verdict = Verdict.FAIL
        text = f"the observed change {test.estimate:.3f} uses up the margin of {margin:g} {pair.seen}"
    else:
        verdict = Verdict.INCONCLUSIVE
        text = f"{pair.limit} {apart(lower, 'is below', -margin)} {pair.seen}; not shown: "
        if needed > test.cases:
            text += f"needs about {needed} cases at this discordance"
        else:
            text += "the observed loss is too near the margin"
    title = f"{name} ({of_class})" if of_class else name
    return paired_endpoint(
        name,
        "noninferiority",
        verdict,
        pair,
        f"{title}: {text}",
        -margin,
        justification=justification,
        smallest=smallest_margin(test.effective_cases, discordance, alpha=alpha),
        needed=needed,
        power=power_to_show(int(test.effective_cases), discordance, margin, alpha=alpha),
    )


def _recall_name(protocol: Protocol, classes: tuple[str, ...], label: int) -> tuple[str, str]:
    """A class's endpoint, and the class where the endpoint's name doesn't hold it."""
    if protocol.task.positive is None or len(classes) != 2:
        return f"recall:{classes[label]}", ""
    return ("sensitivity" if classes[label] == protocol.task.positive else "specificity"), classes[label]


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
