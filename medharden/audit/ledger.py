"""A ledger of looks at test splits, which several run directories share: one hash-chained file that the user names.

A run's own log can't know of its copies. A ledger can, as long as all who evaluate name the same file: it says which
weights were looked at, against which original, on which images.
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
    """One finished evaluation.

    Attributes:
        evaluation: digest of its `evaluation.json`, or empty for one that is planned.
        original: digest of the original's state.
        hardened: digest of the weights that were evaluated.
        key_id: names the pseudonym key, under which the images' digests are taken.
        images: of the test split, the 64 smallest digests of stored pixels.
    """

    evaluation: str
    original: str
    hardened: str
    key_id: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    """What a ledger held when it was read: all looks in order, and the hash of its last line."""

    looks: tuple[Look, ...] = ()
    head: str = ""

    def before(self, look: Look, cohort: CohortRecord) -> int:
        """How many looks stand before this one that were at the same original and shared an image with this test split.

        A look that is not in the ledger stands at its end.

        Args:
            look: the one to be placed, told by its `evaluation`.
            cohort: its data.
        """
        here = {case.pixels for case in cohort.split("test")}
        place = next((n for n, past in enumerate(self.looks) if past.evaluation == look.evaluation), len(self.looks))
        return sum(past.original == look.original and not here.isdisjoint(past.images) for past in self.looks[:place])

    def holds(self, evaluation: str) -> bool:
        """Whether the evaluation of this digest is on record."""
        return any(look.evaluation == evaluation for look in self.looks)


def look_at(cohort: CohortRecord, original: str, hardened: str, evaluation: str = "") -> Look:
    """A look at a cohort's test split; digests as in `Look`."""
    images = sorted({case.pixels for case in cohort.split("test")})[:_SAMPLE]
    return Look(evaluation, original, hardened, cohort.key_id, tuple(images))


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


def record_look(path: Path, look: Look) -> str:
    """Adds a look, one writer at a time; returns the hash of the ledger's last line.

    Raises:
        RunError: what is there is no ledger, or of another pseudonym key.
        OutputError: it can't be written, or another process holds it for a minute.
    """
    from filelock import FileLock, Timeout  # here, because the gate only reads and must start quickly

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_WAIT_SECONDS):
            read_ledger(path, key_id=look.key_id, writing=True)
            return AuditLog(path.resolve()).append(_EVENT, **asdict(look))
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
    texts = [str(data[name]) for name in ("evaluation", "original", "hardened", "key_id")]
    return Look(texts[0], texts[1], texts[2], texts[3], tuple(str(i) for i in images))


def _other_keys(looks: Iterable[Look], key_id: str) -> list[str]:
    return [look.key_id for look in looks if look.key_id != key_id]
