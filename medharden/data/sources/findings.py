"""Which findings a case has: from a column for each, from names in one cell, or from a row of an archive."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medharden.data.sources.labels import is_missing, plain
from medharden.errors import DataError
from medharden.protocol import Task
from medharden.record import Finding

__all__ = ["FINDINGS_NAMES", "NO_FINDING", "FindingReader", "column_of", "finding_names", "has_finding_columns"]
__all__ += ["is_state", "lists_several", "unclear_words"]

FINDINGS_NAMES = ("labels", "findings", "finding labels")
"""Headings, in small letters, of a column that lists the findings of a case."""

_JOINERS = ("|", ";", ",", "/", "\n", "\t", "+", "&", " and ")
_ANY_JOINER = re.compile(r"[|;,/+&\n\t\\]| and ")
_WORDS = re.compile(r"[\W_]+")
_LIST = re.compile(r"(?:array\()?\[(.*)\](?:, dtype=\w+\))?|\((.*)\)|\{(.*)\}", re.DOTALL)
_PRINTED = re.compile(r"(['\"])\s+\1")  # as NumPy prints a list
_QUOTES = " '\"`\u2018\u2019\u201c\u201d"
NO_FINDING = ("no finding", "no findings", "normal", "no abnormality", "no abnormalities")
_STATES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_UNCERTAIN = ("-1", "-1.0", "u")
_MOST_NAMED = 20
_LEAVES = {
    "exclude": "leaves these cases out",
    "mask": "leaves these findings out of their case (of training, attacks and every statistic)",
}
NOTHING_KNOWN = "has no finding of which anything is known"


class Labelled(NamedTuple):
    """What is said of a case.

    Attributes:
        present: the findings that are there.
        masked: those that the protocol leaves out of this case.
        problem: why the case's labels can't be used, or "".
    """

    present: tuple[str, ...]
    masked: tuple[str, ...] = ()
    problem: str = ""


def has_finding_columns(header: Sequence[str], findings: Sequence[str]) -> bool:
    """Whether a table has a column for each finding.

    Raises:
        DataError: it has one for some findings and none for others.
    """
    heads = column_of(header)
    lacking = [name for name in findings if plain(name) not in heads]
    if lacking and len(lacking) < len(findings):
        raise DataError(
            f"the manifest has a column for {len(findings) - len(lacking)} of the {len(findings)} findings of "
            f"task.classes, and none for {lacking}; add them, or name the column that lists a case's findings in the "
            "protocol's columns.label"
        )
    return not lacking


def column_of(header: Sequence[str]) -> dict[str, str]:
    """Plain name to column, of columns whose plain name no other has."""
    counts = Counter(plain(column) for column in header)
    return {plain(column): column for column in header if counts[plain(column)] == 1}


class FindingReader:
    """Reads the labels of cases, and counts what can't be used or was not asked for."""

    def __init__(self, task: Task, header: Sequence[str] = ()) -> None:
        """Takes what is asked for, and the columns of a manifest."""
        self.findings = tuple(task.classes or ())
        self._rules = {"uncertain": task.uncertain, "missing": task.missing}
        heads = column_of(header)
        self.columns = tuple(heads.get(plain(name), name) for name in self.findings)
        self._known = {plain(name): name for name in self.findings}
        self._spaced = [_WORDS.sub(" ", form).strip() for form in self._known]
        self._joiner = ""
        self._unclear: Counter[tuple[str, str]] = Counter()
        self._others: Counter[str] = Counter()

    def from_cells(self, cells: Mapping[str, str]) -> Labelled:
        """One cell a finding: 1 or 0; -1 is uncertain, and a blank is missing."""
        said = zip(self.findings, self.columns, strict=True)
        return self._labelled({name: self._state(cells[column].strip().lower()) for name, column in said})

    def learn(self, cells: Collection[str]) -> None:
        """Tells from all cells of a column by what the names in one of them are joined.

        Raises:
            DataError: no cell names a finding that the task has.
        """
        words = {*self._known, *NO_FINDING}

        def named(joiner: str) -> int:
            parts = (plain(part) for cell in cells for part in _parts(cell, joiner))
            return sum(part in words for part in parts)

        self._joiner = max(_JOINERS, key=named)
        parts = [plain(part) for cell in cells for part in _parts(cell, self._joiner)]
        if not any(part in self._known for part in parts):
            raise DataError(
                f"none of the {len(cells)} cells that should list findings names one of task.classes; they hold "
                f"{len(set(parts))} different names. Names are joined by one of | ; , / + & or written as a list, and "
                "capitals don't count: is it the right column, and are these its findings?"
            )

    def from_names(self, text: str) -> Labelled:
        """Names in one cell, or `No Finding` alone; names that the task does not have are counted, not used.

        A name that holds one of the task's beside another joiner than the column's is no other finding: such a cell
        can't be used.
        """
        whole = plain(text)
        names = [text] if whole in self._known else _parts(text, self._joiner or "|")
        names = [name for name in names if not is_missing(name) or plain(name) in self._known]
        if not names:
            if not self._known:
                return Labelled((), (), "has no label")
            return self._labelled(dict.fromkeys(self.findings, "missing"))
        forms = [plain(name) for name in names]
        if len(set(forms)) != len(forms):
            return Labelled((), (), "names a finding twice")
        none = [form for form in forms if form in NO_FINDING and form not in self._known]
        if none and len(forms) > 1:
            return Labelled((), (), "says 'No Finding' beside findings")
        others = [(n, f) for n, f in zip(names, forms, strict=True) if f not in self._known and f not in none]
        if any(plain(part.strip(_QUOTES)) in self._known for _, f in others for part in _ANY_JOINER.split(f)):
            return Labelled((), (), "lists findings joined in another way than the other cases")
        if any(sum(f" {known} " in f" {_WORDS.sub(' ', f)} " for known in self._spaced) > 1 for _, f in others):
            return Labelled((), (), "lists findings joined in another way than the other cases")
        self._others.update(name for name, _ in others)
        present = {self._known.get(form) for form in forms}
        return Labelled(tuple(name for name in self.findings if name in present))

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
        return "uncertain" if cell in _UNCERTAIN else "missing" if is_missing(cell) else "neither 0 nor 1"

    def _labelled(self, said: Mapping[str, bool | str]) -> Labelled:
        unclear = {name: state for name, state in said.items() if isinstance(state, str)}
        self._unclear.update(unclear.items())
        read = {name: self._ruled(state) for name, state in said.items()}
        refused = {name: state for name, state in unclear.items() if isinstance(read[name], str)}
        if not refused:
            masked = tuple(name for name, present in read.items() if present is None)
            if len(masked) == len(read):
                return Labelled((), (), NOTHING_KNOWN)
            return Labelled(tuple(name for name, present in read.items() if present is True), masked)
        name, state = next(iter(refused.items()))
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        return Labelled((), (), f"has a label that is {state} for {name}{more}")

    def _ruled(self, state: bool | str) -> bool | str | None:
        """The state under the protocol's rule for what is uncertain or missing; null where it is masked."""
        rule = self._rules.get(state) if isinstance(state, str) else None
        if rule == "mask":
            return None
        return state if rule not in ("absent", "present") else rule == "present"

    def excludes(self, problem: str) -> bool:
        """Whether the protocol says that a case with this problem is left out, and no error."""
        if problem == NOTHING_KNOWN:
            return True
        states = [state for state, rule in self._rules.items() if rule == "exclude"]
        return any(problem.startswith(f"has a label that is {state} for ") for state in states)

    def noted(self) -> tuple[Finding, ...]:
        """What a reader of the report must know: how many labels were unclear, and what was not asked for."""
        found = []
        if self._unclear:
            message = f"Labels that are uncertain (-1), missing or neither 0 nor 1: {self._by_finding()}.{self._said()}"
            found.append(Finding("data.unclear_labels", "warning", message))
        if self._others:
            counts = ", ".join(f"{name} ({n})" for name, n in self._others.most_common(_MOST_NAMED))
            if len(self._others) > _MOST_NAMED:
                counts = f"{len(self._others)} different names"
            message = f"The labels name findings that task.classes does not have, which were not considered: {counts}."
            found.append(Finding("data.other_findings", "warning", message))
        return tuple(found)

    def _said(self) -> str:
        """What the protocol makes of them."""
        occurring = {state for _, state in self._unclear}
        rules = [
            f"task.{state} takes these for {rule}" if rule in ("absent", "present") else f"task.{state} {_LEAVES[rule]}"
            for state, rule in self._rules.items()
            if state in occurring and rule != "refuse"
        ]
        return f" By the protocol, {'; '.join(rules)}." if rules else ""

    def _by_finding(self) -> str:
        parts: list[str] = []
        for name in self.findings:
            counts = [f"{n} {state}" for (finding, state), n in sorted(self._unclear.items()) if finding == name]
            parts += [f"{name} {', '.join(counts)}"] if counts else []
        return "; ".join(parts)


