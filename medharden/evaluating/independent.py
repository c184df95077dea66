"""An independent test: another person evaluates the same release again, with a draw of their own, and signs it.

The run's own evaluation stays as it is. The tester's seed draws which cases are attacked and where each search begins,
and is on record before the test split is opened, so that nobody chooses among draws.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from medharden.attacks import SuiteResult
from medharden.audit import (
    RunFiles,
    audited,
    describe_environment,
    guarded,
    read_log,
    write_atomic,
    write_cases,
    write_record,
)
from medharden.audit.independent import RELEASED, STATEMENT_FILE, logged_tests, place_of, signed_statement
from medharden.audit.inventory import is_signed
from medharden.audit.keys import SigningKey
from medharden.data import Cohort
from medharden.errors import RunError
from medharden.evaluating.attacked import attack_all, referred_under_attack, with_transfer
from medharden.evaluating.evaluated import digests_in_hand, require_evaluated
from medharden.evaluating.findings import Pushed, push_all
from medharden.evaluating.outcomes import case_table, findings_of, outcome_of
from medharden.evaluating.subjects import Subject, identity_of, subjects_of
from medharden.models import Classifier, HardenedClassifier
from medharden.protocol import Protocol
from medharden.record import CaseTable, Evaluation, Identity, IndependentTester, Progress
from medharden.rows import select
from medharden.stats.sampling import stratified_sample
from medharden.text import neutral

__all__ = ["evaluate_independent"]

_LONGEST = 200
_MOST_SEED = 2**31


def evaluate_independent(
    model: HardenedClassifier,
    cohort: Cohort,
    protocol: Protocol,
    run: Path,
    *,
    name: str,
    role: str,
    key: SigningKey,
    original: Classifier,
    batch_size: int = 64,
    device: str = "cpu",
    supersede: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluates a release that was evaluated before, and writes the test below `independent/KEY`, signed.

    Args:
        model: the hardened model of this run.
        cohort: the run's cohort.
        protocol: the run's protocol; of it everything holds but the seed of the attacks.
        run: the run directory.
        name: who tests, as everybody who gets the directory can read it.
        role: as what, such as `notified body`.
        key: the tester's.
        original: the model loaded anew from its file.
        batch_size: cases a pass.
        device: such as `cpu` or `cuda:0`.
        supersede: test in a signed run, whose signatures then speak of an earlier state.
        seed: of the tester's draw, in [0, 2**31); null draws one from the operating system.
        progress: called with `attack original`, `attack branch`, `attack release`, `attack findings`.

    Raises:
        RunError: the run is signed, was not evaluated, is of other data or weights, or has a test of this key.
        OutputError: the run directory can't be written to.
        PrivacyError: a record would hold patient data.
    """
    _require_words(name, role)
    if is_signed(run) and not supersede:
        raise RunError(
            f"{run.name} is signed, and its signatures would not hold this test: test before signing, or --supersede "
            "and have it signed anew"
        )
    digests = digests_in_hand(model, cohort, protocol)
    threat = require_evaluated(run, digests).threat
    tester = IndependentTester(name, role, key.public.key_id, key.public.pem, _seed(seed, protocol))
    if any(test.key == tester.key for test in logged_tests(read_log(run))):
        raise RunError(
            "this key has tested this release already, and its test stands; who tests until a result pleases has "
            "tested nothing"
        )
    guard = guarded(cohort.identifiers, (protocol.model_dump_json(), *cohort.classes, name, role))
    with guard, audited(run, "independent", key=tester.key, **digests) as log:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        cases = len(cohort.record.split("test"))
        log.append("independent.test_split_opened", key=tester.key, seed=tester.seed, cases=cases)
        drawn = protocol.model_copy(update={"seed": tester.seed})
        model = model.to(device)
        found = _seen(model, original.to(device), cohort, drawn, batch_size, device, progress)
        folder = run / place_of(tester.key)
        cases_digest = write_cases(folder / "cases.parquet", found.table)
        record = Evaluation(
            protocol=digests["protocol"],
            cohort=digests["cohort"],
            hardened=digests["hardened"],
            cases=cases_digest,
            split="test",
            classes=cohort.classes,
            threat=threat,
            decision_threshold=protocol.decision_rule(len(cohort.classes)),
            subjects=tuple(outcome_of(s, found.results[s.name], found.table) for s in found.subjects),
            identity=found.identity,
            environment=describe_environment(device, torch.get_num_threads()),
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            findings=findings_of(found.identity, found.results, found.table, drawn),
            tester=tester,
        )
        written = write_record(folder / "evaluation.json", record)
        place = place_of(tester.key)
        own = {f"{place}/evaluation.json": written, f"{place}/cases.parquet": cases_digest}
        files = RunFiles(run)
        statement = signed_statement(tester, {name: files.digest(name) for name in RELEASED} | own, key)
        own[f"{place}/{STATEMENT_FILE}"] = write_atomic(folder / STATEMENT_FILE, statement)
        log.append("independent.recorded", key=tester.key, files=own)
        return record


@dataclass(frozen=True)
class _Seen:
    """What one independent evaluation saw."""

    subjects: tuple[Subject, Subject, Subject]
    results: dict[str, SuiteResult]
    identity: Identity
    table: CaseTable


def _seen(
    model: HardenedClassifier,
    reference: Classifier,
    cohort: Cohort,
    drawn: Protocol,
    batch_size: int,
    device: str,
    progress: Progress | None,
) -> _Seen:
    """Answers and attacks, as `evaluate` has them in one process; `drawn` is the protocol with the tester's seed."""
    test = cohort.indices("test")
    inputs, labels = cohort.stream(test, device), cohort.labels(test).to(device)
    rows = stratified_sample(labels.cpu().numpy(), drawn.suite.cases, drawn.seed)
    sample = torch.as_tensor(rows, device=device)
    identity = identity_of(reference, model, inputs, batch_size, "file")
    subjects = subjects_of(reference, model, inputs, batch_size)
    attacked, truth = select(inputs, sample), labels[sample]
    results = attack_all(subjects, attacked, truth, drawn, batch_size, device, progress)
    results["composite"] = with_transfer(subjects[-1], results, attacked, truth, batch_size, drawn.suite.moved_grades)
    pushed: dict[str, Pushed] = {}
    if drawn.task.multilabel:
        numbers = torch.arange(len(sample))
        pushed, results = push_all(subjects, results, attacked, truth, drawn, batch_size, progress, numbers)
    referred = referred_under_attack(model, results["composite"], batch_size, device)
    table = case_table(cohort, drawn, subjects, results, labels, sample, pushed, referred)
    return _Seen(subjects, results, identity, table)


def _require_words(name: str, role: str) -> None:
    for what, text in (("name", name), ("role", role)):
        if not text.strip() or len(text) > _LONGEST or neutral(text) != text:
            raise RunError(f"the tester's {what} must be one line of 1 to {_LONGEST} characters, all of which are seen")


def _seed(asked: int | None, protocol: Protocol) -> int:
    """Another than the protocol's."""
    if asked == protocol.seed:
        raise RunError(f"the seed {asked} is the protocol's own; an independent test takes another draw")
    if asked is not None:
        return asked
    drawn = secrets.randbelow(_MOST_SEED)
    return drawn if drawn != protocol.seed else (drawn + 1) % _MOST_SEED
