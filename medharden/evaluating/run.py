"""One evaluation of a run: opens the test split, attacks, and writes the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from medharden import ranks
from medharden._version import __version__
from medharden.attacks import SuiteResult, passes
from medharden.audit import (
    audited,
    describe_environment,
    guarded,
    read_record,
    write_atomic,
    write_cases,
    write_record,
)
from medharden.data import Cohort
from medharden.errors import RunError
from medharden.evaluating.attacked import attack_all, referred_under_attack, with_transfer
from medharden.evaluating.curve import curve_points, withstood
from medharden.evaluating.evaluated import digests_in_hand
from medharden.evaluating.examples import examples_of
from medharden.evaluating.findings import Pushed, push_all
from medharden.evaluating.fitting import fitting_batch
from medharden.evaluating.looking import open_test_split, require_places
from medharden.evaluating.merging import merged_identity, merged_pushes, merged_results, merged_subjects
from medharden.evaluating.operating import operating_thresholds
from medharden.evaluating.outcomes import case_table, findings_of, outcome_of
from medharden.evaluating.resuming import clear
from medharden.evaluating.sanity import few_cases, sanity_curves, sanity_findings
from medharden.evaluating.shifted import answers_under_shift
from medharden.evaluating.subjects import identity_of, subjects_of
from medharden.models import Classifier, HardenedClassifier
from medharden.protocol import Protocol
from medharden.record import Evaluation, HardenRecord, Progress, point_of
from medharden.rows import select
from medharden.stats.sampling import stratified_sample

__all__ = ["evaluate"]


def evaluate(
    model: HardenedClassifier,
    cohort: Cohort,
    protocol: Protocol,
    run: Path,
    *,
    original: Classifier | None,
    batch_size: int = 64,
    device: str = "cpu",
    with_examples: bool = False,
    ledger: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Opens the test split: clean answers of all cases, attacks on all or on the protocol's sample.

    Within a process group all processes call this alike: cases are dealt, each is answered and attacked by one, with
    the randomness that it has in one process, and the first writes.

    Writes `cases.parquet`, `evaluation.json` and, where allowed, `examples.safetensors`.

    Args:
        model: the hardened model of this run.
        cohort: the run's cohort; its `test` split is used.
        protocol: the run's protocol.
        run: the run directory.
        original: the model loaded anew from its file, or as the module in hand gives it; null compares with the stored
            clean path only, and says so.
        batch_size: cases a pass at most, fewer where more would not fit (`fitting_batch`); does not change what is
            measured, and the bits are compared within equal batches.
        device: such as `cpu` or `cuda:0`.
        with_examples: store a few cases as pictures for the report. Off for patient images; none of multi-label tasks.
        ledger: a file that counts looks over several run directories; null counts in this one alone. The look is in it,
            and in the run's log, before the test split is opened, and stays there if the evaluation fails. Opening it
            again for the same weights, protocol and cohort goes on with that look until an evaluation is recorded.
        progress: called with `attack original`, `attack branch`, `attack release`, `attack findings`, `accuracy curve`,
            `sanity curves`, `corruptions`.

    Raises:
        RunError: the cohort is not the one the run was locked to, the protocol's looks are used up, or the ledger is
            none.
        OutputError: the run directory can't be written to.
        PrivacyError: a record would hold patient data.
    """
    digests = digests_in_hand(model, cohort, protocol)
    guard = guarded(cohort.identifiers, (protocol.model_dump_json(), *cohort.classes))
    with guard, audited(run, "evaluate", writes=ranks.first(), **digests) as log:
        require_places(run)
        original_state = _require_this_run(run, digests).original.state
        ranks.agree("the run, its protocol, model or data, or version", {**digests, "version": __version__})
        started = datetime.now(UTC).isoformat(timespec="seconds")
        model = model.to(device)
        reference = (original or model.clean_path).to(device)
        head = ""
        if ranks.first():
            # Counted before anything is seen: from here on a result may be read, whether or not this ends well.
            head = open_test_split(run, log, cohort.record, protocol, digests, original_state, ledger)
        ranks.wait()
        test = cohort.indices("test")
        inputs, labels = cohort.stream(test, device), cohort.labels(test).to(device)
        sample = torch.as_tensor(
            stratified_sample(labels.cpu().numpy(), protocol.suite.cases, protocol.seed), device=device
        )
        ranks.require_enough(len(sample), "cases to attack")
        batch_size, smaller = fitting_batch(model.decision_view(), inputs, batch_size, device)
        asked, mine = ranks.own(len(labels)), ranks.own(len(sample))
        answered = select(inputs, asked)
        identity = merged_identity(identity_of(reference, model, answered, batch_size, _compared_with(original)))
        subjects = merged_subjects(subjects_of(reference, model, answered, batch_size), asked)
        attacked, truth = select(inputs, sample[mine.to(device)]), labels[sample[mine.to(device)]]
        own = attack_all(subjects, attacked, truth, protocol, batch_size, device, progress, run, cohort.seal, mine)
        own["composite"] = with_transfer(subjects[-1], own, attacked, truth, batch_size, protocol.suite.moved_grades)
        pushed: dict[str, Pushed] = {}
        if protocol.task.multilabel:
            pushed, own = push_all(subjects, own, attacked, truth, protocol, batch_size, progress, mine)
        everything = select(inputs, sample), labels[sample]
        stands = withstood(subjects, own, attacked, truth, protocol, batch_size, device, progress)
        stands = {name: ranks.in_order(values, mine) for name, values in stands.items()}
        results, pushed = merged_results(own, mine), merged_pushes(pushed, mine)
        work = _gradients_taken(results, protocol, len(cohort.classes))
        sanity = sanity_curves(subjects, *everything, protocol, batch_size, device, progress, work)
        referred = referred_under_attack(model, own["composite"], batch_size, device)
        referred = None if referred is None else ranks.in_order(torch.from_numpy(referred), mine).numpy()
        table = case_table(cohort, protocol, subjects, results, labels, sample, pushed, referred, stands)
        shift, begun_anew = answers_under_shift(reference, model, inputs, cohort, protocol, batch_size, run, progress)
        table = replace(table, shift=shift)
        pictures = None
        if with_examples and not protocol.task.multilabel:
            pictures = examples_of(subjects, results, *everything, mine)
        if not ranks.first():
            ranks.wait()
            return read_record(run / "evaluation.json", Evaluation)
        cases_digest = write_cases(run / "cases.parquet", table)
        files = {}
        if pictures is not None:
            files["examples.safetensors"] = write_atomic(run / "examples.safetensors", pictures)
        outcomes = tuple(outcome_of(s, results[s.name], table) for s in subjects)
        record = Evaluation(
            protocol=protocol.digest,
            cohort=digests["cohort"],
            hardened=digests["hardened"],
            cases=cases_digest,
            split="test",
            classes=cohort.classes,
            threat=_describe_threat(protocol),
            decision_threshold=protocol.decision_rule(len(cohort.classes)),
            subjects=outcomes,
            identity=identity,
            environment=describe_environment(device, torch.get_num_threads(), processes=ranks.count()),
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            findings=(
                *findings_of(identity, results, table, protocol),
                *sanity_findings(sanity, outcomes),
                *few_cases(sanity, protocol, len(sample)),
                *smaller,
                *begun_anew,
            ),
            sanity=sanity,
            curve=curve_points(table, protocol),
            shift=tuple(point_of(answers, table) for answers in shift),
            operating_points=operating_thresholds(reference, model, cohort, protocol, batch_size, device),
        )
        written = write_record(run / "evaluation.json", record)
        log.append("evaluate.recorded", cases=cases_digest, record=written, files=files, ledger=head)
        clear(run)
        ranks.wait()
        return record


