"""Independent tests beside the run's own evaluation: compared case by case; of each endpoint the worse outcome counts.

The release passes only where it passes on every test's numbers, so no error is added: that all are passed wrongly is
no likelier than that one is (Berger 1982, Technometrics 24: 295, intersection-union).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medharden.audit import RunFiles
from medharden.audit.independent import LoggedTest, begun_without_end, logged_tests, statement_problems
from medharden.audit.tables import parse_cases
from medharden.errors import RunError
from medharden.record import (
    CaseTable,
    Endpoint,
    Evaluation,
    Finding,
    GateDecision,
    IndependentTest,
    Verdict,
)

__all__ = ["Held", "held_tests", "in_place", "unfinished_tests", "with_test", "worse_of"]

_GRAVITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INVALID)
_UPPER = ("referral", "brier", "grade_error", "subgroup_referral")
"""Kinds whose upper limit decides."""


class Held:
    """One independent test as found: its records, or what is wrong with them."""

    def __init__(self, files: RunFiles, logged: LoggedTest) -> None:
        """Reads the test; nothing of a test with problems is used."""
        self.problems = tuple(f"independent test: {problem}" for problem in statement_problems(files, logged))
        self.digest = ""
        if self.problems:
            return
        evaluation, table = f"{logged.place}/evaluation.json", f"{logged.place}/cases.parquet"
        self.evaluation, self.digest = files.record(evaluation, Evaluation), files.digest(evaluation)
        try:
            self.cases = parse_cases(table, files.data(table))
        except RunError as error:
            self.problems = (f"independent test: {error}",)
        if self.evaluation.cases != files.digest(table):
            self.problems = ("independent test: its cases.parquet is not the one that its evaluation was made with",)


def held_tests(files: RunFiles) -> tuple[Held, ...]:
    """Every independent test that the log holds, each with what is wrong with it."""
    return tuple(Held(files, logged) for logged in logged_tests(files.whole_log()))


def in_place(held: Held, evaluation: Evaluation, protocol_seed: int) -> tuple[Evaluation, tuple[str, ...]]:
    """The test's evaluation in the place of the run's own, and what keeps it from being there."""
    own, problems = held.evaluation, []
    for name, theirs, ours in (
        ("protocol", own.protocol, evaluation.protocol),
        ("cohort", own.cohort, evaluation.cohort),
        ("weights", own.hardened, evaluation.hardened),
        ("decision rule", own.decision_threshold, evaluation.decision_threshold),
        ("threat", own.threat, evaluation.threat),
    ):
        if theirs != ours:
            problems.append(f"independent test: it is of another {name}: {theirs[:12]}, here {ours[:12]}")
    if own.tester is not None and own.tester.seed == protocol_seed:
        problems.append("independent test: its seed is the protocol's own, so it is no draw of its own")
    return replace(own, cases=evaluation.cases, operating_points=evaluation.operating_points), tuple(problems)


def with_test(decision: GateDecision, alone: GateDecision, held: Held, cases: CaseTable) -> GateDecision:
    """The decision with one independent test taken in.

    Args:
        decision: on the run's own evaluation, and on tests taken in before.
        alone: on the test's numbers in their place.
        held: the test.
        cases: the run's own table.
    """
    tester = held.evaluation.tester
    name = tester.name if tester is not None else ""
    endpoints, decides = worse_of(decision.endpoints, alone.endpoints, name)
    subgroups, of_subgroups = worse_of(decision.subgroups, alone.subgroups, name)
    test = _compared(held, alone.verdict, cases, (*decides, *of_subgroups))
    known = set(decision.reasons)
    reasons = [f"independent test ({name}): {reason}" for reason in alone.reasons if reason not in known]
    return replace(
        decision,
        verdict=max(decision.verdict, alone.verdict, key=_GRAVITY.index),
        reasons=(*decision.reasons, *reasons),
        endpoints=endpoints,
        subgroups=subgroups,
        findings=tuple(dict.fromkeys((*decision.findings, *alone.findings, *_findings(test)))),
        independent=(*decision.independent, test),
    )


def worse_of(
    own: tuple[Endpoint, ...], theirs: tuple[Endpoint, ...], tester: str
) -> tuple[tuple[Endpoint, ...], tuple[str, ...]]:
    """Of each endpoint the worse outcome: the graver verdict, else the limit that is nearer to what it is held against.

    Returns:
        The endpoints, and the names of those that the test decides.
    """
    by_name = {(e.comparator, e.name): e for e in theirs}
    found: list[Endpoint] = []
    decides = []
    for e in own:
        other = by_name.pop((e.comparator, e.name), None)
        if other is not None and _badness(other) > _badness(e):
            decides.append(e.name)
            reason = f"{other.reason} [independent test, {tester}]"
            other = replace(other, tester=tester, reason=reason)
            found.append(other)
        else:
            found.append(e)
    for e in by_name.values():  # of groups or classes that the tester's draw alone holds
        decides.append(e.name)
        found.append(replace(e, tester=tester, reason=f"{e.reason} [independent test, {tester}]"))
    return tuple(found), tuple(decides)


def unfinished_tests(files: RunFiles) -> tuple[Finding, ...]:
    """That an independent test was begun and came to no record."""
    begun = begun_without_end(files.whole_log())
    if begun <= 0:
        return ()
    message = (
        f"Of the independent tests that were begun, {begun} came to no record: interrupted, or given up. What they saw "
        "is not in this decision."
    )
    return (Finding("gate.independent_unfinished", "warning", message),)


def _badness(e: Endpoint) -> tuple[int, float]:
    slack = e.limit - e.upper if e.kind in _UPPER else e.lower - e.limit
    return _GRAVITY.index(e.verdict), -slack


def _compared(held: Held, verdict: Verdict, cases: CaseTable, decides: tuple[str, ...]) -> IndependentTest:
    """The test beside the run's own evaluation; both tables were found to be of the same cases."""
    tester, theirs = held.evaluation.tester, held.cases
    assert tester is not None  # noqa: S101 - a test without one has problems
    place = {case: row for row, case in enumerate(theirs.case)}
    order = np.array([place[case] for case in cases.case], dtype=np.int64)
    changed = {}
    for name in ("original", "composite"):
        one, other = cases.subjects[name], theirs.subjects[name]
        answers = (one.predicted != other.predicted[order]).reshape(len(order), -1).any(axis=1)
        changed[name] = int((answers | (one.referred != other.referred[order])).sum())
    ours, released = cases.subjects["composite"], theirs.subjects["composite"]
    both = cases.attacked & theirs.attacked[order]
    here, there = ours.robust[both], released.robust[order][both]
    counts = (here & there, here & ~there, ~here & there, ~here & ~there)
    outcome, environment = held.evaluation.subject("composite"), held.evaluation.environment
    return IndependentTest(
        name=tester.name,
        role=tester.role,
        key=tester.key,
        seed=tester.seed,
        evaluation=held.digest,
        platform=environment.platform,
        device=environment.device,
        verdict=verdict,
        cases=len(order),
        answers_differ=changed["composite"],
        original_differs=changed["original"],
        largest_difference=float(np.abs(ours.probabilities - released.probabilities[order]).max()),
        attacked=int(both.sum()),
        robust=tuple(int(c.sum()) for c in counts),
        robust_correct=outcome.robust_correct,
        attacked_here=outcome.attacked,
        decides=decides,
    )


def _findings(test: IndependentTest) -> Iterator[Finding]:
    what = f"{', '.join(test.decides)}" if test.decides else "none"
    message = (
        f"{test.name} ({test.role}) tested this release independently, with a draw of their own: {test.robust_correct} "
        f"of {test.attacked_here} attacked cases stand; of {test.attacked} that both attacked {test.robust[0]} stand "
        f"in both, {test.robust[1]} in the run's own evaluation alone and {test.robust[2]} in this test alone. The "
        f"worse outcome counts; endpoints that this test decides: {what}."
    )
    yield Finding("gate.independent_test", "info", message)
    if test.answers_differ or test.original_differs:
        message = (
            f"{test.name} got other clean answers than the run's own evaluation: of {test.cases} test cases "
            f"{test.answers_differ} of the release and {test.original_differs} of the original, probabilities apart "
            f"by up to {test.largest_difference:.2g}. The same weights on the same cases should answer alike but "
            "where two classes are all but equal."
        )
        yield Finding("gate.independent_answers_differ", "warning", message)
