"""Independent tests of a release in its run directory: where they lie, what the log says of them, how they are signed.

A test holds its tester's public key, whose digest is the key's name: that it was signed under that key can be seen by
anybody, and whose key it is by whoever has it from the tester (`verify --key`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medharden.audit.envelopes import envelope_bytes, read_envelope, sign_payload
from medharden.audit.inventory import digests_in_statement, run_statement
from medharden.audit.keys import SigningKey, parse_public_key
from medharden.audit.log import Log
from medharden.audit.runfiles import RunFiles
from medharden.canonical import canonical_json
from medharden.errors import KeyFileError, RunError
from medharden.record import INDEPENDENT, Evaluation, IndependentTester

__all__ = [
    "RELEASED",
    "STATEMENT_FILE",
    "LoggedTest",
    "begun_without_end",
    "logged_tests",
    "place_of",
    "signed_statement",
    "statement_problems",
]

RELEASED = ("hardened.safetensors", "hardened.json", "protocol.yaml", "cohort.json", "harden.json")
"""What makes a release, and what an independent test is signed over beside its own files."""

STATEMENT_FILE = "statement.dsse.json"
_OWN = ("evaluation.json", "cases.parquet")


@dataclass(frozen=True)
class LoggedTest:
    """An independent test that the log says was held.

    Attributes:
        key: SHA-256 of the tester's public key.
        place: its folder below the run directory.
        files: name below the run directory to SHA-256.
    """

    key: str
    place: str
    files: dict[str, str]


def place_of(key: str) -> str:
    """The folder of a tester's test below the run directory."""
    return f"{INDEPENDENT}/{key[:16]}"


def logged_tests(log: Log) -> tuple[LoggedTest, ...]:
    """Every independent test that came to a record, in order.

    Raises:
        RunError: an event lacks what it must hold.
    """
    found = []
    for entry in log.entries:
        if entry.event == "independent.recorded":
            try:
                key, files = str(entry.data["key"]), {str(k): str(v) for k, v in entry.data["files"].items()}
            except (KeyError, AttributeError) as error:
                raise RunError("audit.jsonl holds an independent test that lacks its key or files") from error
            found.append(LoggedTest(key, place_of(key), files))
    return tuple(found)


def begun_without_end(log: Log) -> int:
    """How often the test split was opened for an independent test that came to no record."""
    events = [entry.event for entry in log.entries]
    return events.count("independent.test_split_opened") - events.count("independent.recorded")


def signed_statement(tester: IndependentTester, digests: Mapping[str, str], key: SigningKey) -> bytes:
    """The tester's statement over the release and the test's own files, as it lies in its file.

    Args:
        tester: who signs.
        digests: name below the run directory to SHA-256.
        key: the tester's.
    """
    said = {"name": tester.name, "role": tester.role, "seed": tester.seed}
    return envelope_bytes(sign_payload(canonical_json(run_statement(digests, {"independent_test": said})), key))


def statement_problems(files: RunFiles, test: LoggedTest) -> Iterator[str]:
    """One sentence for each way in which a test's files are not what its tester signed, or what the log recorded."""
    for name, logged in test.files.items():
        if not files.has(name):
            yield f"{name} is missing; the log recorded it"
        elif files.digest(name) != logged:
            yield f"{name} is not the one that audit.jsonl recorded: {logged[:12]}, found {files.digest(name)[:12]}"
    wanted = [f"{test.place}/{name}" for name in (*_OWN, STATEMENT_FILE)]
    if lacking := [name for name in wanted if name not in test.files or not files.has(name)]:
        yield f"the independent test lacks {', '.join(lacking)}"
        return
    try:
        yield from _signed(files, test)
    except (RunError, KeyFileError) as error:
        yield f"{test.place}: {error}"


def _signed(files: RunFiles, test: LoggedTest) -> Iterator[str]:
    tester = files.record(f"{test.place}/evaluation.json", Evaluation).tester
    if tester is None:
        yield f"{test.place}/evaluation.json does not say who tested"
        return
    key = parse_public_key(tester.public_key.encode(), "the tester's public key")
    envelope = read_envelope(files.data(f"{test.place}/{STATEMENT_FILE}"))
    if not tester.key == test.key == key.key_id:
        yield f"{test.place}: the tester's key is not the one that its name, record and log speak of"
    elif not envelope.signed_by(key):
        yield f"{test.place}/{STATEMENT_FILE} does not verify under the tester's key"
    listed = digests_in_statement(envelope.statement)
    said = envelope.statement["predicate"].get("independent_test")
    if said != {"name": tester.name, "role": tester.role, "seed": tester.seed}:
        yield f"{test.place}/{STATEMENT_FILE} names another tester or seed than the evaluation"
    for name in (*RELEASED, *(f"{test.place}/{own}" for own in _OWN)):
        if listed.get(name) != files.digest(name):
            yield f"{name} is not the one that the independent tester signed"