def _require_this_run(run: Path, digests: Mapping[str, str]) -> HardenRecord:
    """What hardening recorded, held against the model and the cohort in hand, whatever their files are by now."""
    record = read_record(run / "harden.json", HardenRecord)
    if record.cohort != digests["cohort"]:
        raise RunError(
            f"{run.name} was hardened on other data, or under another pseudonym key; expected the same --data and key"
        )
    if record.hardened != digests["hardened"]:
        raise RunError(f"the hardened model in hand is not the one that {run.name} records; was a file replaced?")
    return record


def _compared_with(original: Classifier | None) -> str:
    """Where the original in hand comes from."""
    if original is None:
        return "none"
    return "module" if original.record.from_module else "file"


def _gradients_taken(results: Mapping[str, SuiteResult], protocol: Protocol, classes: int) -> int:
    """Cases x gradients that the suite took on all subjects, as far as each attack faced cases that stood."""
    costs = [passes(attack, classes - 1) for attack in protocol.suite.attacks]
    return sum(o.cases * cost for r in results.values() for o, cost in zip(r.outcomes, costs, strict=False))


def _describe_threat(protocol: Protocol) -> str:
    """The threat in words and numbers, such as `linf, eps 2 (1/255) = 0.00784 of the input range [0, 1]`."""
    threat = protocol.threat
    return (
        f"{threat.norm}, eps {threat.eps:g} ({threat.unit}) = {protocol.input_threat.eps:.5g} "
        f"of the input range [{threat.bounds[0]:g}, {threat.bounds[1]:g}]"
    )
