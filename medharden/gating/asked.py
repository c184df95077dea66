"""What a verdict must say beside its endpoints: what the protocol does not ask, and losses that are small and real."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from medharden.gating.words import valued
from medharden.protocol import CO_PRIMARY, Protocol
from medharden.record import Endpoint, Finding, Verdict

__all__ = ["significant_losses", "unasked"]


def unasked(protocol: Protocol) -> tuple[Finding, ...]:
    """A finding for each thing that a protocol leaves open, such as margins without a reason or a weak suite."""
    return (
        *_margins(protocol),
        *_robustness(protocol),
        *_calibration(protocol),
        *_referral(protocol),
        *_suite(protocol),
        *_shift(protocol),
    )


def _margins(protocol: Protocol) -> Iterator[Finding]:
    if bare := protocol.unjustified:
        message = (
            f"The protocol {protocol.name!r} gives no clinical justification for: {', '.join(bare)}. "
            "Whatever the verdict, it is held against a convention, not against a clinical judgement."
        )
        yield Finding("gate.margin_not_justified", "warning", message)


def _robustness(protocol: Protocol) -> Iterator[Finding]:
    wanted = protocol.endpoints.robustness
    lacking = [] if wanted.floor > 0 else ["a floor of robust accuracy (floor)"]
    lacking += [] if wanted.class_floor != 0 else ["a floor of each class's robust recall (class_floor)"]
    lacking += [] if wanted.gain > 0 else ["a least gain over the original (gain)"]
    if lacking:
        message = (
            f"The protocol {protocol.name!r} does not ask under endpoints.robustness for {' or '.join(lacking)}. "
            "Whatever the verdict, it says less of robustness than a release needs."
        )
        yield Finding("gate.robustness_not_asked", "warning", message)
    if wanted.classes == "reported":
        message = f"Robustness by class is reported and decides nothing; the protocol's reason: {wanted.reason}"
        yield Finding("gate.classes_reported", "warning", message)


def _calibration(protocol: Protocol) -> Iterator[Finding]:
    if all(m.metric != "brier" for m in protocol.endpoints.noninferiority):
        message = (
            f"The protocol {protocol.name!r} has no brier among endpoints.noninferiority: calibration was not held "
            "against anything, and probabilities may have got worse behind the same answers."
        )
        yield Finding("gate.calibration_not_held", "warning", message)


def _suite(protocol: Protocol) -> Iterator[Finding]:
    suite = protocol.suite
    if suite.weakness:
        message = (
            f"The suite is weak: {suite.weakness}. A stronger one may find that fewer cases stand. The protocol states "
            f"why it is enough: {suite.reason}"
        )
        yield Finding("gate.weak_suite", "warning", message)


def _referral(protocol: Protocol) -> Iterator[Finding]:
    fusion = protocol.fusion
    if fusion.mode != "guarded":
        return
    if fusion.referral_attacked == 1.0:
        message = (
            f"The protocol {protocol.name!r} states no limit of referrals under attack (fusion.referral_attacked): an "
            "attacker may send every case to a reader."
        )
        yield Finding("gate.referral_not_asked", "warning", message)
    if fusion.referred.counts_as != "not_answered":
        what = {"model_answer": "the answer beside the flag", "right": "right"}[fusion.referred.counts_as]
        message = f"Referred cases count as {what}; the protocol's reason: {fusion.referred.reason}"
        yield Finding("gate.referred_count", "warning", message)


def _shift(protocol: Protocol) -> Iterator[Finding]:
    wanted = protocol.shift
    lacking = [metric for metric in CO_PRIMARY if metric not in wanted.bounds]
    if wanted.corruptions and lacking:
        message = (
            f"The protocol {protocol.name!r} gives {' and '.join(lacking)} under corruptions no margin: the change is "
            "reported beside the clean margin and decides nothing."
        )
        yield Finding("gate.shift_not_gated", "info", message)


def significant_losses(endpoints: Iterable[Endpoint]) -> tuple[Finding, ...]:
    """A finding for endpoints that pass within their margin although a loss is shown: small, and real."""
    shown = [
        f"{e.name} ({valued(e, e.estimate)}, limits {valued(e, e.lower)}, {valued(e, e.upper)})"
        for e in endpoints
        if e.verdict is Verdict.PASS
        and (
            (e.kind in ("noninferiority", "robust_change", "kappa", "shift") and e.upper < 0.0)
            or (e.kind in ("brier", "grade_error") and e.lower > 0.0)
        )
    ]
    if not shown:
        return ()
    message = (
        f"Within the margin, and yet a loss that is shown: {', '.join(shown)}. The whole interval lies on the side of "
        "a loss, so that the release is worse, by less than what the protocol accepts."
    )
    return (Finding("gate.loss_shown", "warning", message),)
