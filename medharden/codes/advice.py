"""What a decision's reasons ask to be done: one line each, the gravest reason first."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.codes.table import all_codes
from medharden.record import Endpoint, GateDecision, Verdict

__all__ = ["Step", "gravest_first", "may_be_released", "steps"]

_PREFIXES = {
    "patients: ": "reason.patients",
    "original: ": "reason.chance",
    "attacks: ": "reason.attacks",
    "exclusions: ": "reason.exclusions",
    "of the alternatives ": "reason.alternatives",
}
_CRITICAL = "critical finding "
_FAILING = ("attack.", "hardening.")  # what makes a critical finding FAIL, as the gate has it
_RELEASE = {
    Verdict.PASS: "The release may go out as far as the protocol asks: sign it with `medharden sign`.",
    Verdict.FAIL: "The release must not go out.",
    Verdict.INCONCLUSIVE: "The release must not go out on this evidence; the original stays in use.",
    Verdict.INVALID: "The release must not go out: nothing in these records counts until the cause is removed.",
}


@dataclass(frozen=True)
class Step:
    """One reason of a verdict that is no PASS.

    Attributes:
        reason: as the decision gives it.
        code: of the reason; `medharden explain CODE` says more.
        do: what to do next, in one line.
    """

    reason: str
    code: str
    do: str


def steps(decision: GateDecision) -> tuple[Step, ...]:
    """Each reason that holds the verdict up, the gravest first, with what to do; notes beside it are left out.

    A PASS has none.
    """
    if decision.verdict is Verdict.PASS:
        return ()
    of = _endpoints(decision)
    beside = {f.message for f in decision.findings}
    held = (reason for reason in gravest_first(decision) if reason not in beside)
    return tuple(_step(reason, of.get(reason), decision.verdict) for reason in held)


def gravest_first(decision: GateDecision) -> tuple[str, ...]:
    """The decision's reasons: what makes it FAIL, then what holds it up, then what is to be known beside it."""
    of, beside = _endpoints(decision), {f.message for f in decision.findings}

    def weight(reason: str) -> int:
        endpoint = of.get(reason)
        code = reason.removeprefix(_CRITICAL)
        if reason in beside:
            return 2
        if reason.startswith(_CRITICAL):
            return 0 if code.startswith(_FAILING) else 1
        return 0 if endpoint is not None and endpoint.verdict is Verdict.FAIL else 1

    return tuple(sorted(decision.reasons, key=weight))


def _endpoints(decision: GateDecision) -> dict[str, Endpoint]:
    return {e.reason: e for e in (*decision.endpoints, *decision.subgroups)}


def may_be_released(verdict: Verdict) -> str:
    """Whether the release may go out, in one sentence."""
    return _RELEASE[verdict]


def _step(reason: str, endpoint: Endpoint | None, verdict: Verdict) -> Step:
    code = _code(reason, endpoint, verdict)
    if endpoint is not None and endpoint.verdict is Verdict.INCONCLUSIVE and (more := _more_cases(endpoint)):
        return Step(reason, code, more)
    known = all_codes().get(code)
    return Step(reason, code, "" if known is None else known.do)


def _code(reason: str, endpoint: Endpoint | None, verdict: Verdict) -> str:
    if endpoint is not None:
        kind = "subgroup" if endpoint.kind.startswith("subgroup") else endpoint.kind
        return f"endpoint.{kind}"
    if reason.startswith(_CRITICAL):
        return reason.removeprefix(_CRITICAL).partition(":")[0]
    if verdict is Verdict.INVALID:
        return "reason.records"
    return next((code for prefix, code in _PREFIXES.items() if reason.startswith(prefix)), f"verdict.{verdict.lower()}")


def _more_cases(e: Endpoint) -> str:
    """How many cases would do, under which assumption and at which power; nothing where more cases are no remedy."""
    if e.needed is None:
        return ""
    if e.needed <= e.n:
        return (
            "More cases alone may not do: the observed loss is near the margin. Train otherwise, or have a clinician "
            "judge whether a wider margin is acceptable, before the next look."
        )
    return (
        f"Take about {e.needed:,} such cases, {e.needed - e.n:,} more than the {e.n:,} at hand: with them an unchanged "
        "model passes with 80 % power at the discordance seen."
    )
