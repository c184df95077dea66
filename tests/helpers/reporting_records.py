"""A factory of finished run directories for the report's tests: invented records that hang together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from medharden.audit import AuditLog, read_record, write_cases, write_record
from medharden.protocol import load_protocol
from medharden.record import (
    AttackOutcome,
    BranchRecord,
    CaseRecord,
    CaseTable,
    CohortRecord,
    CostRecord,
    Endpoint,
    Environment,
    EpochRecord,
    Evaluation,
    ExcludedCase,
    Finding,
    FrontierPoint,
    FusionRecord,
    GateDecision,
    HardenRecord,
    Identity,
    ModelRecord,
    SanityPoint,
    SubjectOutcome,
    SubjectTable,
    Verdict,
)
from medharden.stats import share_interval

ENVIRONMENT = Environment(
    medharden="0.1.0",
    python="3.11.9",
    platform="Linux-6.8-x86_64",
    packages={"numpy": "2.1.0", "timm": "1.0.9", "torch": "2.5.1"},
    device="cpu",
    threads=2,
)
ATTACKS = ("apgd-ce-50", "apgd-margin-50", "pgd-ce-20")
HARDENED = "ab" * 32


def make_run(
    run: Path,
    *,
    classes: tuple[str, ...] = ("normal", "pneumonia"),
    verdict: Verdict = Verdict.PASS,
    justified: bool = True,
    endpoints: bool = True,
    fusion: str = "mixed",
    examples: tuple[int, ...] | None = None,
    title: str = "Pneumonia on frontal chest radiographs",
    findings: tuple[Finding, ...] = (),
) -> Path:
    """Writes a whole run into `run`; `examples` is one picture's (C, *spatial) shape."""
    run.mkdir(parents=True, exist_ok=True)
    protocol = _protocol(run, classes, fusion, title, justified)
    cohort, table = _cohort(classes), _table(classes)
    cohort_digest = write_record(run / "cohort.json", cohort)
    write_record(run / "harden.json", _harden(protocol, cohort_digest, len(classes), fusion))
    cases = write_cases(run / "cases.parquet", table)
    evaluation = Evaluation(
        protocol=protocol,
        cohort=cohort_digest,
        hardened=HARDENED,
        cases=cases,
        split="test",
        classes=classes,
        threat="linf, eps 2 (1/255) = 0.0078431 of the input range [0, 1]",
        decision_threshold="argmax",
        subjects=tuple(_outcome(name, s, table) for name, s in table.subjects.items()),
        identity=Identity("file", state_equal=True, logits_equal=True, max_abs_difference=0.0, cases=len(table.case)),
        environment=ENVIRONMENT,
        started="2026-01-12T11:02:10+00:00",
        finished="2026-01-12T11:09:44+00:00",
        findings=findings,
        sanity=_sanity(),
    )
    digest = write_record(run / "evaluation.json", evaluation)
    decision = GateDecision(
        verdict=verdict,
        reasons=() if verdict is Verdict.PASS else (f"accuracy: {verdict.value.lower()} for a reason",),
        endpoints=_endpoints(classes, verdict, table) if endpoints else (),
        protocol=protocol,
        protocol_name="example",
        margins_justified=justified,
        hardened=HARDENED,
        evaluation=digest,
        decided="2026-01-12T11:10:01+00:00",
    )
    write_record(run / "gate.json", decision)
    log = AuditLog(run / "audit.jsonl")
    for event in ("harden", "evaluate", "gate"):
        log.append(event)
    if examples is not None:
        save_file(_examples(examples, len(classes)), run / "examples.safetensors")
    return run


def rewrite(run: Path, name: str, kind: type[Any], **changes: Any) -> None:
    """Replaces fields of one record in place."""
    write_record(run / name, dataclasses.replace(read_record(run / name, kind), **changes))


