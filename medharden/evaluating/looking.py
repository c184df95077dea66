"""A look at the test split: counted in the run's log and in the ledger before anything of it can be read.

Attacks leave their outcomes in `evaluate.SUBJECT.partial` while they run, which are sealed and not encrypted: whoever
can read the run directory can read them. So it is the opening that counts, and not what came of it. Whoever opens the
test split again for the same weights, protocol and cohort asks the same question, which has the same answer up to
rounding (on another device, or in other batches), and goes on with the same look, until an evaluation is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medharden.audit import AuditLog, look_at, read_history, read_ledger, record_look
from medharden.errors import OutputError, RunError
from medharden.protocol import Protocol
from medharden.record import CohortRecord

__all__ = ["open_test_split", "require_places"]

_WRITTEN = ("cases.parquet", "evaluation.json", "examples.safetensors")
_SUBJECTS = ("original", "robust_branch", "composite", "shift")


def require_places(run: Path) -> None:
    """Stops before the test split is opened where a file could not be written in the end.

    Raises:
        OutputError: a folder lies in the place of one.
    """
    for name in (*_WRITTEN, *(f"evaluate.{subject}.partial" for subject in _SUBJECTS)):
        if (run / name).is_dir():
            raise OutputError(
                f"{run.name} has a folder in the place of {name}; expected a file, or nothing there. Remove it: the "
                "test split was not opened"
            )


def open_test_split(
    run: Path,
    log: AuditLog,
    cohort: CohortRecord,
    protocol: Protocol,
    question: Mapping[str, str],
    original: str,
    ledger: Path | None,
) -> str:
    """Counts the look, or goes on with one that nothing came of, and logs that the test split is opened.

    Args:
        run: the run directory, held by this process.
        log: its log.
        cohort: the data.
        protocol: says how many looks there may be.
        question: digests of `protocol`, `cohort` and `hardened`.
        original: digest of the original's state.
        ledger: the ledger of looks, or null.

    Returns:
        The hash of the ledger's last line; empty without one.

    Raises:
        RunError: the protocol's looks are used up, or the ledger is none.
        OutputError: the log or the ledger can't be written. Nothing was opened.
    """
    history, budget = read_history(run), protocol.endpoints.looks
    asked = (question["protocol"], question["cohort"], question["hardened"])
    begun = next((past.look for past in history.unfinished if past.question == asked), "")
    if not begun and history.looks >= budget:
        raise RunError(_used_up(run, history.looks, history.finished, budget))
    if ledger is not None:
        # Here as well as below: a refused look leaves no line that says that the test split was opened.
        look = look_at(cohort, look=begun, original=original, **question)
        known = read_ledger(ledger, key_id=look.key_id, writing=True)
        known.require_room(look, cohort, budget, ledger.name)
    line = log.append("evaluate.test_split_opened", cases=len(cohort.split("test")), **question)
    if ledger is None:
        return ""
    look = look_at(cohort, look=begun or line, original=original, **question)
    return record_look(ledger, look, cohort, budget)


def _used_up(run: Path, looks: int, finished: int, budget: int) -> str:
    failed = f" ({looks - finished} of them came to no record)" if finished < looks else ""
    stands = "The finished evaluation stands; to look again, " if finished else "To look again, "
    return (
        f"the test split of {run.name} was looked at {looks} times{failed}, and the protocol's endpoints.looks allows "
        f"{budget}: evaluating until a verdict pleases makes it worthless. {stands}harden a new run under a protocol "
        "that states more looks"
    )
