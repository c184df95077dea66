"""Independent tests of a run: whether each is what its tester signed, and whether the verdict takes all of them in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medharden.audit import RunFiles
from medharden.audit.independent import STATEMENT_FILE, LoggedTest, logged_tests, place_of, statement_problems
from medharden.audit.keys import PublicKey
from medharden.audit.log import Log
from medharden.errors import RunError
from medharden.record import INDEPENDENT, Evaluation
from medharden.verifying.outcome import Fault

__all__ = ["Testers", "testers_of"]


@dataclass(frozen=True)
class Testers:
    """Who tested independently.

    Attributes:
        names: key to who it is of, as stated, for tests that are as signed.
        faults: what is wrong with the tests, or with the verdict that leaves one out.
    """

    names: dict[str, str]
    faults: tuple[Fault, ...]

    def notes(self, keys: Sequence[PublicKey]) -> Iterator[str]:
        """One sentence for each test: whose key was given, and whose was not."""
        given = {key.key_id for key in keys}
        for key, name in self.names.items():
            known = "whose key was given" if key in given else "whose key was not given, so nothing shows whose it is"
            yield f"an independent test is signed by {name} under the key {key[:16]}, {known}"


def testers_of(files: RunFiles, log: Log) -> Testers:
    """Checks every independent test that the log holds, and that none lies there beside them."""
    try:
        logged = logged_tests(log)
    except RunError as error:
        return Testers({}, (Fault("audit.jsonl", str(error)),))
    names: dict[str, str] = {}
    faults: list[Fault] = []
    for test in logged:
        problems = list(statement_problems(files, test))
        if problems:
            faults += [Fault(f"{test.place}/{STATEMENT_FILE}", problem) for problem in problems[:1]]
            continue
        tester = files.record(f"{test.place}/evaluation.json", Evaluation).tester
        names[test.key] = f"{tester.name}, {tester.role}" if tester is not None else ""
    faults += _strays(files, logged)
    faults += _left_out(files, logged)
    return Testers(names, tuple(faults))


def _strays(files: RunFiles, logged: Sequence[LoggedTest]) -> Iterator[Fault]:
    known = {place_of(test.key) for test in logged}
    folder = files.run / INDEPENDENT
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        place = f"{INDEPENDENT}/{path.name}"
        if place not in known:
            yield Fault(place, "is there, and the log records no independent test of it")


def _left_out(files: RunFiles, logged: Sequence[LoggedTest]) -> Iterator[Fault]:
    """A verdict that was reached before a test, or without it."""
    fields = files.fields("gate.json") if files.has("gate.json") else None
    if fields is None or fields.get("verdict") == "INVALID":
        return
    taken = {str(test.get("key")) for test in fields.get("independent", ()) if isinstance(test, dict)}
    for test in logged:
        if test.key not in taken:
            yield Fault("gate.json", f"was decided without the independent test in {test.place}; run `medharden gate`")
