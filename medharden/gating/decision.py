"""The verdict as a pure function of the records: no file, no clock, no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from medharden.audit import Ledger, RunHistory
from medharden.gating.asked import significant_losses, unasked
from medharden.gating.assay import chance_reason, floor_endpoints
from medharden.gating.authorised import (
    Release,
    authorised_endpoints,
    authorised_findings,
    binding_problems,
    release_problems,
)
from medharden.gating.changes import change_findings, change_rows, held_reason, plan_endpoints
from medharden.gating.curve import curve_problems
from medharden.gating.digests import RunDigests, mismatches
from medharden.gating.endpoints import ALTERNATIVE, clean_endpoints, family_verdict
from medharden.gating.exclusions import excluded_reasons, worst_case_findings
from medharden.gating.identity import identity_endpoint
from medharden.gating.looks import history_problems, ledger_problems, look_findings
from medharden.gating.missing import missing_rows, worst_case_endpoints, worst_case_reason
from medharden.gating.operating import operating_endpoints
from medharden.gating.records import record_problems
from medharden.gating.referrals import as_answered, referral_endpoints, referred_bounds
from medharden.gating.robustness import REPORTED, never_won, robust_endpoints
from medharden.gating.shifts import shift_endpoints, shift_problems
from medharden.gating.subgroups import subgroup_endpoints, subgroup_findings
from medharden.gating.table import content_problems, shape_problems
from medharden.gating.units import unit_findings, unnamed_reason
from medharden.gating.worst import worst_group_endpoints
from medharden.protocol import Protocol
from medharden.record import (
    CaseTable,
    ChangeRow,
    CohortRecord,
    Endpoint,
    Evaluation,
    Finding,
    GateDecision,
    HardenRecord,
    Verdict,
    by_unit,
    clusters_of,
)

__all__ = ["decide", "invalid"]

_GRAVITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID)
_FAILING_FINDINGS = ("attack.", "hardening.")


def decide(
    protocol: Protocol,
    cohort: CohortRecord,
    harden: HardenRecord,
    evaluation: Evaluation,
    cases: CaseTable,
    *,
    digests: RunDigests,
    history: RunHistory,
    release: Release | None = None,
    ledger: Ledger | None = None,
    beside: tuple[Endpoint, ...] = (),
) -> GateDecision:
    """Decides on one run; the rules are in the package's docstring.

    Args:
        protocol: what was decided before the run.
        cohort: the data.
        harden: what hardening did.
        evaluation: counts of every subject, and the identity check.
        cases: answers and attacks case by case.
        digests: the run's files as found.
        history: what the run's log says of its lock and of its looks at the test split.
        release: the last authorised release, compared with beside the original; null where there is none.
        ledger: looks over several run directories; null where none was named.
        beside: further endpoints, such as an exported model's agreement with the composite.

    Returns:
        The decision with `decided` left empty. INVALID decisions have no endpoints: their numbers mean nothing.
    """
    given = release.digests.hardened if release else ""
    problems = (
        (
            *mismatches(harden, evaluation, digests),
            *history_problems(protocol, history, digests),
            *binding_problems(protocol, history, digests, given),
        )
        or tuple(record_problems(protocol, cohort, harden, evaluation))
        or tuple(shape_problems(cohort, evaluation, cases))
        or tuple(content_problems(protocol, cohort, evaluation, cases))
        or tuple(curve_problems(evaluation, cases))
        or tuple(shift_problems(protocol, evaluation, cases, len(cohort.classes)))
        or (tuple(release_problems(cohort, evaluation, release)) if release else ())
        or (tuple(ledger_problems(protocol, cohort, harden, digests, history, ledger)) if ledger else ())
    )
    findings = (*cohort.findings, *look_findings(protocol, cohort, harden, digests, history, ledger))
    if problems:
        return invalid(protocol, digests, problems, findings)
    clusters = clusters_of(cohort, protocol.splits.is_copy)
    findings += tuple(unit_findings(protocol, cohort, clusters))
    every, units = cases, by_unit(cases, cohort, clusters)
    cases = as_answered(protocol, units)
    endpoints = [
        identity_endpoint(harden, evaluation.identity, every),
        *clean_endpoints(protocol, cohort.classes, cases),
        *floor_endpoints(protocol, cohort.classes, cases),
        *robust_endpoints(protocol, cohort.classes, cases),
        *shift_endpoints(protocol, cohort.classes, cases),
        *operating_endpoints(protocol, evaluation.operating_points, cohort.classes, cases),
        *worst_group_endpoints(protocol, cohort.classes, cases),
        *referred_bounds(protocol, cohort.classes, units),
        *beside,
    ]
    if harden.fusion.mode == "guarded":
        endpoints += referral_endpoints(protocol, cohort.classes, cases)
    changes: tuple[ChangeRow, ...] = ()
    changed: tuple[Finding, ...] = ()
    if release:
        endpoints += authorised_endpoints(protocol, cohort.classes, cases, release)
        findings += authorised_findings(cohort, harden, release)
        changes = change_rows(protocol, cohort, harden, release)
        endpoints += plan_endpoints(protocol, cohort.classes, cases, release, changes)
        changed = tuple(change_findings(release.protocol.change_control, changes))
        findings += changed
    subgroups = tuple(subgroup_endpoints(protocol, cohort.classes, cases))
    harmed = [e for e in subgroups if e.verdict is Verdict.FAIL]
    critical = [f for f in (*cohort.findings, *harden.findings, *evaluation.findings) if f.severity == "critical"]
    judged = [(e.verdict, e.reason) for e in (*endpoints, *harmed) if e.role not in (ALTERNATIVE, REPORTED)]
    judged += _alternatives(endpoints)
    judged += [(_verdict_of(f), f"critical finding {f.code}: {f.message}") for f in critical]
    supposed = tuple(worst_case_endpoints(protocol, cohort, cases))
    held = (
        held_reason(release.protocol.change_control, changes) if release else "",
        worst_case_reason(protocol, supposed),
        unnamed_reason(protocol, cohort),
        chance_reason(protocol, cohort.classes, cases),
        never_won(units),
        *excluded_reasons(protocol, cohort),
    )
    judged += [(Verdict.INCONCLUSIVE, reason) for reason in held if reason]
    verdict = max((v for v, _ in judged), key=_GRAVITY.index)
    open_ones = subgroup_findings(subgroups)
    left_out = tuple(worst_case_findings(protocol, cohort, cases, endpoints))
    told = [f.message for f in (*open_ones, *left_out, *changed) if f.severity != "info"]
    reasons = [*(reason for v, reason in judged if v is not Verdict.PASS), *told]
    findings += (*open_ones, *left_out, *significant_losses(endpoints))
    decision = _decision(verdict, reasons, endpoints, protocol, digests, findings)
    decision = replace(decision, missing=missing_rows(cohort, every), worst_case=supposed, changes=changes)
    return replace(decision, subgroups=subgroups, authorised=given, ledger=ledger.head if ledger else "")


def _alternatives(endpoints: list[Endpoint]) -> list[tuple[Verdict, str]]:
    """What the alternatives against each comparator come to, with the reasons of those that are shown to be worse."""
    found = []
    for comparator in dict.fromkeys(e.comparator for e in endpoints if e.role == ALTERNATIVE):
        family = [e for e in endpoints if e.role == ALTERNATIVE and e.comparator == comparator]
        verdict, reason = family_verdict(family)
        found.append((verdict, reason))
        if verdict is not Verdict.PASS:
            found += [(e.verdict, e.reason) for e in family if e.verdict is verdict]
    return found


def invalid(
    protocol: Protocol, digests: RunDigests, problems: Iterable[str], findings: tuple[Finding, ...] = ()
) -> GateDecision:
    """The decision on records that can't carry one."""
    return _decision(Verdict.INVALID, problems, (), protocol, digests, findings)


def _decision(
    verdict: Verdict,
    reasons: Iterable[str],
    endpoints: Iterable[Endpoint],
    protocol: Protocol,
    digests: RunDigests,
    findings: tuple[Finding, ...],
) -> GateDecision:
    told = unasked(protocol)
    return GateDecision(
        verdict=verdict,
        reasons=(*reasons, *(f.message for f in told)),
        endpoints=tuple(endpoints),
        protocol=protocol.digest,
        protocol_name=protocol.name,
        margins_justified=protocol.margins_justified,
        hardened=digests.hardened,
        evaluation=digests.evaluation,
        findings=(*findings, *told),
    )


def _verdict_of(critical: Finding) -> Verdict:
    return Verdict.FAIL if critical.code.startswith(_FAILING_FINDINGS) else Verdict.INCONCLUSIVE
