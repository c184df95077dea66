"""The gate on an exported model: the same endpoints, its answers in the composite's place, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medharden.audit import RunFiles, audited, canonical_json, digest_bytes, write_record
from medharden.audit.inventory import is_signed
from medharden.audit.tables import parse_cases
from medharden.errors import RunError
from medharden.gating.changes import artefact_bars, artefact_rows, change_findings, held_reason
from medharden.gating.decision import decide, invalid
from medharden.gating.digests import RunDigests
from medharden.gating.robustness import REPORTED
from medharden.gating.run import digests_of, require_all
from medharden.gating.shares import share_of
from medharden.protocol import Protocol
from medharden.record import (
    ARTEFACTS,
    CaseTable,
    CohortRecord,
    Endpoint,
    Evaluation,
    ExportRecord,
    Finding,
    GateDecision,
    HardenRecord,
    Verdict,
)

__all__ = ["gate_artefact"]


def gate_artefact(
    run: Path, artefact: str, *, protocol: str = "", read_only: bool = False, supersede: bool = False
) -> GateDecision:
    """Decides on an exported model that was evaluated, and writes `artefacts/ID/gate.json`.

    Args:
        run: the run directory.
        artefact: SHA-256 of the exported model's file.
        protocol: digest of the protocol that whoever decides requires; empty takes the run's own.
        read_only: decide alone: nothing is written.
        supersede: decide in a signed run, whose signatures then speak of an earlier state.

    Raises:
        RunError: the artefact was not evaluated, a record is missing or unreadable, the log does not hang together, or
            the run is signed.
        OutputError: the directory can't be written to.
    """
    require_all(run)
    place = f"{ARTEFACTS}/{artefact[:16]}"
    lacking = [name for name in ("evaluation.json", "cases.parquet") if not (run / place / name).is_file()]
    if lacking:
        raise RunError(
            f"{run.name} holds no evaluation of this artefact (sha256 {artefact[:12]}); run "
            "`medharden evaluate RUN --artefact FILE` first"
        )
    if read_only:
        return _decided(RunFiles(run), place, artefact, protocol)
    if is_signed(run) and not supersede:
        raise RunError(
            f"{run.name} is signed, and its signatures would not hold this decision: `gate --artefact --read-only` "
            "decides and writes nothing, `--supersede` decides over the signed state"
        )
    with audited(run, "artefact_gate", artefact=artefact) as log:
        decision = _decided(RunFiles(run), place, artefact, protocol)
        files = {f"{place}/gate.json": digest_bytes(canonical_json(decision) + b"\n")}
        log.append("artefact_gate.decided", artefact=artefact, verdict=decision.verdict.value, files=files)
        write_record(run / place / "gate.json", decision)
    return decision


def _decided(files: RunFiles, place: str, artefact: str, required: str) -> GateDecision:
    protocol = files.protocol()
    digests = digests_of(files, protocol)
    own = files.record(f"{place}/evaluation.json", Evaluation)
    table = parse_cases(f"{place}/cases.parquet", files.data(f"{place}/cases.parquet"))
    evaluation, cases = files.record("evaluation.json", Evaluation), files.cases()
    on = replace(digests, evaluation=files.digest(f"{place}/evaluation.json"))
    problems = list(_problems(files, place, artefact, digests, own, evaluation, table, cases))
    if required and required != protocol.digest:
        problems.insert(0, f"protocol.yaml is sha256 {protocol.digest[:12]}; whoever decides requires {required[:12]}")
    if problems:
        decision = invalid(protocol, on, problems)
    else:
        swapped, answered = _in_place(own, table, evaluation, cases)
        changes = artefact_rows(protocol, _quantised(files, artefact))
        agreement = _agreement(protocol, table)
        decision = decide(
            protocol,
            files.record("cohort.json", CohortRecord),
            files.record("harden.json", HardenRecord),
            swapped,
            answered,
            digests=digests,
            history=files.history(),
            beside=(agreement, *artefact_bars(protocol, own.classes, table, agreement, changes)),
        )
        plan = protocol.change_control
        told = (*change_findings(plan, changes), *_looks(files, artefact), *_searched(own), *_unshifted(protocol))
        decision = replace(decision, evaluation=on.evaluation, findings=(*decision.findings, *told), changes=changes)
        if reason := held_reason(plan, changes):
            verdict = Verdict.INCONCLUSIVE if decision.verdict is Verdict.PASS else decision.verdict
            decision = replace(decision, verdict=verdict, reasons=(*decision.reasons, reason))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(decision, decided=now, protocol_required=required, artefact=artefact)


def _quantised(files: RunFiles, artefact: str) -> str:
    """To what the weights of an exported model were made smaller, as its record says; else empty."""
    logged = [e.data["files"] for e in files.whole_log().entries if e.event == "export.recorded"]
    for name in dict.fromkeys(n for held in logged for n in held if n.endswith(".json") and n.count("/") == 1):
        if files.has(name):
            record = files.record(name, ExportRecord)
            if artefact in record.files.values():
                return record.quantised
    return ""


def _problems(
    files: RunFiles,
    place: str,
    artefact: str,
    digests: RunDigests,
    own: Evaluation,
    evaluation: Evaluation,
    table: CaseTable,
    cases: CaseTable,
) -> Iterator[str]:
    """One sentence for each way in which the artefact's evaluation is not this run's, or not as it was recorded."""
    recorded = [
        entry.data["files"]
        for entry in files.whole_log().entries
        if entry.event == "artefact.recorded" and entry.data.get("artefact") == artefact
    ]
    for name in ("evaluation.json", "cases.parquet"):
        found, logged = files.digest(f"{place}/{name}"), (recorded or [{}])[-1].get(f"{place}/{name}", "")
        if found != logged:
            yield f"the artefact's {name} is not the one that audit.jsonl recorded: {logged[:12]}, found {found[:12]}"
    if own.artefact != artefact:
        yield f"the evaluation is of another artefact: sha256 {own.artefact[:12]}"
    if files.digest(f"{place}/cases.parquet") != own.cases:
        yield "the artefact's cases.parquet is not the one that its evaluation was made with"
    for name, held, wanted in (
        ("protocol", own.protocol, digests.protocol),
        ("cohort", own.cohort, digests.cohort),
        ("weights", own.hardened, digests.hardened),
        ("decision rule", own.decision_threshold, evaluation.decision_threshold),
    ):
        if held != wanted:
            yield f"the artefact was evaluated under another {name}: {held[:12]}, here {wanted[:12]}"
    if set(table.subjects) != {"composite", "artefact"} or {s.name for s in own.subjects} != set(table.subjects):
        yield "the artefact's evaluation holds other subjects than composite and artefact"
    elif (table.case, table.patient) != (cases.case, cases.patient) or not (
        np.array_equal(table.label, cases.label) and np.array_equal(table.attacked, cases.attacked)
    ):
        yield "the artefact was evaluated on other cases, labels or attacked cases than the run"


def _in_place(
    own: Evaluation, table: CaseTable, evaluation: Evaluation, cases: CaseTable
) -> tuple[Evaluation, CaseTable]:
    """The run's evaluation and table with the artefact in the composite's place; the suite was the composite's."""
    exported = own.subject("artefact")
    attacks = (*own.subject("composite").attacks, *exported.attacks)
    outcome = replace(exported, name="composite", attacks=attacks)
    subjects = tuple(outcome if s.name == "composite" else s for s in evaluation.subjects)
    findings = (*evaluation.findings, *own.findings)
    swapped = replace(evaluation, subjects=subjects, findings=findings, shift=(), artefact=own.artefact)
    answered = {**cases.subjects, "composite": table.subjects["artefact"]}
    return swapped, replace(cases, subjects=answered, shift=())


