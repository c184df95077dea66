"""Holding outputs against what the data say of who the patients are, before they get their final names.

A value of the data is looked for as a whole word, whatever its capitals. Not looked for is what can't be told from
ordinary text: values of fewer than four characters, numbers of fewer than six digits or with a decimal point, single
words of letters alone (a surname may be a word), names of files and folders in small letters without a digit, and
whatever the protocol or the class names say themselves.
Beside the values of the data, three forms are errors wherever they come from: a DICOM unique identifier, a DICOM person
name such as `FAMILY^GIVEN`, and a date after a word that speaks of birth.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from medharden.errors import PrivacyError

__all__ = ["Screen", "guarded", "screen_output", "screen_words"]

_SHORTEST, _SHORTEST_NUMBER = 4, 6
_BEGINNING = 3  # characters of a value by which it is looked for
_TEXT = (".csv", ".html", ".json", ".jsonl", ".md", ".svg", ".txt", ".xml", ".yaml", ".yml")
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"[\d\s.,:+-]*")
_EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:")
_FORMS = {
    "uid": re.compile(r"(?<![\w.])(?!1\.2\.840\.10008\.)[0-2](?:\.(?:0|[1-9]\d*)){4,}(?![\w.]|\.\d)"),
    "name": re.compile(r"(?<![^\W_])[^\W\d_]{2,}\^[^\W\d_]{2,}"),
    "date of birth": re.compile(
        r"\b(?:\w*birth\w*|born|dob|geb(?:oren)?)\W{0,12}"
        r"(?:(?:19|20)\d{6}|\d{4}-\d\d?-\d\d?|\d\d?[./-]\d\d?[./-]\d{4})",
        re.IGNORECASE,
    ),
}
_SHORTEST_UID = 20
_PLACES = ("file name", "folder")
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)")


class Screen:
    """The values that no output may hold, arranged for one pass over a text.

    Args:
        identifiers: by kind, values of the data.
        allowed: texts that may be said: the protocol, the classes. What occurs in them is not looked for.
    """

    def __init__(self, identifiers: Mapping[str, Iterable[str]], allowed: Iterable[str] = ()) -> None:
        said = "\n".join(allowed).casefold()
        self._kinds: dict[str, tuple[str, ...]] = {}
        lengths: dict[str, set[int]] = defaultdict(set)
        for kind, values in identifiers.items():
            alone = (kind,)
            for text in values:
                for value in map(_trimmed, _variants(kind, text)):
                    lower = value.casefold()
                    known = self._kinds.get(lower, ())
                    if kind not in known and _telling(kind, value) and not _occurs(lower, said):
                        self._kinds[text if lower == text else lower] = (*known, kind) if known else alone
                        lengths[lower[:_BEGINNING]].add(len(lower))
        self._lengths = {beginning: tuple(sorted(found)) for beginning, found in lengths.items()}

    def kinds(self, name: str, data: bytes) -> tuple[str, ...]:
        """What kinds of patient data an output holds; empty for a clean one.

        Args:
            name: its file name, whose suffix says how it is read. Numbers of JSON are not looked at.
            data: its content.
        """
        found: dict[str, None] = {}
        for text in _texts(name, data):
            found |= dict.fromkeys(self._values_in(text))
            found |= dict.fromkeys(_forms_in(text))
        return tuple(sorted(found))

    def _values_in(self, text: str) -> Iterator[str]:
        lower = text.casefold()
        for start in (word.start() for word in _WORD.finditer(lower)) if self._kinds else ():
            for length in self._lengths.get(lower[start : start + _BEGINNING], ()):
                end = start + length
                kinds = self._kinds.get(lower[start:end], ()) if end <= len(lower) else ()
                yield from (kind for kind in kinds if _bounded(lower, start, end, kind))


_PLAIN = Screen({})
_screen: ContextVar[Screen] = ContextVar("screen", default=_PLAIN)


@contextmanager
def guarded(identifiers: Mapping[str, Iterable[str]], allowed: Iterable[str] = ()) -> Iterator[None]:
    """Holds every text written within it against these values; outside, against the three forms alone."""
    token = _screen.set(Screen(identifiers, allowed))
    try:
        yield
    finally:
        _screen.reset(token)


def screen_output(name: str, data: bytes | Path) -> None:
    """Stops an output that would hold patient data; binary files pass unread.

    Args:
        name: its final name.
        data: its content, or the file that holds it so far.

    Raises:
        PrivacyError: with the file's name and the kinds of data, never a value.
    """
    if name.lower().endswith(_TEXT):
        _refuse(name, _screen.get().kinds(name, data.read_bytes() if isinstance(data, Path) else data))


def screen_words(name: str, words: Iterable[str]) -> None:
    """As `screen_output`, for the texts of a binary file."""
    _refuse(name, _screen.get().kinds("", "\n".join(words).encode("utf-8", "replace")))


def _refuse(name: str, kinds: tuple[str, ...]) -> None:
    if kinds:
        raise PrivacyError(
            f"{name} would hold patient data ({', '.join(kinds)}) and was withheld: nothing was written under its "
            "name. Look for them in the protocol's texts, the class names and the columns declared for subgroups; if "
            "there are none, this is a defect in medharden"
        )


def _texts(name: str, data: bytes) -> Iterator[str]:
    text = data.decode("utf-8", "replace")
    if name.lower().endswith((".json", ".jsonl")):
        lines = text.splitlines() if name.lower().endswith(".jsonl") else [text]
        try:
            for line in lines:
                yield from _strings(json.loads(line))
            return
        except ValueError:
            pass  # no JSON after all: read as plain text
    yield _EMBEDDED.sub(" ", text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _variants(kind: str, text: str) -> Iterator[str]:
    """The value and the forms in which it is commonly written."""
    text = text.strip()
    yield text
    if kind == "name" and "^" in text:
        parts = [p for p in re.split(r"[\^=]", text) if p]
        yield "^".join(parts)
        if len(parts) > 1:
            family, given = parts[0], parts[1]
            yield from (f"{family}, {given}", f"{given} {family}", f"{family} {given}", f"{family}_{given}")
            yield from (f"{given}_{family}", f"{family}-{given}", f"{given}-{family}", f"{family}{given}")
    date = _DATE.match(text) if kind == "date" else None
    if date is not None:
        year, month, day = date.groups()
        yield f"{year}{month}{day}"
        yield from (f"{year}-{month}-{day}", f"{year}/{month}/{day}", f"{year}.{month}.{day}")
        yield from (f"{day}{s}{month}{s}{year}" for s in "./-")
        yield f"{month}/{day}/{year}"


def _trimmed(value: str) -> str:
    """The value from its first word to its last."""
    words = list(_WORD.finditer(value))
    return value[words[0].start() : words[-1].end()] if words else ""


def _telling(kind: str, value: str) -> bool:
    """Whether a value is long and odd enough that its appearance in a text is no chance."""
    if len(value) < _SHORTEST or value.isalpha():
        return False
    digits = sum(c.isdigit() for c in value)
    if _NUMBER.fullmatch(value):
        decimal = value.count(".") == 1 and kind != "date"
        return digits >= _SHORTEST_NUMBER and not decimal
    return digits > 0 or kind not in _PLACES or value != value.lower()


def _occurs(value: str, said: str) -> bool:
    return value in said and re.search(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", said) is not None


def _bounded(text: str, start: int, end: int, kind: str) -> bool:
    """Whether the value stands there as a whole: not inside a longer word or number, nor in a time stamp of ours."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if text[start - 1 : start].isalnum() or after[:1].isalnum():
        return False
    if text[start].isdigit() and before[-1:] in (".", ",") and before[:1].isdigit():
        return False
    if text[end - 1].isdigit() and after[:1] in (".", ",") and after[1:].isdigit():
        return False
    return not (kind == "date" and _STAMP.match(text, start))


def _forms_in(text: str) -> Iterator[str]:
    for kind, form in _FORMS.items():
        if any(kind != "uid" or len(match[0]) >= _SHORTEST_UID for match in form.finditer(text)):
            yield kind
