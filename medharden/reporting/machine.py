"""The report in machine form (`report.json`): everything shown, without case lists or pictures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from medharden.codes import steps
from medharden.record import CohortRecord, SubjectOutcome, present
from medharden.reporting.accuracy import clean_limits, robust_limits
from medharden.reporting.clean import all_findings
from medharden.reporting.curve import curve_json
from medharden.reporting.excluded import ExcludedRow, excluded_rows
from medharden.reporting.findings import finding_figures
from medharden.reporting.matrix import threat_matrix
from medharden.reporting.robust import SPLITS
from medharden.reporting.source import RunRecords
from medharden.reporting.usefulness import usefulness
from medharden.reporting.wording import article_15, untested

__all__ = ["machine_report"]

_SCHEMA = "medharden/report/1"


def machine_report(records: RunRecords) -> dict[str, Any]:
    """Plain JSON values; proportions in [0, 1], intervals as [lower, upper]."""
    decision, evaluation, harden = records.decision, records.evaluation, records.harden
    return {
        "schema": _SCHEMA,
        "verdict": decision.verdict.value,
        "reasons": list(decision.reasons),
        "to_do": [asdict(step) for step in steps(decision)],
        "margins_justified": decision.margins_justified,
        "endpoints": [{**asdict(e), "verdict": e.verdict.value} for e in decision.endpoints],
        "subgroups": [{**asdict(e), "verdict": e.verdict.value} for e in decision.subgroups],
        "subjects": [_subject(records, s) for s in evaluation.subjects],
        **_by_finding(records),
        **_artefacts(records),
        **({"stability": asdict(records.stability)} if records.stability else {}),
        **({"changes": [asdict(row) for row in decision.changes]} if decision.changes else {}),
        **({"missing": [asdict(row) for row in decision.missing]} if decision.missing else {}),
        **(
            {"worst_case": [{**asdict(e), "verdict": e.verdict.value} for e in decision.worst_case]}
            if decision.worst_case
            else {}
        ),
        **({"independent": [asdict(test) for test in decision.independent]} if decision.independent else {}),
        "usefulness": [asdict(at) for at in usefulness(records)],
        "sanity": [asdict(p) for p in evaluation.sanity],
        **curve_json(records),
        "shift": [asdict(p) for p in evaluation.shift],
        "identity": asdict(evaluation.identity),
        "threat": evaluation.threat,
        "decision_threshold": evaluation.decision_threshold,
        "split": evaluation.split,
        "original": asdict(harden.original),
        "branch": asdict(harden.branch),
        "fusion": asdict(harden.fusion),
        "epochs": [asdict(e) for e in harden.epochs],
        "cost": asdict(harden.cost),
        "seed": harden.seed,
        "cohort": _cohort(records.cohort),
        "findings": [asdict(f) for f in all_findings(records)],
        "threats": [asdict(row) for row in threat_matrix(records)],
        "article_15_5": [asdict(row) for row in article_15(records.protocol, evaluation.subject("composite").attacked)],
        "not_tested": list(untested(records.protocol)),
        "environment": {"harden": asdict(harden.environment), "evaluate": asdict(evaluation.environment)},
        "times": {
            "harden": [harden.started, harden.finished],
            "evaluate": [evaluation.started, evaluation.finished],
            "decided": decision.decided,
        },
        "digests": {
            "protocol": records.protocol.digest,
            "original_file": harden.original.file,
            "original_state": harden.original.state,
            "clean_state_after": harden.clean_state_after,
            "hardened": evaluation.hardened,
            "files": records.files,
        },
        "audit_log": {"events": records.events, "head": records.head},
        "protocol": records.protocol.model_dump(mode="json"),
    }


def _by_finding(records: RunRecords) -> dict[str, Any]:
    """Each finding under attack; nothing for classes."""
    figures = [f.as_json() for f in finding_figures(records)]
    return {"by_finding": figures} if figures else {}


def _artefacts(records: RunRecords) -> dict[str, Any]:
    """Exported models with their verdicts; nothing where none was decided on."""
    found = [
        {
            "file": artefact.name,
            "gated": artefact.gated,
            "digest": artefact.decision.artefact,
            "runtime": artefact.evaluation.environment.device,
            "subject": asdict(artefact.evaluation.subject("artefact")),
            "verdict": artefact.decision.verdict.value,
            "reasons": list(artefact.decision.reasons),
            "endpoints": [{**asdict(e), "verdict": e.verdict.value} for e in artefact.decision.endpoints],
        }
        for artefact in records.artefacts
    ]
    return {"artefacts": found} if found else {}


def _subject(records: RunRecords, subject: SubjectOutcome) -> dict[str, Any]:
    return {
        **asdict(subject),
        "clean_accuracy": subject.clean_accuracy,
        "clean_interval": list(clean_limits(records, subject.name)),
        "robust_accuracy": subject.robust_accuracy,
        "robust_interval": list(robust_limits(records, subject.name)),
        "interval": "exact (Clopper and Pearson; Gaffke where patients repeat), at the gate's level",
    }


def _cohort(cohort: CohortRecord) -> dict[str, Any]:
    """Counts alone: cases and patients by class and split."""
    counts = []
    for k, name in enumerate(cohort.classes):
        for split in SPLITS:
            held = [c for c in cohort.cases if k in present(c.label) and c.split == split]
            patients = len({c.patient for c in held})
            masked = sum(k in c.masked and c.split == split for c in cohort.cases)
            counts.append({"class": name, "split": split, "cases": len(held), "patients": patients, "masked": masked})
    return {
        "classes": list(cohort.classes),
        "counts": counts,
        "cases": len(cohort.cases),
        "patients": len({c.patient for c in cohort.cases}),
        "excluded": [_excluded(row) for row in excluded_rows(cohort)],
        "source": cohort.source,
        "formats": cohort.formats,
        "splits_from": cohort.splits_from,
        "grouped_by": cohort.grouped_by,
        "key_id": cohort.key_id,
        "shape": list(cohort.shape),
        "preprocessing": cohort.preprocessing,
    }


def _excluded(row: ExcludedRow) -> dict[str, Any]:
    return {"class": row.name, "split": row.split, "reason": row.reason, "cases": row.cases, "of": row.of}
