"""The lock and the looks: whether the log's protocol, cohort and records are those at hand, and within the budget."""

from __future__ import annotations

from collections.abc import Iterator

from medharden.audit import Ledger, RunHistory, look_at
from medharden.gating.digests import RunDigests
from medharden.protocol import Protocol
from medharden.record import CohortRecord, Finding, HardenRecord

__all__ = ["history_problems", "ledger_problems", "look_findings"]


def history_problems(protocol: Protocol, history: RunHistory, digests: RunDigests) -> Iterator[str]:
    """One sentence for each way in which the log speaks against the records."""
    if not history.locks:
        yield "audit.jsonl holds no lock: protocol and cohort must be on record before the test split is opened"
    elif not history.locked_first:
        yield "audit.jsonl has the test split opened before protocol and cohort were locked"
    for lock in dict.fromkeys(history.locks):
        yield from _other("protocol.yaml", "locked", lock.protocol, digests.protocol)
        yield from _other("cohort.json", "locked", lock.cohort, digests.cohort)
    yield from _other("harden.json", "recorded", history.harden, digests.harden)
    yield from _other("evaluation.json", "recorded", history.evaluation, digests.evaluation)
    if history.finished > protocol.endpoints.looks:
        yield (
            f"the test split was evaluated {history.finished} times; the protocol's endpoints.looks allows "
            f"{protocol.endpoints.looks}"
        )


def ledger_problems(
    protocol: Protocol, cohort: CohortRecord, harden: HardenRecord, digests: RunDigests, ledger: Ledger
) -> Iterator[str]:
    """Whether the ledger has this evaluation, and not more looks up to it than the protocol allows."""
    if not ledger.holds(digests.evaluation):
        yield "evaluation.json is not in the ledger: its look at the test split was not counted"
        return
    looks = _counted(cohort, harden, digests, ledger)
    if looks > protocol.endpoints.looks:
        yield (
            f"by the ledger, this evaluation is look {looks} at images of this test split for this original; the "
            f"protocol's endpoints.looks allows {protocol.endpoints.looks}"
        )


def _counted(cohort: CohortRecord, harden: HardenRecord, digests: RunDigests, ledger: Ledger) -> int:
    """Which look at this test split for this original the evaluation is, by the ledger."""
    look = look_at(cohort, harden.original.state, digests.hardened, digests.evaluation)
    return 1 + ledger.before(look, cohort)


def look_findings(
    protocol: Protocol,
    cohort: CohortRecord,
    harden: HardenRecord,
    digests: RunDigests,
    history: RunHistory,
    ledger: Ledger | None,
) -> tuple[Finding, ...]:
    """Findings where the test split was looked at more than once, or not all looks can be told."""
    found = []
    if ledger is None and history.in_ledger:
        message = (
            "The evaluation was counted in a ledger of looks that this decision did not read: looks of other run "
            "directories are not in it. Name the ledger with --ledger."
        )
        found.append(Finding("gate.ledger_not_read", "warning", message))
    looks = max(history.finished, 0 if ledger is None else _counted(cohort, harden, digests, ledger))
    if looks > 1:
        bound = min(looks * protocol.endpoints.alpha, 1.0)
        message = (
            f"The test split was evaluated {looks} times. Whoever keeps the best of them passes wrongly "
            f"with a chance of up to {bound:.3g} an endpoint, not {protocol.endpoints.alpha:g}."
        )
        found.append(Finding("gate.repeated_look", "warning", message))
    unfinished = history.opened - history.finished
    if unfinished > 0:
        message = (
            f"The test split was opened {history.opened} times, and {unfinished} of these evaluations were interrupted "
            "or failed. They don't count as looks, since they left no result."
        )
        found.append(Finding("gate.unfinished_look", "warning", message))
    return tuple(found)


def _other(file: str, done: str, logged: str, found: str) -> Iterator[str]:
    if not logged:
        yield f"{file} is not in audit.jsonl: it was never {done}"
    elif logged != found:
        yield f"{file} is not the one that audit.jsonl {done}: expected sha256 {logged[:12]}, found {found[:12]}"
