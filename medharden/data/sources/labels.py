"""What a cell of a manifest says of a case's class: one rule for every way in which a class may be written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from medharden.errors import DataError
from medharden.record import Finding

__all__ = ["NO_LABEL", "Classes", "is_missing", "one_hot_columns", "plain"]

_MISSING_WORDS = (
    *("", "nan", "na", "n/a", "nat", "none", "null", "nil", "unknown", "missing", "not available", "not applicable"),
    *("not known", "undefined", "unspecified", "tbd", "empty", "blank"),
)
_SIGNS = re.compile(r"[\s.\-\u2010-\u2015?#<>()\[\]{}_/*!:;,'\"]+")

NO_LABEL = "has no label"
"""Why a case without one can't be used."""

_NUMBER = re.compile(r"[+-]?\d{1,15}(?:[.,]0*)?|[+-]?\d(?:[.,]\d{1,12})?e[+-]?0*\d", re.IGNORECASE)
_MANY_STATES = re.compile(r"\[?\s*[01](?:\.0*)?(?:\s*[|,; ]\s*[01](?:\.0*)?)+\s*\]?")
_STATES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def plain(name: str) -> str:
    """A name without regard to capitals, blanks around and doubled, and Unicode forms."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def is_missing(cell: str) -> bool:
    """Whether a cell is blank, of signs alone (`-`, `?`, `[]`), or a word for no label, as `#N/A`, `<NA>` or `n.a.`."""
    form = plain(cell)
    return form in _MISSING_WORDS or _SIGNS.sub("", form) in _MISSING_WORDS


class Classes:
    """The classes that a column of words holds: `1` and `1.0` are one, and so are ` Normal` and `normal`."""

    def __init__(self, cells: Iterable[str], wanted: Sequence[str] | None) -> None:
        """Takes every cell of the column, and the protocol's `task.classes`."""
        counts = Counter(cell.strip() for cell in cells)
        named = {plain(name): name for name in wanted or ()}
        forms: dict[str, Counter[str]] = defaultdict(Counter)
        self._missing = {word for word in counts if is_missing(word) and plain(word) not in named}
        labels = {cell: n for cell, n in counts.items() if cell not in self._missing}
        _refuse_lists(labels, named)
        mixed = _of_states(labels)
        numeric = bool(labels) and (mixed or all(_NUMBER.fullmatch(cell) for cell in labels))
        for cell, n in labels.items():
            forms[_number(cell) if numeric else plain(cell)][cell] += n
        if numeric:
            named |= {_number(name): name for name in wanted or () if _NUMBER.fullmatch(name)}
        self._names: dict[str, str] = {}
        self.merged = 0
        for form, written in forms.items():
            best = max(written.items(), key=lambda item: (item[1], item[0]))[0]
            name = named.get(form, form if numeric else best)
            self._names |= dict.fromkeys(written, name)
            self.merged += len(written) > 1

    def of(self, cell: str) -> str:
        """The class of a cell, or "" where it says that there is none."""
        return self._names.get(cell.strip(), "")

    @property
    def names(self) -> set[str]:
        """Every class."""
        return set(self._names.values())

    def noted(self) -> tuple[Finding, ...]:
        """That classes are written in several ways."""
        if not self.merged:
            return ()
        message = (
            f"{self.merged} classes are written in more than one way (capitals, blanks, numbers as 1 and 1.0); each "
            "counts as one class."
        )
        return (Finding("data.label_spellings", "info", message),)


def _number(cell: str) -> str:
    if cell.lower() in ("true", "false"):
        return str(int(_STATES[cell.lower()]))
    return str(int(float(cell.replace(",", "."))))


def _of_states(labels: Mapping[str, int]) -> bool:
    """Whether labels say 1 and 0 of one thing, some as numbers and others as true and false."""
    words = {label.lower() for label in labels}
    return words <= set(_STATES) and bool(words & {"true", "false"}) and not words <= {"true", "false"}


def _refuse_lists(labels: Mapping[str, int], named: Mapping[str, str]) -> None:
    """Stops where labels are lists of 1 and 0, or where -1 stands beside 1 and 0 and would be a third class.

    Raises:
        DataError: they are, and the protocol does not name them as classes.
    """
    count = sum(n for label, n in labels.items() if _MANY_STATES.fullmatch(label) and plain(label) not in named)
    if count:
        raise DataError(
            f"{count} labels are lists of 1 and 0; give a class a case, or a column for each finding with task.kind: "
            "multilabel"
        )
    numbers = {_number(label) for label in labels if _NUMBER.fullmatch(label)}
    if numbers == {"-1", "0", "1"} and len(named) != len(numbers) and all(map(_NUMBER.fullmatch, labels)):
        uncertain = sum(n for label, n in labels.items() if _number(label) == "-1")
        raise DataError(
            f"{uncertain} labels are -1 beside 1 and 0, which mostly means that nobody is sure: take these rows out, "
            "or name -1 in task.classes where it is a class"
        )


def one_hot_columns(
    header: Sequence[str], rows: Mapping[int, Mapping[str, str]], classes: Sequence[str] | None, taken: Iterable[str]
) -> tuple[str, ...]:
    """The columns of which exactly one says 1 in each row and the others 0: a column for each class; or none.

    Args:
        header: all columns.
        rows: by number.
        classes: the protocol's, which then must all be there; null takes every column that is left.
        taken: columns that mean something else.
    """
    if classes is not None:
        heads = {plain(column): column for column in header}
        chosen = tuple(heads.get(plain(name), "") for name in classes)
        if not all(chosen):
            return ()
    else:
        used = set(taken)
        left = [column for column in header if column and column not in used]
        chosen = tuple(c for c in left if all(row[c].strip().lower() in _STATES for row in rows.values()))
    if len(chosen) < 2 or not rows:
        return ()
    if all(sum(_STATES.get(row[c].strip().lower(), False) for c in chosen) == 1 for row in rows.values()):
        return chosen
    return ()
