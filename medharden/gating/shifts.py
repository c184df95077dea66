"""The endpoints under ordinary corruptions: clean answers of the release against the original's, under each by itself.

What holds on the test split need not hold on images of another scanner. Each named corruption is a claim of its own,
and all that the protocol gives a margin must be shown, so that alpha is not split (intersection-union).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medharden.gating.paired import answer_endpoints
from medharden.gating.referrals import as_answered
from medharden.gating.robustness import REPORTED
from medharden.gating.units import on_enough_units
from medharden.protocol import CO_PRIMARY, Margin, Protocol
from medharden.record import CaseTable, Endpoint, Evaluation, ShiftedAnswers, point_of, under

__all__ = ["shift_endpoints", "shift_problems"]

KIND = "shift"


def shift_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """Accuracy and each class's recall under each corruption; without a margin of its own beside the clean one.

    A case counts once at each severity, and its patient is the unit throughout: a limit rests on patients, however
    many severities there are.
    """
    alpha, stated = protocol.endpoints.alpha_per_look, protocol.shift.bounds
    clean: dict[str, Margin] = {m.metric: m for m in protocol.endpoints.noninferiority}
    for corruption in protocol.shift.corruptions:
        answered = under(cases, corruption)
        if answered is None:
            continue
        answered = as_answered(protocol, answered)
        for metric in CO_PRIMARY:
            wanted = clean[metric].model_copy(update={"floor": None})
            if metric in stated:
                wanted = _with(wanted, stated[metric].margin, stated[metric].justification)
            for endpoint in answer_endpoints(wanted, protocol, classes, answered, alpha):
                yield _named(on_enough_units(endpoint), corruption, reported=metric not in stated)


def shift_problems(protocol: Protocol, evaluation: Evaluation, cases: CaseTable, classes: int) -> Iterator[str]:
    """One sentence for each way in which the corruptions are not those of the protocol, or don't add up.

    An exported model was not evaluated under them.
    """
    if evaluation.artefact:
        return
    asked = protocol.shift
    wanted: Counter[tuple[str, int]] = Counter((name, n) for name in asked.corruptions for n in asked.severities)
    for file, found in (
        ("evaluation.json", Counter((p.corruption, p.severity) for p in evaluation.shift)),
        ("cases.parquet", Counter((a.corruption, a.severity) for a in cases.shift)),
    ):
        if found != wanted:
            lacking, more = sorted((wanted - found).elements()), sorted((found - wanted).elements())
            yield (
                f"{file} has answers under corruptions that are not those of the protocol's shift: {len(lacking)} "
                f"lacking, {len(more)} that nobody asked for"
            )
            return
    points = {(p.corruption, p.severity): p for p in evaluation.shift}
    for answers in cases.shift:
        where = f"{answers.corruption} at severity {answers.severity}"
        if problem := _answers(protocol, answers, cases, classes):
            yield f"cases.parquet, {where}: {problem}"
        elif point_of(answers, cases) != points[answers.corruption, answers.severity]:
            yield f"evaluation.json counts other answers under {where} than cases.parquet adds up to"


def _answers(protocol: Protocol, answers: ShiftedAnswers, cases: CaseTable, classes: int) -> str:
    """What is wrong with the answers under one corruption, or nothing."""
    largest = 1 if cases.multilabel else classes - 1
    for predicted in (answers.original, answers.composite):
        if predicted.shape != cases.label.shape:
            return f"answers of shape {predicted.shape} for cases of {cases.label.shape}"
        if predicted.size and (predicted.min() < 0 or predicted.max() > largest):
            return "an answer is no class"
    if answers.referred.shape != (len(cases.case),):
        return f"{len(answers.referred)} values of referral for {len(cases.case)} cases"
    if protocol.fusion.mode != "guarded" and bool(np.any(answers.referred)):
        return "cases were referred, which a guarded release alone does"
    return ""


def _with(margin: Margin, value: float, justification: str | None) -> Margin:
    return margin.model_copy(update={"margin": value, "justification": justification, "by_class": {}})


def _named(endpoint: Endpoint, corruption: str, *, reported: bool) -> Endpoint:
    """The endpoint under its corruption's name; its reason, which begins with its own name, too."""
    return replace(
        endpoint,
        name=f"shift:{corruption}:{endpoint.name}",
        kind=KIND,
        reason=f"under {corruption}, {endpoint.reason}",
        role=REPORTED if reported else endpoint.role,
    )
