"""Two sets of answers compared in pairs, with the patient as the unit: the gate's clean endpoints, without a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medharden._version import __version__
from medharden.errors import ProtocolError
from medharden.gating.answers import PairedAnswers
from medharden.gating.groups import Flags, groups
from medharden.gating.paired import compare, noninferiority
from medharden.gating.scores import score_endpoint
from medharden.gating.units import on_enough_units
from medharden.protocol import Bound, Endpoints, Margin, Protocol, Task, load_protocol
from medharden.protocol.deciding import LARGEST_ALPHA, LARGEST_BARE_MARGIN
from medharden.record import CaseTable, ComparedAnswers, ComparedRow, Endpoint, Verdict
from medharden.stats import auroc

__all__ = ["METRICS", "Asked", "compare_answers"]

METRICS = ("accuracy", "recall", "balanced_accuracy", "auroc", "brier")
_GRAVITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)
_ANY = 0.1  # where no margin was stated, one is needed to run the test and decides nothing


@dataclass(frozen=True)
class Asked:
    """What is asked of the new set.

    Attributes:
        margins: metric, or name of a recall (`sensitivity`, `recall:CLASS`), to the largest acceptable loss (Brier:
            increase), in (0, 1). Metrics without a margin are described.
        alpha: one-sided error, in (0, 0.05].
        each_case: how it is known that each case which names no patient is a patient of its own; or empty.
    """

    margins: Mapping[str, float]
    alpha: float = 0.025
    each_case: str = ""


def compare_answers(pair: PairedAnswers, asked: Asked) -> ComparedAnswers:
    """Every metric that the answers allow, with limits at 1 - 2 alpha, and a verdict where margins were stated.

    All stated margins must be shown to hold, so no alpha is split. Each row's limits are those of the gate: Tango's on
    effective cases (Rao & Scott) where patients repeat, MOVER, DeLong's and Obuchowski's components, the influence
    limits of scores. Nothing passes on fewer than 20 patients, or where cases name no patient and nobody says why each
    is one.

    Raises:
        ProtocolError: an alpha or a margin that can't be, or one for what these answers do not have.
    """
    _check(asked)
    protocol = _protocol(pair, asked)
    found = list(_rows(pair, asked, protocol))
    rows, known = [row for row, _ in found], {key for _, keys in found for key in keys}
    unknown = sorted(set(asked.margins) - known)
    if unknown:
        raise ProtocolError(
            f"--margin: {', '.join(unknown)} is none of what these answers give: {', '.join(row.name for row in rows)}"
        )
    decided = [row for row in rows if row.verdict is not None]
    notes, reasons = list(pair.notes), []
    verdict = max((r.verdict for r in decided if r.verdict), key=_GRAVITY.index, default=None)
    for grave in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        reasons += [row.reason for row in decided if row.verdict is grave]
    if pair.unnamed and asked.each_case:
        notes.append(f"{pair.unnamed} cases name no patient; stated: {asked.each_case}")
    elif pair.unnamed:
        text = (
            f"{pair.unnamed} of {len(pair.table.case)} cases name no patient, so cases of one patient may count as "
            "several: add a column patient, or say how it is known that each is a patient of its own (--each-case)"
        )
        (reasons if verdict else notes).append(text)
        verdict = Verdict.INCONCLUSIVE if verdict is Verdict.PASS else verdict
    if asked.margins and not any(row.margin is not None for row, keys in found if "recall" in keys):
        notes.append("no margin for recall: an accuracy that is kept by trading one class for another goes unnoticed")
    return ComparedAnswers(
        classes=pair.classes,
        positive=pair.positive,
        cases=len(pair.table.case),
        patients=len(set(pair.table.patient)),
        alpha=asked.alpha,
        level=1.0 - 2.0 * asked.alpha,
        rows=tuple(rows),
        verdict=verdict,
        reasons=tuple(reasons),
        notes=tuple(notes),
        inputs=pair.inputs,
        medharden=__version__,
    )


def _check(asked: Asked) -> None:
    if not 0.0 < asked.alpha <= LARGEST_ALPHA:
        raise ProtocolError(
            f"--alpha: expected a one-sided error above 0 and {LARGEST_ALPHA:g} at most, got {asked.alpha:g}"
        )
    for name, margin in asked.margins.items():
        if not 0.0 < margin <= LARGEST_BARE_MARGIN:
            raise ProtocolError(
                f"--margin {name}: expected a proportion above 0 and {LARGEST_BARE_MARGIN:g} at most (0.02 is two "
                f"points), got {margin:g}"
            )


def _protocol(pair: PairedAnswers, asked: Asked) -> Protocol:
    """What the gate's endpoints are asked by: names, margins, alpha. All else of it plays no part."""
    bounds = {name: asked.margins.get(name, _ANY) for name in METRICS}
    by_class = {k: Bound(margin=v) for k, v in asked.margins.items() if k not in METRICS}
    wanted = tuple(
        Margin(metric=name, margin=margin, by_class=by_class if name == "recall" else {})  # type: ignore[arg-type]
        for name, margin in bounds.items()
    )
    return load_protocol("default").model_copy(
        update={
            "task": Task(classes=pair.classes, positive=pair.positive),
            "endpoints": Endpoints(alpha=asked.alpha, noninferiority=wanted),
        }
    )


