"""Makes the records of one run for the gate's tests, consistent unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from medharden.audit import (
    AuditLog,
    Lock,
    Look,
    RunHistory,
    digest_file,
    look_at,
    write_atomic,
    write_cases,
    write_record,
)
from medharden.gating import RunDigests, decide
from medharden.protocol import Protocol
from medharden.record import (
    AttackOutcome,
    BranchRecord,
    CaseRecord,
    CaseTable,
    CohortRecord,
    CostRecord,
    Environment,
    Evaluation,
    FusionRecord,
    GateDecision,
    HardenRecord,
    Identity,
    ModelRecord,
    SubjectOutcome,
    SubjectTable,
)
from medharden.stats.sampling import stratified_sample

ENVIRONMENT = Environment(
    medharden="0.1.0", python="3.11", platform="test", packages={"numpy": "2"}, device="cpu", threads=1
)
DIGESTS = RunDigests(
    protocol="",
    cohort="c" * 64,
    harden="b" * 64,
    hardened="d" * 64,
    description="a" * 64,
    cases="e" * 64,
    evaluation="f" * 64,
)


def protocol(
    *,
    mode: str = "mixed",
    positive: str | None = "PNEUMONIA",
    threshold: float = 0.5,
    margins: tuple[float, float] = (0.02, 0.05),
    floor: float = 0.3,
    budget: float = 0.05,
    sample: int | None = None,
    classes: tuple[str, ...] | None = None,
    justified: bool = True,
    looks: int = 1,
    columns: tuple[str, ...] = (),
    more: tuple[tuple[str, float], ...] = (),
    multiplicity: str = "all",
    authorised: str | None = None,
    splits: dict[str, object] | None = None,
    fusion: dict[str, object] | None = None,
    robustness: dict[str, object] | None = None,
    recall: dict[str, object] | None = None,
) -> Protocol:
    why = "A reader's own disagreement is larger." if justified else None
    if multiplicity == "all" and "brier" not in dict(more):
        more = (*more, ("brier", 0.5 if justified else 0.2))  # wide: tests on calibration state their own
    return Protocol.model_validate(
        {
            "schema_version": 1,
            "name": "toy",
            "title": "Toy",
            "intended_use": "Tests.",
            "task": {"positive": positive, "threshold": threshold, "classes": classes},
            "threat": {"eps": 2.0, "unit": "1/255"},
            "fusion": {"mode": mode, "referral_budget": budget, **(fusion or {})},
            "suite": {
                "cases": sample,
                "attacks": ({"attack": "pgd", "loss": "ce", "steps": 20},),
                "reason": "Tests." if sample is not None and sample < 100 else None,
            },
            "subgroups": {"columns": columns},
            "splits": splits or {},
            "endpoints": {
                "looks": looks,
                "multiplicity": multiplicity,
                "authorised": authorised,
                "noninferiority": (
                    {"metric": "accuracy", "margin": margins[0], "justification": why},
                    {"metric": "recall", "margin": margins[1], "justification": why, **(recall or {})},
                    *({"metric": metric, "margin": margin, "justification": why} for metric, margin in more),
                ),
                "robustness": {"floor": floor, "gain": 1e-9, "justification": why, **(robustness or {})},
            },
        }
    )


@dataclass(frozen=True)
class Records:
    """What the gate decides on."""

    protocol: Protocol
    cohort: CohortRecord
    harden: HardenRecord
    evaluation: Evaluation
    cases: CaseTable
    digests: RunDigests
    history: RunHistory

    def decide(self) -> GateDecision:
        parts = (self.protocol, self.cohort, self.harden, self.evaluation, self.cases)
        return decide(*parts, digests=self.digests, history=self.history)

    def with_subject(self, name: str, **changes: object) -> Records:
        """The same records with columns of one subject changed, and the counts left as they are."""
        subjects = dict(self.cases.subjects)
        subjects[name] = replace(subjects[name], **changes)  # type: ignore[arg-type]
        return replace(self, cases=replace(self.cases, subjects=subjects))


def records(
    n: int = 400,
    *,
    rules: Protocol | None = None,
    gained: int = 0,
    lost: int = 0,
    wrong: int | None = None,
    classes: tuple[str, ...] = ("NORMAL", "PNEUMONIA"),
    attacked: int | None = None,
    robust: tuple[int, int] | None = None,
    referred: int = 0,
    cases_a_patient: int = 1,
) -> Records:
    """A run on `n` test cases whose labels alternate through the classes.

    The first `wrong` cases are wrong under both models, the next `lost` right under the original alone, the next
    `gained` under the composite alone; all others right under both. `robust` counts, from the end and among the
    attacked, the cases that stay right under attack: for the original, and for the composite. By default 5 % are
    wrong, and 15 and 60 % robust.
    """
    rules = rules or protocol()
    wrong = n // 20 if wrong is None else wrong
    robust = (3 * n // 20, 12 * n // 20) if robust is None else robust
    label = np.arange(n) % len(classes)
    right_both = np.arange(n) >= wrong + lost + gained
    right_original = right_both | ((np.arange(n) >= wrong) & (np.arange(n) < wrong + lost))
    right_composite = right_both | ((np.arange(n) >= wrong + lost) & (np.arange(n) < wrong + lost + gained))
    in_sample = np.zeros(n, dtype=bool)
    in_sample[stratified_sample(label, attacked, rules.seed)] = True
    guarded = rules.fusion.mode == "guarded"
    threshold, positive = 0.5, 1
    if rules.task.positive in classes and len(classes) == 2:
        threshold, positive = rules.task.threshold, classes.index(rules.task.positive)

    def subject(right: np.ndarray, robust_cases: int, flags: int) -> SubjectTable:
        predicted = np.where(right, label, (label + 1) % len(classes)).astype(np.int64)
        p = np.full((n, len(classes)), 0.2 / (len(classes) - 1))
        p[np.arange(n), predicted] = 0.8
        if threshold != 0.5:
            p[:, positive] = np.where(predicted == positive, threshold + 0.01, threshold - 0.01)
            p[:, 1 - positive] = 1 - p[:, positive]
        last = np.flatnonzero(in_sample)[max(int(in_sample.sum()) - robust_cases, 0) :]
        robust_mask = right & np.isin(np.arange(n), last)
        won = np.where(right, np.where(robust_mask | ~in_sample, "", "pgd-ce-20"), "clean")
        return SubjectTable(predicted, p, robust_mask, tuple(won.tolist()), np.arange(n) < flags)

    names = ("original", "robust_branch", "composite")
    tables = (
        subject(right_original, robust[0], 0),
        subject(right_composite, robust[1], 0),
        replace(
            subject(right_composite, robust[1], referred),
            referred_attacked=np.zeros(n, dtype=bool) if guarded else None,
        ),
    )
    case = tuple(f"case{i:05d}" for i in range(n))
    patient = tuple(f"patient{i // cases_a_patient:05d}" for i in range(n))
    table = CaseTable(case, patient, label.astype(np.int64), in_sample, dict(zip(names, tables, strict=True)))
    return Records(
        protocol=rules,
        cohort=cohort(case, patient, label.tolist(), classes),
        harden=harden(rules),
        evaluation=evaluation(rules, table, classes),
        cases=table,
        digests=replace(DIGESTS, protocol=rules.digest),
        history=RunHistory(
            locks=(Lock(rules.digest, DIGESTS.cohort),),
            opened=1,
            looks=1,
            finished=1,
            look="0" * 64,
            harden=DIGESTS.harden,
            evaluation=DIGESTS.evaluation,
        ),
    )


def cohort(case: Sequence[str], patient: Sequence[str], label: Sequence[int], classes: tuple[str, ...]) -> CohortRecord:
    rows = [CaseRecord(c, p, "test", k, f"pixels-{c}") for c, p, k in zip(case, patient, label, strict=True)]
    rows += [
        CaseRecord(f"{split}{k}", f"{split}-patient{k}", split, k % len(classes), f"pixels-{split}{k}")
        for split in ("train", "val")
        for k in range(6)
    ]
    return CohortRecord(
        classes=classes,
        source="folder",
        formats={"png": len(rows)},
        splits_from="made",
        grouped_by="patient",
        unnamed=0,
        key_id="k",
        shape=(1, 8, 8),
        cases=tuple(rows),
        excluded=(),
        preprocessing="a" * 64,
    )


def harden(rules: Protocol) -> HardenRecord:
    return HardenRecord(
        protocol=rules.digest,
        cohort=DIGESTS.cohort,
        original=ModelRecord(
            "timm",
            "resnet18",
            {},
            2,
            1,
            2,
            (0.5,),
            (0.5,),
            one_logit=False,
            file="1" * 64,
            state="2" * 64,
            parameters=9,
        ),
        hardened=DIGESTS.hardened,
        description=DIGESTS.description,
        branch=BranchRecord("norm", 5, 9, 3),
        fusion=FusionRecord(rules.fusion.mode, 0.7, 1.0, 1.0, 0.5, 0.01),
        clean_state_before="2" * 64,
        clean_state_after="2" * 64,
        clean_logits_identical=True,
        epochs=(),
        cost=CostRecord(10, 1, 0, 1.0, 1.0, 1.0, 1.0, 1.0, 100.0),
        environment=ENVIRONMENT,
        seed=1,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T01:00:00+00:00",
    )


def evaluation(rules: Protocol, table: CaseTable, classes: tuple[str, ...]) -> Evaluation:
    n, attacked = len(table.case), int(table.attacked.sum())
    subjects = [
        SubjectOutcome(
            name=name,
            n=n,
            clean_correct=int((subject.predicted == table.label).sum()),
            attacked=attacked,
            robust_correct=int(subject.robust.sum()),
            referred=int(subject.referred.sum()),
            attacks=(AttackOutcome("pgd-ce-20", "PGD", attacked, 1, 1.0),),
        )
        for name, subject in table.subjects.items()
    ]
    two_with_threshold = len(classes) == 2 and rules.task.positive is not None and rules.task.threshold != 0.5
    return Evaluation(
        protocol=rules.digest,
        cohort=DIGESTS.cohort,
        hardened=DIGESTS.hardened,
        cases=DIGESTS.cases,
        split="test",
        classes=classes,
        threat="linf",
        decision_threshold=f"{rules.task.threshold:g}" if two_with_threshold else "argmax",
        subjects=tuple(subjects),
        identity=Identity("file", state_equal=True, logits_equal=True, max_abs_difference=0.0, cases=n),
        environment=ENVIRONMENT,
        started="2026-01-01T02:00:00+00:00",
        finished="2026-01-01T03:00:00+00:00",
    )


def counted_look(made: Records, look: str) -> Look:
    """The look that the records' evaluation came of, as a ledger has it, opened by the line of this hash."""
    return look_at(
        made.cohort,
        look=look,
        protocol=made.digests.protocol,
        cohort=made.digests.cohort,
        hardened=made.digests.hardened,
        original=made.harden.original.state,
    )


def write_run(run: Path, made: Records, *, weights: bytes = b"weights, for all the gate knows") -> None:
    """Writes the records as a run directory, with the digests that its files really have and the log of its making."""
    log = AuditLog(run / "audit.jsonl")
    (run / "protocol.yaml").write_text(yaml.safe_dump(made.protocol.model_dump(mode="json")), encoding="utf-8")
    write_record(run / "cohort.json", made.cohort)
    write_atomic(run / "hardened.safetensors", weights)
    description = write_atomic(run / "hardened.json", b"{}\n")
    found = {"cohort": digest_file(run / "cohort.json"), "hardened": digest_file(run / "hardened.safetensors")}
    cases = write_cases(run / "cases.parquet", made.cases)
    log.append("harden.locked", protocol=made.protocol.digest, cohort=found["cohort"])
    hardened = write_record(run / "harden.json", replace(made.harden, **found, description=description))
    log.append("harden.recorded", hardened=found["hardened"], record=hardened)
    log.append("evaluate.test_split_opened", cases=len(made.cases.case), protocol=made.protocol.digest, **found)
    evaluated = write_record(run / "evaluation.json", replace(made.evaluation, **found, cases=cases))
    log.append("evaluate.recorded", cases=cases, record=evaluated)
