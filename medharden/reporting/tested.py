"""Who tested a release: the run's own evaluation, and every independent test beside it."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.audit import RunFiles
from medharden.audit.independent import place_of
from medharden.errors import RunError
from medharden.protocol import Tester
from medharden.record import Evaluation, GateDecision
from medharden.reporting.numbers import count, percent

__all__ = ["TesterRow", "read_tests", "tested_rows", "who"]

_NOT_STATED = "not stated"


@dataclass(frozen=True)
class TesterRow:
    """One evaluation of the release, formatted.

    Attributes:
        clean, robust: of the released model, with counts.
        same: how far it agrees with the run's own evaluation, case by case.
        decides: endpoints that its numbers decide.
    """

    name: str
    role: str
    where: str
    seed: str
    clean: str
    robust: str
    same: str
    decides: str
    verdict: str


def who(tester: Tester | None) -> str:
    """A tester as the protocol states him."""
    if tester is None:
        return _NOT_STATED
    return f"{tester.role} ({tester.name})" if tester.name else tester.role


def read_tests(files: RunFiles, decision: GateDecision) -> tuple[Evaluation, ...]:
    """The evaluations of the independent tests that a decision took in, in its order.

    Raises:
        RunError: one is missing, unreadable, or another than was decided on.
    """
    found = []
    for test in decision.independent:
        name = f"{place_of(test.key)}/evaluation.json"
        if files.digest(name) != test.evaluation:
            raise RunError(f"gate.json was decided on another {name}; run `medharden gate` again")
        found.append(files.record(name, Evaluation))
    return tuple(found)


def tested_rows(
    own: Evaluation, tests: tuple[Evaluation, ...], decision: GateDecision, tester: Tester | None, seed: int
) -> tuple[TesterRow, ...]:
    """The run's own evaluation first, then each independent test; empty where there is none of these."""
    if not tests:
        return ()
    decided = {name for test in decision.independent for name in test.decides}
    mine = [e.name for e in (*decision.endpoints, *decision.subgroups) if e.name not in decided]
    name, role = (tester.name or _NOT_STATED, tester.role) if tester else (_NOT_STATED, _NOT_STATED)
    rows = [(*_row(own, name, role, seed), "", f"{count(len(mine))} others" if decided else "all", "")]
    for evaluation, test in zip(tests, decision.independent, strict=True):
        both, own_alone, test_alone, neither = test.robust
        same = (
            f"{count(test.answers_differ)} of {count(test.cases)} clean answers differ; of {count(test.attacked)} that "
            f"both attacked {count(both)} stand in both, {count(own_alone)} in the run's own alone, "
            f"{count(test_alone)} here alone, {count(neither)} in neither"
        )
        cells = same, ", ".join(test.decides) or "none", test.verdict.value
        rows.append((*_row(evaluation, test.name, test.role, test.seed), *cells))
    return tuple(TesterRow(*cells) for cells in rows)


def _row(evaluation: Evaluation, name: str, role: str, seed: int) -> tuple[str, ...]:
    released, environment = evaluation.subject("composite"), evaluation.environment
    return (
        name,
        role,
        f"{environment.device}; {environment.platform}; medharden {environment.medharden}",
        str(seed),
        f"{percent(released.clean_accuracy)} of {count(released.n)}",
        f"{percent(released.robust_accuracy)} of {count(released.attacked)}",
    )
