"""What a reader must know of who the patients are: none named, one for very many cases, written in several ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from medharden.data.checks.identity import PatientNames
from medharden.errors import DataError
from medharden.protocol import Splits
from medharden.record import Finding

__all__ = ["most_cases_of_one", "patient_findings", "refuse_one_patient"]

_MANY, _FEWEST = 0.2, 10  # of the cases: an identifier in so many of them may be a placeholder
_MOST_LISTED = 10


def refuse_one_patient(patients: PatientNames) -> None:
    """Stops where every case is said to be of one patient.

    Raises:
        DataError: with the number of cases, never the identifier.
    """
    cases = len(patients.identities)
    if 1 < cases == patients.largest:
        raise DataError(
            f"all {cases} cases name one and the same patient; expected several. Is the identifier a placeholder? Give "
            "a manifest with a patient column, or write a word that stands for none, such as ANONYMOUS, in its place"
        )


def most_cases_of_one(patients: PatientNames) -> str:
    """That one patient has very many cases, or nothing."""
    cases = len(patients.identities)
    if patients.largest < max(_FEWEST, _MANY * cases):
        return ""
    return (
        f"One patient identifier stands for {patients.largest} of {cases} cases, which count as one patient's. Is it a "
        "placeholder?"
    )


def patient_findings(
    patients: PatientNames, names: Sequence[str], splits: Sequence[str], limits: Splits
) -> Iterator[Finding]:
    """Findings on the patients; numbers, and cases by pseudonym.

    Args:
        patients: whose each case is.
        names: (N,) pseudonyms of the cases.
        splits: (N,) of the cases.
        limits: whether each case is stated to be a patient of its own where none is named.
    """
    n, unnamed = len(names), len(names) - patients.named
    then = (
        "as splits.patients of the protocol states"
        if limits.each_case
        else "and a verdict is INCONCLUSIVE at best, unless splits.patients of the protocol states that they are"
    )
    if unnamed == n:
        message = f"The data name no patients: each case counts as its own and is taken to be independent, {then}."
        yield Finding("data.no_patients", "warning", message)
    elif unnamed:
        message = f"{unnamed} of {n} cases name no patient; each of these counts as a patient of its own, {then}."
        yield Finding("data.missing_patients", "warning", message)
    if patients.placeholders:
        message = (
            f"{patients.placeholders} of {n} cases have for their patient a word that stands for none, such as "
            "ANONYMOUS, nan, - or 0: they name no patient."
        )
        yield Finding("data.patient_placeholders", "warning", message)
    if many := most_cases_of_one(patients):
        yield Finding("data.one_patient", "warning", many)
    if patients.respelt:
        message = (
            f"{patients.respelt} patients are written in more than one way (other capitals, blanks, zeros before a "
            "number, Unicode forms); each counts as one patient."
        )
        yield Finding("data.patient_spellings", "warning", message)
    if sets := patients.alike():
        message = (
            f"{len(sets)} sets of patient identifiers differ in punctuation, accents, zeros before a number or letters "
            "that look alike, and in nothing else; they count as different patients."
        )
        message += _parted(sets, patients, names, splits)
        yield Finding("data.patients_alike", "warning", message)
    if patients.disputed:
        message = (
            f"{len(patients.disputed)} patients by the headers of their files are several by the manifest, which "
            "counts."
        )
        message += _parted(patients.disputed, patients, names, splits)
        yield Finding("data.patients_disputed", "warning", message)


def _parted(
    sets: Sequence[tuple[str, ...]], patients: PatientNames, names: Sequence[str], splits: Sequence[str]
) -> str:
    """Which sets of patients lie in different splits, each by a case of every split."""
    of: dict[str, list[int]] = defaultdict(list)
    for number, members in enumerate(sets):
        for identity in members:
            of[identity].append(number)
    rows: list[dict[str, int]] = [{} for _ in sets]
    for row, identity in enumerate(patients.identities):
        for number in of.get(identity, ()):
            rows[number].setdefault(splits[row], row)
    parted = [list(found.values()) for found in rows if len(found) > 1]
    if not parted:
        return ""
    shown = "; ".join(" and ".join(f"{names[r]} ({splits[r]})" for r in found) for found in parted[:_MOST_LISTED])
    more = f" and {len(parted) - _MOST_LISTED} more" if len(parted) > _MOST_LISTED else ""
    return f" {len(parted)} of them lie in different splits: {shown}{more}. Are they different people?"