def _parts(cell: str, joiner: str) -> list[str]:
    """The names in a cell, which may be a list as Python or JSON writes it."""
    found = _LIST.fullmatch(cell.strip())
    if found is not None:
        inside = next(group for group in found.groups() if group is not None)
        cell, joiner = _PRINTED.sub(r"\1,\1", inside), ","
    return [name for part in cell.split(joiner) if (name := part.strip().strip(_QUOTES).strip())]


def finding_names(cells: Mapping[str, int]) -> Counter[str]:
    """The names that cells list, by how many cells do, where it is not known yet which findings are meant.

    Args:
        cells: to how many rows have each.
    """
    joiner = max(_JOINERS, key=lambda sign: sum(n for cell, n in cells.items() if sign in cell))
    names: Counter[str] = Counter()
    for cell, n in cells.items():
        for name in {part for part in _parts(cell, joiner) if plain(part) not in NO_FINDING and not is_missing(part)}:
            names[name] += n
    return names


def lists_several(names: Collection[str], wanted: Collection[str]) -> int:
    """How many of a column's class names are several of the others joined, as in a column of findings.

    Args:
        names: the classes that the column holds.
        wanted: classes that the protocol names, which are none of these.
    """
    single = {plain(name) for name in names}
    for joiner in _JOINERS:
        joined = [
            name for name in names if plain(name) not in {plain(w) for w in wanted} and _is_of(name, joiner, single)
        ]
        if joined:
            return len(joined)
    return 0


def _is_of(name: str, joiner: str, single: Collection[str]) -> bool:
    parts = [plain(part) for part in _parts(name, joiner)]
    return len(parts) > 1 and sum(part in single or f"['{part}']" in single for part in parts) > 1


def is_state(cell: str) -> bool:
    """Whether a cell says of a finding that it is there, is not, or is uncertain."""
    return cell.strip().lower() in (*_STATES, *_UNCERTAIN)


def unclear_words(findings: Iterable[Finding]) -> str:
    """What is said of many cases at once, as lines of an error: counts of unclear labels, paths of another machine."""
    return "\n".join(f.message for f in findings if f.code in ("data.unclear_labels", "data.foreign_paths"))
