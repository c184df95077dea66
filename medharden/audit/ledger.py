"""A ledger of looks at test splits, which several run directories share: one hash-chained file that the user names.

A run's own log can't know of its copies. A ledger can, as long as all who evaluate name the same file: it says which
weights were looked at, under which protocol, on which images. A look stands there from before its test split is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from medharden.audit.log import TORN, AuditLog, read_log
from medharden.errors import OutputError, RunError
from medharden.record import CohortRecord

__all__ = ["Ledger", "Look", "look_at", "read_ledger", "record_look"]

_EVENT = "look"
_SAMPLE = 64
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Look:
    """One look at a test split, whatever came of it.

    Attributes:
        look: SHA-256 of the line of the run's log that opened the test split for it, or empty for one that is planned.
        protocol, cohort, hardened: digests of protocol, cohort and weights.
        original: digest of the original's state.
        key_id: names the pseudonym key, under which the images' digests are taken.
        images: of the test split, the 64 smallest digests of stored pixels.
    """

    look: str
    protocol: str
    cohort: str
    hardened: str
    original: str
    key_id: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    """What a ledger held when it was read: all looks in order, and the hash of its last line."""

    looks: tuple[Look, ...] = ()
    head: str = ""

    def before(self, look: Look, cohort: CohortRecord) -> int:
        """How many looks stand before this one that shared an image with this test split, of whatever model.

        A look that is not in the ledger stands at its end.

        Args:
            look: the one to be placed, told by its `look`.
            cohort: its data.
        """
        here = {case.pixels for case in cohort.split("test")}
        place = next((n for n, past in enumerate(self.looks) if past.look == look.look), len(self.looks))
        return sum(not here.isdisjoint(past.images) for past in self.looks[:place])

    def holds(self, look: Look) -> bool:
        """Whether this very look is on record: the line that opened it, and what was asked there."""
        return look in self.looks

    def require_room(self, look: Look, cohort: CohortRecord, budget: int, name: str) -> None:
        """Stops a look too many.

        Raises:
            RunError: so many looks as the protocol allows stand before this one.
        """
        past = self.before(look, cohort)
        if past >= budget:
            raise RunError(
                f"{name} holds {past} looks at images of this test split, and the protocol's endpoints.looks allows "
                f"{budget}: a verdict that is the best of several is worth less than it says. Take test cases that "
                "were not looked at, or harden a new run under a protocol that states more looks"
            )


def look_at(record: CohortRecord, *, look: str = "", protocol: str, cohort: str, hardened: str, original: str) -> Look:
    """A look at a cohort's test split.

    Args:
        record: the cohort.
        look: as in `Look`, with the digests that follow.
        protocol: its digest.
        cohort: its digest.
        hardened: digest of the weights.
        original: digest of the original's state.
    """
    images = sorted({case.pixels for case in record.split("test")})[:_SAMPLE]
    return Look(look, protocol, cohort, hardened, original, record.key_id, tuple(images))


def read_ledger(path: Path, *, key_id: str, writing: bool = False) -> Ledger:
    """Reads a ledger and walks its chain.

    Args:
        path: the ledger.
        key_id: of the pseudonym key that the reader's digests are taken under.
        writing: whether a look is to be added: a ledger that is not there yet then counts as an empty one, and a torn
            last line, which adding drops, as none.

    Raises:
        RunError: it is missing, altered or torn, no ledger, or of another pseudonym key.
    """
    if writing and not path.exists():
        return Ledger()
    place = path.resolve()  # a link to a ledger is the user's own
    log = read_log(place.parent, place.name, torn=writing)
    try:
        looks = tuple(_look(entry.data) for entry in log.entries if entry.event == _EVENT)
        if len(looks) != len([e for e in log.entries if e.event != TORN]):
            raise ValueError("other events")
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path.name} is no ledger of looks; expected a file that --ledger has written") from error
    others = _other_keys(looks, key_id)
    if others:
        raise RunError(
            f"{path.name} holds looks under another pseudonym key ({others[0]}); digests of images can be compared "
            "under one key alone: use the key of the ledger, or another ledger"
        )
    return Ledger(looks, log.head)


def record_look(path: Path, look: Look, cohort: CohortRecord, budget: int) -> str:
    """Adds a look, one writer at a time, unless it is there; returns the hash of the ledger's last line.

    Args:
        path: the ledger.
        look: the one to be added.
        cohort: its data.
        budget: how many looks its protocol allows.

    Raises:
        RunError: what is there is no ledger, or of another pseudonym key, or has as many looks as are allowed.
        OutputError: it can't be written, or another process holds it for a minute.
    """
    from filelock import FileLock, Timeout  # here, because the gate only reads and must start quickly

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_WAIT_SECONDS):
            ledger = read_ledger(path, key_id=look.key_id, writing=True)
            ledger.require_room(look, cohort, budget, path.name)
            return ledger.head if ledger.holds(look) else AuditLog(path.resolve()).append(_EVENT, **asdict(look))
    except Timeout as error:
        raise OutputError(
            f"{path.name} is held by another process for {_WAIT_SECONDS:.0f} s; try again when it has ended"
        ) from error
    except OSError as error:
        raise OutputError(f"{path.name} can't be written: {error.strerror}; expected a writable folder") from error


def _look(data: dict[str, object]) -> Look:
    images = data["images"]
    if not isinstance(images, list):
        raise TypeError("images")
    said = {name: str(data[name]) for name in ("look", "protocol", "cohort", "hardened", "original", "key_id")}
    return Look(images=tuple(str(i) for i in images), **said)


def _other_keys(looks: Iterable[Look], key_id: str) -> list[str]:
    return [look.key_id for look in looks if look.key_id != key_id]
