"""Which findings a case has: from a column for each, from names joined by `|`, or from a row of an archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medharden.errors import DataError
from medharden.record import Finding

__all__ = ["FindingReader", "has_finding_columns", "unclear_words"]

_SEPARATOR = "|"
_NONE = "no finding"
_STATES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_UNCERTAIN = ("-1", "-1.0", "u")
_BLANK = ("", "nan", "na", "none", "null")
_MOST_NAMED = 20

Labelled = tuple[tuple[str, ...], str]
"""The findings that are present, and why the case's labels can't be used, or ""."""


def has_finding_columns(header: Sequence[str], findings: Sequence[str]) -> bool:
    """Whether a table has a column for each finding.

    Raises:
        DataError: it has one for some findings and none for others.
    """
    lacking = [name for name in findings if name not in header]
    if lacking and len(lacking) < len(findings):
        raise DataError(
            f"the manifest has a column for {len(findings) - len(lacking)} of the {len(findings)} findings of "
            f"task.classes, and none for {lacking}; add them, or name the column that lists a case's findings in the "
            "protocol's columns.label"
        )
    return not lacking


class FindingReader:
    """Reads the labels of cases, and counts what can't be used or was not asked for."""

    def __init__(self, findings: Sequence[str]) -> None:
        """Takes the findings of `task.classes`, in order."""
        self.findings = tuple(findings)
        self._unclear: Counter[tuple[str, str]] = Counter()
        self._others: Counter[str] = Counter()

    def from_cells(self, cells: Mapping[str, str]) -> Labelled:
        """One cell a finding: 1 or 0; -1 is uncertain, and a blank is missing."""
        return self._labelled({name: self._state(cells[name].strip().lower()) for name in self.findings})

    def from_names(self, text: str) -> Labelled:
        """Names joined by `|`, or `No Finding` alone; names that the task does not have are counted, not used."""
        names = [name.strip() for name in text.split(_SEPARATOR) if name.strip()]
        if not names:
            return (), "has no label"
        if len(set(names)) != len(names):
            return (), "names a finding twice"
        none = [name for name in names if name.lower() == _NONE]
        if none and len(names) > 1:
            return (), "says 'No Finding' beside findings"
        self._others.update(name for name in names if name not in self.findings and name not in none)
        return tuple(name for name in self.findings if name in names), ""

    def from_numbers(self, row: npt.NDArray[np.float64]) -> Labelled:
        """(L,) one number a finding, 1 or 0; -1 is uncertain, and NaN is missing."""
        states: dict[float, bool | str] = {1.0: True, 0.0: False, -1.0: "uncertain"}
        said: dict[str, bool | str] = {
            name: "missing" if np.isnan(value) else states.get(float(value), "neither 0 nor 1")
            for name, value in zip(self.findings, row, strict=True)
        }
        return self._labelled(said)

    def _state(self, cell: str) -> bool | str:
        if cell in _STATES:
            return _STATES[cell]
        return "uncertain" if cell in _UNCERTAIN else "missing" if cell in _BLANK else "neither 0 nor 1"

    def _labelled(self, said: Mapping[str, bool | str]) -> Labelled:
        unclear = {name: state for name, state in said.items() if isinstance(state, str)}
        self._unclear.update(unclear.items())
        if not unclear:
            return tuple(name for name, present in said.items() if present), ""
        name, state = next(iter(unclear.items()))
        more = f" (and {len(unclear) - 1} more)" if len(unclear) > 1 else ""
        return (), f"has a label that is {state} for {name}{more}"

    def noted(self) -> tuple[Finding, ...]:
        """What a reader of the report must know: how many labels were unclear, and what was not asked for."""
        found = []
        if self._unclear:
            message = f"Labels that are uncertain (-1), missing or neither 0 nor 1: {self._by_finding()}."
            found.append(Finding("data.unclear_labels", "warning", message))
        if self._others:
            counts = ", ".join(f"{name} ({n})" for name, n in self._others.most_common(_MOST_NAMED))
            if len(self._others) > _MOST_NAMED:
                counts = f"{len(self._others)} different names"
            message = f"The labels name findings that task.classes does not have, which were not considered: {counts}."
            found.append(Finding("data.other_findings", "warning", message))
        return tuple(found)

    def _by_finding(self) -> str:
        parts: list[str] = []
        for name in self.findings:
            counts = [f"{n} {state}" for (finding, state), n in sorted(self._unclear.items()) if finding == name]
            parts += [f"{name} {', '.join(counts)}"] if counts else []
        return "; ".join(parts)


def unclear_words(findings: Iterable[Finding]) -> str:
    """The counts of unclear labels, as a line of an error."""
    return "\n".join(f.message for f in findings if f.code == "data.unclear_labels")
