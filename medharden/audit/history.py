"""What a run's log says of the lock on its protocol and cohort, and of the looks at its test split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medharden.audit.log import LOG, Log, read_log
from medharden.errors import RunError

__all__ = ["Lock", "OpenLook", "RunHistory", "history_of", "read_history"]


@dataclass(frozen=True)
class Lock:
    """Digests that one `harden.locked` event holds."""

    protocol: str
    cohort: str


@dataclass(frozen=True)
class OpenLook:
    """A look at the test split: the line that opened it, and what was asked there.

    Attributes:
        look: SHA-256 of the log's first line that opened the test split for it.
        protocol, cohort, hardened: digests of protocol, cohort and weights. Who opens the test split again for the same
            three asks the same question, and goes on with this look as long as no evaluation came of it.
    """

    look: str
    protocol: str
    cohort: str
    hardened: str

    @property
    def question(self) -> tuple[str, str, str]:
        """What makes two openings one look."""
        return self.protocol, self.cohort, self.hardened


@dataclass(frozen=True)
class RunHistory:
    """The events of a log that a verdict depends on.

    Attributes:
        locks: every lock, in order; a resumed hardening locks again.
        locked_first: whether the first lock precedes the first opening of the test split.
        opened: how often the test split was opened.
        looks: how many looks that were; one that was interrupted and gone on with is one, and one that failed is one.
        finished: how many evaluations came to a record.
        unfinished: looks that no evaluation came of so far, in order.
        look: the look that the last finished evaluation came of, by the line that opened it; or empty.
        harden, evaluation: digests of `harden.json` and `evaluation.json` as last recorded, or empty.
        verdict, decided_on: the last verdict, and the digest of the `evaluation.json` that it is on; or empty.
        authorised: the authorised release that a decision was last held against, by its weights' digest; or empty.
        in_ledger: whether the last finished evaluation was recorded in a ledger of looks.
    """

    locks: tuple[Lock, ...] = ()
    locked_first: bool = True
    opened: int = 0
    looks: int = 0
    finished: int = 0
    unfinished: tuple[OpenLook, ...] = ()
    look: str = ""
    harden: str = ""
    evaluation: str = ""
    verdict: str = ""
    decided_on: str = ""
    authorised: str = ""
    in_ledger: bool = False


def history_of(log: Log) -> RunHistory:
    """What a log says; an empty one says nothing.

    Raises:
        RunError: an event lacks what it must hold.
    """
    try:
        events = [entry.event for entry in log.entries]
        data = {name: [e.data for e in log.entries if e.event == name] for name in set(events)}
        recorded = data.get("evaluate.recorded", [])
        hardened = data.get("harden.recorded", [])
        decided = data.get("gate.decided", [])
        compared = [str(d["authorised"]) for d in decided if d.get("authorised")]
        looks, unfinished, look = _looks(log)
        return RunHistory(
            locks=tuple(Lock(str(d["protocol"]), str(d["cohort"])) for d in data.get("harden.locked", [])),
            locked_first=_precedes(events, "harden.locked", "evaluate.test_split_opened"),
            opened=len(data.get("evaluate.test_split_opened", [])),
            looks=looks,
            finished=len(recorded),
            unfinished=unfinished,
            look=look,
            harden=str(hardened[-1]["record"]) if hardened else "",
            evaluation=str(recorded[-1]["record"]) if recorded else "",
            verdict=str(decided[-1]["verdict"]) if decided else "",
            decided_on=str(decided[-1]["evaluation"]) if decided else "",
            authorised=compared[-1] if compared else "",
            in_ledger=bool(recorded[-1].get("ledger")) if recorded else False,
        )
    except KeyError as error:
        raise RunError(f"audit.jsonl holds an event that lacks {str(error.args[0])[:40]!r}") from error


def _looks(log: Log) -> tuple[int, tuple[OpenLook, ...], str]:
    """How many looks a log holds, those that nothing came of, and the one that the last evaluation came of."""
    count, last, found = 0, None, ""
    unfinished: dict[tuple[str, str, str], OpenLook] = {}
    for entry in log.entries:
        if entry.event == "evaluate.test_split_opened":
            said = (str(entry.data[name]) for name in ("protocol", "cohort", "hardened"))
            opened = OpenLook(entry.line, *said)
            count += opened.question not in unfinished
            last = unfinished.setdefault(opened.question, opened)
        elif entry.event == "evaluate.recorded":
            count += last is None  # an evaluation that nothing was opened for
            found = last.look if last else ""
            if last:
                del unfinished[last.question]
            last = None
    return count, tuple(unfinished.values()), found


def read_history(run: Path) -> RunHistory:
    """The history in a run directory's log; one that is not there yet says nothing.

    Raises:
        RunError: the log is unreadable or does not hang together, or an event lacks what it must hold.
    """
    return history_of(read_log(run)) if (run / LOG).exists() else RunHistory()


def _precedes(events: list[str], first: str, second: str) -> bool:
    return second not in events or first in events[: events.index(second)]
