"""Rows of what people stated or must still state: population, hazards, sign-off, retention; and the preprocessing."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.protocol import Protocol, Signatory
from medharden.record import CohortRecord
from medharden.reporting.numbers import count, percent
from medharden.reporting.source import RunRecords
from medharden.reporting.wording import input_words

__all__ = ["NOT_STATED", "HarmRow", "harm_rows", "preprocessing_rows", "risk_rows", "sign_rows", "stated_rows"]

NOT_STATED = "not stated"
Rows = tuple[tuple[str, str], ...]
_RESAMPLED = {2: "bilinear with anti-aliasing", 3: "averaged where an axis shrinks, else linear"}
_BLANK = (
    Signatory(meaning="Prepared", role="Developer of the model"),
    Signatory(meaning="Reviewed", role="Clinical expert"),
    Signatory(meaning="Approved", role="Quality management"),
)


@dataclass(frozen=True)
class HarmRow:
    """What changed for the patients of one class: wrong answers before and after, and how they came about."""

    label: str
    of: str
    before: str
    after: str
    newly_wrong: str
    newly_right: str


def harm_rows(records: RunRecords) -> tuple[HarmRow, ...]:
    """Wrong answers by class, from the gate's paired tables of recall: what a clinician would notice."""
    task, classes = records.protocol.task, records.evaluation.classes
    rows = []
    # what was missed comes first
    for e in sorted(records.decision.endpoints, key=lambda e: e.name != "sensitivity"):
        metric, _, subject = e.name.partition(":")
        if metric not in ("recall", "sensitivity", "specificity") or len(e.table) != 4:
            continue
        _, gained, lost, neither = e.table
        rows.append(
            HarmRow(
                label=_harm(metric, subject, task.positive, classes),
                of=count(e.n),
                before=f"{count(gained + neither)} ({percent((gained + neither) / e.n)})",
                after=f"{count(lost + neither)} ({percent((lost + neither) / e.n)})",
                newly_wrong=count(lost),
                newly_right=count(gained),
            )
        )
    return tuple(rows)


def _harm(metric: str, subject: str, positive: str | None, classes: tuple[str, ...]) -> str:
    """A wrong answer in the clinic's words."""
    named = f" ({positive})" if positive in classes and not subject else f": {subject}" if subject else ""
    if metric == "sensitivity":
        return f"Missed cases{named}"
    if metric == "specificity":
        return f"False alarms{named}"
    return subject


def stated_rows(records: RunRecords) -> Rows:
    """Population, reference standard and provenance, as the protocol states them."""
    stated = records.protocol.report
    return (
        ("Population", stated.population or NOT_STATED),
        ("Reference standard", stated.reference_standard or f"{NOT_STATED}; the labels are taken as supplied"),
        ("Provenance and de-identification", stated.provenance or NOT_STATED),
    )


def preprocessing_rows(protocol: Protocol, cohort: CohortRecord) -> Rows:
    """From stored values to model input, step by step, and the fingerprint that a changed step would change."""
    dicom = any(kind.startswith("dicom") for kind in cohort.formats)
    rows = []
    if dicom:
        rows.append(("Modality rescale", "DICOM slope and intercept, or look-up table, before any window"))
    rows.append(("Window and size", input_words(protocol)))
    if dicom:
        rows.append(("Photometric inversion", "MONOCHROME1 is inverted after the window"))
    if protocol.input.size is not None:
        how = _RESAMPLED[protocol.input.dims]
        rows.append(("Resampling", f"{how}; {protocol.input.fit}"))
    channels = "1 channel" if cohort.shape[0] == 1 else f"{cohort.shape[0]} channels"
    rows.append(("Channels", f"{channels}; colour becomes grey by ITU-R BT.601 luma where one is asked for"))
    rows.append(("Fingerprint", f"SHA-256 {cohort.preprocessing} of recipe and golden input (first test case)"))
    return tuple(rows)


def risk_rows(protocol: Protocol) -> tuple[tuple[str, str, str], ...]:
    """Hazard, where the risk file holds it, residual risk; one row that says so where none is stated."""
    hazards = protocol.report.hazards
    if not hazards:
        return ((NOT_STATED, NOT_STATED, NOT_STATED),)
    return tuple((h.hazard, h.link or NOT_STATED, h.residual_risk or NOT_STATED) for h in hazards)


def sign_rows(protocol: Protocol) -> tuple[tuple[str, str, str], ...]:
    """Meaning, role, name; the usual roles, and names to fill in by hand, where the protocol states nobody."""
    return tuple((s.meaning, s.role, s.name or "") for s in protocol.report.sign_off or _BLANK)
