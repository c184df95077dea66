"""The last authorised release as a second comparator: release after release, small losses must not add up.

Non-inferiority to the original alone would let a hardened model fall behind the one in use; non-inferiority to the one
in use alone would let each release lose a margin (bio-creep). So the new release is held against both, on the same
test cases. Its robustness is held against the floor and the original, neither of which moves from release to release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from medharden.audit import RunHistory
from medharden.gating.digests import RunDigests, mismatches
from medharden.gating.endpoints import clean_endpoints
from medharden.gating.looks import history_problems
from medharden.gating.referrals import as_answered
from medharden.protocol import Protocol
from medharden.record import CaseTable, CohortRecord, Endpoint, Evaluation, Finding, HardenRecord, SubjectTable, Verdict

__all__ = [
    "AUTHORISED",
    "Release",
    "authorised_endpoints",
    "authorised_findings",
    "binding_problems",
    "release_problems",
]

AUTHORISED = "authorised"


@dataclass(frozen=True)
class Release:
    """The records of one run directory, with their files' digests and what its log says."""

    protocol: Protocol
    cohort: CohortRecord
    harden: HardenRecord
    evaluation: Evaluation
    cases: CaseTable
    digests: RunDigests
    history: RunHistory


def binding_problems(protocol: Protocol, history: RunHistory, digests: RunDigests, given: str) -> Iterator[str]:
    """Whether the release that was named is the one that must be compared with.

    Args:
        protocol: may name the authorised release by its weights' digest.
        history: the log of the run at hand; a release that it was compared with once can't be left out later.
        digests: the files of the run at hand.
        given: digest of the weights of the release that was named, or empty.
    """
    wanted = protocol.endpoints.authorised
    if wanted is not None and not given:
        yield f"the protocol's endpoints.authorised is sha256 {wanted[:12]}; give that release's run as --authorised"
    elif wanted is not None and wanted != given:
        yield f"the authorised run released sha256 {given[:12]}; the protocol's endpoints.authorised is {wanted[:12]}"
    elif history.authorised and history.authorised != given:
        yield (
            "an earlier decision on this run was held against the authorised release sha256 "
            f"{history.authorised[:12]}; give that run as --authorised again"
        )
    if given and given == digests.hardened:
        yield "the authorised run released the very weights that are to be decided on"


def release_problems(cohort: CohortRecord, evaluation: Evaluation, release: Release) -> Iterator[str]:
    """One sentence for each way in which the authorised release can't be compared with on these test cases."""
    own = (
        *mismatches(release.harden, release.evaluation, release.digests),
        *history_problems(release.protocol, release.history, release.digests),
    )
    yield from (f"authorised run: {problem}" for problem in own)
    if (release.history.verdict, release.history.decided_on) != (Verdict.PASS.value, release.digests.evaluation):
        said = release.history.verdict or "nothing"
        yield f"authorised run: its audit.jsonl says {said} of this evaluation; an authorised release has a PASS"
    if release.evaluation.classes != evaluation.classes:
        yield f"authorised run: its classes are {list(release.evaluation.classes)}; here {list(evaluation.classes)}"
    if release.evaluation.decision_threshold != evaluation.decision_threshold:
        yield (
            f"authorised run: it answers by the decision threshold {release.evaluation.decision_threshold!r}; here "
            f"{evaluation.decision_threshold!r}"
        )
    yield from _cases(cohort, release)


def authorised_endpoints(
    protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, release: Release
) -> Iterator[Endpoint]:
    """The clean endpoints again, with the authorised release in the original's place.

    The release's cases must have been found to be these cases before.
    """
    rows = {case: row for row, case in enumerate(release.cases.case)}
    order = np.array([rows[case] for case in cases.case], dtype=np.int64)
    theirs = as_answered(protocol, release.cases).subjects["composite"]
    pair = {"original": _ordered(theirs, order), "composite": cases.subjects["composite"]}
    for endpoint in clean_endpoints(protocol, classes, replace(cases, subjects=pair)):
        name, reason = f"{AUTHORISED}:{endpoint.name}", f"{AUTHORISED}:{endpoint.reason}"
        yield replace(endpoint, name=name, reason=reason, comparator=AUTHORISED)


def authorised_findings(cohort: CohortRecord, harden: HardenRecord, release: Release) -> tuple[Finding, ...]:
    """What a reader must know of the comparison: another original, other preprocessing."""
    found = []
    if release.harden.original.state != harden.original.state:
        message = (
            "The authorised release was hardened from another original. This one is held against its own original and "
            "against the authorised release; the other original is compared with through that release alone."
        )
        found.append(Finding("gate.authorised_other_original", "warning", message))
    if release.cohort.preprocessing != cohort.preprocessing:
        message = (
            "The authorised release saw the same stored images through other preprocessing, or first another of them: "
            "the comparison is of two pipelines, not of two networks alone."
        )
        found.append(Finding("gate.authorised_other_preprocessing", "warning", message))
    return tuple(found)


def _cases(cohort: CohortRecord, release: Release) -> Iterator[str]:
    here = {c.case: (c.patient, c.label, c.masked, c.pixels) for c in cohort.split("test")}
    there = {c.case: (c.patient, c.label, c.masked, c.pixels) for c in release.cohort.split("test")}
    if cohort.key_id != release.cohort.key_id:
        yield "authorised run: its pseudonyms are of another key; its cases can't be told to be the same"
    elif set(here) != set(there):
        shared = len(set(here) & set(there))
        yield (
            f"authorised run: it was evaluated on {len(there)} test cases, here are {len(here)}, of which {shared} are "
            "the same; expected the same test split"
        )
    elif here != there:
        changed = sum(here[case] != there[case] for case in here)
        yield f"authorised run: {changed} test cases have another label, patient or image there"
    elif set(release.cases.case) != set(there) or len(release.cases.case) != len(there):
        yield "authorised run: the cases of its cases.parquet are not exactly those of its test split"


def _ordered(subject: SubjectTable, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> SubjectTable:
    return SubjectTable(
        predicted=subject.predicted[order],
        probabilities=subject.probabilities[order],
        robust=subject.robust[order],
        won_by=tuple(subject.won_by[row] for row in order.tolist()),
        referred=subject.referred[order],
    )
