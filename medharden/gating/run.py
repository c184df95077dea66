"""The gate on a run directory: reads the records, decides, logs the verdict and writes `gate.json`."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from medharden.audit import (
    audited,
    canonical_json,
    digest_bytes,
    digest_file,
    read_cases,
    read_history,
    read_ledger,
    read_record,
    verify_log,
    write_record,
)
from medharden.errors import RunError
from medharden.gating.authorised import Release
from medharden.gating.decision import decide, invalid
from medharden.gating.digests import RunDigests, mismatches
from medharden.gating.looks import history_problems
from medharden.protocol import Protocol, load_protocol
from medharden.record import CohortRecord, Evaluation, GateDecision, HardenRecord, Progress

__all__ = ["gate"]

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
    run: Path, *, authorised: Path | None = None, ledger: Path | None = None, progress: Progress | None = None
) -> GateDecision:
    """Decides on a run directory and writes `gate.json`.

    The verdict goes into `audit.jsonl` first, with the digest of `gate.json`: a decision that was made is on record
    even where the file could not be written. A second run replaces `gate.json`; the log keeps both.

    Args:
        run: the run directory.
        authorised: the run directory of the last authorised release, which is only read; null where there is none.
        ledger: the ledger of looks that evaluations were counted in, which is only read; null where there is none.
        progress: called with `gate`.

    Raises:
        RunError: a record is missing or unreadable, or the log does not hang together.
        ProtocolError: `protocol.yaml` is no valid protocol.
        OutputError: the directory can't be written to.
    """
    _require_all(run)
    if authorised is not None:
        _require_all(authorised)
    with audited(run, _STAGE) as log:
        _report(progress, 0)
        protocol = load_protocol(run / "protocol.yaml")
        digests = _digests(run, protocol)
        _report(progress, 1)
        decision = replace(
            _decide(run, protocol, digests, authorised, ledger), decided=datetime.now(UTC).isoformat(timespec="seconds")
        )
        _report(progress, 2)
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


def _decide(
    run: Path, protocol: Protocol, digests: RunDigests, authorised: Path | None, ledger: Path | None
) -> GateDecision:
    harden = read_record(run / "harden.json", HardenRecord)
    evaluation = read_record(run / "evaluation.json", Evaluation)
    # Before anything else is read: a file that was tampered with may be no record any more.
    history = read_history(run / "audit.jsonl")
    wrong = (*mismatches(harden, evaluation, digests), *history_problems(protocol, history, digests))
    if wrong:
        return invalid(protocol, digests, wrong)
    cohort = read_record(run / "cohort.json", CohortRecord)
    return decide(
        protocol,
        cohort,
        harden,
        evaluation,
        read_cases(run / "cases.parquet"),
        digests=digests,
        history=history,
        release=None if authorised is None else _release(authorised),
        ledger=None if ledger is None else read_ledger(ledger, key_id=cohort.key_id),
    )


def _release(run: Path) -> Release:
    """The records of an authorised release.

    Raises:
        RunError: a record is unreadable, or the log does not hang together.
    """
    verify_log(run / "audit.jsonl")
    protocol = load_protocol(run / "protocol.yaml")
    return Release(
        protocol=protocol,
        cohort=read_record(run / "cohort.json", CohortRecord),
        harden=read_record(run / "harden.json", HardenRecord),
        evaluation=read_record(run / "evaluation.json", Evaluation),
        cases=read_cases(run / "cases.parquet"),
        digests=_digests(run, protocol),
        history=read_history(run / "audit.jsonl"),
    )


def _require_all(run: Path) -> None:
    if not run.is_dir():
        raise RunError(f"{run.name} is no run directory; expected the folder that `medharden harden` wrote")
    missing = [name for name in _WRITTEN_BY if not (run / name).is_file()]
    if missing:
        stages = " and ".join(f"`medharden {stage}`" for stage in dict.fromkeys(_WRITTEN_BY[name] for name in missing))
        raise RunError(f"the run directory lacks {', '.join(missing)}; run {stages} first")


def _digests(run: Path, protocol: Protocol) -> RunDigests:
    return RunDigests(
        protocol=protocol.digest,
        cohort=digest_file(run / "cohort.json"),
        harden=digest_file(run / "harden.json"),
        hardened=digest_file(run / "hardened.safetensors"),
        description=digest_file(run / "hardened.json"),
        cases=digest_file(run / "cases.parquet"),
        evaluation=digest_file(run / "evaluation.json"),
    )


def _report(progress: Progress | None, done: int) -> None:
    if progress is not None:
        progress(_STAGE, done, _STEPS)
