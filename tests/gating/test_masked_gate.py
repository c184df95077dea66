"""The gate where findings are masked: endpoints rest on what is known, and a mask that can't be is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gating_factory import Records
from gating_findings import run

from medharden.record import FindingTable, SubjectTable, Verdict

EVERY = 4  # each fourth case's second finding is unknown


def masked(made: Records, *, answer: int | None = None) -> Records:
    """The run with each fourth case's hernia unknown; `answer` stands there in both models' tables."""
    rows = np.arange(len(made.cases.case)) % EVERY == 1
    label = made.cases.label.copy()
    label[rows, 1] = -1

    def subject(table: SubjectTable) -> SubjectTable:
        predicted, p = table.predicted.copy(), table.probabilities.copy()
        if answer is not None:
            predicted[rows, 1], p[rows, 1] = answer, 0.9 if answer else 0.1
        assert table.findings is not None
        known = label != -1
        right = (predicted == label) & known
        stands = table.findings.robust & known
        robust = made.cases.attacked & ((predicted == label) | ~known).all(1) & (stands | ~known).all(1)
        won = tuple(np.where(robust, "", "pgd-ce-20").tolist())
        findings = FindingTable(stands & right, table.findings.attacked_probabilities)
        return replace(table, predicted=predicted, probabilities=p, robust=robust, won_by=won, findings=findings)

    cases = replace(made.cases, label=label, subjects={n: subject(s) for n, s in made.cases.subjects.items()})
    said = {case: tuple(np.flatnonzero(row == 1).tolist()) for case, row in zip(cases.case, label, strict=True)}
    open_ = {case: (1,) for case, hit in zip(cases.case, rows, strict=True) if hit}
    listed = tuple(replace(c, label=said.get(c.case, c.label), masked=open_.get(c.case, ())) for c in made.cohort.cases)
    outcomes = tuple(
        replace(
            s, clean_correct=int(cases.right(s.name).sum()), robust_correct=int(cases.subjects[s.name].robust.sum())
        )
        for s in made.evaluation.subjects
    )
    evaluation = replace(made.evaluation, subjects=outcomes)
    return replace(made, cohort=replace(made.cohort, cases=listed), evaluation=evaluation, cases=cases)


def test_what_a_model_answers_to_a_masked_finding_changes_no_endpoint() -> None:
    kept, present, absent = (masked(run(missed=12), answer=answer).decide() for answer in (None, 1, 0))
    assert kept.verdict is not Verdict.INVALID, kept.reasons
    assert kept.endpoints == present.endpoints == absent.endpoints
    assert kept.subgroups == present.subgroups == absent.subgroups


def test_each_endpoint_counts_the_cases_that_know_its_finding() -> None:
    n = 600
    whole = {e.name: e.n for e in run(n, missed=12).decide().endpoints}
    known = {e.name: e.n for e in masked(run(n, missed=12)).decide().endpoints}
    assert known["accuracy"] == n
    assert known["finding_accuracy"] == whole["finding_accuracy"] - n // EVERY
    hernia = "sensitivity:Hernia", "specificity:Hernia"
    assert sum(known[name] for name in hernia) == n - n // EVERY
    assert known["auroc:Hernia"] == n - n // EVERY
    assert known["auroc:Effusion"] == known["sensitivity:Effusion"] + known["specificity:Effusion"] == n


def test_masked_counts_are_those_of_the_run_without_these_answers() -> None:
    made = masked(run(600, missed=12))
    table = {e.name: e for e in made.decide().endpoints}["finding_accuracy"].table
    known = made.cases.label != -1
    before, after = (made.cases.subjects[s].predicted == made.cases.label for s in ("original", "composite"))
    assert table[2] == int((before & ~after)[known].sum())
    assert sum(table) == known.sum()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: {"masked": (0, 1)}, "masks what is no finding, one that is there, or all"),
        (lambda c: {"masked": (2,)}, "masks what is no finding, one that is there, or all"),
        (lambda c: {"label": (0,), "masked": (0,)}, "masks what is no finding, one that is there, or all"),
        (lambda c: {"masked": ()}, "labels that differ from cohort.json"),
    ],
)
def test_a_mask_that_can_not_be_is_refused(change, said: str) -> None:
    made = masked(run(600))
    place = next(n for n, c in enumerate(made.cohort.cases) if c.masked and c.split == "test")
    cases = list(made.cohort.cases)
    cases[place] = replace(cases[place], **change(cases[place]))
    decision = replace(made, cohort=replace(made.cohort, cases=tuple(cases))).decide()
    assert decision.verdict is Verdict.INVALID
    assert any(said in reason for reason in decision.reasons), decision.reasons
