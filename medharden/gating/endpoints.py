"""The clean endpoints that a protocol asks for, of whichever kind, against one comparator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medharden.gating.findings import score_names
from medharden.gating.paired import answer_endpoints
from medharden.gating.scores import score_endpoint
from medharden.gating.units import on_enough_units
from medharden.gating.words import apart, percent
from medharden.protocol import CO_PRIMARY, Margin, Protocol
from medharden.record import CaseTable, Endpoint, Verdict

__all__ = ["ALTERNATIVE", "clean_endpoints", "family_verdict"]

ALTERNATIVE = "alternative"


def clean_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """Every endpoint of `endpoints.noninferiority`, on all test cases under the same decision rule.

    Args:
        protocol: metrics, margins, alpha, multiplicity.
        classes: in the order of the model's outputs.
        cases: `original` in it is the comparator; the patients are the units of analysis.
    """
    wanted, alpha = protocol.endpoints.noninferiority, protocol.endpoints.alpha_per_look
    if protocol.endpoints.multiplicity == "all":
        for margin in wanted:
            yield from _endpoints(margin, protocol, classes, cases, alpha)
        return
    for margin in wanted:
        if margin.metric in CO_PRIMARY:
            yield from _endpoints(margin, protocol, classes, cases, alpha)
    others = [m for m in wanted if m.metric not in CO_PRIMARY]
    yield from _alternatives(others, protocol, classes, cases)


def family_verdict(endpoints: list[Endpoint]) -> tuple[Verdict, str]:
    """What alternatives come to together: FAIL where one is shown to be worse, PASS where one is shown not to be.

    Args:
        endpoints: all alternatives against one comparator; one at least.

    Returns:
        The verdict and its reason.
    """
    verdicts = [e.verdict for e in endpoints]
    names = ", ".join(e.name for e in endpoints)
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL, f"of the alternatives {names}, one is shown to be worse"
    if Verdict.PASS in verdicts:
        return Verdict.PASS, f"of the alternatives {names}, one at least is shown"
    return Verdict.INCONCLUSIVE, f"of the alternatives {names}, none is shown under Holm's correction"


def _alternatives(
    wanted: list[Margin], protocol: Protocol, classes: tuple[str, ...], cases: CaseTable
) -> Iterator[Endpoint]:
    """Holm's steps on confidence limits: what passes at alpha / m leaves alpha / (m - 1) for those that remain.

    A metric passes where all its endpoints do. An endpoint keeps the limits of the step that decided on it.
    """
    decided: dict[str, list[Endpoint]] = {}
    remaining = list(wanted)
    while remaining:
        alpha = protocol.endpoints.alpha_per_look / len(remaining)
        tried = {m.metric: list(_endpoints(m, protocol, classes, cases, alpha)) for m in remaining}
        shown = [m for m in remaining if all(e.verdict is Verdict.PASS for e in tried[m.metric])]
        for margin in shown or remaining:
            decided[margin.metric] = tried[margin.metric]
        if not shown:
            break
        remaining = [m for m in remaining if m not in shown]
    for margin in wanted:
        yield from (_as_alternative(e) for e in decided[margin.metric])


def _as_alternative(endpoint: Endpoint) -> Endpoint:
    """The same endpoint under the rule of alternatives: it FAILs only where its whole interval is worse."""
    rises = endpoint.kind in ("brier", "grade_error")
    near, bound = (endpoint.lower, endpoint.limit) if rises else (endpoint.upper, endpoint.limit)
    worse = near > bound if rises else near < bound
    if endpoint.verdict is Verdict.PASS:
        return replace(endpoint, role=ALTERNATIVE)
    if not worse:
        return replace(endpoint, role=ALTERNATIVE, verdict=Verdict.INCONCLUSIVE)
    side, relation = ("lower", "is above") if rises else ("upper", "is below")
    held = apart(near, relation, bound, "" if rises else "pp")
    text = f"a loss beyond the margin is shown: {side} {percent(endpoint.level)} limit {held}"
    reason = f"{endpoint.name}: {text} (n = {endpoint.n})"
    return replace(endpoint, role=ALTERNATIVE, verdict=Verdict.FAIL, reason=reason)


def _endpoints(
    wanted: Margin, protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, alpha: float
) -> Iterator[Endpoint]:
    """The endpoints of one metric at one alpha. A new metric is added here."""
    if wanted.metric in (*CO_PRIMARY, "finding_accuracy", "within_one_grade"):
        yield from map(on_enough_units, answer_endpoints(wanted, protocol, classes, cases, alpha))
        return
    for name, finding in score_names(wanted, classes):
        endpoint = score_endpoint(wanted, protocol, classes, cases, alpha, name=name, finding=finding)
        yield on_enough_units(endpoint)