def _rows(pair: PairedAnswers, asked: Asked, protocol: Protocol) -> Iterator[tuple[ComparedRow, tuple[str, ...]]]:
    """Each row, with the names under which a margin may be stated for it; the first that is stated holds."""
    cases, classes, alpha = pair.table, pair.classes, asked.alpha
    wanted: dict[str, Margin] = {m.metric: m for m in protocol.endpoints.noninferiority}
    right = cases.right("original"), cases.right("composite")
    everyone = np.ones(len(right[0]), dtype=np.bool_)
    test = compare(*right, everyone, cases, wanted["accuracy"].margin, alpha)
    endpoint = noninferiority("accuracy", "accuracy", test, alpha, wanted["accuracy"])
    yield _row(endpoint, asked, _means(right, everyone), ("accuracy",))
    recalls = []
    for group in groups(protocol, classes, cases):
        if not group.rows.any():
            continue
        bound = wanted["recall"].of(*group.keys)
        test = compare(*right, group.rows, cases, bound.margin, alpha)
        endpoint = noninferiority(group.name, group.title, test, alpha, bound)
        recalls.append(_means(right, group.rows))
        yield _row(endpoint, asked, recalls[-1], (*group.keys, "recall"))
    if len(recalls) < len(classes):
        return
    endpoint = score_endpoint(wanted["balanced_accuracy"], protocol, classes, cases, alpha, name="balanced_accuracy")
    old, new = np.mean(recalls, axis=0).tolist()
    yield _row(endpoint, asked, (old, new), ("balanced_accuracy",))
    if pair.scored:
        yield from _of_scores(pair, asked, protocol, wanted)


def _of_scores(
    pair: PairedAnswers, asked: Asked, protocol: Protocol, wanted: Mapping[str, Margin]
) -> Iterator[tuple[ComparedRow, tuple[str, ...]]]:
    cases = pair.table if pair.probable else _ranked(pair.table)
    measures = {"auroc": _auroc, **({"brier": _brier} if pair.probable else {})}
    for name, measure in measures.items():
        endpoint = score_endpoint(wanted[name], protocol, pair.classes, cases, asked.alpha, name=name)
        old, new = (measure(protocol, pair.classes, cases, subject) for subject in ("original", "composite"))
        yield _row(endpoint, asked, (old, new), (name,))


def _means(right: tuple[Flags, Flags], rows: Flags) -> tuple[float, float]:
    return float(right[0][rows].mean()), float(right[1][rows].mean())


def _row(
    endpoint: Endpoint, asked: Asked, values: tuple[float, float], keys: tuple[str, ...]
) -> tuple[ComparedRow, tuple[str, ...]]:
    """The endpoint, with a verdict if one of these keys has a margin; and the keys."""
    decided = on_enough_units(endpoint)
    margin = next((asked.margins[key] for key in keys if key in asked.margins), None)
    known = not endpoint.method.startswith("not estimated")
    row = ComparedRow(
        name=endpoint.name,
        n=endpoint.n,
        patients=endpoint.patients,
        table=endpoint.table,
        old=values[0],
        new=values[1],
        estimate=endpoint.estimate if known else None,
        lower=endpoint.lower if known else None,
        upper=endpoint.upper if known else None,
        margin=margin,
        verdict=None if margin is None else decided.verdict,
        reason="" if margin is None else decided.reason,
        needed=None if margin is None else endpoint.needed,
        method=endpoint.method,
    )
    return row, keys


def _ranked(cases: CaseTable) -> CaseTable:
    """The same order of scores in (0, 1], which is all that an AUROC asks."""
    subjects = {
        name: replace(s, probabilities=np.stack([_places(of) for of in s.probabilities.T], axis=1))
        for name, s in cases.subjects.items()
    }
    return replace(cases, subjects=subjects)


def _places(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The place of each score among all that differ, in (0, 1]."""
    values, places = np.unique(scores, return_inverse=True)
    return (places + 1.0) / len(values)


def _auroc(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, name: str) -> float:
    """Of the positive one of two classes, of more the mean of each against the rest."""
    scores, positive = cases.subjects[name].probabilities, protocol.task.positive
    targets = range(len(classes)) if len(classes) > 2 else [1 if positive is None else classes.index(positive)]
    return float(np.mean([auroc(scores[:, k], cases.label == k) for k in targets]))


def _brier(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, name: str) -> float:
    """Squared error summed over classes, in [0, 2]."""
    truth = np.eye(len(classes))[cases.label]
    return float(np.mean(np.sum((cases.subjects[name].probabilities - truth) ** 2, axis=1)))