def _protocol(run: Path, classes: tuple[str, ...], fusion: str, title: str, justified: bool) -> str:
    reason = "Below the reading variability of two consultants at the site." if justified else None
    fit = all(name.isprintable() for name in classes)  # a protocol holds no control characters; data may
    content = {
        "schema_version": 1,
        "name": "example",
        "title": "".join(c for c in title if c.isprintable()),
        "intended_use": "Triage of adult frontal chest radiographs; a radiologist reads every image.",
        "task": {"classes": list(classes), "positive": classes[1] if len(classes) == 2 else None} if fit else {},
        "input": {"size": [64, 64]},
        "threat": {"eps": 2.0, "unit": "1/255"},
        "fusion": {"mode": fusion},
        "endpoints": {
            "noninferiority": [
                {"metric": "accuracy", "margin": 0.02, "justification": reason},
                {"metric": "recall", "margin": 0.05, "justification": reason},
            ],
            "robustness": {"floor": 0.5, "justification": reason},
        },
    }
    (run / "protocol.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_protocol(run / "protocol.yaml").digest


def _cohort(classes: tuple[str, ...]) -> CohortRecord:
    cases = []
    for split, n in (("train", 900), ("val", 300), ("test", 600)):
        for i in range(n):
            case = f"case-{split}-{i:04d}"
            patient = f"patient-{split}-{i // 2:04d}"
            cases.append(CaseRecord(case, patient, split, _label(i, len(classes)), f"{i:064x}"))
    return CohortRecord(
        classes=classes,
        source="folder",
        formats={"dicom": 1500, "png": 303},
        splits_from="made",
        grouped_by="patient",
        unnamed=0,
        key_id="k-7f3a",
        shape=(1, 64, 64),
        cases=tuple(cases),
        excluded=(
            ExcludedCase("case-x1", 0, "", "pixel data is truncated"),
            ExcludedCase("case-x2", 0, "", "pixel data is truncated"),
            ExcludedCase("case-x3", None, "", "empty"),
        ),
        preprocessing="cd" * 32,
        findings=(Finding("data.excluded", "warning", "3 cases were left out as unusable; see the cohort table."),),
    )


def _label(i: int, classes: int) -> int:
    return i % classes if classes > 2 else int(i % 3 > 0)


def _table(classes: tuple[str, ...]) -> CaseTable:
    n, k = 600, len(classes)
    rng = np.random.default_rng(7)
    label = np.array([_label(i, k) for i in range(n)])
    original = np.arange(n) % 40 != 7
    subjects = {}
    for name, moved, robust in (("original", 0, 0.09), ("robust_branch", 16, 0.79), ("composite", 8, 0.76)):
        right = original ^ np.isin(np.arange(n), np.linspace(47, n - 20, moved).astype(int))
        predicted = np.where(right, label, (label + 1) % k)
        stands = right & (rng.random(n) < robust)
        fell = rng.integers(0, 2, n)
        won = tuple("clean" if not c else "" if s else ATTACKS[f] for c, s, f in zip(right, stands, fell, strict=True))
        probabilities = np.full((n, k), 0.1 / (k - 1))
        probabilities[np.arange(n), predicted] = 0.9
        subjects[name] = SubjectTable(predicted, probabilities, stands, won, np.zeros(n, dtype=bool))
    return CaseTable(
        case=tuple(f"case-test-{i:04d}" for i in range(n)),
        patient=tuple(f"patient-test-{i // 2:04d}" for i in range(n)),
        label=label,
        attacked=np.ones(n, dtype=bool),
        subjects=subjects,
    )


def _outcome(name: str, subject: SubjectTable, table: CaseTable) -> SubjectOutcome:
    right = int((subject.predicted == table.label).sum())
    left, attacks = right, []
    for attack in ATTACKS:
        wins = sum(won == attack for won in subject.won_by)
        attacks.append(AttackOutcome(attack, f"{attack}, random start, step 2 eps", left, wins, 41.5))
        left -= wins
    return SubjectOutcome(name, len(table.case), right, len(table.case), left, 0, tuple(attacks))


def _harden(protocol: str, cohort: str, classes: int, fusion: str) -> HardenRecord:
    epochs = []
    for i in range(24):
        t = min(1.0, (i + 1) / 12)
        epochs.append(
            EpochRecord(
                epoch=i + 1,
                loss=0.6 - 0.015 * i,
                learning_rate=1e-3,
                radius=t,
                train_robust=0.5 + 0.015 * i,
                val_clean=(290 + (i % 3)) / 300,
                val_robust=0.12 + 0.7 * t - 0.002 * (i % 5),
                val_gained=2 + (i % 3),
                val_lost=4,
                seconds=7.4,
                probe_seconds=1.1,
                kept=i in (3, 9, 20),
            )
        )
    frontier = tuple(
        FrontierPoint(
            weight=w,
            gained=4,
            lost=4 + round(6 * (w - 0.5)),
            cases=300,
            lower=-0.018 - 0.03 * (w - 0.5),
            upper=0.018 - 0.01 * (w - 0.5),
            robust=0.2 + 0.62 * min(1, 3 * (w - 0.5)),
            attacked=100,
        )
        for w in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    )
    return HardenRecord(
        protocol=protocol,
        cohort=cohort,
        original=ModelRecord(
            source="timm",
            arch="efficientnet_lite0",
            arguments={},
            classes=classes,
            channels=1,
            dims=2,
            mean=(0.5,),
            std=(0.25,),
            one_logit=False,
            file="12" * 32,
            state="34" * 32,
            parameters=3_373_570,
        ),
        hardened=HARDENED,
        description="56" * 32,
        branch=BranchRecord("norm", 44_802, 46_082, 21),
        fusion=FusionRecord(fusion, 0.75, 1.31, 1.08, 0.4, 0.031, frontier if fusion == "mixed" else ()),
        clean_state_before="34" * 32,
        clean_state_after="34" * 32,
        clean_logits_identical=True,
        epochs=tuple(epochs),
        cost=CostRecord(696, 1, 1, 178.2, 26.4, 12.7, 7.42, 7.61, 1893.4),
        environment=ENVIRONMENT,
        seed=20220413,
        started="2026-01-12T10:55:31+00:00",
        finished="2026-01-12T11:01:58+00:00",
        findings=(Finding("hardening.steps", "info", "Epochs were added to reach the protocol's least steps."),),
    )


def _sanity() -> tuple[SanityPoint, ...]:
    points = []
    for subject, by_eps, by_steps in (
        ("original", (9, 2, 0, 0, 0), (12, 4, 2, 2)),
        ("composite", (28, 24, 15, 4, 0), (29, 25, 24, 24)),
    ):
        ratios, steps = (0.5, 1.0, 2.0, 4.0, 127.5), (1, 5, 20, 50)
        points += [SanityPoint(subject, "eps", r, r * 2 / 255, 20, 32, n) for r, n in zip(ratios, by_eps, strict=True)]
        points += [SanityPoint(subject, "steps", 1.0, 2 / 255, s, 32, n) for s, n in zip(steps, by_steps, strict=True)]
    return tuple(points)


def _endpoints(classes: tuple[str, ...], verdict: Verdict, cases: CaseTable) -> tuple[Endpoint, ...]:
    reason = "Below the reading variability of two consultants at the site."
    before, after = cases.subjects["original"], cases.subjects["composite"]
    every = np.ones(len(cases.label), dtype=bool)

    def paired(
        name: str, rows: Any, old: Any, new: Any, limit: float, shown: Verdict = Verdict.PASS, **changes: Any
    ) -> Endpoint:
        old, new = old[rows], new[rows]
        n, gained, lost = len(old), int((new & ~old).sum()), int((old & ~new).sum())
        d, half = (gained - lost) / n, 1.96 * (gained + lost + 1) ** 0.5 / n
        return Endpoint(
            name=name,
            kind=changes.get("kind", "noninferiority"),
            verdict=shown,
            estimate=d,
            lower=d - half,
            upper=d + half,
            level=0.95,
            limit=limit,
            n=n,
            patients=n // 2,
            table=(int((old & new).sum()), gained, lost, int((~old & ~new).sum())),
            smallest_margin=changes.get("smallest", 0.018),
            needed=changes.get("needed", max(n - 80, 40)),
            method="Tango score interval (Tango 1998)",
            justification=changes.get("justification", reason),
            reason=f"{name}: lower 95 % limit {d - half:.4f} against {limit:g} (n = {n})",
        )

    names = ("specificity", "sensitivity") if len(classes) == 2 else tuple(f"recall:{c}" for c in classes)
    identity = Endpoint(
        "identity", "identity", Verdict.PASS, 0.0, 0.0, 0.0, 1.0, 0.0, 600, 300, (), None, None,
        "bitwise comparison", "", "identity: the clean path equals the original bit for bit",
    )  # fmt: skip
    left = share_interval(after.robust[cases.attacked], np.asarray(cases.patient)[cases.attacked].tolist())
    floor = Endpoint(
        "robust_floor", "robust_floor", Verdict.PASS, left.estimate, left.lower, left.upper, 0.95, 0.5, left.cases,
        left.patients, (), None, None, left.method, reason, "robust_floor: lower 95 % limit reaches the floor",
    )  # fmt: skip
    gain = paired(
        "robust_gain", every, before.robust, after.robust, 0.0,
        kind="robust_gain", justification="", smallest=None, needed=None,
    )  # fmt: skip
    old, new = before.predicted == cases.label, after.predicted == cases.label
    recalls = (paired(name, cases.label == k, old, new, -0.05) for k, name in enumerate(names))
    clean = paired("accuracy", every, old, new, -0.02, verdict), *recalls
    return (identity, *clean, floor, gain)


def _examples(shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    grid = np.linspace(0.1, 0.9, shape[-1], dtype=np.float32)
    clean = np.broadcast_to(grid, (3, *shape)).astype(np.float32).copy()
    moved = (2 / 255 * rng.choice([-1.0, 1.0], clean.shape)).astype(np.float32)
    answers = np.array([0, 1, 1], dtype=np.int64)
    return {
        "clean": clean,
        "adversarial_original": np.clip(clean + moved, 0, 1),
        "adversarial": np.clip(clean - moved, 0, 1),
        "label": answers,
        "original_clean": answers,
        "original_attacked": (answers + 1) % classes,
        "composite_clean": answers,
        "composite_attacked": answers,
    }