def _agreement(protocol: Protocol, table: CaseTable) -> Endpoint:
    """The share of test cases that the artefact answers or refers otherwise than the composite; decides nothing."""
    ours, theirs = table.subjects["composite"], table.subjects["artefact"]
    other = (ours.predicted != theirs.predicted).reshape(len(table.case), -1).any(axis=1)
    other |= ours.referred != theirs.referred
    every = np.ones(len(table.case), dtype=np.bool_)
    alpha = protocol.endpoints.alpha_per_look
    share = share_of(other, every, table, alpha)
    changed = int(other.sum())
    return Endpoint(
        name="agreement",
        kind="agreement",
        verdict=Verdict.INCONCLUSIVE if changed else Verdict.PASS,
        estimate=share.estimate,
        lower=share.lower,
        upper=share.upper,
        level=1.0 - 2.0 * alpha,
        limit=0.0,
        n=len(table.case),
        patients=len(set(table.patient)),
        table=(),
        smallest_margin=None,
        needed=None,
        method=f"{share.method}, of cases that are answered or referred otherwise than by the composite",
        justification="",
        reason=f"agreement: {changed} of {len(table.case)} test cases are answered or referred otherwise than by the "
        "composite",
        comparator="composite",
        role=REPORTED,
    )


def _looks(files: RunFiles, artefact: str) -> tuple[Finding, ...]:
    """That more than one artefact was tried on these test cases, or this one more than once."""
    opened = [e.data.get("artefact") for e in files.whole_log().entries if e.event == "artefact.test_split_opened"]
    kinds = len(set(opened))
    if len(opened) <= 1:
        return ()
    message = (
        f"Artefacts of this run were evaluated on its test split {len(opened)} times, {kinds} in all and this one "
        f"{opened.count(artefact)} times. Whoever keeps the best of several passes wrongly more often than the level "
        "says."
    )
    return (Finding("gate.artefacts_evaluated", "warning", message),)


def _searched(own: Evaluation) -> tuple[Finding, ...]:
    """How the artefact was attacked: less than the composite, for a runtime has no gradient."""
    names = ", ".join(attack.name for attack in own.subject("artefact").attacks)
    message = (
        f"The artefact was attacked by {names}: a runtime gives no gradient, so what beats it alone may have been "
        "missed. Its robust accuracy is an upper limit more than the composite's is."
    )
    return (Finding("gate.artefact_attacks", "info", message),)


def _unshifted(protocol: Protocol) -> tuple[Finding, ...]:
    """That the protocol's corruptions were tried on the composite alone, where it names any."""
    if not protocol.shift.corruptions:
        return ()
    message = (
        "The artefact was not evaluated under the corruptions of the protocol's shift, the composite was: what is said "
        "of them rests on the composite's decision, and on how few cases the artefact answers otherwise."
    )
    return (Finding("gate.artefact_shift", "warning", message),)
