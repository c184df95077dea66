"""Cases that were left out: whether so many may be, and whether they could turn the verdict.

Who leaves out the cases that a model would fail has a better model. Given splits say where a case left out belonged;
made splits are made of what is left, so such a case may have belonged to any. The share is that of the test split,
where the cases without a split are spread over all splits as the others are; the worst case puts all of them into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from medharden.gating.endpoints import clean_endpoints
from medharden.gating.robustness import robust_endpoints
from medharden.gating.words import valued
from medharden.protocol import CO_PRIMARY, Protocol
from medharden.record import (
    MASKED,
    CaseTable,
    CohortRecord,
    Endpoint,
    ExcludedCase,
    Finding,
    FindingTable,
    Label,
    SubjectTable,
    Verdict,
    finding_states,
    present,
)

__all__ = [
    "answered_endpoints",
    "excluded_reasons",
    "guesses",
    "perhaps_of_test",
    "with_lost",
    "worst_case_findings",
]

_MOST_NAMED = 6


def excluded_reasons(protocol: Protocol, cohort: CohortRecord) -> Iterator[str]:
    """Why nothing passes where more cases were left out than the protocol allows, of all or of one class."""
    limit = protocol.splits.excluded_limit
    said = [text for text, share in _shares(cohort) if share > limit]
    if said:
        more = f"; and of {len(said) - _MOST_NAMED} more" if len(said) > _MOST_NAMED else ""
        yield (
            f"exclusions: {'; '.join(said[:_MOST_NAMED])}{more}; that is more than splits.excluded_limit allows "
            f"({100 * limit:.3g} %), and whoever leaves cases out chooses what a model is judged by"
        )


def worst_case_findings(
    protocol: Protocol, cohort: CohortRecord, cases: CaseTable, endpoints: Iterable[Endpoint]
) -> Iterator[Finding]:
    """Which endpoints would no longer pass if the release had lost every case that was left out.

    Args:
        protocol: margins and floors.
        cohort: with the cases left out.
        cases: units of analysis.
        endpoints: as decided without the cases left out.
    """
    left_out = perhaps_of_test(cohort)
    passed = {e.name: e for e in endpoints if e.verdict is Verdict.PASS}
    if not left_out:
        return
    turned: dict[str, str] = {}
    for guess in guesses(cohort, left_out):
        worst = with_lost(cases, left_out, guess, len(cohort.classes))
        for e in answered_endpoints(protocol, cohort.classes, worst):
            before = passed.get(e.name)
            if before is not None and e.verdict is not Verdict.PASS:
                limits = f"limit {valued(e, before.lower)} to {valued(e, e.lower)}"
                estimates = f"{valued(e, before.estimate)} to {valued(e, e.estimate)}"
                turned.setdefault(e.name, f"{e.name} ({estimates}, {limits})")
    head = (
        f"{len(left_out)} cases that were left out belong to the test split, or may: were the original right on all of "
        "them, attacked or not, and the release wrong, "
    )
    if turned:
        message = f"{head}these would no longer pass: {', '.join(turned.values())}."
        yield Finding("gate.exclusions_could_turn", "warning", message)
    else:
        message = f"{head}no endpoint on answers that passes would turn."
        yield Finding("gate.exclusions_worst_case", "info", message)


def _shares(cohort: CohortRecord) -> Iterator[tuple[str, float]]:
    """In words and as a number, the share of the test split that was left out: of all cases and of each class."""
    yield _share(cohort, "the cases", None)
    for k, name in enumerate(cohort.classes):
        yield _share(cohort, f"those of {name}", k)


def _share(cohort: CohortRecord, what: str, label: int | None) -> tuple[str, float]:
    used = [c for c in cohort.cases if label is None or label in present(c.label)]
    lost = [c for c in cohort.lost if label is None or (c.label is not None and label in present(c.label))]
    in_test = sum(c.split == "test" for c in used)
    known, unknown = sum(c.split == "test" for c in lost), sum(c.split == "" for c in lost)
    parts = [f"{known} of the {known + in_test} in the test split"] if known else []
    parts += [f"{unknown} of {unknown + len(used)} before splits were made"] if unknown else []
    gone = known + (unknown * in_test / len(used) if in_test else unknown)
    share = gone / (gone + in_test) if gone else 0.0
    return f"of {what}, {' and '.join(parts)} were left out ({100 * share:.3g} %)", share


def perhaps_of_test(cohort: CohortRecord) -> tuple[ExcludedCase, ...]:
    """The cases left out that belong to the test split, or may."""
    return tuple(c for c in cohort.lost if c.split in ("test", ""))


def guesses(cohort: CohortRecord, left_out: tuple[ExcludedCase, ...]) -> tuple[Label, ...]:
    """What a case may be whose label nobody knows: each class in turn; of findings all, or none."""
    if all(c.label is not None for c in left_out):
        return (0,)
    return (tuple(range(len(cohort.classes))), ()) if cohort.multilabel else tuple(range(len(cohort.classes)))


def answered_endpoints(protocol: Protocol, classes: tuple[str, ...], cases: CaseTable) -> Iterator[Endpoint]:
    """The endpoints on answers, clean and attacked; those on scores know nothing of a case that can't be read."""
    counted = tuple(m for m in protocol.endpoints.noninferiority if m.metric in CO_PRIMARY)
    wanted = protocol.endpoints.model_copy(update={"noninferiority": counted, "multiplicity": "all"})
    on_answers = protocol.model_copy(update={"endpoints": wanted})
    yield from clean_endpoints(on_answers, classes, cases)
    yield from robust_endpoints(on_answers, classes, cases)


