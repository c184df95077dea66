"""Subgroups of cases by attributes that the protocol declares: sex, site, scanner, age in bands."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from medharden.data.cohort import Case
from medharden.protocol import Subgroups

__all__ = ["group_values"]

_FEWEST_PATIENTS = 5
_LONGEST = 40
_UNKNOWN, _OTHER = "unknown", "other"
_YEARS = {"Y": 1.0, "": 1.0, "M": 12.0, "W": 52.2, "D": 365.25}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWD]?)", re.IGNORECASE)


def group_values(cases: Sequence[Case], spec: Subgroups) -> dict[str, tuple[str, ...]]:
    """What each case's group is called, for every declared column that some case has.

    Values of fewer than five patients are merged into `other`, and the next rarest with them while `other` itself
    holds fewer, so that no group singles a patient out. An age appears as a band alone.

    Args:
        cases: of one split.
        spec: the protocol's columns, found whatever their capitals, and its age bands.

    Returns:
        By column as the protocol writes it: one value a case, `unknown` where the case has none.
    """
    groups = {}
    for column in spec.columns:
        raw = [_value(case, column) for case in cases]
        if not any(raw):
            continue
        values = [_band(v, spec.age_bands) for v in raw] if _is_age(column) else [_plain(v) for v in raw]
        groups[column] = _merged(values, [case.patient for case in cases])
    return groups


def _value(case: Case, column: str) -> str:
    return next((v for name, v in case.attributes.items() if name.lower() == column.lower()), "")


def _is_age(column: str) -> bool:
    """Whether a heading speaks of an age: `age`, `Patient Age`, `age_at_scan`, `PatientAge`; not `stage`."""
    lower = column.lower()
    return lower == "patientage" or re.search(r"(^|[^a-z])age([^a-z]|$)", lower) is not None


def _band(value: str, bands: tuple[int, ...]) -> str:
    """Such as `40 to 59`; DICOM's `045Y` and `006M` are understood as plain years are."""
    match = _AGE.fullmatch(value.strip())
    if match is None:
        return _UNKNOWN
    years = float(match[1]) / _YEARS[match[2].upper()]
    above = sum(years >= border for border in bands)
    if above == 0:
        return f"under {bands[0]}"
    if above == len(bands):
        return f"{bands[-1]} and over"
    return f"{bands[above - 1]} to {bands[above] - 1}"


def _plain(value: str) -> str:
    """The value as it may stand in a record and in a report: printable and short."""
    return "".join(c if c.isprintable() else " " for c in value).strip()[:_LONGEST] or _UNKNOWN


def _merged(values: list[str], patients: list[str]) -> tuple[str, ...]:
    people: dict[str, set[str]] = defaultdict(set)
    for value, patient in zip(values, patients, strict=True):
        people[value].add(patient)
    rare: set[str] = set()
    together: set[str] = set()
    for value in sorted(people, key=lambda v: (len(people[v]), v)):
        if len(people[value]) >= _FEWEST_PATIENTS and (not rare or len(together) >= _FEWEST_PATIENTS):
            break
        rare.add(value)
        together |= people[value]
    return tuple(_OTHER if value in rare else value for value in values)
