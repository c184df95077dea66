"""What a reader must know of who the patients are: none named, one for very many cases, written in several ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medharden.data.checks.identity import PatientNames
from medharden.data.sources.patient_paths import seen_patients
from medharden.errors import DataError
from medharden.protocol import Splits
from medharden.record import Finding

__all__ = ["PathPatients", "most_cases_of_one", "patient_findings", "patients_seen_in_paths", "refuse_one_patient"]

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


@dataclass(frozen=True)
class PathPatients:
    """Cases that name no patient and whose paths look as if they did.

    Attributes:
        together: pairs of rows that seem to be of one patient; they are kept in one split.
        finding: what was seen, and what to write into the protocol.
    """

    together: tuple[tuple[int, int], ...] = ()
    finding: Finding | None = None


def patients_seen_in_paths(
    patients: PatientNames, texts: Sequence[str], given: Sequence[str], classes: Sequence[str], limits: Splits
) -> PathPatients:
    """What paths seem to say of patients where nothing else names them.

    Args:
        patients: whose each case is.
        texts: (N,) paths of the cases.
        given: (N,) splits that the data give, or "".
        classes: names of the task, which may be folders.
        limits: whether each case is stated to be a patient of its own, or where paths name the patient.

    Raises:
        DataError: given splits part what seems to be one patient.
    """
    nameless = [(row, text) for row, text in enumerate(texts) if not patients.identities[row]]
    seen = None if limits.each_case or limits.patient_from is not None else seen_patients(nameless, classes)
    if seen is None:
        return PathPatients()
    first: dict[str, int] = {}
    together = tuple((first.setdefault(group, row), row) for row, group in seen.groups.items())
    parted = {one for one, other in together if given[one] != given[other]}
    advice = f"splits.patient_from: {seen.pattern!r}"
    if parted:
        raise DataError(
            f"the splits part {len(parted)} of what seem to be patients: the data name none, but paths have names of "
            f"the form {seen.shape}, {seen.shared} of which hold several cases. Say in the protocol that these are "
            f"patients ({advice}), or that each case is a patient of its own (splits.patients), and mend the splits"
        )
    message = (
        f"The data name no patients, but their paths have names of the form {seen.shape}, {seen.shared} of which hold "
        "several cases. These were kept in one split, and yet count as different patients: if they are patients, write "
        f"{advice} into the protocol."
    )
    return PathPatients(together, Finding("data.patients_in_paths", "warning", message))


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
