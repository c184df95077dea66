"""Threats, their mitigations, the tests that tried to defeat them, and what came of it; each number with its record.

The rows are fixed, so that what was not tested is seen. A result is of this run's records, or stated by the team in
the protocol (`report.threats`), and then called so. Terms are those of NIST AI 100-2 E2025 and MITRE ATLAS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from medharden.protocol import TESTED, StatedThreat, ThreatName
from medharden.reporting.accuracy import robust_limits
from medharden.reporting.numbers import percent, percent_interval
from medharden.reporting.source import RunRecords
from medharden.reporting.tested import who
from medharden.reporting.traced import Evidence, curve, gated, of_points, verdicts
from medharden.reporting.wording import threat_words

__all__ = ["Evidence", "ThreatRow", "threat_matrix"]

_NOT_STATED = "not stated"
_NOT_TESTED = "not tested"
_NONE_HERE = "none in medharden"

_TESTED_AGAIN: tuple[ThreatName, ...] = ("evasion_white_box", "evasion_queries", "referral_flood", "tampering")
"""What an independent test tries too; it draws no curves."""

_NAMES: dict[ThreatName, tuple[str, str]] = {
    "evasion_white_box": (
        "Adversarial images by one who knows the model",
        "Evasion, NISTAML.022; AML.T0015, crafted by AML.T0043.000 (white box)",
    ),
    "evasion_queries": (
        "Adversarial images by one who may only ask it",
        "Black-box evasion, NISTAML.025; AML.T0015, crafted by AML.T0043.001 (black box)",
    ),
    "beyond_budget": ("Larger changes than the declared threat", "Evasion, NISTAML.022; AML.T0015"),
    "masked_gradients": (
        "Robustness that only hides from attacks",
        "Masked gradients: a threat to the evidence, with no term of its own",
    ),
    "referral_flood": ("Forcing referrals, so that readers stop looking", "Availability, NISTAML.01; AML.T0029"),
    "tampering": ("Weights or records changed after the tests", "Supply chain; AML.T0010"),
    "data_poisoning": ("Manipulated training data", "Poisoning, NISTAML.023 and .024; AML.T0020"),
    "model_poisoning": ("A back door in the original's weights", "Model poisoning, NISTAML.026; AML.T0018"),
    "membership_inference": (
        "Finding out whether a patient was in the training data",
        "Membership inference, NISTAML.033; AML.T0024.000",
    ),
    "reconstruction": ("Reconstructing training images from the model", "Reconstruction, NISTAML.032; AML.T0024.001"),
    "model_extraction": ("Copying the model by asking it", "Model extraction, NISTAML.031; AML.T0024.002"),
    "acquisition_chain": ("Manipulation at the scanner or on its way", "Physical-domain evasion; AML.T0041"),
}


@dataclass(frozen=True)
class ThreatRow:
    """One threat; every text is formatted, none is markup.

    Attributes:
        scope: in scope, `ruled out: REASON`, or not stated.
        mitigation: in the hardened model or around it.
        test: what tried to defeat the mitigation.
        result: what came of it.
        tester: whose test it was.
        residual_risk: as the team states it.
        evidence: every value that mitigation, test and result rest on.
    """

    threat: ThreatName
    name: str
    terms: str
    scope: str
    mitigation: str
    test: str
    result: str
    tester: str
    residual_risk: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class _Shown:
    """What the records show of one threat."""

    mitigation: str
    test: str
    result: str
    evidence: tuple[Evidence, ...]


def threat_matrix(records: RunRecords) -> tuple[ThreatRow, ...]:
    """Every threat, in a fixed order; nothing in a row that no record or statement holds."""
    stated = {s.threat: s for s in records.protocol.report.threats}
    rows = []
    for threat in get_args(ThreatName):
        shown = _SHOWN.get(threat, _nothing)(records)
        if shown is not None:
            rows.append(_row(threat, shown, stated.get(threat), records))
    return tuple(rows)


def _row(threat: ThreatName, shown: _Shown, stated: StatedThreat | None, records: RunRecords) -> ThreatRow:
    mitigation, test, result, by = shown.mitigation, shown.test, shown.result, "nobody"
    evidence = shown.evidence
    if shown.test != _NOT_TESTED:
        again = _again(records) if threat in _TESTED_AGAIN else ()
        by = "; ".join([who(records.protocol.report.tester), *(f"{e.value} (independent test)" for e in again)])
        evidence = (*evidence, *again)
    if stated is not None and stated.mitigation is not None:
        mitigation = (
            f"{mitigation}. Stated: {stated.mitigation}" if mitigation != _NONE_HERE else f"stated: {stated.mitigation}"
        )
    if stated is not None and stated.test is not None:
        mine = test != _NOT_TESTED
        test = f"{test}. Stated: {stated.test}" if mine else f"stated: {stated.test}"
        by = f"{by}; of the stated test: {who(stated.tester)}" if mine else who(stated.tester)
        result = result if mine else "as stated"
    name, terms = _NAMES[threat]
    return ThreatRow(
        threat=threat,
        name=name,
        terms=terms,
        scope=_scope(threat, stated),
        mitigation=mitigation,
        test=test,
        result=result,
        tester=by,
        residual_risk=(stated.residual_risk if stated is not None else None) or _NOT_STATED,
        evidence=evidence,
    )


def _again(records: RunRecords) -> tuple[Evidence, ...]:
    """Who tested the release independently."""
    return tuple(
        Evidence("gate.json", f"/independent/{k}/name", test.name)
        for k, test in enumerate(records.decision.independent)
    )


def _scope(threat: ThreatName, stated: StatedThreat | None) -> str:
    if stated is not None:
        return "in scope" if stated.reason is None else f"ruled out: {stated.reason.rstrip('.')}"
    return "in scope, by the protocol's threat" if threat in TESTED else _NOT_STATED


def _nothing(records: RunRecords) -> _Shown | None:
    return _Shown(_NONE_HERE, _NOT_TESTED, _NOT_TESTED, ())


def _position(records: RunRecords, name: str = "composite") -> int:
    return [s.name for s in records.evaluation.subjects].index(name)


def _white_box(records: RunRecords) -> _Shown | None:
    evaluation, protocol = records.evaluation, records.protocol
    released, original = evaluation.subject("composite"), evaluation.subject("original")
    search = {attack.name for attack in protocol.suite.attacks if attack.attack == "square"}
    names = [outcome.name for outcome in released.attacks if outcome.name not in search]
    limits = percent_interval(robust_limits(records, "composite"))
    budget = threat_words(protocol.threat, protocol.input.intensity)
    here, there = _position(records), _position(records, "original")
    return _Shown(
        mitigation=_branch(records),
        test=f"{', '.join(names) or 'no attack by gradients'}; both paths and their fusion known; {budget}",
        result=(
            f"{released.robust_correct} of {released.attacked} attacked cases stand against all attacks together, "
            f"{percent(released.robust_accuracy)} {limits}; of the original {original.robust_correct}. "
            f"{_independent(records)}{verdicts(records, 'robust_')}"
        ),
        evidence=(
            Evidence("evaluation.json", f"/subjects/{here}/robust_correct", released.robust_correct),
            Evidence("evaluation.json", f"/subjects/{here}/attacked", released.attacked),
            Evidence("evaluation.json", f"/subjects/{there}/robust_correct", original.robust_correct),
            *(
                Evidence("evaluation.json", f"/subjects/{here}/attacks/{k}/name", outcome.name)
                for k, outcome in enumerate(released.attacks)
                if outcome.name in names
            ),
            Evidence("evaluation.json", "/threat", evaluation.threat),
            *_branch_evidence(records),
            *gated(records, "robust_"),
            *(
                Evidence("gate.json", f"/independent/{k}/{part}", getattr(test, part))
                for k, test in enumerate(records.decision.independent)
                for part in ("robust_correct", "attacked_here")
            ),
        ),
    )


def _independent(records: RunRecords) -> str:
    return "".join(
        f"In an independent test {test.robust_correct} of {test.attacked_here} stand. "
        for test in records.decision.independent
    )


def _branch(records: RunRecords) -> str:
    branch, fusion = records.harden.branch, records.harden.fusion
    return f"adversarially fine-tuned branch ({branch.form}) beside the unchanged original, fusion {fusion.mode}"


def _branch_evidence(records: RunRecords) -> tuple[Evidence, ...]:
    return (
        Evidence("harden.json", "/branch/form", records.harden.branch.form),
        Evidence("harden.json", "/fusion/mode", records.harden.fusion.mode),
    )


def _queries(records: RunRecords) -> _Shown | None:
    search = {attack.name for attack in records.protocol.suite.attacks if attack.attack == "square"}
    released, here = records.evaluation.subject("composite"), _position(records)
    found = [(k, outcome) for k, outcome in enumerate(released.attacks) if outcome.name in search]
    if not found:
        return _Shown(_branch(records), _NOT_TESTED, _NOT_TESTED, _branch_evidence(records))
    wins = "; ".join(f"{outcome.name} won on {outcome.wins} of {outcome.cases}" for _, outcome in found)
    return _Shown(
        mitigation=_branch(records),
        test=f"{', '.join(outcome.name for _, outcome in found)}, which sees scores alone",
        result=wins,
        evidence=(
            *_branch_evidence(records),
            *(
                Evidence("evaluation.json", f"/subjects/{here}/attacks/{k}/{part}", getattr(outcome, part))
                for k, outcome in found
                for part in ("name", "wins", "cases")
            ),
        ),
    )


def _beyond(records: RunRecords) -> _Shown | None:
    points = curve(records, "eps", lambda p: p.ratio > 1.0)
    if not points:
        return _Shown(_NONE_HERE, _NOT_TESTED, _NOT_TESTED, ())
    last = points[-1][1]
    said = ", ".join(
        f"{p.robust} of {p.cases} stand at {'the whole input range' if p is last else f'{p.ratio:g} times the budget'}"
        for _, p in points
    )
    return _Shown(
        mitigation="none is claimed: the protocol's budget is where robustness is asked for",
        test="one PGD with growing budgets, on a few cases",
        result=said,
        evidence=of_points(points),
    )


def _masked(records: RunRecords) -> _Shown | None:
    points = curve(records, "eps", lambda p: True)
    findings = [
        (f"{file}.json", k, finding)
        for file, all_of in (("evaluation", records.evaluation.findings), ("gate", records.decision.findings))
        for k, finding in enumerate(all_of)
        if finding.code.startswith("attack.")
    ]
    if not points and not findings:
        return _Shown(_NONE_HERE, _NOT_TESTED, _NOT_TESTED, ())
    last = "".join(
        f"; {p.robust} of {p.cases} stand where the attack may change the whole input range" for _, p in points[-1:]
    )
    said = "; ".join(f.message for _, _, f in findings if f.severity != "info") or "no sign of it was found"
    return _Shown(
        mitigation="robustness is measured on the released model, by attacks of several kinds; "
        "a sign of it fails the gate",
        test="curves against budget and steps; the attacks held against each other",
        result=f"{said}{last}",
        evidence=(
            *of_points(points[-1:]),
            *(
                Evidence(file, f"/findings/{k}/{part}", getattr(finding, part))
                for file, k, finding in findings
                for part in ("code", "severity", "message")
            ),
        ),
    )


def _flood(records: RunRecords) -> _Shown | None:
    """Only where the release refers cases."""
    if records.harden.fusion.mode != "guarded":
        return None
    found = [(k, e) for k, e in enumerate(records.decision.endpoints) if e.name == "referral_attacked"]
    if not found:
        return _Shown(
            "a budget of referrals on clean cases alone",
            _NOT_TESTED,
            "no limit of referrals under attack is asked for",
            (),
        )
    k, endpoint = found[0]
    return _Shown(
        mitigation="a budget of referrals, on clean cases and under attack",
        test="referrals at the strongest inputs that the attacks found",
        result=f"{percent(endpoint.estimate)} referred, {endpoint.verdict.value} against {percent(endpoint.limit)}",
        evidence=(
            Evidence("gate.json", f"/endpoints/{k}/estimate", endpoint.estimate),
            Evidence("gate.json", f"/endpoints/{k}/limit", endpoint.limit),
            Evidence("gate.json", f"/endpoints/{k}/verdict", endpoint.verdict.value),
        ),
    )


def _tampering(records: RunRecords) -> _Shown | None:
    identity = records.evaluation.identity
    how = "digests of weights and records, a hash-chained log; signatures where the run directory is signed"
    if identity.against == "none":
        return _Shown(
            how,
            _NOT_TESTED,
            "the original's file was not compared with",
            (Evidence("evaluation.json", "/identity/against", identity.against),),
        )
    same = "are equal" if identity.state_equal and identity.logits_equal else "differ"
    return _Shown(
        mitigation=how,
        test=f"the clean path against the original's {identity.against}: weights, and logits of every test case, bit "
        "for bit",
        result=f"they {same}, on {identity.cases} cases; `medharden verify` checks digests, log and signatures",
        evidence=tuple(
            Evidence("evaluation.json", f"/identity/{part}", getattr(identity, part))
            for part in ("against", "state_equal", "logits_equal", "cases")
        ),
    )


def _training_data(records: RunRecords) -> _Shown | None:
    return _Shown(
        mitigation="none against it; the cohort is pinned by digest, so that what was trained on can be looked at",
        test=_NOT_TESTED,
        result="training data are taken as given",
        evidence=(Evidence("evaluation.json", "/cohort", records.evaluation.cohort),),
    )


def _weights(records: RunRecords) -> _Shown | None:
    return _Shown(
        mitigation="none against it; the original's file is pinned by digest, and nothing in it is executed",
        test=_NOT_TESTED,
        result="a back door in the original would be kept, since its clean path is",
        evidence=(Evidence("harden.json", "/original/file", records.harden.original.file),),
    )


def _membership(records: RunRecords) -> _Shown | None:
    return _Shown(_NONE_HERE, _NOT_TESTED, "not tested; adversarial training can make it easier", ())


_SHOWN: dict[ThreatName, Callable[[RunRecords], _Shown | None]] = {
    "evasion_white_box": _white_box,
    "evasion_queries": _queries,
    "beyond_budget": _beyond,
    "masked_gradients": _masked,
    "referral_flood": _flood,
    "tampering": _tampering,
    "data_poisoning": _training_data,
    "model_poisoning": _weights,
    "membership_inference": _membership,
}
