"""Authorised releases for the gate's tests: the records of a run under other weights, and those that are unfit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gating_factory import Records, records

from medharden.gating import Release, decide
from medharden.record import GateDecision

OLD = "0" * 63 + "1"


def released(made: Records, **changes: object) -> Release:
    """The records as those of an authorised release, with other weights."""
    digests = replace(made.digests, hardened=OLD)
    harden, evaluation = replace(made.harden, hardened=OLD), replace(made.evaluation, hardened=OLD)
    history = replace(made.history, verdict="PASS", decided_on=digests.evaluation)
    release = Release(made.protocol, made.cohort, harden, evaluation, made.cases, digests, history)
    return replace(release, **changes)  # type: ignore[arg-type]


def decision_of(made: Records, release: Release | None) -> GateDecision:
    parts = (made.protocol, made.cohort, made.harden, made.evaluation, made.cases)
    return decide(*parts, digests=made.digests, history=made.history, release=release)


def cohort_with(**changes: object) -> Callable[[Records], Release]:
    def change(r: Records) -> Release:
        cases = list(r.cohort.cases)
        cases[3] = replace(cases[3], **changes)  # type: ignore[arg-type]
        return released(r, cohort=replace(r.cohort, cases=tuple(cases)))

    return change


UNFIT = [
    ("fewer cases", lambda r: released(records(399)), "on 399 test cases, here are 400, of which 399 are the same"),
    ("another image", cohort_with(pixels="other"), "1 test cases have another label, patient or image there"),
    ("another label", cohort_with(label=0), "1 test cases have another label"),
    ("another patient", cohort_with(patient="someone"), "1 test cases have another label"),
    ("another case", cohort_with(case="elsewhere"), "of which 399 are the same; expected the same test split"),
    ("another key", lambda r: released(r, cohort=replace(r.cohort, key_id="other")), "pseudonyms are of another key"),
    (
        "rows that are not its split",
        lambda r: released(r, cases=replace(r.cases, case=("x", *r.cases.case[1:]))),
        "not exactly those of its test split",
    ),
    (
        "a row twice",
        lambda r: released(r, cases=replace(r.cases, case=(*r.cases.case, r.cases.case[0]))),
        "not exactly those of its test split",
    ),
    (
        "classes in another order",
        lambda r: released(r, evaluation=replace(r.evaluation, hardened=OLD, classes=("PNEUMONIA", "NORMAL"))),
        "its classes are ['PNEUMONIA', 'NORMAL']; here ['NORMAL', 'PNEUMONIA']",
    ),
    (
        "another threshold",
        lambda r: released(r, evaluation=replace(r.evaluation, hardened=OLD, decision_threshold="0.3")),
        "decision threshold '0.3'; here 'argmax'",
    ),
    (
        "a file that was changed",
        lambda r: released(r, digests=replace(r.digests, hardened=OLD, cases="0" * 64)),
        "authorised run: cases.parquet is not the one that evaluation.json was made with",
    ),
    (
        "no lock",
        lambda r: released(r, history=replace(released(r).history, locks=())),
        "authorised run: audit.jsonl holds no lock",
    ),
    (
        "never decided",
        lambda r: released(r, history=replace(r.history, verdict="", decided_on="")),
        "its audit.jsonl says nothing of this evaluation",
    ),
    (
        "failed",
        lambda r: released(r, history=replace(released(r).history, verdict="FAIL")),
        "says FAIL of this evaluation",
    ),
    (
        "passed on another evaluation",
        lambda r: released(r, history=replace(released(r).history, decided_on="0" * 64)),
        "an authorised release has a PASS",
    ),
    ("itself", lambda r: released(r, digests=r.digests, harden=r.harden, evaluation=r.evaluation), "the very weights"),
]
