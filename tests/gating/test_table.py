"""The gate's verdicts in one table: each requirement with its borders, on valid runs and on those that carry none."""

from __future__ import annotations

import pytest
from gating_changes import Change, digests, planted
from gating_factory import Records, records
from gating_problems import PROBLEMS
from gating_verdicts import VERDICTS

from medharden.record import Verdict

INVALID = Verdict.INVALID
TABLE = [*VERDICTS, *((*row[:-1], INVALID, row[-1]) for row in PROBLEMS)]


@pytest.mark.parametrize(
    ("made", "change", "verdict", "reason"), [row[2:] for row in TABLE], ids=[f"{row[0]}: {row[1]}" for row in TABLE]
)
def test_verdict(made: Records, change: Change, verdict: Verdict, reason: str) -> None:
    decision = change(made).decide()
    assert decision.verdict is verdict, decision.reasons
    assert any(reason in r for r in decision.reasons) if reason else decision.reasons == ()
    assert bool(decision.endpoints) == (verdict is not INVALID)
    assert all(e.verdict is not Verdict.PASS or e.reason not in decision.reasons for e in decision.endpoints)


def test_the_table_has_every_requirement_that_records_can_break() -> None:
    named = {requirement for row in TABLE for requirement in row[0].split()}
    assert named == {f"G{n}" for n in range(1, 16)} - {"G7"}  # what is printed has tests of its own
    assert len({(row[0], row[1]) for row in TABLE}) == len(TABLE) > 120


def test_every_problem_of_an_invalid_run_is_named() -> None:
    change = digests(cases="0" * 64, cohort="1" * 64)
    assert len(change(records()).decide().reasons) == 4
    leaks = planted(-1, patient="patient00003", pixels="pixels-case00003")
    assert len(leaks(records()).decide().reasons) == 2
