"""The gate on a run directory: reads each file once, decides, and logs the verdict or writes nothing."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from medharden.audit import RunFiles, audited, canonical_json, digest_bytes, read_ledger, write_record
from medharden.audit.inventory import is_signed
from medharden.errors import RunError
from medharden.files import require_plain
from medharden.gating.authorised import Release
from medharden.gating.decision import decide, invalid
from medharden.gating.digests import RunDigests, mismatches
from medharden.gating.independent import held_tests, in_place, unfinished_tests, with_test
from medharden.gating.looks import history_problems
from medharden.protocol import Protocol
from medharden.record import CaseTable, CohortRecord, Evaluation, GateDecision, HardenRecord, Progress, Verdict

__all__ = ["digests_of", "gate", "require_all"]

_WRITTEN_BY = {
    "protocol.yaml": "harden",
    "cohort.json": "harden",
    "harden.json": "harden",
    "hardened.safetensors": "harden",
    "hardened.json": "harden",
    "evaluation.json": "evaluate",
    "cases.parquet": "evaluate",
}
_STAGE = "gate"
_STEPS = 3


def gate(
    run: Path,
    *,
    protocol: str = "",
    authorised: Path | None = None,
    ledger: Path | None = None,
    read_only: bool = False,
    supersede: bool = False,
    progress: Progress | None = None,
) -> GateDecision:
    """Decides on a run directory and writes `gate.json`.

    The verdict goes into `audit.jsonl` first, with the digest of `gate.json`: a decision that was made is on record
    even where the file could not be written. A second run replaces `gate.json`; the log keeps both.

    Args:
        run: the run directory.
        protocol: digest of the protocol that whoever decides requires; empty takes the run's own, whatever it asks.
        authorised: the run directory of the last authorised release, which is only read; null where there is none.
        ledger: the ledger of looks that evaluations were counted in, which is only read; null where there is none.
        read_only: decide alone: nothing is written, and nobody is kept from writing.
        supersede: decide anew on a signed run, whose signatures then speak of an earlier state.
        progress: called with `gate`.

    Raises:
        RunError: a record is missing or unreadable, the log does not hang together, another process writes there, or
            the run is signed.
        ProtocolError: `protocol.yaml` is no valid protocol.
        OutputError: the directory can't be written to.
    """
    for folder in (run, authorised):
        if folder is not None:
            require_all(folder)
    if read_only:
        return _decided(RunFiles(run), protocol, authorised, ledger, progress)[0]
    if is_signed(run) and not supersede:
        raise RunError(
            f"{run.name} is signed, and a decision written there would break its signatures: `gate --check` decides "
            "anew and compares, `gate --supersede` decides over the signed state"
        )
    with audited(run, _STAGE) as log:
        decision, digests = _decided(RunFiles(run), protocol, authorised, ledger, progress)
        log.append(
            f"{_STAGE}.decided",
            verdict=decision.verdict.value,
            gate=digest_bytes(canonical_json(decision) + b"\n"),
            authorised=decision.authorised,
            **asdict(digests),
        )
        write_record(run / "gate.json", decision)
    _report(progress, _STEPS)
    return decision


def _decided(
    files: RunFiles, required: str, authorised: Path | None, ledger: Path | None, progress: Progress | None
) -> tuple[GateDecision, RunDigests]:
    """The decision, dated, with the digests of what it is on."""
    _report(progress, 0)
    protocol = files.protocol()
    digests = digests_of(files, protocol)
    _report(progress, 1)
    decision = _decide(files, protocol, digests, required, authorised, ledger)
    _report(progress, 2)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(decision, decided=now, protocol_required=required), digests


def _decide(
    files: RunFiles,
    protocol: Protocol,
    digests: RunDigests,
    required: str,
    authorised: Path | None,
    ledger: Path | None,
) -> GateDecision:
    if required and required != protocol.digest:
        reason = f"protocol.yaml is sha256 {protocol.digest[:12]}; whoever decides requires {required[:12]}"
        return invalid(protocol, digests, [reason])
    harden = files.record("harden.json", HardenRecord)
    evaluation = files.record("evaluation.json", Evaluation)
    # Before anything else is read: a file that was tampered with may be no record any more.
    history = files.history()
    wrong = (*mismatches(harden, evaluation, digests), *history_problems(protocol, history, digests))
    if wrong:
        return invalid(protocol, digests, wrong)
    if evaluation.tester is not None:
        return invalid(protocol, digests, ["evaluation.json is an independent test; the run's own lies in its place"])
    cohort = files.record("cohort.json", CohortRecord)
    held = held_tests(files)
    problems = [problem for test in held for problem in test.problems]
    placed = [] if problems else [in_place(test, evaluation, protocol.seed) for test in held]
    problems += [problem for _, found in placed for problem in found]
    if problems:
        return invalid(protocol, digests, problems)
    release = None if authorised is None else _release(RunFiles(authorised))
    counted = None if ledger is None else read_ledger(ledger, key_id=cohort.key_id)

    def on(seen: Evaluation, cases: CaseTable) -> GateDecision:
        return decide(
            protocol, cohort, harden, seen, cases, digests=digests, history=history, release=release, ledger=counted
        )

    own = files.cases()
    decision = on(evaluation, own)
    if decision.verdict is Verdict.INVALID:
        return decision
    for test, (seen, _) in zip(held, placed, strict=True):
        alone = on(seen, test.cases)
        if alone.verdict is Verdict.INVALID:
            return invalid(protocol, digests, [f"independent test: {reason}" for reason in alone.reasons])
        decision = with_test(decision, alone, test, own)
    return replace(decision, findings=(*decision.findings, *unfinished_tests(files)))


def _release(files: RunFiles) -> Release:
    """The records of an authorised release.

    Raises:
        RunError: a record is unreadable, or the log does not hang together.
    """
    history, protocol = files.history(), files.protocol()
    return Release(
        protocol=protocol,
        cohort=files.record("cohort.json", CohortRecord),
        harden=files.record("harden.json", HardenRecord),
        evaluation=files.record("evaluation.json", Evaluation),
        cases=files.cases(),
        digests=digests_of(files, protocol),
        history=history,
    )


def require_all(run: Path) -> None:
    """Refuses a run directory that lacks what a decision is on.

    Raises:
        RunError: it is none, or lacks a record, and the message names the stage that writes it.
    """
    if not run.is_dir():
        raise RunError(f"{run.name} is no run directory; expected the folder that `medharden harden` wrote")
    require_plain(run)
    missing = [name for name in _WRITTEN_BY if not (run / name).is_file()]
    if missing:
        stages = " and ".join(f"`medharden {stage}`" for stage in dict.fromkeys(_WRITTEN_BY[name] for name in missing))
        raise RunError(f"the run directory lacks {', '.join(missing)}; run {stages} first")


def digests_of(files: RunFiles, protocol: Protocol) -> RunDigests:
    """The bytes of what is parsed later are kept, so that the digest is of them."""
    for name in ("cohort.json", "harden.json", "cases.parquet", "evaluation.json"):
        files.data(name)
    return RunDigests(
        protocol=protocol.digest,
        cohort=files.digest("cohort.json"),
        harden=files.digest("harden.json"),
        hardened=files.digest("hardened.safetensors"),
        description=files.digest("hardened.json"),
        cases=files.digest("cases.parquet"),
        evaluation=files.digest("evaluation.json"),
    )


def _report(progress: Progress | None, done: int) -> None:
    if progress is not None:
        progress(_STAGE, done, _STEPS)
