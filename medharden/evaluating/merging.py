"""What several processes found on their shares of the cases, as one process would have found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from medharden import ranks
from medharden.attacks import Signs, SuiteResult, suite_findings
from medharden.evaluating.findings import Pushed
from medharden.evaluating.subjects import Subject
from medharden.record import Finding, Identity

__all__ = ["merged_identity", "merged_pushes", "merged_results", "merged_subjects"]


def merged_identity(own: Identity) -> Identity:
    """Of all cases: equal where it is in every process."""
    said = ranks.heard([own.state_equal, own.logits_equal, own.max_abs_difference, own.cases])
    states, logits, apart, cases = zip(*said, strict=True)
    return replace(
        own, state_equal=all(states), logits_equal=all(logits), max_abs_difference=max(apart), cases=sum(cases)
    )


def merged_subjects(own: tuple[Subject, Subject, Subject], places: Tensor) -> tuple[Subject, Subject, Subject]:
    """The subjects with their answers to all test cases.

    Args:
        own: with their answers to this process's share.
        places: (n,) of the share among all.
    """
    first, branch, release = (
        replace(s, logits=ranks.in_order(s.logits, places), referred=ranks.in_order(s.referred, places)) for s in own
    )
    return first, branch, release


def merged_results(own: Mapping[str, SuiteResult], places: Tensor) -> dict[str, SuiteResult]:
    """Results by subject over all attacked cases; `adversarial` stays that of this process's share.

    Args:
        own: of this process's share.
        places: (n,) of the share among all attacked cases.
    """
    return {name: _merged(result, places) for name, result in own.items()}


def merged_pushes(own: Mapping[str, Pushed], places: Tensor) -> dict[str, Pushed]:
    """What became of each finding of all attacked cases."""
    return {
        name: Pushed(robust=ranks.in_order(p.robust, places), logits=ranks.in_order(p.logits, places))
        for name, p in own.items()
    }


def _merged(own: SuiteResult, places: Tensor) -> SuiteResult:
    if ranks.count() == 1:
        return own
    made = suite_findings(own.signs)
    mine = {
        "places": places.tolist(),
        "won": own.won_by,
        "outcomes": [[o.cases, o.wins, o.seconds] for o in own.outcomes],
        "signs": own.signs.told(),
        "findings": [vars(f) for f in own.findings if f not in made],
    }
    said = ranks.heard(mine)
    won = {place: name for each in said for place, name in zip(each["places"], each["won"], strict=True)}
    outcomes = tuple(
        replace(
            outcome,
            cases=sum(each["outcomes"][n][0] for each in said),
            wins=sum(each["outcomes"][n][1] for each in said),
            seconds=max(each["outcomes"][n][2] for each in said),
        )
        for n, outcome in enumerate(own.outcomes)
    )
    signs = Signs.together([Signs.from_told(each["signs"]) for each in said])
    others = dict.fromkeys(Finding(**f) for each in said for f in each["findings"])
    return replace(
        own,
        won_by=tuple(won[place] for place in sorted(won)),
        outcomes=outcomes,
        signs=signs,
        findings=(*suite_findings(signs), *others),
    )