def with_lost(
    cases: CaseTable,
    left_out: tuple[ExcludedCase, ...],
    guess: Label,
    classes: int,
    *,
    original: bool = True,
    release: bool = False,
) -> CaseTable:
    """The table with the cases left out, each a patient.

    Args:
        cases: the table without them.
        left_out: the cases.
        guess: the label of those whose label nobody knows.
        classes: how many there are.
        original: whether the original is right on all of them, attacked or not.
        release: whether the release is.
    """
    labels = [guess if c.label is None else c.label for c in left_out]
    if cases.multilabel:
        label = np.array([finding_states(s, c.masked, classes) for s, c in zip(labels, left_out, strict=True)])
    else:
        label = np.array(labels, dtype=np.int64)
    attacked = _drawn(cases, labels)
    names = tuple(f"left out {c.case}" for c in left_out)
    subjects = {
        name: _answered(table, label, attacked, right=original if name == "original" else release, classes=classes)
        for name, table in cases.subjects.items()
    }
    return CaseTable(
        case=(*cases.case, *names),
        patient=(*cases.patient, *names),
        label=np.concatenate([cases.label, label]),
        attacked=np.concatenate([cases.attacked, attacked]),
        subjects=subjects,
    )


def _drawn(cases: CaseTable, labels: list[Label]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which of the cases left out would have been attacked: of each label the share of its own cases that was."""
    attacked = np.zeros(len(labels), dtype=np.bool_)
    for label in dict.fromkeys(labels):
        held = [i for i, one in enumerate(labels) if one == label]
        like = np.ones(len(cases.case), dtype=np.bool_) if cases.multilabel else cases.label == label
        share = cases.attacked[like].mean() if like.any() else cases.attacked.mean()
        attacked[held[: math.ceil(len(held) * share)]] = True
    return attacked


def _answered(
    table: SubjectTable,
    label: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    attacked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    *,
    right: bool,
    classes: int,
) -> SubjectTable:
    """A subject's columns with those of the cases left out; probabilities of them are nobody's."""
    wrong = (label != 1).astype(np.int64) if label.ndim == 2 else (label + 1) % classes
    none, stands = np.zeros(len(label), dtype=np.bool_), attacked & right
    findings = table.findings
    if findings is not None:
        robust = stands[:, None] & (label != MASKED)
        findings = FindingTable(
            np.concatenate([findings.robust, robust]),
            np.concatenate([findings.attacked_probabilities, np.full(robust.shape, 0.5)]),
        )
    referred = table.referred_attacked
    return replace(
        table,
        predicted=np.concatenate([table.predicted, label if right else wrong]),
        probabilities=np.concatenate([table.probabilities, np.full((len(label), classes), 1.0 / classes)]),
        robust=np.concatenate([table.robust, stands]),
        won_by=(*table.won_by, *("" if right else "clean" for _ in label)),
        referred=np.concatenate([table.referred, none]),
        findings=findings,
        referred_attacked=None if referred is None else np.concatenate([referred, none]),
        withstands=None,
    )
