"""Rows of robustness, data and training: attacks, classes, cohort flow, cost."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.protocol import Protocol
from medharden.record import CohortRecord, FusionRecord, HardenRecord, SubjectOutcome, present
from medharden.reporting.accuracy import clean_limits, exact_share, gate_level, robust_limits, unit_table
from medharden.reporting.numbers import count, duration, percent, percent_interval, points
from medharden.reporting.source import COMPARED, RunRecords
from medharden.stats import Share, wilson_interval

__all__ = [
    "SPLITS",
    "AttackRow",
    "ClassRow",
    "DirectionRow",
    "FlowRow",
    "SubjectRows",
    "class_rows",
    "cohort_flow",
    "cost_rows",
    "direction_rows",
    "frontier_rows",
    "reconciliation",
    "subject_label",
    "subject_rows",
]

SPLITS = ("train", "val", "test")
_SUBJECTS = {"original": "Original", "robust_branch": "Robust branch", "composite": "Released model"}


@dataclass(frozen=True)
class AttackRow:
    """One attack on one subject, formatted."""

    name: str
    recipe: str
    cases: str
    wins: str
    rate: str
    interval: str
    seconds: str


@dataclass(frozen=True)
class SubjectRows:
    """One subject: its attacks, and the union over them with the accuracy that is left."""

    label: str
    clean: str
    clean_counts: str
    clean_interval: str
    robust: str
    robust_counts: str
    robust_interval: str
    attacked: str
    wrong_before: str
    wins: str
    referred: str
    referred_attacked: str
    kept: str
    attacks: tuple[AttackRow, ...]


@dataclass(frozen=True)
class ClassRow:
    """One class: share answered rightly and its interval, original clean and attacked, then released."""

    name: str
    n: str
    attacked: str
    shares: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DirectionRow:
    """What attacks turned, of one true class: share, limits and counts of the original and the released model."""

    name: str
    cells: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class FrontierRow:
    """One fusion weight tried on validation, formatted."""

    weight: str
    gained: str
    lost: str
    cases: str
    lower: str
    robust: str
    chosen: bool


@dataclass(frozen=True)
class FlowRow:
    """One class of the cohort, or its total: cases and distinct patients in each split and in all."""

    name: str
    cells: tuple[tuple[str, str], ...]


def subject_label(name: str) -> str:
    """`composite` is the model that ships."""
    return _SUBJECTS.get(name, name)


def subject_rows(records: RunRecords) -> tuple[SubjectRows, ...]:
    """Every subject with its attacks."""
    return tuple(_subject(records, s) for s in records.evaluation.subjects)


def _share(successes: int, cases: int) -> tuple[str, str]:
    """A proportion and its 95 % Wilson interval; dashes over no cases."""
    if cases == 0:
        return "–", ""
    return percent(successes / cases), percent_interval(wilson_interval(successes, cases))


def _subject(records: RunRecords, s: SubjectOutcome) -> SubjectRows:
    wins = sum(a.wins for a in s.attacks)
    return SubjectRows(
        label=subject_label(s.name),
        clean=percent(s.clean_accuracy) if s.n else "–",
        clean_counts=f"{count(s.clean_correct)} of {count(s.n)}",
        clean_interval=percent_interval(clean_limits(records, s.name)) if s.n else "",
        robust=percent(s.robust_accuracy) if s.attacked else "–",
        robust_counts=f"{count(s.robust_correct)} of {count(s.attacked)}",
        robust_interval=percent_interval(robust_limits(records, s.name)) if s.attacked else "",
        attacked=count(s.attacked),
        wrong_before=count(s.attacked - s.robust_correct - wins),
        wins=count(wins),
        referred=_of(s.referred, s.n) if s.referred else "",
        referred_attacked=_referred_attacked(records, s),
        kept=_of(s.robust_correct, s.robust_correct + wins),
        attacks=tuple(
            AttackRow(a.name, a.recipe, count(a.cases), count(a.wins), *_share(a.wins, a.cases), duration(a.seconds))
            for a in s.attacks
        ),
    )


def _of(part: int, whole: int) -> str:
    return f"{count(part)} of {count(whole)} ({percent(part / whole)})" if whole else f"{count(part)} of 0"


def _referred_attacked(records: RunRecords, s: SubjectOutcome) -> str:
    flags = None if records.cases is None else records.cases.subjects[s.name].referred_attacked
    return "" if flags is None else _of(int(flags.sum()), s.attacked)


def direction_rows(records: RunRecords) -> tuple[DirectionRow, ...]:
    """How many rightly answered cases of each class attacks turned, of both models; of classes alone."""
    cases, protocol = unit_table(records), records.protocol
    if cases is None or cases.multilabel:
        return ()
    rows = []
    for k, name in enumerate(records.evaluation.classes):
        of_class = (cases.label == k) & cases.attacked
        side = protocol.task.recall_name(records.evaluation.classes, k)
        what = {"sensitivity": "Disease hidden: ", "specificity": "Disease invented: "}.get(side, "")
        cells = []
        for subject in COMPARED:
            among = of_class & cases.right(subject)
            share = exact_share(~cases.subjects[subject].robust, among, cases, gate_level(records))
            cells.append((*_shown(share), f"{count(share.count)} of {count(share.cases)}"))
        rows.append(DirectionRow(f"{what}{name}", tuple(cells)))
    return tuple(rows)


def class_rows(records: RunRecords) -> tuple[ClassRow, ...]:
    """Counts of the case table by class, as shares: a model that answers one class only shows here at once."""
    cases = unit_table(records)
    if cases is None or cases.multilabel:
        return ()
    rows, level = [], gate_level(records)
    for k, name in enumerate(records.evaluation.classes):
        of_class = cases.label == k
        under_attack = of_class & cases.attacked
        shares = []
        for subject in COMPARED:
            shares.append(_shown(exact_share(cases.right(subject), of_class, cases, level)))
            shares.append(_shown(exact_share(cases.subjects[subject].robust, under_attack, cases, level)))
        rows.append(
            ClassRow(
                name=name,
                n=count(int(of_class.sum())),
                attacked=count(int(under_attack.sum())),
                shares=tuple(shares),
            )
        )
    return tuple(rows)


def _shown(share: Share) -> tuple[str, str]:
    return (percent(share.estimate), percent_interval(share.interval)) if share.cases else ("–", "")


def frontier_rows(fusion: FusionRecord) -> tuple[FrontierRow, ...]:
    """The fusion weights tried, rising."""
    nearest = min((abs(p.weight - fusion.weight) for p in fusion.frontier), default=0.0)
    return tuple(
        FrontierRow(
            weight=f"{p.weight:.2f}",
            gained=count(p.gained),
            lost=count(p.lost),
            cases=count(p.cases),
            lower=points(p.lower),
            robust=f"{count(round(p.robust * p.attacked))} of {count(p.attacked)}",
            chosen=abs(p.weight - fusion.weight) == nearest,
        )
        for p in sorted(fusion.frontier, key=lambda p: p.weight)
    )


def cohort_flow(cohort: CohortRecord) -> tuple[FlowRow, ...]:
    """Classes or findings by splits, then all cases: cases and distinct patients; the last cell is over all splits."""
    rows, held_by = (
        [],
        [(name, [c for c in cohort.cases if k in present(c.label)]) for k, name in enumerate(cohort.classes)],
    )
    if cohort.multilabel:
        held_by.append(("No finding", [c for c in cohort.cases if not present(c.label)]))
        unknown = [[c for c in cohort.cases if k in c.masked] for k in range(len(cohort.classes))]
        held_by += [
            (f"{name}: not known, left out", held) for name, held in zip(cohort.classes, unknown, strict=True) if held
        ]
    held_by.append(("All cases" if cohort.multilabel else "All classes", list(cohort.cases)))
    for name, held in held_by:
        groups = [[c for c in held if c.split == split] for split in SPLITS] + [held]
        rows.append(FlowRow(name, tuple((count(len(g)), count(len({c.patient for c in g}))) for g in groups)))
    return tuple(rows)


def reconciliation(records: RunRecords) -> tuple[bool, str]:
    """Whether the counts of cohort, evaluation and case table agree, and the sentence that says so."""
    split = records.evaluation.split
    listed, tabled = len(records.cohort.split(split)), 0 if records.cases is None else len(records.cases.case)
    answered = {s.n for s in records.evaluation.subjects}
    agree = answered == {listed} == {tabled}
    read = len(records.cohort.cases) + len(records.cohort.excluded)
    text = (
        f"{count(read)} cases read = {count(len(records.cohort.cases))} used + {count(len(records.cohort.excluded))} "
        f"excluded. {count(listed)} cases in the {split} split, {count(tabled)} rows in the case table, "
        f"{' / '.join(count(n) for n in sorted(answered))} cases answered by each model"
    )
    return agree, text + (": the counts reconcile." if agree else ": THE COUNTS DO NOT RECONCILE.")


def cost_rows(harden: HardenRecord, protocol: Protocol) -> tuple[tuple[str, str], ...]:
    """What hardening cost: quantity and value."""
    cost = harden.cost
    rows = [
        ("Epochs", count(len(harden.epochs))),
        ("Optimiser steps", count(cost.steps)),
        ("Forward-and-backward passes a step", str(cost.passes)),
        ("Forward passes of the clean path a case", str(cost.teacher_passes)),
        ("Batch size", str(protocol.hardening.batch_size)),
        ("All training steps", duration(cost.train_seconds)),
        ("One hardening epoch (median)", duration(cost.epoch_seconds)),
    ]
    if harden.epoch_ratio is not None:
        rows += [
            ("One epoch of clean fine-tuning, timed in this run", duration(cost.clean_epoch_seconds)),
            ("Ratio of the two", f"{harden.epoch_ratio:.2f}"),
        ]
    rows += [
        ("Probes on validation", duration(cost.probe_seconds)),
        ("Calibration of the fusion", duration(cost.calibration_seconds)),
    ]
    if harden.validation is not None:
        share = harden.validation.work / harden.validation.training_work
        rows.append(("Probes and calibration over training, in passes (at most a quarter)", f"{share:.2f}"))
    if harden.whole_ratio is not None:
        rows.append(("All of it over clean fine-tuning of as many epochs", f"{harden.whole_ratio:.2f}"))
    return (
        *rows,
        ("Peak memory of the process", f"{count(round(cost.peak_memory_mib))} MiB"),
    )
