"""Whether cohort, hardening and evaluation records follow the protocol and hold together, before any case is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from medharden.gating.findings import coverage_problems
from medharden.gating.operating import operating_problems
from medharden.protocol import Protocol
from medharden.record import CaseRecord, CohortRecord, Evaluation, HardenRecord

__all__ = ["COMPARED", "record_problems"]

COMPARED = ("original", "composite")


def record_problems(
    protocol: Protocol, cohort: CohortRecord, harden: HardenRecord, evaluation: Evaluation
) -> Iterator[str]:
    """One sentence for each way in which the records can't carry a verdict."""
    if evaluation.split != "test":
        yield f"evaluation.json is of the {evaluation.split!r} split; the gate decides on the test split alone"
    yield from _classes(protocol, cohort, evaluation)
    rule = protocol.decision_rule(len(cohort.classes))
    if evaluation.decision_threshold != rule:
        yield (
            f"evaluation.json was answered by the decision threshold {evaluation.decision_threshold!r}; "
            f"the protocol's is {rule!r}"
        )
    if harden.fusion.mode != protocol.fusion.mode:
        yield f"harden.json released the fusion {harden.fusion.mode!r}; the protocol asks for {protocol.fusion.mode!r}"
    yield from _splits(cohort.cases)
    yield from _copies(protocol, cohort)
    yield from _suite(protocol, evaluation)
    yield from operating_problems(protocol, evaluation)


def _classes(protocol: Protocol, cohort: CohortRecord, evaluation: Evaluation) -> Iterator[str]:
    classes = cohort.classes
    if evaluation.classes != classes:
        yield f"evaluation.json has the classes {list(evaluation.classes)}; cohort.json has {list(classes)}"
    task = protocol.task
    if task.classes is not None and task.classes != classes:
        yield f"cohort.json has the classes {list(classes)}; the protocol has {list(task.classes)}"
    if task.positive is not None and task.positive not in classes:
        yield f"the protocol's positive class {task.positive!r} is not among the cohort's {list(classes)}"
    if task.multilabel != cohort.multilabel:
        yield f"cohort.json has labels of another kind of task than the protocol's {task.kind}"
    elif task.multilabel:
        yield from coverage_problems(classes, cohort.split("test"))
    if task.multilabel or cohort.multilabel:
        return
    present = {case.label for case in cohort.split("test")}
    missing = [name for label, name in enumerate(classes) if label not in present]
    if missing:
        yield f"the test split has no case of {', '.join(missing)}: recall can't be estimated for every class"
    if not present <= set(range(len(classes))):
        yield f"cohort.json has test labels outside 0 to {len(classes) - 1}"


def _splits(cases: tuple[CaseRecord, ...]) -> Iterator[str]:
    repeated = sum(count > 1 for count in Counter(case.case for case in cases).values())
    if repeated:
        yield f"cohort.json names {repeated} cases more than once"
    patients = _shared((case.patient, case.split) for case in cases)
    if patients:
        yield f"{patients} patients have cases in more than one split: the test split is not independent"
    pixels = _shared((case.pixels, case.split) for case in cases)
    if pixels:
        yield f"{pixels} images are in more than one split, pixel for pixel: the test split is not independent"


def _copies(protocol: Protocol, cohort: CohortRecord) -> Iterator[str]:
    copies = [p for p in cohort.alike if protocol.splits.is_copy(p.case, p.other, p.bits)]
    if copies:
        nearest = min(copies, key=lambda p: p.bits)
        yield (
            f"{len(copies)} pairs of images in different splits look like copies, the nearest {nearest.case} and "
            f"{nearest.other} with {nearest.bits} of 256 bits different: the test split is not independent; remove "
            "them, or name them under the protocol's splits.reviewed"
        )


def _shared(pairs: Iterator[tuple[str, str]]) -> int:
    """How many keys come with more than one split."""
    return sum(count > 1 for count in Counter(key for key, _ in set(pairs)).values())


def _suite(protocol: Protocol, evaluation: Evaluation) -> Iterator[str]:
    names = [outcome.name for outcome in evaluation.subjects]
    for subject in COMPARED:
        if names.count(subject) != 1:
            yield f"evaluation.json holds the subject {subject!r} {names.count(subject)} times; expected once"
            continue
        run = {attack.name for attack in evaluation.subject(subject).attacks}
        skipped = [attack.name for attack in protocol.suite.attacks if attack.name not in run]
        if skipped:
            yield f"the {subject} was not attacked by {', '.join(skipped)}, which the protocol's suite asks for"
