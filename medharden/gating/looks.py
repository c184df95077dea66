"""The lock and the looks: whether the log's protocol, cohort and records are those at hand, and within the budget."""

from __future__ import annotations

from collections.abc import Iterator

from medharden.audit import Ledger, Look, RunHistory, look_at
from medharden.gating.digests import RunDigests
from medharden.gating.words import percent
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
    looks = max(history.looks, history.finished)
    if looks > protocol.endpoints.looks:
        yield (
            f"the test split was looked at {looks} times; the protocol's endpoints.looks allows "
            f"{protocol.endpoints.looks}"
        )


def ledger_problems(
    protocol: Protocol,
    cohort: CohortRecord,
    harden: HardenRecord,
    digests: RunDigests,
    history: RunHistory,
    ledger: Ledger,
) -> Iterator[str]:
    """Whether the ledger has the look that this evaluation came of, and not more up to it than the protocol allows."""
    look = _look(cohort, harden, digests, history)
    if not history.look or not ledger.holds(look):
        yield "the look at the test split that evaluation.json came of is not in the ledger: it was not counted"
        return
    looks = 1 + ledger.before(look, cohort)
    if looks > protocol.endpoints.looks:
        yield (
            f"by the ledger, this evaluation is look {looks} at images of this test split; the protocol's "
            f"endpoints.looks allows {protocol.endpoints.looks}"
        )


def _look(cohort: CohortRecord, harden: HardenRecord, digests: RunDigests, history: RunHistory) -> Look:
    """The look that the evaluation at hand came of, as a ledger must have it."""
    return look_at(
        cohort,
        look=history.look,
        protocol=digests.protocol,
        cohort=digests.cohort,
        hardened=digests.hardened,
        original=harden.original.state,
    )


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
    if protocol.endpoints.looks > 1:
        planned, left = protocol.endpoints, protocol.endpoints.alpha_per_look
        message = (
            f"The protocol plans {planned.looks} looks at the test split: of alpha {planned.alpha:g} each of them is "
            f"decided at {left:.3g}, its limits at {percent(1.0 - 2.0 * left)}."
        )
        found.append(Finding("gate.alpha_per_look", "info", message))
    counted = 0 if ledger is None else 1 + ledger.before(_look(cohort, harden, digests, history), cohort)
    looks, allowed = max(history.looks, history.finished, counted), protocol.endpoints.looks
    if looks > 1:
        most = max(looks, allowed)
        bound = min(most * protocol.endpoints.alpha_per_look, 1.0)
        message = (
            f"The test split was looked at {looks} times, of {allowed} that the protocol plans. Whoever keeps the best "
            f"of {most} passes wrongly with a chance of up to {bound:.3g} an endpoint, since each look "
            f"is decided at alpha {protocol.endpoints.alpha_per_look:.3g}."
        )
        found.append(Finding("gate.repeated_look", "warning", message))
    failed = history.looks - history.finished
    if failed > 0:
        message = (
            f"{failed} of {history.looks} looks at the test split came to no record: interrupted, or failed. They "
            "count, for what was seen until then could be read."
        )
        found.append(Finding("gate.unfinished_look", "warning", message))
    again = history.opened - history.looks
    if again > 0:
        message = (
            f"The test split was opened {history.opened} times for {history.looks} looks: an evaluation that was "
            "interrupted or failed, and was begun again for the same weights, protocol and cohort, is the same look."
        )
        found.append(Finding("gate.resumed_look", "info", message))
    return tuple(found)


def _other(file: str, done: str, logged: str, found: str) -> Iterator[str]:
    if not logged:
        yield f"{file} is not in audit.jsonl: it was never {done}"
    elif logged != found:
        yield f"{file} is not the one that audit.jsonl {done}: expected sha256 {logged[:12]}, found {found[:12]}"
