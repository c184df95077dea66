"""Changes to a run's records for the gate's tests: each takes records and gives them back with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from gating_factory import Records

from medharden.record import AlikePair, CaseTable, Finding

Change = Callable[[Records], Records]


def identity(**changes: object) -> Change:
    return lambda r: replace(
        r,
        evaluation=replace(r.evaluation, identity=replace(r.evaluation.identity, **changes)),  # type: ignore[arg-type]
    )


def hardened(**changes: object) -> Change:
    return lambda r: replace(r, harden=replace(r.harden, **changes))  # type: ignore[arg-type]


def evaluated(**changes: object) -> Change:
    return lambda r: replace(r, evaluation=replace(r.evaluation, **changes))  # type: ignore[arg-type]


def rows(**changes: object) -> Change:
    return lambda r: replace(r, cases=replace(r.cases, **changes))  # type: ignore[arg-type]


def digests(**changes: str) -> Change:
    return lambda r: replace(r, digests=replace(r.digests, **changes))


def logged(**changes: object) -> Change:
    return lambda r: replace(r, history=replace(r.history, **changes))  # type: ignore[arg-type]


def grouped(column: str, *sizes: int) -> Change:
    """Puts the first cases into group `A`, the next ones into `B` and so on, and the rest into `rest`."""

    def change(r: Records) -> Records:
        names = [chr(ord("A") + k) for k, size in enumerate(sizes) for _ in range(size)]
        values = (*names, *("rest" for _ in range(len(r.cases.case) - len(names))))
        return replace(r, cases=replace(r.cases, groups={column: values}))

    return change


def fusion(mode: str) -> Change:
    return lambda r: replace(r, harden=replace(r.harden, fusion=replace(r.harden.fusion, mode=mode)))


def planted(position: int, **changes: object) -> Change:
    """Changes one case of the cohort; the last ones are of train and validation."""

    def change(r: Records) -> Records:
        cases = list(r.cohort.cases)
        cases[position] = replace(cases[position], **changes)  # type: ignore[arg-type]
        return replace(r, cohort=replace(r.cohort, cases=tuple(cases)))

    return change


def alike(*bits: int) -> Change:
    """Says that `case00003`, `case00004` and so on look like `train0`."""
    pairs = tuple(AlikePair(f"case{3 + n:05d}", "train0", distance) for n, distance in enumerate(bits))
    return lambda r: replace(r, cohort=replace(r.cohort, alike=pairs))


def column(subject: str, name: str, index: object, value: object) -> Change:
    def change(r: Records) -> Records:
        values = np.array(getattr(r.cases.subjects[subject], name))
        values[index] = value
        return r.with_subject(subject, **{name: values})

    return change


def scored(subject: str, spread: float, *, of: slice = slice(None)) -> Change:
    """Moves the answered class's probability by `spread`, up and down in turn, and the other's against it."""

    def change(r: Records) -> Records:
        table = r.cases.subjects[subject]
        p = table.probabilities.copy()
        rows = np.arange(len(p))[of]
        step = np.where(rows % 4 < 2, spread, spread / 2)
        p[rows, table.predicted[rows]] += step
        p[rows, 1 - table.predicted[rows]] -= step
        return r.with_subject(subject, probabilities=p)

    return change


def counted(subject: str, **changes: int) -> Change:
    def change(r: Records) -> Records:
        outcomes = tuple(replace(s, **changes) if s.name == subject else s for s in r.evaluation.subjects)
        return replace(r, evaluation=replace(r.evaluation, subjects=outcomes))

    return change


def short(subject: str, name: str) -> Change:
    return lambda r: r.with_subject(subject, **{name: getattr(r.cases.subjects[subject], name)[:-1]})


def in_order(table: CaseTable, order: np.ndarray) -> CaseTable:
    """The same cases in another order of rows."""
    places = order.tolist()
    subjects = {
        name: replace(
            s,
            predicted=s.predicted[order],
            probabilities=s.probabilities[order],
            robust=s.robust[order],
            won_by=tuple(s.won_by[i] for i in places),
            referred=s.referred[order],
            referred_attacked=None if s.referred_attacked is None else s.referred_attacked[order],
        )
        for name, s in table.subjects.items()
    }
    return replace(
        table,
        case=tuple(table.case[i] for i in places),
        patient=tuple(table.patient[i] for i in places),
        label=table.label[order],
        attacked=table.attacked[order],
        subjects=subjects,
    )


def without_subject(r: Records) -> Records:
    kept = {k: v for k, v in r.cases.subjects.items() if k != "composite"}
    return replace(r, cases=replace(r.cases, subjects=kept))


def critical(code: str) -> tuple[Finding, ...]:
    return (Finding(code, "critical", "Something grave."),)


def same(r: Records) -> Records:
    return r


def without_outcome(name: str) -> Change:
    return lambda r: evaluated(subjects=tuple(s for s in r.evaluation.subjects if s.name != name))(r)


def unattacked(r: Records) -> Records:
    return evaluated(subjects=tuple(replace(s, attacks=()) for s in r.evaluation.subjects))(r)
